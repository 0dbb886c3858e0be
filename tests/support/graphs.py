"""Integer graphs for tests, built by hand, not lowered from a network."""

import numpy as np

from maqd.graph import (
    Add,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    GlobalSum,
    Graph,
    Input,
    Labels,
    Linear,
    MaxPool,
    Metadata,
    Output,
    SumPool,
    Thresholds,
)
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States


def weight(random: np.random.Generator, count: int, *shape: int) -> PackedCodes:
    """Random codes."""
    states = States(count=count, signed=True)
    return PackedCodes.pack(random.choice(np.array(states.codes), shape), states)


def thresholds(
    random: np.random.Generator, name: str, source: str, channels: int, count: int, reach: int
) -> Thresholds:
    """Random thresholds within +-reach, with falling channels among them."""
    cuts = np.sort(random.integers(-reach, reach + 1, (count - 1, channels)), axis=0)
    return Thresholds(
        name=name,
        inputs=(source,),
        axis=0,
        states=States(count=count, signed=False),
        step_exponent=0,
        thresholds=cuts.astype(np.int16),
        signs=random.choice(np.array([1, -1], np.int8), channels),
    )


def every_node(seed: int = 0) -> Graph:
    """A graph 3 x 9 x 8 -> 5 with every kind of node: strides, groups, dilation, a residual, concatenation."""
    random = np.random.default_rng(seed)
    nodes = (
        Input(name="input", inputs=(), shape=(3, 9, 8)),
        Conv(
            name="stem",
            inputs=("input",),
            weight=weight(random, 7, 8, 3, 3, 3),
            exponent=-4,
            stride=(1, 2),
            padding=(1, 1),
            dilation=(1, 1),
        ),
        thresholds(random, "stem.act", "stem", 8, 4, 600),
        MaxPool(name="pool", inputs=("stem.act",), kernel=(3, 2), stride=(2, 1), padding=(1, 0)),
        Conv(
            name="grouped",
            inputs=("pool",),
            weight=weight(random, 3, 8, 2, 3, 3),
            exponent=-3,
            stride=(1, 1),
            padding=(2, 2),
            dilation=(2, 2),
            groups=4,
        ),
        Conv(
            name="shortcut",
            inputs=("pool",),
            weight=weight(random, 2, 8, 8, 1, 1),
            exponent=-1,
            stride=(1, 1),
            padding=(0, 0),
            dilation=(1, 1),
            bias=random.integers(-9, 10, 8).astype(np.int32),
        ),
        Add(name="add", inputs=("grouped", "shortcut"), shifts=(0, 2)),
        FixedPoint(
            name="add.act",
            inputs=("add",),
            axis=0,
            states=States(count=6, signed=True),
            step_exponent=0,
            multiplier=random.integers(-90, 91, 8).astype(np.int16),
            offset=random.integers(0, 3000, 8).astype(np.int32),
            shift=9,
        ),
        Concat(name="concat", inputs=("pool", "add.act"), axis=0, shifts=(1, 0)),
        SumPool(name="average", inputs=("concat",), kernel=(2, 2), stride=(1, 1), padding=(1, 0), shift=2),
        thresholds(random, "average.act", "average", 16, 3, 20),
        GlobalSum(name="global", inputs=("average.act",), shift=3),
        Flatten(name="flat", inputs=("add.act",)),
        Linear(name="wide", inputs=("flat",), weight=weight(random, 5, 16, 8 * 5 * 3), exponent=-6),
        thresholds(random, "wide.act", "wide", 16, 2, 20),
        Concat(name="features", inputs=("global", "wide.act"), axis=0, shifts=(0, 3)),
        Linear(
            name="head",
            inputs=("features",),
            weight=weight(random, 3, 5, 32),
            exponent=-3,
            bias=random.integers(-99, 100, 5).astype(np.int32),
        ),
        Output(name="logits", inputs=("head",)),
    )
    labels = Labels(output="logits", names=("ant", "bee", "cat", "dog", "eel"))
    return Graph(nodes=nodes, metadata=Metadata(labels=(labels,)))


def images(graph: Graph, count: int, seed: int = 0) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)
