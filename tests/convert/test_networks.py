"""Networks that people write convert unedited, train, lower, and give the same integers on all engines."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from float_networks import BasicBlock, Bottleneck, PlainCNN, PreActResNet, ResNet, prepared
from torch import nn

import maqd
from maqd.convert import convert
from maqd.lowering import TorchEngine
from maqd.runtime import ENGINES
from maqd.runtime.verify import verify

RUNTIMES = ["native", *(["onnxruntime"] if importlib.util.find_spec("onnxruntime") else [])]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and the shape of one sample of each input."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]


NETWORKS = {
    "plain": Case(build=PlainCNN, shapes=((3, 16, 16),)),
    "resnet18": Case(build=lambda: ResNet(BasicBlock, (2, 2, 2, 2)), shapes=((3, 32, 32),)),
    "resnet50": Case(build=lambda: ResNet(Bottleneck, (1, 2, 1, 1)), shapes=((3, 32, 32),)),
    "preact": Case(build=PreActResNet, shapes=((3, 16, 16),)),
}


def made(case: Case) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    network = prepared(case.build(), *case.shapes)
    return network, tuple(torch.randn(8, *shape) for shape in case.shapes)


def check_engines(model: nn.Module, examples: tuple[torch.Tensor, ...]) -> None:
    """Every tensor of the lowered network is the same in PyTorch, the interpreter and the engines."""
    graph = maqd.lower(model, examples).graph
    engines = [TorchEngine(model, graph), *(ENGINES[name].make(graph, threads=1) for name in RUNTIMES)]
    assert verify(graph, engines, [tuple(example.numpy() for example in examples)]).ok


@pytest.mark.parametrize("name", NETWORKS)
def test_it_converts_trains_lowers_and_is_the_same_everywhere(name: str):
    network, examples = made(NETWORKS[name])
    model = convert(network, examples, weights=3, activations=4).model
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model.train()
    with torch.no_grad():
        first = flat(model(*examples))
    wanted = torch.randn(first.shape, generator=torch.Generator().manual_seed(1)) * first.std() + first.mean()
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        loss = (flat(model(*examples)) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < sum(losses[:3])
    check_engines(model.eval(), examples)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def flat(result: object) -> torch.Tensor:
    if isinstance(result, torch.Tensor):
        return result.flatten()
    assert isinstance(result, tuple)
    return torch.cat([flat(part) for part in result])


@pytest.mark.parametrize("name", NETWORKS)
def test_many_states_are_the_float_network(name: str):
    network, examples = made(NETWORKS[name])
    report = convert(network, examples, weights=255, activations=256).report
    assert report.agreement is not None
    assert report.agreement.cosine > 0.999
    assert min(layer.cosine for layer in report.agreement.layers) > 0.998
