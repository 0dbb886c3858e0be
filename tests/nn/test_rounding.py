"""Networks of few states without their rounding."""

from dataclasses import dataclass
from typing import final

import pytest
import torch
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn import (
    BatchNorm,
    NormActivation,
    QuantActivation,
    QuantConv2d,
    Quantizer,
    QuantLinear,
    RoundClip,
    WeightQuantizer,
    set_rounding,
)
from maqd.nn.functional import quantize_activation, round_half_up
from maqd.numerics.states import Grid, States

COUNTS = [2, 3, 4, 15]


def weights(seed: int = 0) -> Tensor:
    return torch.randn(6, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", COUNTS)
def test_weights_are_rounded_and_clipped_from_the_unrounded_ones(count: int) -> None:
    quantizer = RoundClip(states=States(count=count, signed=True))
    states, unit = quantizer.states, 0.25
    index = quantizer.unrounded(weights(), unit, ()) / (unit * states.spacing) + states.origin
    codes = torch.clamp(round_half_up(index), 0, count - 1) * states.spacing + states.low
    assert torch.equal(codes * unit, quantizer.values(weights(), unit, ()))


@pytest.mark.parametrize("count", COUNTS)
def test_gradients_are_those_of_the_rounded_weights(count: int) -> None:
    quantizer = RoundClip(states=States(count=count, signed=True))
    gradients = []
    for method in (quantizer.values, quantizer.unrounded):
        weight = weights().requires_grad_()
        (method(weight, 0.25, ()) * weights(1)).sum().backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("states", [States(count=4, signed=False), States(count=5, signed=True)])
def test_activations_are_clipped_to_their_states(states: States) -> None:
    quantizer = Quantizer(states=states, step=0.5)
    y = torch.linspace(-4, 4, 201)
    act = QuantActivation(quantizer)
    set_rounding(act, False)
    out = act(y)
    assert (out.min(), out.max()) == (quantizer.grid.low * 0.5, quantizer.grid.high * 0.5)
    inside = (y > out.min()) & (y < out.max())
    assert torch.equal(out[inside], y[inside])
    assert torch.equal(quantize_activation(out, quantizer), quantize_activation(y, quantizer))


def network(weight_states: int, act_states: int, step: float) -> nn.Sequential:
    torch.manual_seed(0)
    quantizer = Quantizer(states=States(count=act_states, signed=False), step=step)
    return nn.Sequential(
        QuantConv2d(2, 4, 3, states=weight_states, input_grid=quantizer.grid),
        NormActivation(BatchNorm(4), quantizer),
        nn.Flatten(),
        QuantLinear(4 * 36, 3, bias=True, states=weight_states, input_grid=quantizer.grid),
    )


@pytest.mark.parametrize("training", [True, False])
def test_many_states_come_near_to_no_rounding(training: bool) -> None:
    x = torch.randint(0, 4, (16, 2, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    errors = []
    for weight_states, act_states, step in ((3, 4, 1.0), (15, 16, 0.25), (63, 64, 1 / 16)):
        net = network(weight_states, act_states, step)
        for _ in range(100):  # so that running statistics are those of this batch
            net(x)
        net.train(training)
        with torch.no_grad():
            rounded = net(x)
            set_rounding(net, False)
            errors.append(float((net(x) - rounded).std() / rounded.std()))
            set_rounding(net, True)
            assert torch.equal(net(x), rounded)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


def test_layers_in_float_are_not_changed() -> None:
    layer, act = QuantConv2d(2, 3, 3, states=None), NormActivation(BatchNorm(2), None)
    x = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    before = layer(x), act(x)
    for module in (layer, act):
        set_rounding(module, False)
    assert torch.equal(layer(x), before[0])
    assert torch.equal(act(x), before[1])


def test_a_method_without_a_float_phase_says_so() -> None:
    @final
    @dataclass(frozen=True, kw_only=True)
    class Signs(WeightQuantizer):
        @property
        def code_scale(self) -> float:
            return 1.0

        def values(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
            return torch.sign(weight) * unit

        def codes(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
            return torch.sign(weight).to(torch.int16).cpu()

    layer = QuantLinear(
        3, 2, states=Signs(states=States(count=2, signed=True)), input_grid=Grid(low=0, high=1, exponent=0)
    )
    set_rounding(layer, False)
    with pytest.raises(ConfigError, match="Signs cannot train without rounding"):
        layer(torch.ones(1, 3))
