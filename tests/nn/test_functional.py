"""Quantizers against exact fractions and float64 formulas, and their gradients against closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import exact_code, exact_index, middle, phi, quantize
from torch import Tensor

from maqd import States
from maqd.nn import Profile, Quantizer, Surrogate
from maqd.nn.functional import (
    EPS_WEIGHT,
    quantize_activation,
    quantize_bias,
    quantize_weight,
    round_half_up,
    state_index,
    threshold_activation,
    weight_codes,
    weight_standardize,
)
from maqd.numerics.states import gaussian_step

FLOATS = {torch.float64: 64, torch.float32: 32, torch.float16: 16}
COUNTS = st.sampled_from([*range(2, 18), 31, 64, 255, 256])


def floats_of(dtype: torch.dtype) -> st.SearchStrategy[float]:
    """Every finite number of a dtype, with many near halves."""
    any_float = st.floats(width=FLOATS[dtype], allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    near_tie = st.builds(
        lambda n, ulps: shift(torch.tensor(n + 0.5, dtype=dtype), ulps), st.integers(-130, 130), st.integers(-2, 2)
    )
    return any_float | near_tie


def shift(value: Tensor, ulps: int) -> float:
    """`value` moved by some units in its last place."""
    for _ in range(abs(ulps)):
        value = torch.nextafter(value, torch.full_like(value, math.copysign(math.inf, ulps)))
    return value.item()


# ---- rounding --------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.data(), st.sampled_from([torch.float64, torch.float32]))
def test_round_half_up_is_the_exact_floor_of_x_plus_one_half(data: st.DataObject, dtype: torch.dtype):
    x = data.draw(floats_of(dtype))
    rounded = round_half_up(torch.tensor(x, dtype=dtype))
    assert rounded.dtype == dtype
    assert int(rounded.item()) == math.floor(Fraction(x) + Fraction(1, 2))


HALVES = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]


def test_ties_round_up():
    assert round_half_up(torch.tensor(HALVES)).tolist() == [-2, -1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_just_below_a_tie_rounds_down(dtype: torch.dtype):
    """Where adding one half first rounds to the next integer, as 0.49999997 + 0.5 does in float32."""
    x = torch.tensor(HALVES, dtype=dtype)
    below = torch.nextafter(x, torch.full_like(x, -math.inf))
    assert round_half_up(below).tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.floor(below[3] + 0.5) == 1  # the trap is real


@pytest.mark.parametrize(
    "value", [2.0**22 + 0.5, 2.0**23 - 0.5, 2.0**23 + 1, 2.0**24, 2.0**24 + 2, 3e38, -(2.0**23) - 1]
)
def test_large_values_stay_the_integers_they_are(value: float):
    for x in (value, -value):
        exact = torch.tensor(x).item()
        assert int(round_half_up(torch.tensor(x)).item()) == math.floor(Fraction(exact) + Fraction(1, 2))


def test_infinities_and_not_a_number_stay():
    x = torch.tensor([math.inf, -math.inf, math.nan])
    assert torch.equal(round_half_up(x)[:2], x[:2])
    assert round_half_up(x)[2].isnan()


# ---- state index -----------------------------------------------------------------------------------------------------


def smallest_quotient(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).tiny


@settings(max_examples=500)
@given(
    st.data(),
    COUNTS,
    st.booleans(),
    st.integers(-12, 6),
    st.sampled_from([torch.float64, torch.float32]),
    st.booleans(),
)
def test_state_index_is_exact(
    data: st.DataObject, count: int, signed: bool, exponent: int, dtype: torch.dtype, on_grid: bool
):
    states, step = States(count=count, signed=signed), 2.0**exponent
    y = data.draw(floats_of(dtype))
    y = y * step / 2 if on_grid else y  # many of them exactly on a threshold
    y = torch.tensor(y, dtype=dtype)
    if 0 < abs(y.item()) / step < smallest_quotient(dtype):
        return  # see test_a_quotient_that_underflows_keeps_its_sign
    index = state_index(y, states, step)
    assert index.dtype == dtype
    assert int(index.item()) == exact_index(Fraction(y.item()), states, step)


def test_a_quotient_that_underflows_keeps_its_sign():
    assert state_index(torch.tensor([-(2.0**-149)]), States(count=2, signed=True), 4.0).tolist() == [0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_state_index_is_exact_in_every_float_type(dtype: torch.dtype, signed: bool):
    for count in (2, 3, 4, 5, 16, 17, 128, 129, 255, 256):
        states = States(count=count, signed=signed)
        y = torch.cat([torch.arange(-600, 601) / 4, torch.randn(500) * count / 3]).to(dtype)
        expected = [exact_index(Fraction(v), states, 1.0) for v in y.tolist()]
        assert state_index(y, states, 1.0).tolist() == expected


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 255, 256])
def test_state_index_clips_infinities_and_keeps_not_a_number(count: int, signed: bool):
    index = state_index(torch.tensor([math.inf, -math.inf, math.nan]), States(count=count, signed=signed), 0.5)
    assert index[:2].tolist() == [count - 1, 0]
    assert index[2].isnan()


# ---- weights ---------------------------------------------------------------------------------------------------------

SHAPES = [(4, 30), (3, 5, 7), (4, 3, 3, 3), (2, 64, 1, 1)]
WEIGHT_COUNTS = [2, 3, 4, 5, 16, 17, 255, 256]


def standardized(weight: np.ndarray) -> np.ndarray:
    rows = weight.reshape(len(weight), -1)
    deviation = np.sqrt(((rows - rows.mean(1, keepdims=True)) ** 2).mean(1, keepdims=True) + EPS_WEIGHT)
    return ((rows - rows.mean(1, keepdims=True)) / deviation).reshape(weight.shape)


def expected_codes(weight: np.ndarray, states: States, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Codes by the formula, and how far each weight is from the nearest cut, in steps."""
    position = weight / step + (states.count - 1) / 2 + 0.5
    index = np.clip(np.floor(position), 0, states.count - 1)
    inner = np.clip(np.round(position), 1, states.count - 1)
    return states.low + states.spacing * index, np.abs(position - inner)


