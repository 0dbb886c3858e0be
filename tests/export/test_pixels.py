"""First layers on pixels, and steps that read fields: the interpreter's integers."""

from pathlib import Path

import numpy as np
from graphs import images, thresholds, weight
from programs import GCC, run_selftests

from maqd.export.c99 import Strategy, Target
from maqd.export.c99.operations import EventConv, FieldConv, PixelConv
from maqd.export.c99.program import make_program
from maqd.graph import Add, Conv, GlobalSum, Graph, Input, Linear, Output
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.runtime.c99 import CEngine
from maqd.runtime.verify import verify

PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}


def first_layer(
    acts: int,
    states: int,
    outputs: int,
    *,
    image: tuple[int, int, int] = (3, 7, 8),
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    end: int = 0,
    seed: int = 0,
) -> Graph:
    """A first layer of random weights, or all of them at one end, and a layer that reads its codes."""
    random = np.random.default_rng(seed)
    kind = States(count=states, signed=True)
    shape = (outputs, image[0], *kernel)
    inner = weight(random, states, *shape)
    if end:
        inner = PackedCodes.pack(np.full(shape, end * kind.high), kind)
    taps = image[0] * kernel[0] * kernel[1]
    reach = 128 * taps * kind.high if end else 100 * kind.high * int(taps**0.5)
    bias = random.integers(-99, 100, outputs).astype(np.int32) if seed % 2 else None
    return Graph(
        nodes=(
            Input(name="input", inputs=(), shape=image),
            Conv(
                name="stem", inputs=("input",), weight=inner, exponent=0, bias=bias, stride=stride, padding=padding,
                dilation=(2, 1) if seed % 3 == 1 else (1, 1),
            ),
            thresholds(random, "act", "stem", outputs, acts, min(reach, 32000)),
            Conv(name="last", inputs=("act",), weight=weight(random, 3, 5, outputs, 1, 1), exponent=0, **PLAIN),
            Output(name="logits", inputs=("last",)),
        )
    )  # fmt: skip


def kernel_of(graph: Graph, strategy: Strategy = Strategy.FAST) -> type:
    return type(make_program(graph, strategy).operations[0])


def test_states_outputs_and_geometries(tmp_path: Path) -> None:
    shapes = (
        {},
        {"stride": (2, 2), "padding": (1, 0)},
        {"image": (1, 12, 9), "kernel": (10, 4), "stride": (2, 2), "padding": (5, 1)},
        {"image": (2, 4, 30), "kernel": (2, 11), "padding": (0, 5)},
        {"image": (3, 9, 5), "kernel": (1, 1), "stride": (3, 2), "padding": (0, 0)},
    )
    graphs = [
        first_layer(acts, states, outputs, seed=place, **shapes[place % len(shapes)])
        for place, (acts, states, outputs) in enumerate(
            (acts, states, outputs)
            for acts in (2, 3, 4, 7, 16)
            for states, outputs in ((2, 8), (3, 33), (4, 20), (15, 16), (15, 5), (16, 64))
        )
    ]
    sums = [255 * int(np.abs(g["stem"].weight.unpack().astype(int)).sum((1, 2, 3)).max()) for g in graphs]
    assert [kernel_of(g) is PixelConv for g in graphs] == [one < 2**16 for one in sums]
    assert sum(one < 2**15 for one in sums) >= 10
    assert sum(2**15 <= one < 2**16 for one in sums) >= 4
    assert run_selftests(graphs, [Strategy.FAST, Strategy.BALANCED], GCC, tmp_path) == len(graphs)


def test_sums_at_the_ends_of_their_words(tmp_path: Path) -> None:
    """255 * (sum of |w|) just below and above 2^15, where two sums cannot be compared at once, and 2^16, where events
    take the layer.
    """
    cases = [(3, channels) for channels in (127, 128, 129, 255, 256)] + [(15, 18), (15, 19), (15, 36)]
    graphs = [
        first_layer(4, states, 9, image=(channels, 2, 3), kernel=(1, 1), padding=(0, 0), end=end)
        for states, channels in cases
        for end in (1, -1)
    ]
    found = [kernel_of(graph) for graph in graphs]
    assert found == [PixelConv] * 16
    assert run_selftests(graphs, [Strategy.FAST], GCC, tmp_path) == len(graphs)
    beyond = first_layer(4, 15, 9, image=(37, 2, 3), kernel=(1, 1), padding=(0, 0), end=1)
    assert kernel_of(beyond) is EventConv
    assert verify(beyond, [CEngine(beyond, strategy=Strategy.FAST)], [images(beyond, 3)]).ok


def test_small_programs_keep_small_weights() -> None:
    assert kernel_of(first_layer(4, 15, 16), Strategy.SIZE) is EventConv


def fields(acts: int) -> Graph:
    random = np.random.default_rng(acts)
    around = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    return Graph(
        nodes=(
            Input(name="input", inputs=(), shape=(2, 9, 8)),
            Conv(name="stem", inputs=("input",), weight=weight(random, 3, 37, 2, 3, 3), exponent=0, **around),
            thresholds(random, "a", "stem", 37, acts, 400),
            Conv(name="conv", inputs=("a",), weight=weight(random, 3, 37, 37, 3, 3), exponent=-2, **around),
            Add(name="sum", inputs=("conv", "a"), shifts=(0, 2)),
            thresholds(random, "b", "sum", 37, acts, 9 * acts),
            GlobalSum(name="pool", inputs=("b",), shift=0),
            Output(name="logits", inputs=("pool",)),
        )
    )


def test_addends_and_sums_of_fields(tmp_path: Path) -> None:
    graphs = [fields(acts) for acts in (2, 3, 4, 16)]
    for graph in graphs:
        program = make_program(graph, Strategy.FAST)
        codes = [program.stored(one.step.codes) for one in program.operations if isinstance(one, EventConv | PixelConv)]
        assert [one.packed for one in codes] == [True, True]
    every = [graph for graph in graphs for _ in Strategy]
    assert run_selftests(every, list(Strategy), GCC, tmp_path) == len(every)


def dense(states: int, inputs: int, end: int) -> Graph:
    random, kind = np.random.default_rng(inputs), States(count=states, signed=True)
    inner = weight(random, states, 21, inputs)
    if end:
        inner = PackedCodes.pack(np.full((21, inputs), end * kind.high), kind)
    return Graph(
        nodes=(
            Input(name="input", inputs=(), shape=(inputs,)),
            Linear(
                name="dense", inputs=("input",), weight=inner, exponent=0,
                bias=random.integers(-99, 99, 21).astype(np.int32),
            ),
            thresholds(random, "act", "dense", 21, 4, 3000),
            Linear(name="last", inputs=("act",), weight=weight(random, 3, 70, 21), exponent=0),
            Output(name="logits", inputs=("last",)),
        )
    )  # fmt: skip


def test_dense_layers_on_the_whole_image(tmp_path: Path) -> None:
    """Also images that are 0 or 255 everywhere, with all weights at one end."""
    ends = ((640, 0), (129, 1), (127, -1), (13, 0))
    graphs = [dense(states, inputs, end) for states in (2, 3, 4) for inputs, end in ends]
    for graph in graphs:
        assert type(make_program(graph, Strategy.FAST).operations[0]) is FieldConv
        assert type(make_program(graph, Strategy.FAST, Target.CORTEX_M0PLUS).operations[0]) is not FieldConv
    strategies = [Strategy.FAST, Strategy.BALANCED]
    assert run_selftests([graph for graph in graphs for _ in strategies], strategies, GCC, tmp_path) == 2 * len(graphs)
