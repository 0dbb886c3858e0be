"""`ChannelMap`: a scale and an offset per channel, with the gradient of exactly that."""

import torch

from maqd.nn import ChannelMap, NormActivation, Quantizer
from maqd.numerics.states import States

QUANTIZER = Quantizer(states=States(count=5, signed=True), step=0.5)


def made() -> ChannelMap:
    generator = torch.Generator().manual_seed(0)
    norm = ChannelMap(3)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(3, generator=generator))
        norm.bias.copy_(torch.randn(3, generator=generator))
    return norm


def test_it_is_the_map_and_so_is_its_gradient():
    norm, x = made(), torch.randn(4, 3, 5, 5, requires_grad=True)
    column = (1, 3, 1, 1)
    expected = norm.weight.reshape(column) * x + norm.bias.reshape(column)
    upstream = torch.randn(expected.shape)
    tensors = (x, norm.weight, norm.bias)
    for training in (True, False):
        found = norm.train(training)(x)
        assert torch.allclose(found, expected, atol=1e-6)
        grads = torch.autograd.grad(found, tensors, upstream)
        for grad, wanted in zip(
            grads, torch.autograd.grad(expected, tensors, upstream, retain_graph=True), strict=True
        ):
            assert torch.allclose(grad, wanted, atol=1e-4)


def test_it_saves_its_parameters_alone():
    assert list(made().state_dict()) == ["weight", "bias"]


def test_it_is_the_same_in_training_and_evaluation():
    activation, x = NormActivation(made(), QUANTIZER), torch.randint(-9, 9, (2, 3, 4)).float() / 4
    assert torch.equal(activation.train()(x), activation.eval()(x))
