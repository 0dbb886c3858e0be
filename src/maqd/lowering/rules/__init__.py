"""What each kind of call becomes in the graph, one file a family of nodes."""

from maqd.lowering.builder import Rules
from maqd.lowering.rules import activation, arithmetic, io, merging, neurons, pooling, shape, weighted

RULES = Rules.union(
    io.RULES,
    weighted.RULES,
    activation.RULES,
    pooling.RULES,
    shape.RULES,
    merging.RULES,
    arithmetic.RULES,
    neurons.RULES,
)

__all__ = ["RULES"]
