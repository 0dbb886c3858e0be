"""Depthwise layers on bit planes: the interpreter's integers, and that layers take the kernel."""

from pathlib import Path

import numpy as np
import pytest
from effort import LONG
from graphs import images, thresholds, weight
from programs import GCC, run_selftests

from maqd.export.c99 import Strategy
from maqd.export.c99.operations import PlainConv, PlaneConv
from maqd.export.c99.program import make_program
from maqd.graph import Conv, Graph, Input, Output, Thresholds
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.runtime.c99 import CEngine
from maqd.runtime.verify import verify

GEOMETRY = {
    "3 x 3": {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)},
    "stride 2": {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 0), "dilation": (1, 1)},
    "dilated": {"kernel": (2, 3), "stride": (1, 2), "padding": (2, 2), "dilation": (3, 2)},
    "5 x 5": {"kernel": (5, 5), "stride": (3, 1), "padding": (2, 2), "dilation": (1, 1)},
    "stride beyond the window": {"kernel": (1, 2), "stride": (3, 3), "padding": (0, 1), "dilation": (1, 1)},
}


def depthwise(
    acts: int, states: int, channels: int, *, geometry: str = "3 x 3", seed: int = 0, extreme: int | None = None
) -> Graph:
    """A first layer, its activation, and a depthwise layer with an activation, all of it at an end."""
    random = np.random.default_rng(seed)
    shape = dict(GEOMETRY[geometry])
    kernel = shape.pop("kernel")
    kind = States(count=states, signed=True)
    inner = weight(random, states, channels, 1, *kernel)
    first = thresholds(random, "act", "stem", channels, acts, 300)
    if extreme is not None:
        inner = PackedCodes.pack(np.full((channels, 1, *kernel), extreme * kind.high), kind)
        first = Thresholds(
            name="act",
            inputs=("stem",),
            axis=0,
            states=States(count=acts, signed=False),
            step_exponent=0,
            thresholds=np.full((acts - 1, channels), -30000, np.int16),
            signs=np.ones(channels, np.int8),
        )
    reach = max(1, (acts - 1) * (kind.high or 1) * kernel[0] * kernel[1])
    bias = random.integers(-3, 4, channels).astype(np.int32) if seed % 2 else None
    return Graph(
        nodes=(
            Input(name="input", inputs=(), shape=(2, 9, 7)),
            Conv(
                name="stem", inputs=("input",), weight=weight(random, 3, channels, 2, 1, 1), exponent=0,
                stride=(1, 1), padding=(0, 0), dilation=(1, 1),
            ),
            first,
            Conv(
                name="depthwise", inputs=("act",), weight=inner, exponent=0, groups=channels, bias=bias, **shape
            ),
            thresholds(random, "after", "depthwise", channels, acts, reach if extreme else max(2, reach // 3)),
            Conv(
                name="last", inputs=("after",), weight=weight(random, 3, 5, channels, 1, 1), exponent=0,
                stride=(1, 1), padding=(0, 0), dilation=(1, 1),
            ),
            Output(name="logits", inputs=("last",)),
        )
    )  # fmt: skip


def kernel_of(graph: Graph) -> type:
    return next(
        type(one)
        for one in make_program(graph, Strategy.BALANCED).operations
        if isinstance(one, PlaneConv | PlainConv) and "depthwise" in one.step.links.nodes
    )


def test_states_channels_and_geometries(tmp_path: Path) -> None:
    cases = [(acts, states) for acts in (2, 3, 4, 6, 8, 16) for states in (2, 3, 4, 7, 15, 16)]
    cases = cases if LONG else cases[::2]
    graphs = [
        depthwise(acts, states, (17, 33, 64, 40)[place % 4], geometry=list(GEOMETRY)[place % 5], seed=place)
        for place, (acts, states) in enumerate(cases)
    ]
    assert all(kernel_of(graph) is PlaneConv for graph in graphs)
    assert run_selftests(graphs, list(Strategy), GCC, tmp_path) == len(graphs)


def test_the_largest_sums(tmp_path: Path) -> None:
    graphs = [
        depthwise(acts, states, 33, seed=seed, extreme=extreme)
        for seed, (acts, states) in enumerate(((2, 3), (4, 3), (16, 3), (3, 15), (16, 16)))
        for extreme in (1, -1)
    ]
    assert run_selftests(graphs, [Strategy.FAST], GCC, tmp_path) == len(graphs)


@pytest.mark.parametrize(("acts", "states"), [(17, 3), (4, 33)])
def test_what_planes_cannot_take_stays_exact(acts: int, states: int) -> None:
    graph = depthwise(acts, states, 20)
    assert kernel_of(graph) is PlainConv
    assert verify(graph, [CEngine(graph)], [images(graph, 4)]).ok
