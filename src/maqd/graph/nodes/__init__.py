"""The kinds of nodes, one file a family."""

from maqd.graph.nodes.activation import Activation, FixedPoint, Thresholds
from maqd.graph.nodes.base import Node
from maqd.graph.nodes.io import Input, Output
from maqd.graph.nodes.merging import Add, Aligned, Concat
from maqd.graph.nodes.pooling import GlobalSum, MaxPool, SumPool, Window
from maqd.graph.nodes.shape import Flatten
from maqd.graph.nodes.weighted import Conv, Linear, Weighted
from maqd.numerics.border import Border, Storage

NODES: tuple[type[Node], ...] = (
    Input, Conv, Linear, Thresholds, FixedPoint, MaxPool, SumPool, GlobalSum, Add, Concat, Flatten, Output,
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
    "GlobalSum",
    "Input",
    "Linear",
    "MaxPool",
    "Node",
    "Output",
    "Storage",
    "SumPool",
    "Thresholds",
    "Weighted",
    "Window",
]
