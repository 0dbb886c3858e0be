"""The integer graph, its nodes, its file, its interpreter and its proof."""

from maqd.graph.graph import Graph
from maqd.graph.nodes import (
    NODES,
    Activation,
    Add,
    Aligned,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    GlobalSum,
    Input,
    Linear,
    Logits,
    MaxPool,
    Node,
    SumPool,
    Thresholds,
    Weighted,
    Window,
)
from maqd.graph.types import TensorType, channel_interval

__all__ = [
    "NODES",
    "Activation",
    "Add",
    "Aligned",
    "Concat",
    "Conv",
    "FixedPoint",
    "Flatten",
    "GlobalSum",
    "Graph",
    "Input",
    "Linear",
    "Logits",
    "MaxPool",
    "Node",
    "SumPool",
    "TensorType",
    "Thresholds",
    "Weighted",
    "Window",
    "channel_interval",
]
