"""Small networks in evaluation against integers alone: weight codes, thresholds, shifts, and no float anywhere."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from maqd import States
from maqd.nn import (
    BatchNorm,
    GlobalSumPool,
    IntegerInput,
    LayerBatchNorm,
    LevelledLayerBatchNorm,
    MaxPool2d,
    NormActivation,
    QuantConv2d,
    Quantizer,
    QuantLinear,
)
from maqd.numerics.states import PIXELS

WEIGHT_STATES = st.sampled_from([*range(2, 18), 255])
ACT_STATES = st.sampled_from([*range(2, 18), 256])
STEPS = st.sampled_from([2.0**-4, 0.25, 0.5, 1.0])
NORMS = st.sampled_from([LayerBatchNorm, LevelledLayerBatchNorm, BatchNorm])


def integer_thresholds(act: NormActivation, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds on the accumulator: the smallest integers at or above the real ones, as Python integers."""
    limit = 2**40  # beyond every accumulator: never and always
    integers = [
        [
            -limit if value == -np.inf else limit if value == np.inf else -(-Fraction(value) // Fraction(unit))
            for value in row
        ]
        for row in act.thresholds.tolist()
    ]
    return np.array(integers, dtype=object), act.signs.numpy().astype(np.int64)


def activate(act: NormActivation, accumulators: np.ndarray, unit: float) -> np.ndarray:
    """Codes of accumulators with the channels last."""
    thresholds, signs = integer_thresholds(act, unit)
    signed = accumulators.astype(object) * signs
    states = act.quantizer.states
    return states.low + states.spacing * (signed[..., None, :] >= thresholds).sum(-2).astype(np.int64)


def randomize(act: NormActivation, generator: torch.Generator) -> None:
    """Statistics near those of unit inputs, scales of both signs, sometimes a dead channel."""
    norm = act.norm
    with torch.no_grad():
        norm.weight.copy_(torch.randn(norm.weight.shape, generator=generator))
        norm.weight[torch.rand(norm.weight.shape, generator=generator) < 0.1] = 1e-3
        norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator) * act.quantizer.step * 2)
        norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator) * 0.3)
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.2)


@settings(max_examples=150)
@given(
    st.integers(0, 2**31),
    st.tuples(WEIGHT_STATES, WEIGHT_STATES),
    st.tuples(ACT_STATES, ACT_STATES),
    st.booleans(),
    STEPS,
    NORMS,
)
def test_a_network_of_two_layers_gives_the_codes_of_integer_arithmetic(
    seed: int, weights: tuple[int, int], acts: tuple[int, int], signed: bool, step: float, norm: type
):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    quantizers = [Quantizer(states=States(count=m, signed=signed), step=step) for m in acts]
    inputs, hidden, outputs = 12, 9, 5
    first = QuantLinear(inputs, hidden, states=weights[0], input_grid=PIXELS)
    second = QuantLinear(hidden, outputs, states=weights[1], input_grid=quantizers[0].grid)
    acts_ = [NormActivation(norm(size), q) for size, q in zip((hidden, outputs), quantizers, strict=True)]
    for act in acts_:
        randomize(act, generator)
    network = nn.Sequential(first, acts_[0], second, acts_[1]).eval()

    pixels = torch.randint(-128, 128, (20, inputs), generator=generator)
    out = network(pixels.float() * PIXELS.unit)

    x = pixels.numpy().astype(np.int64)
    for layer, act in ((first, acts_[0]), (second, acts_[1])):
        accumulators = x @ layer.weight_codes().numpy().astype(np.int64).T
        x = activate(act, accumulators, layer.accumulator_unit)
    assert (out.detach().double() / quantizers[1].grid.unit).numpy().tolist() == x.tolist()
    assert (x >= quantizers[1].states.low).all()
    assert (x <= quantizers[1].states.high).all()


@pytest.mark.parametrize("norm", [LayerBatchNorm, LevelledLayerBatchNorm, BatchNorm])
@pytest.mark.parametrize(("weight_states", "act_states"), [(2, 2), (3, 4), (4, 3), (16, 16), (17, 32), (255, 256)])
def test_a_trained_convolutional_network_gives_the_logits_of_integer_arithmetic(
    weight_states: int, act_states: int, norm: type
):
    """From bytes to logits with pooling and bias, after steps of training that move every parameter."""
    quantizer = Quantizer(states=States(count=act_states, signed=False), step=0.5)
    conv = QuantConv2d(3, 6, 3, padding=1, states=weight_states, input_grid=PIXELS)
    act = NormActivation(norm(6), quantizer)
    pool = GlobalSumPool(9, quantizer.grid)
    head = QuantLinear(6, 4, bias=True, states=weight_states, input_grid=pool.grid)
    network = nn.Sequential(IntegerInput(), conv, act, MaxPool2d(2), pool, head)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        images = torch.randint(0, 256, (16, 3, 6, 6), dtype=torch.uint8)
        nn.functional.cross_entropy(network(images), torch.randint(0, 4, (16,))).backward()
        optimizer.step()
    network.eval()
    images = torch.randint(0, 256, (10, 3, 6, 6), dtype=torch.uint8)
    logits = network(images)

    x = np.pad(images.numpy().astype(np.int64) - 128, [(0, 0), (0, 0), (1, 1), (1, 1)])
    weight = conv.weight_codes().numpy().astype(np.int64)
    accumulators = np.zeros((10, 6, 6, 6), dtype=np.int64)
    for i in range(3):
        for j in range(3):
            accumulators += np.einsum("nihw,oi->nhwo", x[:, :, i : i + 6, j : j + 6], weight[:, :, i, j])
    codes = activate(act, accumulators, conv.accumulator_unit)
    assert len(np.unique(codes)) > 1
    pooled = codes.reshape(10, 3, 2, 3, 2, 6).max((2, 4)).sum((1, 2))
    bias = [math.floor(Fraction(b) / Fraction(head.accumulator_unit) + Fraction(1, 2)) for b in head.bias.tolist()]
    expected = pooled @ head.weight_codes().numpy().astype(np.int64).T + np.array(bias)
    assert (logits.detach().double() / head.accumulator_unit).numpy().tolist() == expected.tolist()
    assert logits.argmax(1).tolist() == expected.argmax(1).tolist()
