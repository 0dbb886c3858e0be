"""Curved activations: where their codes rise, and what training makes of them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from maqd.nn import NormActivation
from maqd.nn.curves import FAR, Curve, CurveQuantizer, Shape
from maqd.nn.norm import ChannelMap
from maqd.numerics.states import States


def test_cuts_are_where_the_curve_passes_between_two_states():
    quantizer = CurveQuantizer(
        states=States(count=5, signed=False), step=0.25, curve=Curve(shape=Shape.SIGMOID), scale=1.5
    )
    wanted = [1.5 * math.log(p / (1 - p)) for p in ((k - 0.5) * 0.25 / 1.5 for k in range(1, 5))]
    assert np.allclose(quantizer.exact_cuts(()), wanted, atol=2.0**-19, rtol=0)


@pytest.mark.parametrize("shape", list(Shape))
def test_codes_are_the_nearest_states_to_the_right_of_the_lowest_point(shape: Shape):
    curve = Curve(shape=shape, slope=0.2)
    quantizer = CurveQuantizer(states=States(count=31, signed=True), step=0.125, curve=curve)
    y = torch.linspace(-0.7, 4, 1001, dtype=torch.float64)
    nearest = torch.floor(curve(y) / 0.125 + 0.5).clamp(-15, 15) * 0.125
    away = (curve(y) / 0.125 + 0.5 - torch.floor(curve(y) / 0.125 + 0.5) - 0.5).abs() < 0.49
    assert torch.equal(quantizer.values(y, ())[away], nearest[away])


def test_states_that_a_curve_does_not_reach_are_never_taken():
    quantizer = CurveQuantizer(states=States(count=7, signed=True), step=0.5, curve=Curve(shape=Shape.TANH))
    cuts = quantizer.exact_cuts(())
    assert list(cuts[:1]) == [-FAR]
    assert list(cuts[-1:]) == [FAR]
    assert set(quantizer.values(torch.tensor([-1e6, 0.0, 1e6]), ()).tolist()) == {-1.0, 0.0, 1.0}


def test_the_gradient_is_the_curves():
    quantizer = CurveQuantizer(states=States(count=4, signed=False), step=0.25, curve=Curve(shape=Shape.SIGMOID))
    y = torch.tensor([-9.0, 0.0, 0.5, 9.0], requires_grad=True)
    quantizer.values(y, ()).sum().backward()
    p = torch.sigmoid(y.detach())
    assert y.grad is not None
    assert torch.allclose(y.grad, torch.where(p > 0.875, 0, p * (1 - p)))


def test_training_and_evaluation_give_the_same_codes():
    quantizer = CurveQuantizer(states=States(count=64, signed=False), step=2.0**-6, curve=Curve(shape=Shape.SIGMOID))
    module: nn.Module = NormActivation(ChannelMap(3), quantizer)
    x = torch.randint(-512, 512, (8, 3, 4, 4), generator=torch.Generator().manual_seed(0)) / 128
    assert torch.equal(module.train()(x), module.eval()(x))
