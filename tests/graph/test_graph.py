"""What a valid graph is: every inconsistency has its error, and types say what the interpreter gives."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import graphs
import numpy as np
import pytest

from maqd.errors import GraphError
from maqd.graph import (
    Add,
    Border,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    Gather,
    GlobalSum,
    Graph,
    Input,
    Labels,
    Linear,
    MaxPool,
    Metadata,
    Multiply,
    Node,
    Output,
    Permute,
    Reshape,
    Storage,
    SumPool,
    Thresholds,
)
from maqd.numerics.states import Grid, States

GRAPH = graphs.every_node()
PLACE = {node.name: place for place, node in enumerate(GRAPH.nodes)}


def changed(name: str, **values: Any) -> Callable[[], Graph]:
    """The graph with another node."""

    def make() -> Graph:
        nodes = [*GRAPH.nodes]
        nodes[PLACE[name]] = replace(GRAPH[name], **values)
        return Graph(nodes=tuple(nodes))

    return make


def nodes(*order: Node) -> Callable[[], Graph]:
    return lambda: Graph(nodes=order)


def small(*middle: Node, shape: tuple[int, ...] = (4, 6, 6), **options: Any) -> Callable[[], Graph]:
    last = middle[-1].name if middle else "x"
    return nodes(Input(name="x", inputs=(), shape=shape, **options), *middle, Output(name="y", inputs=(last,)))


def weight(count: int, *shape: int):
    return graphs.weight(np.random.default_rng(0), count, *shape)


def conv(*shape: int, **options: Any) -> Conv:
    space = len(shape) - 2
    defaults = {"stride": (1,) * space, "padding": (0,) * space, "dilation": (1,) * space}
    return Conv(**{"name": "c", "inputs": ("x",), "weight": weight(3, *shape), "exponent": 0, **defaults, **options})


def gathered(*indices: int, fill: int = 0) -> Callable[[], Graph]:
    return small(Gather(name="g", inputs=("x",), axis=1, indices=np.array(indices, np.int64), fill=fill))


def labelled(nodes: tuple[Node, ...], output: str, count: int) -> Callable[[], Graph]:
    labels = Labels(output=output, names=("a",) * count)
    return lambda: Graph(nodes=nodes, metadata=Metadata(labels=(labels,)))


FOUR = States(count=4, signed=False)
ACT: Thresholds = GRAPH["stem.act"]  # pyright: ignore[reportAssignmentType]
AFFINE: FixedPoint = GRAPH["add.act"]  # pyright: ignore[reportAssignmentType]
X = Input(name="x", inputs=(), shape=(4, 6, 6))
Y = Output(name="y", inputs=("x",))

WRONG: dict[str, tuple[Callable[[], Graph], str]] = {
    "no nodes": (nodes(), "a graph needs at least one input, got 0 other nodes"),
    "output alone": (nodes(Y), "output node 'y': input 'x' is no node before it"),
    "input alone": (nodes(X), "a graph needs at least one output"),
    "an input after other nodes": (
        nodes(X, Flatten(name="f", inputs=("x",)), Input(name="z", inputs=(), shape=(1,))),
        "input node 'z': inputs must be the first nodes",
    ),
    "two inputs of one key": (
        nodes(X, Input(name="z", key="x", inputs=(), shape=(1,)), Y, Output(name="w", inputs=("z",))),
        "input node 'x': its key 'x' belongs to another input, too",
    ),
    "two outputs of one key": (
        nodes(X, Y, Output(name="z", key="y", inputs=("x",))),
        "output node 'y': its key 'y' belongs to another output, too",
    ),
    "codes that do not fit the storage": (
        small(shape=(4,), grid=Grid(low=-128, high=127, exponent=0), zero=0),
        "input node 'x': its codes -128 .. 127 plus 0 do not fit uint8",
    ),
    "floats without a border": (small(shape=(4,), storage=Storage.F32), "takes floats and has no border"),
    "a border for integers": (
        small(shape=(4,), border=Border(multiplier=np.array([1]), offset=np.array([0]), shift=0)),
        "has a border for floats, and its storage is uint8",
    ),
    "a multiplier beyond 29 bits": (
        small(
            shape=(4,), storage=Storage.F32, border=Border(multiplier=np.array([2**29]), offset=np.array([0]), shift=0)
        ),
        "needs 1 or 4 signed integer multipliers below 2\\^29",
    ),
    "a multiplier of 0": (
        small(shape=(4,), storage=Storage.F32, border=Border(multiplier=np.array([0]), offset=np.array([0]), shift=0)),
        "needs multipliers other than 0: it cannot quantize infinities",
    ),
    "a multiplier without a magnitude in 64 bits": (
        small(
            shape=(4,),
            storage=Storage.F32,
            border=Border(multiplier=np.array([-(2**63)]), offset=np.array([0]), shift=0),
        ),
        "needs 1 or 4 signed integer multipliers below 2\\^29",
    ),
    "a divisor of nothing": (nodes(X, Output(name="y", inputs=("x",), divisor=0)), "divisor must be in 1 .. 2\\^24"),
    "nodes after an output": (
        nodes(X, Y, Flatten(name="z", inputs=("y",))),
        "flatten node 'z': outputs must be the last nodes",
    ),
    "same name twice": (nodes(X, Flatten(name="x", inputs=("x",)), Y), "flatten node 'x': needs a name of its own"),
    "no name": (nodes(X, Flatten(name="", inputs=("x",)), Y), "flatten node '': needs a name of its own"),
    "unknown input": (changed("pool", inputs=("nobody",)), "max_pool node 'pool': input 'nobody' is no node before it"),
    "later input": (changed("pool", inputs=("add",)), "'pool': input 'add' is no node before it"),
    "own input": (changed("pool", inputs=("pool",)), "'pool': input 'pool' is no node before it"),
    "unused node": (nodes(X, Flatten(name="z", inputs=("x",)), Y), "node 'z' is used by no other; remove it"),
    "too many inputs": (changed("pool", inputs=("stem", "stem")), "'pool': takes 1 to 1 inputs, got 2"),
    "too few inputs": (changed("add", inputs=("grouped",)), "'add': takes 2 to 64 inputs, got 1"),
    "input of an input": (nodes(Input(name="x", inputs=("x",), shape=(1,)), Y), "'x': takes 0 to 0 inputs, got 1"),
    "empty input shape": (small(shape=()), "input node 'x': needs 1 to 8 positive sizes, got \\(\\)"),
    "zero in the input shape": (small(shape=(3, 0)), "needs 1 to 8 positive sizes, got \\(3, 0\\)"),
    "wild input shape": (small(shape=(2**30, 2**30)), "more than 268435456 elements"),
    "convolution in 4 dimensions": (
        small(conv(2, 4, 1, 1, 1, 1)),
        "needs one to three spatial dimensions, got a kernel of",
    ),
    "convolution of more dimensions": (small(conv(2, 4, 1, 1, 1)), "takes channels and 3 dimensions, got"),
    "convolution of another rank": (small(conv(2, 4, 1)), "takes channels and 1 dimensions, got \\(4, 6, 6\\)"),
    "convolution of other channels": (
        small(conv(2, 3, 1, 1)),
        "1 groups of 3 input channels and 2 outputs do not fit 4",
    ),
    "groups that do not divide outputs": (
        small(conv(3, 2, 1, 1, groups=2)),
        "2 groups of 2 input channels and 3 outputs",
    ),
    "no groups": (small(conv(2, 4, 1, 1, groups=0)), "0 groups of 4 input channels"),
    "negative groups": (small(conv(2, 4, 1, 1, groups=-1)), "-1 groups of 4 input channels"),
    "kernel too large": (
        small(conv(2, 4, 7, 1)),
        "a window of \\(7, 1\\) dilated by \\(1, 1\\) does not fit \\(6, 6\\)",
    ),
    "dilation too large": (small(conv(2, 4, 3, 3, dilation=(3, 1))), "does not fit \\(6, 6\\)"),
    "stride 0": (
        small(conv(2, 4, 1, 1, stride=(1, 0))),
        "needs 2 numbers in 1 .. 32768 for its stride, got \\(1, 0\\)",
    ),
    "one stride": (small(conv(2, 4, 1, 1, stride=(1,))), "needs 2 numbers in 1 .. 32768 for its stride"),
    "negative padding": (small(conv(2, 4, 1, 1, padding=(-1, 0))), "needs 2 numbers in 0 .. 32768 for its padding"),
    "dilation 0": (small(conv(2, 4, 1, 1, dilation=(0, 1))), "for its dilation, got \\(0, 1\\)"),
    "wild stride": (small(conv(2, 4, 1, 1, stride=(2**40, 1))), "for its stride"),
    "bias of another length": (
        small(conv(2, 4, 1, 1, bias=np.zeros(3, np.int32))),
        "needs a bias of 2 signed integers",
    ),
    "bias in float": (small(conv(2, 4, 1, 1, bias=np.zeros(2))), "needs a bias of 2 signed integers, got float64"),
    "bias unsigned": (small(conv(2, 4, 1, 1, bias=np.zeros(2, np.uint32))), "needs a bias of 2 signed integers"),
    "bias beyond 32 bits": (
        small(conv(2, 4, 1, 1, bias=np.array([0, 2**31]))),
        "conv node 'c': its integers can reach -?\\d+ .. 2147\\d+, which does not fit 32 bits; use fewer states",
    ),
    "linear of another width": (
        small(Linear(name="l", inputs=("x",), weight=weight(3, 2, 5), exponent=0)),
        "linear node 'l': a weight of \\(2, 5\\) does not fit \\(4, 6, 6\\); the last dimensions must agree",
    ),
    "linear with a kernel": (
        small(Linear(name="l", inputs=("x",), weight=weight(3, 2, 6, 1), exponent=0)),
        "linear node 'l': a weight of \\(2, 6, 1\\) does not fit",
    ),
    "axis beyond": (changed("stem.act", axis=3), "thresholds node 'stem.act': axis 3 is none of the dimensions"),
    "negative axis": (changed("add.act", axis=-1), "fixed_point node 'add.act': axis -1 is none"),
    "another axis": (changed("stem.act", axis=1), "needs signed integer thresholds of shape \\(3, 9\\), got int16"),
    "thresholds of other states": (changed("stem.act", states=States(count=5, signed=False)), "of shape \\(4, 8\\)"),
    "thresholds in float": (changed("stem.act", thresholds=ACT.thresholds * 1.0), "got float64 of shape \\(3, 8\\)"),
    "thresholds unsigned": (changed("stem.act", thresholds=abs(ACT.thresholds).astype(np.uint8)), "got uint8"),
    "falling thresholds": (changed("stem.act", thresholds=ACT.thresholds[::-1]), "'stem.act': thresholds must ascend"),
    "thresholds that wrap in 64 bits when subtracted": (
        changed("stem.act", thresholds=np.repeat(np.array([[0], [2**63 - 1], [-(2**63)]]), 8, 1)),
        "thresholds must ascend",
    ),
    "thresholds that wrap when subtracted": (
        changed("stem.act", thresholds=np.repeat(np.array([[127], [-128], [127]], np.int8), 8, 1)),
        "thresholds must ascend",
    ),
    "sign of 2": (changed("stem.act", signs=ACT.signs * np.int8(2)), "needs 8 signs of 1 or -1 in int8"),
    "sign of 0": (changed("stem.act", signs=ACT.signs * np.int8(0)), "needs 8 signs of 1 or -1 in int8"),
    "wide signs": (changed("stem.act", signs=ACT.signs.astype(np.int16)), "needs 8 signs of 1 or -1 in int8"),
    "signs too few": (changed("stem.act", signs=ACT.signs[:7]), "needs 8 signs of 1 or -1 in int8"),
    "multipliers too few": (
        changed("add.act", multiplier=AFFINE.multiplier[:7]),
        "needs 8 signed integer multipliers A",
    ),
    "offsets in float": (
        changed("add.act", offset=AFFINE.offset * 1.0),
        "needs 8 signed integer offsets B, got float64",
    ),
    "shift of 63": (changed("add.act", shift=63), "shift K must be in 0 .. 62, got 63"),
    "negative shift": (changed("add.act", shift=-1), "shift K must be in 0 .. 62, got -1"),
    "products beyond 64 bits": (
        changed("add.act", multiplier=np.full(8, 2**57)),
        "fixed_point node 'add.act': A \\* x \\+ B can reach \\d+, which does not fit 64 bits",
    ),
    "multiplier whose magnitude wraps": (changed("add.act", multiplier=np.full(8, -(2**63))), "does not fit 64 bits"),
    "offset whose magnitude wraps": (changed("add.act", offset=np.full(8, -(2**63))), "does not fit 64 bits"),
    "pool in 4 dimensions": (
        changed("pool", kernel=(1,) * 4),
        "needs one to three spatial dimensions, got a kernel of",
    ),
    "trailing padding of another rank": (
        changed("pool", trailing=(1,)),
        "needs 2 numbers in 0 .. 32768 for its padding",
    ),
    "negative dilation": (changed("pool", dilation=(1, -1)), "needs 2 numbers in 1 .. 32768 for its dilation"),
    "pool of another rank": (changed("pool", kernel=(2,)), "takes channels and 1 dimensions, got \\(8, 9, 4\\)"),
    "pool too large": (changed("pool", kernel=(12, 2)), "does not fit \\(9, 4\\) padded by \\(1, 0\\)"),
    "pool of kernel 0": (changed("pool", kernel=(0, 2)), "for its kernel, got \\(0, 2\\)"),
    "empty windows": (changed("pool", padding=(3, 0)), "must leave a position of the input in every window"),
    "empty windows at the end": (
        changed("pool", trailing=(9, 0)),
        "must leave a position of the input in every window",
    ),
    "reshape of other elements": (
        small(Reshape(name="r", inputs=("x",), shape=(7, 3))),
        "does not hold the 144 elements",
    ),
    "reshape to nothing": (small(Reshape(name="r", inputs=("x",), shape=())), "does not hold the 144 elements"),
    "permutation of other dimensions": (
        small(Permute(name="p", inputs=("x",), order=(0, 2))),
        "does not name each of the dimensions",
    ),
    "index out of range": (gathered(0, 6), "needs a list of indices in -1 .. 5"),
    "index below the fill": (gathered(0, -2), "needs a list of indices in -1 .. 5"),
    "no indices": (gathered(), "needs a list of indices in -1 .. 5"),
    "wild fill": (gathered(-1, fill=2**31), "code 2147483648 does not fit 32 bits"),
    "product of other shapes": (
        small(Reshape(name="g", inputs=("x",), shape=(2, 12, 6)), Multiply(name="m", inputs=("x", "g"))),
        "needs shapes that are equal where neither is 1",
    ),
    "wild sums": (
        small(SumPool(name="s", inputs=("x",), kernel=(2**15,) * 2, stride=(1, 1), padding=(2**15,) * 2, shift=0)),
        "sum_pool node 's': its integers can reach -137438953472 .. \\d+, which does not fit 32 bits",
    ),
    "global sum of a vector": (
        small(GlobalSum(name="g", inputs=("x",), shift=0), shape=(4,)),
        "takes channels and at least",
    ),
    "wild exponent": (
        small(GlobalSum(name="g", inputs=("x",), shift=10**6)),
        "global_sum node 'g': exponent -1000006 is not within \\+-512",
    ),
    "units apart": (
        changed("add", shifts=(0, 1)),
        "add node 'add': shifts \\(0, 1\\) do not bring its inputs to one unit",
    ),
    "one shift": (changed("add", shifts=(0,)), "needs a shift in 0 .. 31 for each of 2 inputs, got \\(0,\\)"),
    "negative shift of a sum": (changed("add", shifts=(-2, 0)), "needs a shift in 0 .. 31"),
    "wild shift": (changed("add", shifts=(60, 62)), "needs a shift in 0 .. 31"),
    "shifted beyond 32 bits": (
        small(Add(name="a", inputs=("x", "x"), shifts=(31, 31))),
        "add node 'a': its inputs shifted by \\(31, 31\\) do not fit 32 bits",
    ),
    "sum beyond 32 bits": (
        small(Add(name="a", inputs=("x",) * 64, shifts=(23,) * 64)),
        "add node 'a': its integers can reach -68719476736 .. \\d+, which does not fit 32 bits",
    ),
    "sum of other shapes": (changed("add", inputs=("grouped", "pool")), "'add': shifts|equal shapes"),
    "concat of other shapes": (
        changed("concat", axis=1, inputs=("stem.act", "add.act")),
        "'concat': needs equal shapes but",
    ),
    "concat of other ranks": (
        changed("features", inputs=("global", "add.act"), shifts=(0, 2)),
        "needs equal shapes but",
    ),
    "concat axis": (changed("concat", axis=3), "concat node 'concat': axis 3 is none of the dimensions of"),
    "labels": (labelled(GRAPH.nodes, "logits", 1), "1 labels do not fit output 'logits' of shape \\(5,\\)"),
    "labels of a map": (labelled((X, Y), "y", 4), "4 labels do not fit output 'y' of shape"),
    "labels of another output": (labelled((X, Y), "z", 4), "4 labels do not fit output 'z' of shape None"),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_inconsistency_has_its_error(case: str):
    make, message = WRONG[case]
    with pytest.raises(GraphError, match=message):
        make().validate()


def test_a_fan_in_that_could_wrap_is_refused():
    class Wide:
        shape = (1, 2**31)
        length = 2**31
        states = States(count=256, signed=True)

    node = Linear(name="l", inputs=("x",), weight=Wide(), exponent=0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(GraphError, match="2147483648 inputs with codes up to 255 do not fit 32 bits"):
        node.accumulators(GRAPH.types["input"])


def test_types():
    GRAPH.validate()
    types = GRAPH.types
    assert types["stem"].shape == (8, 9, 4)
    assert types["stem"].exponent == -10
    assert types["stem"].interval.low.shape == (8, 1, 1)
    assert types["stem"].dtype == np.int16
    assert types["stem.act"].grid == Grid(low=0, high=3, exponent=0)
    assert types["add.act"].grid == Grid(low=-5, high=5, exponent=-1)
    assert types["concat"].shape == (16, 5, 3)
    low, high = types["concat"].interval.low, types["concat"].interval.high
    assert low.reshape(-1).tolist() == [0] * 8 + [-5] * 8
    assert high.reshape(-1).tolist() == [6] * 8 + [5] * 8
    assert types["flat"].shape == (120,)
    assert types["average"].exponent == types["concat"].exponent - 2
    assert types["features"].interval.high.tolist() == [24] * 16 + [8] * 16
    assert types["logits"] is types["head"]


def test_bounds_of_channels_survive_pooling_and_flattening():
    graph = small(
        conv(2, 4, 1, 1, bias=np.array([1000, -1000])),
        MaxPool(name="m", inputs=("c",), kernel=(2, 2), stride=(2, 2), padding=(0, 0)),
        Flatten(name="f", inputs=("m",)),
    )()
    interval, flat = graph.types["c"].interval, graph.types["f"].interval
    np.testing.assert_array_equal(flat.low, np.repeat(interval.low.reshape(-1), 9))
    np.testing.assert_array_equal(flat.high, np.repeat(interval.high.reshape(-1), 9))
    assert flat.high[0] - flat.high[-1] > 900


def pair(*shape: int) -> list[Input]:
    """Two inputs with codes up to 1 and up to 2."""
    return [
        Input(name=f"x{high}", inputs=(), shape=shape, grid=Grid(low=0, high=high, exponent=0), zero=0)
        for high in (1, 2)
    ]


def beside(name: str, first: str, second: str, axis: int = 0) -> Concat:
    return Concat(name=name, inputs=(first, second), shifts=(0, 0), axis=axis)


LARGE: dict[str, tuple[Callable[[], Graph], int]] = {
    "flatten": (
        nodes(
            *pair(1, 2**20), beside("z", "x1", "x2"), Flatten(name="f", inputs=("z",)), Output(name="y", inputs=("f",))
        ),
        2,
    ),
    "concat": (nodes(*pair(2**20), beside("z", "x1", "x2"), Output(name="y", inputs=("z",))), 2),
    "add": (
        nodes(
            *pair(1024, 1024),
            beside("rows", "x1", "x2", 0),
            beside("columns", "x1", "x2", 1),
            beside("more rows", "columns", "columns", 0),
            beside("more columns", "rows", "rows", 1),
            Add(name="a", inputs=("more rows", "more columns"), shifts=(0, 0)),
            Output(name="y", inputs=("a",)),
        ),
        4,
    ),
}


@pytest.mark.parametrize("case", LARGE)
def test_large_tensors_have_one_pair_of_bounds(case: str):
    """A file of a few hundred bytes must not ask for gigabytes of bounds when it is read."""
    make, highest = LARGE[case]
    interval = make().types["y"].interval
    assert interval.low.size == 1
    assert (interval.lowest, interval.highest) == (0, highest)


def test_text_has_a_line_a_node():
    lines = str(GRAPH).splitlines()
    assert len(lines) == len(GRAPH.nodes)
    assert lines[1].split()[:4] == ["stem", "int16[8,9,4]", "-7397..7393", "*"]
    assert "conv(pool)  3 states 8 x 2 x 3 x 3, stride (1, 1), padding (2, 2), dilation (2, 2), 4 groups" in lines[4]


def test_looking_up_nodes():
    assert GRAPH["pool"].name == "pool"
    assert GRAPH.input.name == "input"
    assert GRAPH.output.name == "logits"
    assert GRAPH.labels("logits")[0] == "ant"
    assert GRAPH.labels("nothing") == ()
    with pytest.raises(KeyError):
        GRAPH["nothing"]


def test_nodes_and_types_are_values():
    with pytest.raises(AttributeError):
        GRAPH["pool"].name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="read-only"):
        GRAPH.types["stem"].interval.low[0] = 0
