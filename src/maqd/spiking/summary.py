"""Spikes against codes: how many tensors' values are not the graph's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.graph import interpreter
from maqd.spiking.network import SpikingNetwork
from maqd.spiking.simulation import Simulation


@dataclass(frozen=True, kw_only=True)
class LayerSpikes:
    """A tensor, over all samples.

    Args:
        name: Of its node.
        operation: Kind of node.
        values: Integers that were compared.
        wrong: How many are not the graph's.
        spikes: How many spikes its neurons sent, None where there are none.
        additions: What spikes add over its connections, None where there are none (`Simulation.additions`).
        unsettled: Neurons that did not fire as often as their own charge says (`neurons.settled`).
    """

    name: str
    operation: str
    values: int
    wrong: int
    spikes: int | None
    additions: int | None
    unsettled: int | None


def compare(network: SpikingNetwork, simulation: Simulation, *codes: NDArray[np.int64]) -> tuple[LayerSpikes, ...]:
    """Every tensor of a simulation against the graph's integers.

    Spikes over more than M-1 steps are finer than states: an activation's count is right if it gives the state when
    rounded down. Other tensors are compared as they are.

    Args:
        network: The network.
        simulation: What it did.
        codes: What was simulated.
    """
    rows = []
    for name, wanted in interpreter.layers(network.graph, *codes):
        activity = simulation.activities.get(name)
        if activity is None:
            differs = simulation.tensors[name] != simulation.scale * wanted
        else:
            states, steps = network.populations[name].node.states, network.populations[name].steps
            differs = activity.counts * steps // activity.most * states.spacing + states.low != wanted
        rows.append(
            LayerSpikes(
                name=name,
                operation=network.graph[name].operation,
                values=wanted.size,
                wrong=int(np.count_nonzero(differs)),
                spikes=None if activity is None else int(activity.spikes.sum()),
                additions=simulation.additions.get(name),
                unsettled=None if activity is None else int(np.count_nonzero(~activity.settled)),
            )
        )
    return tuple(rows)
