"""Spiking networks as modules of PyTorch: neurons that integrate a window and then drain give every integer."""

import numpy as np
import pytest
import torch
from effort import examples, long
from spiking_graphs import spiking_graphs
from spiking_networks import spiking_network
from torch import Tensor, nn

from maqd.errors import MissingDependencyError, SpikingError
from maqd.graph import Graph, Input, Output, interpreter
from maqd.runtime import inputs
from maqd.spiking import SpikingModule, SpikingNetwork, modules, run_drained, to_snntorch, to_spikingjelly


class Neurons(nn.Module):
    """What both simulators have: soft reset, one spike a step, `>`."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.potential = threshold, torch.zeros(())

    def forward(self, charge: Tensor) -> Tensor:
        self.potential = self.potential + charge
        fired = (self.potential > self.threshold).double()
        self.potential = self.potential - fired * self.threshold
        return fired


def reset(module: nn.Module) -> None:
    for one in module.modules():
        if isinstance(one, Neurons):
            one.potential = torch.zeros(())


def assert_equal(network: SpikingNetwork) -> None:
    codes = inputs.prepare(network.graph, *inputs.random(network.graph, 2, seed=1)).codes
    module = SpikingModule(network, Neurons, reset)
    given = [torch.from_numpy(one) for one in codes]
    module.run(*given)  # a second run starts from potential 0
    found = module.run(*given)
    for name, wanted in interpreter.layers(network.graph, *codes):
        np.testing.assert_array_equal(found[name].numpy(), wanted, err_msg=name)
    for name, activity in run_drained(network, *codes).activities.items():
        np.testing.assert_array_equal(module.spikes[name].numpy(), activity.spikes, err_msg=name)
    assert all(torch.equal(a, found[node.name]) for a, node in zip(module(*given), network.graph.outputs, strict=True))


@pytest.mark.parametrize("states", [2, 4, 8, 16])
def test_modules_send_the_spikes_of_the_oracle_and_give_every_integer(states: int):
    for seed in range(examples(100) // 5):
        assert_equal(SpikingNetwork(spiking_network(seed, states)))


@long
def test_modules_take_random_graphs_of_all_kinds():
    for network in spiking_graphs(60):
        assert_equal(network)


def test_potentials_beyond_float64_are_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(modules, "EXACT", 1000)
    with pytest.raises(SpikingError, match=r"activation 'act2': potentials can reach \d+, which is not exact.*; use"):
        SpikingModule(SpikingNetwork(spiking_network(0, 4)), Neurons, reset)


@pytest.mark.parametrize(("make", "package"), [(to_snntorch, "snntorch"), (to_spikingjelly, "spikingjelly")])
def test_a_missing_simulator_is_named(make: object, package: str, monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=package)

    monkeypatch.setattr("maqd.optional.importlib.import_module", absent)
    x = Input(name="x", inputs=(), shape=(3,))
    graph = Graph(nodes=(x, Output(name="y", inputs=("x",))))
    with pytest.raises(MissingDependencyError, match=rf"needs {package}, which is not installed; .*\[spiking\]"):
        make(graph)  # pyright: ignore[reportCallIssue]