@pytest.mark.parametrize("count", WEIGHT_COUNTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_quantized_weights_are_those_of_the_formula(shape: tuple[int, ...], count: int):
    states, step, unit = States(count=count, signed=True), gaussian_step(count), 2.0**-5
    weight = torch.randn(shape, dtype=torch.float64) * 0.3 + 0.1
    codes, margin = expected_codes(standardized(weight.numpy()), states, step)
    clear = margin > 1e-9
    assert clear.mean() > 0.99
    result = quantize_weight(weight, states, step, unit).numpy()
    assert np.array_equal(result[clear], (codes * unit)[clear])
    assert set((result / unit).ravel().tolist()) <= set(states.codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", WEIGHT_COUNTS)
def test_training_uses_the_codes_of_evaluation_away_from_ties(count: int, dtype: torch.dtype):
    states, step, unit = States(count=count, signed=True), gaussian_step(count), 2.0**-4
    weight = torch.randn(8, 16, 3, 3, dtype=dtype) * 0.05 - 0.01
    codes = weight_codes(weight, states, step)
    assert (codes.dtype, codes.device.type, codes.shape) == (torch.int16, "cpu", weight.shape)
    assert set(codes.unique().tolist()) <= set(states.codes)
    # float32 standardization is off by a few units in the last place of a value of at most 5 standard deviations.
    _, margin = expected_codes(standardized(weight.double().numpy()), states, step)
    clear = torch.from_numpy(margin > 2e-6 / step)
    assert clear.double().mean() > 0.97
    trained = quantize_weight(weight, states, step, unit)
    assert trained.dtype == dtype
    assert torch.equal((trained.double() / unit)[clear], codes.double()[clear])


def test_codes_do_not_depend_on_layout():
    states, step = States(count=5, signed=True), 0.5
    weight = torch.randn(6, 4, 3, 3)
    expected = weight_codes(weight, states, step)
    permuted = weight.to(memory_format=torch.channels_last)
    transposed = weight.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    for other in (permuted, transposed):
        assert torch.equal(weight_codes(other, states, step), expected)


@pytest.mark.parametrize("count", [2, 3, 4, 17])
def test_a_constant_filter_is_quantized_like_zero(count: int):
    states = States(count=count, signed=True)
    weight = torch.full((2, 8), 0.75)
    expected = exact_code(Fraction(0), states, gaussian_step(count))
    assert weight_codes(weight, states, gaussian_step(count)).unique().tolist() == [expected]
    weight.requires_grad_()
    quantize_weight(weight, states, gaussian_step(count), 1.0).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


class _StraightThrough(torch.autograd.Function):
    """A staircase whose gradient is a constant slope."""

    @staticmethod
    def forward(ctx, y, values, slope):
        ctx.slope = slope
        return values

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.slope, None, None


@pytest.mark.parametrize("count", WEIGHT_COUNTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient_is_that_of_the_traced_composition(shape: tuple[int, ...], count: int):
    """Standardization traced by autograd, then a straight-through staircase: the gradient in float64."""
    states, step, unit = States(count=count, signed=True), gaussian_step(count), 2.0**-3
    weight = (torch.randn(shape, dtype=torch.float64) * 0.2 + 0.3).requires_grad_()
    grad = torch.randn(shape, dtype=torch.float64)
    (result,) = torch.autograd.grad(quantize_weight(weight, states, step, unit), weight, grad)

    rows = weight.flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    normal = (centred / (centred.square().mean(1, keepdim=True) + EPS_WEIGHT).sqrt()).reshape(shape)
    values = quantize_weight(weight.detach(), states, step, unit)
    staircase = _StraightThrough.apply(normal, values, states.spacing * unit / step)
    (expected,) = torch.autograd.grad(staircase, weight, grad)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("shape", [(3, 8), (2, 3, 2, 2)])
def test_weight_standardization_passes_gradcheck(shape: tuple[int, ...]):
    assert torch.autograd.gradcheck(weight_standardize, torch.randn(shape, dtype=torch.float64, requires_grad=True))


def test_standardized_filters_have_zero_mean_and_unit_variance():
    result = weight_standardize(torch.randn(5, 40, dtype=torch.float64) * 3 + 7)
    np.testing.assert_allclose(result.mean(1), 0, atol=1e-13)
    np.testing.assert_allclose(result.var(1, correction=0), 1, rtol=1e-9)


@pytest.mark.parametrize("unit", [2.0**-9, 1.0, 8.0])
def test_bias_is_the_nearest_multiple_of_the_unit_with_ties_up(unit: float):
    bias = torch.cat([torch.arange(-9, 10) / 2, torch.randn(50) * 10]) * unit
    expected = [math.floor(Fraction(v) / Fraction(unit) + Fraction(1, 2)) * unit for v in bias.tolist()]
    assert quantize_bias(bias, unit).tolist() == expected


def test_bias_gradient_is_straight_through():
    bias, grad = torch.randn(9, requires_grad=True), torch.randn(9)
    assert torch.equal(torch.autograd.grad(quantize_bias(bias, 0.5), bias, grad)[0], grad)


# ---- activations -----------------------------------------------------------------------------------------------------

ACT_STATES = [States(count=m, signed=s) for m in (2, 3, 4, 5, 16, 17, 255, 256) for s in (False, True)]


def lattice(states: States, step: float, width: float) -> np.ndarray:
    """Ties, states, zeros, and the edges of the surrogate with their neighbours, all exact in float64."""
    half_span = (states.count - 2) / 2
    u = np.concatenate(
        [
            np.arange(-2 * states.count - 8, 2 * states.count + 9) / 4,
            *(
                sign * (half_span + k * width) + np.array([0, 2.0**-30, -(2.0**-30)])
                for k in (0, 1, 2)
                for sign in (1, -1)
            ),
        ]
    )
    return np.append((u + middle(states)) * step, [0.0, -0.0])


@pytest.mark.parametrize("step", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("states", ACT_STATES, ids=str)
def test_activation_is_exact_on_ties_and_between(states: States, step: float):
    y = lattice(states, step, 0.5)
    y = np.concatenate([y, np.nextafter(y, -np.inf), np.nextafter(y, np.inf)])
    y = y[(y == 0) | (np.abs(y) > 1e-300)]  # see test_a_quotient_that_underflows_keeps_its_sign
    out = quantize_activation(torch.from_numpy(y), Quantizer(states=states, step=step)).numpy()
    expected = [exact_code(Fraction(v), states, step) * states.grid(0).unit * step for v in y.tolist()]
    assert out.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("states", ACT_STATES, ids=str)
def test_activation_is_exact_in_narrow_floats(states: States, dtype: torch.dtype):
    quantizer = Quantizer(states=states, step=0.5)
    y = torch.cat([torch.arange(-300, 301) / 8, torch.randn(200) * states.count / 4]).to(dtype)
    out = quantize_activation(y, quantizer)
    assert out.dtype == dtype
    codes = [exact_code(Fraction(v), states, 0.5) for v in y.tolist()]
    assert (out.double() / quantizer.grid.unit).tolist() == codes


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("states", [s for s in ACT_STATES if s.count in (2, 3, 4, 17, 256)], ids=str)
def test_activation_gradient_is_the_closed_form(states: States, profile: Profile, width: float):
    """At ties, window edges and zeros; exact for the piecewise linear profiles, else up to rounding of exp."""
    step, scale = 0.5, 1.5
    quantizer = Quantizer(states=states, step=step, surrogate=Surrogate(profile=profile, width=width, scale=scale))
    y = lattice(states, step, width)
    x = torch.from_numpy(y).requires_grad_()
    out = quantize_activation(x, quantizer)
    grad = torch.linspace(-2, 2, len(y), dtype=torch.float64)
    (result,) = torch.autograd.grad(out, x, grad)
    expected = grad.numpy() * phi(y / step - middle(states), states, profile, width) * scale
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-13, atol=1e-13)
    assert np.array_equal(out.detach().numpy(), quantize(y, states, step))


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("states", ACT_STATES, ids=str)
def test_surrogate_covers_all_steps_between_the_outermost_thresholds(states: States, profile: Profile):
    quantizer = Quantizer(states=states, surrogate=Surrogate(profile=profile, width=0.25))
    u = np.linspace(-(states.count - 2) / 2, (states.count - 2) / 2, 4 * states.count + 1)
    y = torch.from_numpy(u + middle(states)).requires_grad_()
    quantize_activation(y, quantizer).sum().backward()
    assert y.grad is not None
    np.testing.assert_allclose(y.grad.numpy(), 1.0, rtol=0, atol=1e-12)  # v rounds at the outermost thresholds


@pytest.mark.parametrize("profile", Profile)
def test_surrogate_is_symmetric_and_falls_off(profile: Profile):
    states = States(count=4, signed=True)
    u = torch.linspace(0, 12, 97, dtype=torch.float64)
    gradients = []
    for sign in (1, -1):
        y = (sign * u).requires_grad_()
        quantizer = Quantizer(states=states, surrogate=Surrogate(profile=profile))
        gradients += torch.autograd.grad(quantize_activation(y, quantizer).sum(), y)
    assert torch.equal(gradients[0], gradients[1])
    assert (gradients[0].diff() <= 0).all()
    assert gradients[0][0] == 1
    assert gradients[0][-1] < 0.005


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_surrogate_scale_multiplies_the_gradient(factor: float):
    y = torch.randn(50, requires_grad=True)
    states = States(count=3, signed=False)
    plain, scaled = (
        torch.autograd.grad(quantize_activation(y, Quantizer(states=states, surrogate=Surrogate(scale=s))).sum(), y)[0]
        for s in (1.0, factor)
    )
    assert plain.any()
    assert torch.equal(scaled, plain * factor)


def test_window_of_half_a_step_is_the_clipped_straight_through_estimator():
    y = torch.tensor([-0.0, 0.0, 1.0, 0.5, -(2.0**-20), 1 + 2.0**-20, 3.0], requires_grad=True)
    quantize_activation(y, Quantizer(states=States(count=2, signed=False))).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [1, 1, 1, 1, 0, 0, 0]


# ---- thresholds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [16, 17, 31, 255])
@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 4, 5), (0, 5)])
def test_counting_thresholds_equals_a_comparison_at_a_time(levels: int, shape: tuple[int, ...]):
    """At most 16 thresholds are a loop, more a binary search."""
    x = torch.randint(-40, 40, shape).float()
    thresholds = torch.randint(-45, 45, (levels, 5)).float().sort(0).values
    thresholds[0, 1], thresholds[-1, 1] = -math.inf, math.inf
    thresholds[:, 2], thresholds[:, 3] = math.inf, -math.inf
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    for signed in (False, True):
        quantizer = Quantizer(states=States(count=levels + 1, signed=signed), step=0.25)
        count = (x[..., None, :] * signs >= thresholds).sum(-2)
        expected = count * quantizer.step + quantizer.offset
        assert torch.equal(threshold_activation(x, thresholds, signs, quantizer), expected.float())


def test_not_a_number_takes_the_same_end_for_every_state_count():
    ends = []
    for levels in (16, 17):
        quantizer = Quantizer(states=States(count=levels + 1, signed=False))
        thresholds = torch.arange(levels, dtype=torch.float32)[:, None]
        out = threshold_activation(torch.tensor([[math.nan]]), thresholds, torch.ones(1), quantizer)
        ends.append(out.isnan().item() or out.item() / levels)
    assert ends[0] == ends[1]
