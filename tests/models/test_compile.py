"""Networks in torch.compile: one graph without breaks, and the same integers."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from effort import long
from small_models import CLASSES, images, small, train_a_little
from torch import nn

from maqd.models import Architecture
from maqd.nn import Norm

# Dynamo instantiates autograd.Function itself while it traces one.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

VGG, RESNET = Architecture.DIGITS, Architecture.PREACT_RESNET_NARROW  # the digits network is a VGG of four layers
TRAINED = [
    (VGG, Norm.LEVELLED_LBN),
    *(pytest.param(*case, marks=long) for case in ((VGG, Norm.LBN), (VGG, Norm.BN), (RESNET, Norm.LBN))),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def gradients(model: nn.Module, forward: Any, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    logits = forward(x)
    nn.functional.cross_entropy(logits, torch.arange(len(x)) % CLASSES).backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert len(grads) == len(list(model.parameters()))
    return [logits.detach(), *grads]


@pytest.mark.parametrize(("architecture", "norm"), TRAINED, ids=lambda value: value.value)
def test_training_compiles_to_one_graph_with_the_same_gradients(architecture: Architecture, norm: Norm):
    model = small(architecture, width=1 / 8, norm=norm)
    x = images(architecture, 4)
    model(x)  # the first batch sets the levels of levelled normalizations
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = gradients(model, model, x)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    results = gradients(model, torch.compile(model, backend="aot_eager", fullgraph=True), x)
    assert torch.equal(results[0], expected[0])
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-6)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, after[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("architecture", [VGG, pytest.param(RESNET, marks=long)], ids=lambda a: getattr(a, "value", a))
def test_evaluation_compiles_to_one_graph_with_the_same_logits(architecture: Architecture):
    model = small(architecture, width=1 / 8)
    x = images(architecture, 4)
    train_a_little(model, x)
    model.eval()
    expected = model(x)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), expected)
    train_a_little(model.train(), x, steps=1)
    model.eval()
    assert not torch.equal(model(x), expected)
    assert torch.equal(compiled(x), model(x))


def test_a_float_network_compiles_in_evaluation():
    model = small(VGG, weight_states=None, act_states=None, norm=Norm.BN).eval()
    x = images(VGG, 4)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-6)
