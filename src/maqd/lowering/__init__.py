"""The bridge from networks of `maqd.nn` layers to integer graphs."""

from maqd.lowering.builder import Lowered, TorchEngine, lower, trace

__all__ = [
    "Lowered",
    "TorchEngine",
    "lower",
    "trace",
]
