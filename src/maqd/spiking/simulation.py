"""Spiking networks in time, in NumPy with int64: an oracle, not a fast engine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import lcm

import numpy as np
from numpy.typing import NDArray

from maqd.errors import SpikingError
from maqd.graph import Activation, Input, MaxPool, Node, Weighted
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.spiking.network import SpikingNetwork
from maqd.spiking.neurons import LOSSLESS, Dynamics, settled

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """What the neurons of an activation did.

    Args:
        spikes: bool, steps x N x the tensor's shape.
        potential: int64, N x the tensor's shape, after the last step.
        threshold: Their threshold, in units of the potential.
        most: In how many of the steps a neuron may fire.
    """

    spikes: NDArray[np.bool_]
    potential: Integers
    threshold: int
    most: int

    @property
    def counts(self) -> Integers:
        """Spikes of each neuron, N x the tensor's shape."""
        return self.spikes.sum(0, dtype=np.int64)

    @property
    def settled(self) -> NDArray[np.bool_]:
        """Which neurons fired as often as their charge says, for soft reset without a leak (`neurons.settled`)."""
        return settled(self.counts, self.potential, self.threshold, self.most)


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """What a spiking network did.

    Args:
        steps: How many steps it ran.
        scale: Unit of `tensors`.
        tensors: For each node `scale` times its codes as the spikes give them, int64, N x the tensor's shape.
        activities: What the neurons of each activation did.
        additions: For each map of weights that spikes reach: what they add to potentials over connections whose weight
            is not 0, all samples together. Constant currents are not counted.
    """

    steps: int
    scale: int
    tensors: Mapping[str, Integers]
    activities: Mapping[str, Activity]
    additions: Mapping[str, int]


class _Wires:
    """What passes between neurons: for each tensor what it is without spikes, and the sum of what spikes added."""

    def __init__(self, network: SpikingNetwork, codes: tuple[Integers, ...]) -> None:
        self.network = network
        self.rest: dict[str, Integers] = {}
        given = iter(codes)
        for node in network.graph.nodes:
            if isinstance(node, Input):
                self.rest[node.name] = next(given)
            elif isinstance(node, Activation):
                self.rest[node.name] = np.full_like(self.rest[node.inputs[0]], node.states.low)
            else:
                self.rest[node.name] = node.compute(*(self.rest[name] for name in node.inputs))
        self.added = {name: np.zeros_like(rest) for name, rest in self.rest.items()}
        self.events: dict[str, Integers] = {}
        self.now: dict[str, Integers] = {}

    def put(self, name: str, increment: Integers) -> None:
        """What spikes add to a tensor in this step."""
        self.now[name] = increment
        self.events[name] = self.events.get(name, 0) + (increment != 0)
        self.added[name] = self.added[name] + increment

    def carry(self, node: Node) -> None:
        """Pass a step's spikes through a node between neurons."""
        if not any(name in self.now for name in node.inputs):
            return
        given = [self.now.get(name, np.zeros_like(self.rest[name])) for name in node.inputs]
        moved = node.compute(*given)  # a maximum of spikes is their OR
        self.put(node.name, moved if isinstance(node, MaxPool) else moved - self.network.still[node.name])

    def additions(self) -> dict[str, int]:
        """What spikes add over connections, for each map of weights."""
        found = {}
        for node in self.network.graph.nodes:
            if not isinstance(node, Weighted) or node.inputs[0] not in self.events:
                continue
            events = self.events[node.inputs[0]]
            codes = node.weight.unpack()
            there = PackedCodes.pack((codes != 0).astype(codes.dtype), States(count=3, signed=True))
            found[node.name] = int(replace(node, weight=there, bias=None).compute(events.astype(np.int64)).sum())
        return found

    def tensors(self, scale: int) -> dict[str, Integers]:
        return {name: scale * rest + self.added[name] for name, rest in self.rest.items()}


