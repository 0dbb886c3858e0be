"""Spiking networks of any number of states as modules of PyTorch whose neurons are a simulator's own.

Each neuron integrates the whole window before it and then drains its potential, so every tensor is the graph's
(docs/spiking.md). Connections are PyTorch's operations in float64, which is exact: potentials stay below 2**53.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maqd.errors import SpikingError
from maqd.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    Flatten,
    Gather,
    Geometry,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Node,
    Output,
    Permute,
    Reshape,
    SumPool,
)
from maqd.graph.rules import Rules
from maqd.optional import require
from maqd.spiking.network import Population, SpikingNetwork

EXACT = 2**53
"""Floats of 64 bits hold every integer up to this."""

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_MAXIMA = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


class SpikingModule(nn.Module):
    """A graph in time, with neurons of a simulator.

    A potential is 2 (A x + B) + 1 and the threshold 2**(K + 1), so that it is never the threshold itself and `>` and
    `>=` agree.

    Args:
        network: The spiking network.
        neuron: Makes the neurons of an activation from their threshold: a module that takes the charge of a step, N x
            the tensor's shape, and returns spikes of 0 and 1; at most one a step, and the threshold subtracted.
        reset: Brings all neurons of a module to potential 0.

    Raises:
        SpikingError: Potentials might not fit float64; the message names the activation.
    """

    def __init__(
        self, network: SpikingNetwork, neuron: Callable[[float], nn.Module], reset: Callable[[nn.Module], None]
    ) -> None:
        super().__init__()
        self.network = network
        self._reset = reset
        self._places = {name: f"neurons{place}" for place, name in enumerate(network.populations)}
        for name, one in network.populations.items():
            if 4 * one.reach + 2 >= EXACT or 2 * one.threshold >= EXACT:
                raise SpikingError(
                    f"activation {name!r}: potentials can reach {2 * one.reach + 1}, which is not exact in "
                    "floats of 64 bits; use fewer states"
                )
            self.add_module(self._places[name], neuron(float(2 * one.threshold)))
        self._weights = {
            node.name: torch.from_numpy(node.weight.unpack().astype(np.float64))
            for node in network.graph.nodes
            if isinstance(node, Conv | Linear)
        }
        self.spikes: dict[str, Tensor] = {}
        """Of the last run: for each activation its spikes, bool, steps x N x the tensor's shape."""

    @property
    def steps(self) -> int:
        """How many steps a sample takes."""
        return self.network.latency

    def neurons(self, name: str) -> nn.Module:
        """The simulator's neurons of an activation."""
        return self.get_submodule(self._places[name])

    def forward(self, *codes: Tensor) -> tuple[Tensor, ...]:
        """The codes of each output, int64, N x its shape.

        Args:
            codes: One tensor an input, int64, N x its shape, as `maqd.runtime.inputs.prepare` makes them.
        """
        found = self.run(*codes)
        return tuple(found[node.name] for node in self.network.graph.outputs)

    @torch.no_grad()
    def run(self, *codes: Tensor) -> dict[str, Tensor]:
        """All steps from the start: every tensor as its spikes give it, int64, N x its shape.

        Arguments as in `forward`.
        """
        graph, populations = self.network.graph, self.network.populations
        self._reset(self)
        totals = self._rest(codes)
        charges = {name: self._charge(one, totals[one.node.inputs[0]]) for name, one in populations.items()}
        self.spikes = {name: torch.zeros((self.steps, *totals[name].shape), dtype=torch.bool) for name in populations}
        for step in range(self.steps):
            now: dict[str, Tensor] = {}
            for node in graph.nodes:
                one = populations.get(node.name)
                sources = [name for name in node.inputs if name in now]
                if one is not None:
                    if sources:
                        charges[node.name] = charges[node.name] + self._gain(one) * 2 * now[node.inputs[0]]
                    if one.start <= step < one.stop:
                        charge = charges[node.name] if step == one.start else torch.zeros_like(charges[node.name])
                        fired = _spikes(self.neurons(node.name)(charge))
                        self.spikes[node.name][step] = fired > 0
                        now[node.name] = fired * one.node.states.spacing
                elif sources:
                    given = [now.get(name, torch.zeros_like(totals[name])) for name in node.inputs]
                    now[node.name] = self._linear(node, given, first=False)
            for name, increment in now.items():
                totals[name] = totals[name] + increment
        return {name: value.to(torch.int64) for name, value in totals.items()}

    def _rest(self, codes: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Every tensor without spikes: inputs, and all activations at their lowest code."""
        rest: dict[str, Tensor] = {}
        given = iter(codes)
        for node in self.network.graph.nodes:
            if isinstance(node, Input):
                rest[node.name] = next(given).to(torch.float64)
            elif isinstance(node, Activation):
                rest[node.name] = torch.full_like(rest[node.inputs[0]], node.states.low)
            elif self.network.flows[node.name].constant:
                known = (rest[name].to(torch.int64).numpy() for name in node.inputs)
                rest[node.name] = torch.from_numpy(np.ascontiguousarray(node.compute(*known))).to(torch.float64)
            else:
                rest[node.name] = self._linear(node, [rest[name] for name in node.inputs], first=True)
        return rest

    def _gain(self, one: Population) -> Tensor:
        return torch.from_numpy(one.gain.astype(np.float64))

    def _charge(self, one: Population, x: Tensor) -> Tensor:
        return 2 * (self._gain(one) * x + torch.from_numpy(one.offset.astype(np.float64))) + 1

    def _linear(self, node: Node, given: list[Tensor], *, first: bool) -> Tensor:
        """A node between neurons.

        Args:
            node: The node.
            given: Its inputs.
            first: Whether constants belong to the result: biases and filled elements come once.
        """
        rule = LINEAR.find(node, f"{node.operation} node {node.name!r}")
        return rule(node, given, first, self._weights.get(node.name))


def _spikes(sent: Any) -> Tensor:
    """Some neurons return their potential as well."""
    return (sent[0] if isinstance(sent, tuple) else sent).to(torch.float64)


def _padded(x: Tensor, geometry: Geometry, value: float) -> Tensor:
    ends = zip(reversed(geometry.padding), reversed(geometry.trailing), strict=True)
    return F.pad(x, [end for pair in ends for end in pair], value=value)


def _bias(node: Conv | Linear, first: bool) -> Tensor | None:
    return torch.from_numpy(node.bias.astype(np.float64)) if first and node.bias is not None else None


def _conv(node: Conv, given: list[Tensor], first: bool, weight: Tensor) -> Tensor:
    geometry = node.geometry
    convolve: Any = _CONVOLUTIONS[len(geometry.kernel) - 1]
    padded = _padded(given[0], geometry, 0)
    return convolve(padded, weight, _bias(node, first), geometry.stride, 0, geometry.dilation, node.groups)


def _matrix(node: Linear, given: list[Tensor], first: bool, weight: Tensor) -> Tensor:
    return F.linear(given[0], weight, _bias(node, first))


def _sums(node: SumPool, given: list[Tensor], *_: object) -> Tensor:
    geometry, channels = node.geometry, given[0].shape[1]
    ones = torch.ones((channels, 1, *geometry.kernel), dtype=torch.float64)
    convolve: Any = _CONVOLUTIONS[len(geometry.kernel) - 1]
    return convolve(_padded(given[0], geometry, 0), ones, None, geometry.stride, 0, geometry.dilation, channels)


def _maxima(node: MaxPool, given: list[Tensor], *_: object) -> Tensor:
    geometry = node.geometry
    pool: Any = _MAXIMA[len(geometry.kernel) - 1]
    padded = _padded(given[0], geometry, -torch.inf)
    return pool(padded, geometry.kernel, geometry.stride, 0, geometry.dilation)


def _aligned(node: Add | Concat, given: list[Tensor]) -> list[Tensor]:
    return [x * 2**shift for x, shift in zip(given, node.shifts, strict=True)]


def _gather(node: Gather, given: list[Tensor], first: bool, _: object) -> Tensor:
    axis = node.axis + 1
    places = torch.from_numpy(np.maximum(node.indices, 0).astype(np.int64))
    taken = given[0].index_select(axis, places)
    shape = [-1 if d == axis else 1 for d in range(taken.ndim)]
    absent = torch.from_numpy(np.asarray(node.indices < 0)).reshape(shape)
    return torch.where(absent, float(node.fill) if first else 0.0, taken)


LINEAR = Rules(
    "the spiking module", SpikingError,
    {
        Conv: _conv,
        Linear: _matrix,
        SumPool: _sums,
        MaxPool: _maxima,
        GlobalSum: lambda _n, given, *_: given[0].flatten(2).sum(2),
        Add: lambda node, given, *_: torch.stack(_aligned(node, given)).sum(0),
        Concat: lambda node, given, *_: torch.cat(_aligned(node, given), node.axis + 1),
        Gather: _gather,
        Flatten: lambda _n, given, *_: given[0].flatten(1),
        Reshape: lambda node, given, *_: given[0].reshape(-1, *node.shape),
        Permute: lambda node, given, *_: given[0].permute(0, *(d + 1 for d in node.order)),
        Output: lambda _n, given, *_: given[0],
    },
)  # fmt: skip
"""What lies between neurons, in PyTorch; nodes that no spikes reach are computed in NumPy."""


def to_spikingjelly(graph: Graph) -> SpikingModule:
    """A graph with SpikingJelly's `IFNode(v_reset=None)` as neurons.

    Args:
        graph: A valid graph; its activations have steps of equal size.

    Raises:
        SpikingError: A node cannot be computed with spikes; the message names it.
        MissingDependencyError: SpikingJelly is not installed.
    """
    network = SpikingNetwork(graph)
    neuron = require("spikingjelly.activation_based.neuron", "to_spikingjelly")
    functional = require("spikingjelly.activation_based.functional", "to_spikingjelly")
    return SpikingModule(
        network, lambda threshold: neuron.IFNode(v_threshold=threshold, v_reset=None), functional.reset_net
    )


def to_snntorch(graph: Graph) -> SpikingModule:
    """A graph with snnTorch's `Leaky(beta=1, reset_mechanism="subtract")` as neurons.

    The reset is delayed (`reset_delay=True`, snnTorch's default): without the delay the threshold is subtracted twice.
    Arguments and errors as in `to_spikingjelly`.
    """
    network = SpikingNetwork(graph)
    snn: Any = require("snntorch", "to_snntorch")

    def neuron(threshold: float) -> nn.Module:
        return snn.Leaky(
            beta=1.0, threshold=threshold, reset_mechanism="subtract", reset_delay=True, init_hidden=True
        ).double()

    def reset(module: nn.Module) -> None:
        leaky: list[Any] = [one for one in module.modules() if isinstance(one, snn.Leaky)]
        for one in leaky:
            one.reset_mem()

    return SpikingModule(network, neuron, reset)
