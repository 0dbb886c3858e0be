"""Integer graphs as spiking networks, step by step in time: clear rather than fast. docs/spiking.md has the proofs."""

import importlib
from typing import TYPE_CHECKING, Any

from maqd.spiking.network import Population, SpikingNetwork
from maqd.spiking.neurons import LOSSLESS, Dynamics, Reset, integrate_and_fire, settled
from maqd.spiking.simulation import Activity, Simulation, run_drained, run_free
from maqd.spiking.summary import LayerSpikes, compare

if TYPE_CHECKING:
    from maqd.spiking.modules import SpikingModule, to_snntorch, to_spikingjelly

__all__ = [
    "LOSSLESS",
    "Activity",
    "Dynamics",
    "LayerSpikes",
    "Population",
    "Reset",
    "Simulation",
    "SpikingModule",
    "SpikingNetwork",
    "compare",
    "integrate_and_fire",
    "run_drained",
    "run_free",
    "settled",
    "to_snntorch",
    "to_spikingjelly",
]

_TORCH = {"SpikingModule", "to_snntorch", "to_spikingjelly"}
"""What needs PyTorch, and is imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name not in _TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("maqd.spiking.modules"), name)