def run_drained(network: SpikingNetwork, *codes: Integers) -> Simulation:
    """Every population integrates all spikes that reach it, then drains its potential, at most one spike a step.

    A population starts when all those before it have finished, and takes M-1 steps. The spikes of each tensor are the
    integers of the graph, exactly.

    Args:
        network: The network.
        codes: One array an input, int64, N x its shape, as `maqd.runtime.inputs.prepare` makes them.

    Returns:
        What happened; `scale` is 1.
    """
    wires, dynamics = _Wires(network, codes), LOSSLESS
    populations, steps = network.populations, network.latency
    potential = {name: one.charge(wires.rest[one.node.inputs[0]]) for name, one in populations.items()}
    spikes = {name: np.zeros((steps, *wires.rest[name].shape), np.bool_) for name in populations}
    for step in range(steps):
        wires.now.clear()
        for node in network.graph.nodes:
            one = populations.get(node.name)
            if one is None:
                wires.carry(node)
            elif node.inputs[0] in wires.now:
                potential[node.name] = potential[node.name] + one.gain * wires.now[node.inputs[0]]
            elif one.start <= step < one.stop:
                fired, potential[node.name] = dynamics.fire(potential[node.name], one.threshold)
                spikes[node.name][step] = fired
                wires.put(node.name, fired * np.int64(one.node.states.spacing))
    activities = {
        name: Activity(spikes=spikes[name], potential=potential[name], threshold=one.threshold, most=one.steps)
        for name, one in populations.items()
    }
    return Simulation(
        steps=steps, scale=1, tensors=wires.tensors(1), activities=activities, additions=wires.additions()
    )


def default_steps(network: SpikingNetwork) -> int:
    """The fewest steps in which free-running counts can stand for all codes: a multiple of every M-1."""
    return lcm(*(one.steps for one in network.populations.values()))


def run_free(
    network: SpikingNetwork, *codes: Integers, steps: int | None = None, dynamics: Dynamics = LOSSLESS
) -> Simulation:
    """All neurons integrate and fire in every step, as most neuromorphic chips do: not exact (docs/spiking.md).

    Inputs and biases are constant currents. Over T steps a spike of an activation with M states stands for (M-1) / T of
    a state; potentials are in T-ths, so that all of them are integers.

    Args:
        network: The network.
        codes: As in `run_drained`.
        steps: T; by default the fewest in which counts can stand for all codes.
        dynamics: Reset and leak.

    Returns:
        What happened; `scale` is T.

    Raises:
        SpikingError: There is no step, or potentials might not fit 64 bits.
    """
    steps = default_steps(network) if steps is None else steps
    if steps < 1:
        raise SpikingError(
            f"a spiking network needs at least 1 step, got {steps}; its states need {default_steps(network)}"
        )
    for name, one in network.populations.items():
        if steps * (one.reach + (one.steps << one.shift)) >= 2**63:
            raise SpikingError(
                f"activation {name!r}: potentials can reach {steps} * {one.reach}, which does not fit 64 bits; "
                "use fewer steps"
            )
    wires, populations = _Wires(network, codes), network.populations
    potential = {name: np.zeros_like(wires.rest[name]) for name in populations}
    spikes = {name: np.zeros((steps, *wires.rest[name].shape), np.bool_) for name in populations}
    for step in range(steps):
        wires.now.clear()
        for node in network.graph.nodes:
            one = populations.get(node.name)
            if one is None:
                wires.carry(node)
                continue
            (source,) = node.inputs
            seen = wires.rest[source] + wires.now[source] if source in wires.now else wires.rest[source]
            integrated = dynamics.leaked(potential[node.name]) + one.charge(seen)
            fired, potential[node.name] = dynamics.fire(integrated, one.steps * one.threshold)
            spikes[node.name][step] = fired
            wires.put(node.name, fired * np.int64(one.node.states.spacing * one.steps))
    activities = {
        name: Activity(spikes=spikes[name], potential=potential[name], threshold=one.steps * one.threshold, most=steps)
        for name, one in populations.items()
    }
    return Simulation(
        steps=steps, scale=steps, tensors=wires.tensors(steps), activities=activities, additions=wires.additions()
    )
