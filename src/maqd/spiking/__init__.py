"""Integer graphs as spiking networks, step by step in time: clear rather than fast. docs/spiking.md has the proofs."""

from maqd.spiking.network import Population, SpikingNetwork
from maqd.spiking.neurons import LOSSLESS, Dynamics, Reset, integrate_and_fire, settled
from maqd.spiking.simulation import Activity, Simulation, run_drained, run_free
from maqd.spiking.summary import LayerSpikes, compare

__all__ = [
    "LOSSLESS",
    "Activity",
    "Dynamics",
    "LayerSpikes",
    "Population",
    "Reset",
    "Simulation",
    "SpikingNetwork",
    "compare",
    "integrate_and_fire",
    "run_drained",
    "run_free",
    "settled",
]
