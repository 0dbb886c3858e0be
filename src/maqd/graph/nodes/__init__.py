"""The kinds of nodes, one file a family."""

from maqd.graph.nodes.activation import Activation, FixedPoint, Thresholds
from maqd.graph.nodes.base import Geometry, Node, Stored
from maqd.graph.nodes.io import Input, Output
from maqd.graph.nodes.merging import Add, Aligned, Concat, Multiply
from maqd.graph.nodes.pooling import GlobalSum, MaxPool, SumPool, Window
from maqd.graph.nodes.shape import Flatten, Gather, Permute, Reshape
from maqd.graph.nodes.weighted import Conv, Linear, Weighted
from maqd.numerics.border import Border, Storage

NODES: tuple[type[Node], ...] = (
    Input, Conv, Linear, Thresholds, FixedPoint, MaxPool, SumPool, GlobalSum, Add, Concat, Multiply, Flatten, Reshape,
    Permute, Gather, Output,
)  # fmt: skip
"""Every kind of node."""

__all__ = [
    "NODES",
    "Activation",
    "Add",
    "Aligned",
    "Border",
    "Concat",
    "Conv",
    "FixedPoint",
    "Flatten",
    "Gather",
    "Geometry",
    "GlobalSum",
    "Input",
    "Linear",
    "MaxPool",
    "Multiply",
    "Node",
    "Output",
    "Permute",
    "Reshape",
    "Storage",
    "Stored",
    "SumPool",
    "Thresholds",
    "Weighted",
    "Window",
]
