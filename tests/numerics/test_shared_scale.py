"""Activations of many states: what PyTorch and NumPy evaluate, and the integers that equal it, against fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maqd.errors import ConfigError, NonFiniteError
from maqd.nn.functional import scaled_activation
from maqd.numerics.shared_scale import SharedScale, shared_scale
from maqd.numerics.states import States, weight_states
from maqd.settings.quantization import Quantizer

REAL = st.floats(-1e4, 1e4, allow_nan=False)


def exact(scale: SharedScale, x: Fraction, channel: int) -> int:
    slope = Fraction(int(scale.multiplier[channel])) / Fraction(2) ** scale.shift
    return min(max(floor(slope * x + Fraction(int(scale.offset[channel]), 2**16)), 0), scale.last)


@settings(max_examples=60, deadline=None)
@given(
    gains=st.lists(REAL, min_size=1, max_size=3),
    mean=REAL,
    bias=REAL,
    count=st.integers(257, 65536),
    signed=st.booleans(),
    step=st.integers(-12, 2),
    exponent=st.integers(-20, 3),
    seed=st.integers(0, 99),
)
@example(gains=[0.0, 0.0], mean=1.0, bias=3.0, count=300, signed=True, step=0, exponent=0, seed=0)
@example(gains=[1.0, -1e-4], mean=0.5, bias=0.5, count=65536, signed=False, step=0, exponent=-1, seed=0)
def test_evaluation_and_integers_are_the_same_function(
    gains: list[float], mean: float, bias: float, count: int, signed: bool, step: int, exponent: int, seed: int
):
    states, size = States(count=count, signed=signed), len(gains)
    scale = shared_scale(np.array(gains), np.full(size, mean), np.full(size, bias), states, 2.0**step)
    random = np.random.default_rng(seed)
    n = random.integers(-(2**31) + 1, 2**31, 40) >> random.integers(0, 31, 40)
    x = np.ldexp(n.astype(np.float64), exponent)
    quantizer = Quantizer(states=states, step=2.0**step)
    parts = [torch.from_numpy(part) for part in scale.parts()]
    values = scaled_activation(torch.from_numpy(x)[:, None].expand(-1, size), *parts, quantizer).numpy()
    affine = scale.on_integers(exponent, 2**31)
    for channel in range(size):
        wanted = [exact(scale, Fraction(float(value)), channel) for value in x]
        assert scale.index(x, channel).tolist() == wanted
        unit = quantizer.grid.unit
        np.testing.assert_array_equal(values[:, channel], [(states.low + states.spacing * k) * unit for k in wanted])
        if affine is not None:
            a, b = int(affine.multiplier[channel]), int(affine.offset[channel])
            assert [min(max(a * int(k) + b >> affine.shift, 0), scale.last) for k in n] == wanted
            assert abs(a) * 2**31 + abs(b) < 2**62


def test_the_rounded_scale_is_near_the_normalization():
    states = States(count=65535, signed=True)
    gain, mean, bias = np.array([0.731, -0.2]), np.array([3.3, -1000.25]), np.array([0.1, 7.0])
    scale = shared_scale(gain, mean, bias, states, 2.0**-9)
    x = np.linspace(-40, 40, 999)
    for channel in range(2):
        y = gain[channel] * (x - mean[channel]) + bias[channel]
        index = np.clip(y * 2.0**9 + states.shift, 0, 65534)
        assert np.abs(scale.index(x, channel) + 0.5 - index).max() < 0.55


def test_scales_too_small_for_64_bits_have_no_integers():
    states = States(count=1000, signed=False)
    scale = shared_scale(np.array([1e-15]), np.zeros(1), np.zeros(1), states, 1.0)
    assert scale.on_integers(0, 2**31) is None


def test_a_parameter_that_is_no_number_is_named():
    with pytest.raises(NonFiniteError, match="a normalization's bias must be finite, got nan in channel 1"):
        shared_scale(np.ones(2), np.zeros(2), np.array([0, np.nan]), States(count=300, signed=False), 1.0)


def test_weights_have_at_most_256_states():
    assert weight_states(256).few
    with pytest.raises(ConfigError, match=r"weights have 2 .. 256 states, got 257"):
        weight_states(257)
