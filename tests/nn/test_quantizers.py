"""The seam between layers and methods of quantizing weights: MaQD's value, and another method that learns a step."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import maqd
from maqd.errors import ConfigError
from maqd.graph import Weighted
from maqd.nn import (
    FittedSteps,
    IntegerInput,
    LayerBatchNorm,
    NormActivation,
    QuantConv2d,
    Quantizer,
    QuantLinear,
    RoundClip,
    WeightQuantizer,
)
from maqd.nn.functional import quantize_weight, weight_codes
from maqd.numerics.states import Grid, States

FIVE = States(count=5, signed=True)
UNIT = Grid(low=0, high=1, exponent=0)


@pytest.mark.parametrize("states", [2, 3, 4, 15])
@pytest.mark.parametrize("step", [None, 0.75])
def test_round_clip_is_the_function_bit_for_bit(states: int, step: float | None):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, generator=generator, requires_grad=True)
    quantizer = RoundClip(states=States(count=states, signed=True), step=step)
    values = quantizer.values(weight, 0.25, ())
    expected = quantize_weight(weight, quantizer.states, quantizer.distance, 0.25)
    assert torch.equal(values, expected)
    upstream = torch.randn(values.shape, generator=generator)
    (grad,), (wanted,) = (torch.autograd.grad(v, weight, upstream) for v in (values, expected))
    assert torch.equal(grad, wanted)
    assert torch.equal(quantizer.codes(weight, ()), weight_codes(weight, quantizer.states, quantizer.distance))


def test_a_number_of_states_is_round_clip():
    layer = QuantLinear(6, 4, states=5, step=0.5, input_grid=UNIT)
    assert layer.quantizer == RoundClip(states=FIVE, step=0.5)
    same = QuantLinear(6, 4, states=RoundClip(states=FIVE, step=0.5), input_grid=UNIT)
    assert same.exponent == layer.exponent
    assert list(same.state_dict()) == list(layer.state_dict()) == ["weight"]


@dataclass(frozen=True, kw_only=True)
class LearnedStep(WeightQuantizer):
    """round(w / s) with a learned s for the layer; straight through."""

    @property
    def code_scale(self) -> float:
        return 1.0

    def initial(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (weight.std(),)

    def values(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        scaled = weight / learned[0]
        codes = torch.clamp(torch.floor(scaled.detach() + 0.5), self.states.low, self.states.high)
        return codes * unit + (scaled - scaled.detach()) * unit

    def codes(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        scaled = weight.detach().cpu() / learned[0].detach().cpu()
        return torch.clamp(torch.floor(scaled + 0.5), self.states.low, self.states.high).to(torch.int16)


def test_another_method_trains_evaluates_and_lowers():
    torch.manual_seed(0)
    four = Quantizer(states=States(count=4, signed=False))
    method = LearnedStep(states=FIVE)
    conv = QuantConv2d(1, 4, 3, states=method, input_grid=IntegerInput.grid)
    head = QuantLinear(4 * 36, 3, states=method, input_grid=four.grid)
    network = nn.Sequential(IntegerInput(), conv, NormActivation(LayerBatchNorm(4), four), nn.Flatten(), head)
    assert "1.learned.0" in network.state_dict()
    optimizer = torch.optim.SGD(network.parameters(), 1e-4)
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    assert head.learned is not None
    steps = [head.learned[0].item()]
    for _ in range(2):
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
        steps.append(head.learned[0].item())
    assert len(set(steps)) == 3
    network.eval()
    graph = maqd.lower(network, images).graph
    node = graph["4"]
    assert isinstance(node, Weighted)
    np.testing.assert_array_equal(node.weight.unpack(), head.weight_codes())
    with torch.no_grad():
        before = network(images)
        assert conv.learned is not None
        conv.learned[0].mul_(4)  # evaluation follows what is learned
        assert not torch.equal(network(images), before)


def test_what_is_no_quantizer_is_refused_with_a_remedy():
    with pytest.raises(ConfigError, match=r"RoundClip needs signed states, got .*; use States\(count=M, signed=True\)"):
        RoundClip(states=States(count=3, signed=False))
    with pytest.raises(ConfigError, match="RoundClip needs a finite step > 0, got -1"):
        RoundClip(states=FIVE, step=-1.0)
    with pytest.raises(ConfigError, match="takes a step beside a number of states"):
        QuantLinear(6, 4, states=RoundClip(states=FIVE), step=0.5)
    with pytest.raises(ConfigError, match=r"a quantizer needs States, got 4; use States\(count=M, signed=False\)"):
        Quantizer(states=4)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("states", [2, 3, 4, 16, 255])
@pytest.mark.parametrize("per_filter", [True, False])
def test_fitted_steps_are_the_float_weights_times_one_factor_a_filter(states: int, per_filter: bool):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 5, 3, 3, generator=generator) + torch.randn(6, 1, 1, 1, generator=generator)
    quantizer = FittedSteps(states=States(count=states, signed=True), per_filter=per_filter)
    learned = quantizer.initial(weight)
    codes = quantizer.codes(weight, learned)
    assert set(codes.unique().tolist()) <= set(quantizer.states.codes)
    assert torch.equal(quantizer.values(weight, 0.5, learned), codes * 0.5)
    step = quantizer.steps(weight, learned)
    restored = codes * (step / quantizer.states.spacing)

    def error(factor: float) -> float:
        index = torch.clamp(torch.floor(weight / (step * factor) + quantizer.states.origin + 0.5), 0, states - 1)
        value = (quantizer.states.low + quantizer.states.spacing * index) * step * factor / quantizer.states.spacing
        return float((value - weight).square().mean())

    assert error(1.0) == pytest.approx(float((restored - weight).square().mean()))
    assert error(1.0) < min(error(0.7), error(1.4))
    if states == 255:
        assert torch.allclose(restored, weight.double(), atol=2 * float(step.max()))


def test_fitted_steps_have_the_gradient_of_their_formula():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    quantizer = FittedSteps(states=FIVE)
    learned = quantizer.initial(weight.detach())
    upstream = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    (grad,) = torch.autograd.grad(quantizer.values(weight, 0.25, learned), weight, upstream)
    (wanted,) = torch.autograd.grad(quantizer.unrounded(weight, 0.25, learned), weight, upstream)
    assert torch.allclose(grad, wanted, rtol=1e-12)


def test_filters_of_zeros_have_fitted_steps():
    weight = torch.zeros(2, 4)
    layer = QuantLinear(4, 2, states=FittedSteps(states=FIVE), input_grid=UNIT)
    with torch.no_grad():
        layer.weight.copy_(weight)
    assert torch.equal(layer.weight_codes(), torch.zeros(2, 4, dtype=torch.int16))
    layer(torch.ones(1, 4)).sum().backward()
    assert torch.isfinite(layer.weight.grad).all()
