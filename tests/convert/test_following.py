"""Weights that are rounded along the data: their codes, their errors, and where training finds them."""

import pytest
import torch
from float_networks import prepared
from torch import Tensor, nn

from maqd.convert import ConversionConfig, Rounding, convert
from maqd.convert.following import DAMPING, follow
from maqd.nn import FittedSteps, QuantConv2d, QuantLinear
from maqd.nn.layers import QuantLayer
from maqd.numerics.states import Grid, States

GRID = Grid(low=-8, high=8, exponent=0)


def fitted(layer: QuantLayer, module: nn.Module) -> None:
    with torch.no_grad():
        layer.weight.copy_(module.weight)
        layer.learned[0].copy_(layer.quantizer.initial(layer.weight)[0])


def correlated(*shape: int) -> Tensor:
    """Integers whose neighbours are alike, as those of images are."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(shape[0], 1, *shape[2:], generator=generator)
    return (4 * shared + torch.randn(*shape, generator=generator)).round().clamp(-8, 8)


@pytest.mark.parametrize("float_input", [False, True])
def test_codes_are_those_of_the_formula_one_weight_after_the_other(float_input: bool):
    torch.manual_seed(1)
    module, x = nn.Linear(6, 3, bias=False), correlated(64, 6)
    wanted = x + torch.randn_like(x) if float_input else x
    layer = QuantLinear(6, 3, states=FittedSteps(states=States(count=3, signed=True)), input_grid=GRID)
    fitted(layer, module)
    steps = layer.quantizer.steps(layer.weight, tuple(layer.learned)).flatten()
    rows, ideal = (values.double() - values.double().mean(0) for values in (x, wanted))
    damping = DAMPING * rows.square().sum(0).mean()
    expected = torch.zeros(3, 6)
    for o in range(3):
        w = module.weight[o].detach().double()
        u = torch.zeros(64, dtype=torch.float64)
        for t in range(6):
            u = u + w[t] * ideal[:, t]
            goal = (rows[:, t] @ u + damping * w[t]) / (rows[:, t] @ rows[:, t] + damping)
            expected[o, t] = torch.clamp(torch.floor(goal / steps[o] + 0.5), -1, 1)
            u = u - expected[o, t] * steps[o] * rows[:, t]
        alone = torch.clamp(torch.floor(w / steps[o] + 0.5), -1, 1)
        if (ideal @ w - rows @ (alone * steps[o])).norm() <= u.norm():
            expected[o] = alone
    plain, error = follow(layer, module, x, wanted)
    assert error < plain
    assert torch.equal(layer.weight_codes().float(), expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_sums_of_a_convolution_are_closer_than_rounded_ones(groups: int):
    torch.manual_seed(1)
    module, x = nn.Conv2d(4, 8, 3, padding=1, groups=groups, bias=False), correlated(16, 4, 8, 8)
    quantizer = FittedSteps(states=States(count=3, signed=True))
    layer = QuantConv2d(4, 8, 3, padding=1, groups=groups, states=quantizer, input_grid=GRID)
    fitted(layer, module)

    @torch.no_grad()
    def error() -> float:
        scale = quantizer.steps(layer.weight, tuple(layer.learned)) / (2.0**layer.exponent)
        wanted = module(x)
        off = layer.eval()(x) * scale.flatten()[:, None, None] - wanted
        parts = [value - value.mean((0, 2, 3), keepdim=True) for value in (off, wanted)]  # means are set afterwards
        return float(parts[0].norm() / parts[1].norm())

    before, (plain, along) = error(), follow(layer, module, x)
    assert along < plain
    assert error() < before
    assert plain == pytest.approx(before, rel=0.15)  # of some places only


def test_a_converted_network_says_both_errors_and_trains_on():
    torch.manual_seed(0)
    network = prepared(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)), (3, 8, 8)
    )
    x = torch.randn(32, 3, 8, 8)
    result = convert(network, x, ConversionConfig(weights=3, activations=16, edge=3, rounding=Rounding.FOLLOWING))
    assert sum("error of sums" in row.becomes for row in result.report.rows) == 2
    result.model.train()(x).square().sum().backward()
    assert all(value.grad is not None for value in result.model.parameters() if value.requires_grad)
