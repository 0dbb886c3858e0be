"""Exported C programs against the interpreter: every tensor, on several compilers and processors."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from effort import GRAPHS, LONG, long
from graphs import every_node, images, thresholds, weight
from programs import GCC, Toolchain, run_selftests
from random_graphs import random_graphs

from maqd.export.c99 import Strategy
from maqd.graph import Add, Conv, Flatten, Graph, Input, Linear, MaxPool, Output, Thresholds
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.runtime.c99 import CEngine
from maqd.runtime.verify import verify

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TOOLCHAINS = {
    "gcc -O0": Toolchain(compiler="gcc", flags=("-O0",)),
    "gcc -O1": Toolchain(compiler="gcc", flags=("-O1",)),
    "gcc -Og, together": GCC,
    "gcc -O2": Toolchain(compiler="gcc", flags=("-O2",)),
    "gcc -Os": Toolchain(compiler="gcc", flags=("-Os",)),
    "gcc -O3 without clz": Toolchain(compiler="gcc", flags=("-O3", "-DMAQD_NO_CLZ")),
    "clang -O0": Toolchain(compiler="clang", flags=("-O0",)),
    "clang -O2": Toolchain(compiler="clang", flags=("-O2",)),
    "clang -Os": Toolchain(compiler="clang", flags=("-Os",)),
    "sanitizers": Toolchain(compiler="gcc", flags=SANITIZERS),
    "big-endian": Toolchain(
        compiler="s390x-linux-gnu-gcc", flags=("-O2",), runner=("qemu-s390x", "-L", "/usr/s390x-linux-gnu")
    ),
    "32 bits": Toolchain(
        compiler="arm-linux-gnueabi-gcc", flags=("-O2",), runner=("qemu-arm", "-L", "/usr/arm-linux-gnueabi")
    ),
}


OFTEN = "gcc -Og, together"
"""The toolchain of `make test`; the others belong to `make test-all`."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == OFTEN else long) for name in TOOLCHAINS])
def test_random_graphs(name: str, tmp_path: Path) -> None:
    tools = TOOLCHAINS[name]
    for command in (tools.compiler, *tools.runner[:1]):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed; .ci/run says what to install")
    graphs = [every_node(seed) for seed in range(3)] + list(random_graphs(GRAPHS))
    assert run_selftests(graphs, list(Strategy), tools, tmp_path, apart=name != OFTEN) >= 0.9 * len(graphs)


# ---- lanes that are full --------------------------------------------------------------------------------------------


def saturated(weight_states: int, act_states: int, channels: int, kernel: int, sign: int) -> Graph:
    """All activations at their largest, all weights at one end: sums that are as large as they can be."""
    states = States(count=weight_states, signed=True)
    end = states.high if sign > 0 else states.low
    return Graph(
        nodes=(
            Input(name="input", inputs=(), shape=(1, 4, 5)),
            Conv(
                name="stem",
                inputs=("input",),
                weight=PackedCodes.pack(np.ones((channels, 1, 1, 1), np.int64), States(count=3, signed=True)),
                exponent=0,
                stride=(1, 1),
                padding=(0, 0),
                dilation=(1, 1),
            ),
            Thresholds(
                name="act",
                inputs=("stem",),
                axis=0,
                states=States(count=act_states, signed=False),
                step_exponent=0,
                thresholds=np.full((act_states - 1, channels), -128, np.int16),
                signs=np.ones(channels, np.int8),
            ),
            Conv(
                name="conv",
                inputs=("act",),
                weight=PackedCodes.pack(np.full((5, channels, kernel, kernel), end), states),
                exponent=0,
                stride=(1, 1),
                padding=(kernel // 2, kernel // 2),
                dilation=(1, 1),
            ),
            Flatten(name="flat", inputs=("conv",)),
            Linear(name="head", inputs=("flat",), weight=weight(np.random.default_rng(0), 3, 3, 5 * 4 * 5), exponent=0),
            Output(name="logits", inputs=("head",)),
        )
    )


LANES = [(3, 4), *([(16, 16), (2, 2), (3, 2), (4, 4), (5, 4), (3, 16)] if LONG else [])]


@pytest.mark.parametrize(("weight_states", "act_states"), LANES)
def test_lanes_are_emptied_in_time(weight_states: int, act_states: int, tmp_path: Path) -> None:
    per_channel = (weight_states - 1) * (act_states - 1)
    graphs = [
        saturated(weight_states, act_states, channels, kernel, sign)
        for capacity in (255, 32767)
        for edge in (capacity // per_channel, capacity // (3 * per_channel))
        for channels in (edge - 1, edge, edge + 1)
        for kernel in (1, 3)
        for sign in (1, -1)
        if 1 <= channels <= 600
    ]
    assert run_selftests(graphs, [Strategy.BALANCED, Strategy.SIZE], GCC, tmp_path) == len(graphs)


# ---- the engine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_engine_compares_every_tensor_it_stores(strategy: Strategy) -> None:
    graph = every_node()
    engine = CEngine(graph, strategy=strategy, flags=GCC.flags)
    result = verify(graph, [engine], [images(graph, 5)])
    assert result.ok, result
    hidden = {node.name for node in graph.nodes} - {name for name, _ in engine.layers(images(graph, 1))}
    assert hidden == {"input", "flat", "shortcut"}  # the last one is added to its neighbour at once
    np.testing.assert_array_equal(
        engine.run(images(graph, 5)), dict(engine.layers(images(graph, 5)))["logits"].astype(np.int32)
    )


def test_a_wrong_program_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a threshold that is one too high shows as a difference."""
    graph = every_node()
    engine = CEngine(graph)
    text = engine._exported.files["maqd_model.c"]
    place = text.index("static const MAQD_FLASH int16_t thresholds")
    first = text.index("{\n", place) + 2
    value = text[first : text.index(",", first)]
    monkeypatch.setitem(
        engine._exported.files, "maqd_model.c", text[:first] + f" {int(value) + 400}" + text[first + len(value) :]
    )
    result = verify(graph, [engine], [images(graph, 20)])
    assert not result.ok
    assert result.engines[0].first is not None
    assert result.engines[0].first.tensor == "stem.act"


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("huge", [False, True])
def test_sums_with_a_bias_an_addend_and_turned_signs(strategy: Strategy, huge: bool) -> None:
    """What fused activations must leave to others; and a bias near the largest int32, taken off thresholds."""
    random = np.random.default_rng(9)
    one = {"exponent": 0, "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    bias = random.integers(-50, 50, 33).astype(np.int32)
    nodes = [
        Input(name="input", inputs=(), shape=(3, 5, 6)),
        Conv(name="stem", inputs=("input",), weight=weight(random, 3, 33, 3, 3, 3), **one),
        thresholds(random, "act", "stem", 33, 4, 400),
        Conv(name="a", inputs=("act",), weight=weight(random, 3, 33, 33, 3, 3), bias=bias, **one),
    ]
    if huge:
        nodes[-1] = replace(nodes[-1], bias=np.full(33, 2**31 - 5000, np.int32))
        cuts = np.sort(random.integers(2**31 - 5100, 2**31 - 4900, (3, 33)), axis=0)
        last = replace(thresholds(random, "b", "a", 33, 4, 9), thresholds=cuts.astype(np.int32))
    else:
        nodes.append(Add(name="sum", inputs=("a", "stem"), shifts=(6, 0)))
        last = thresholds(random, "b", "sum", 33, 4, 6000)
    nodes += [
        last,
        Conv(name="c", inputs=("b",), weight=weight(random, 3, 7, 33, 3, 3), **one),
        Output(name="logits", inputs=("c",)),
    ]
    graph = Graph(nodes=tuple(nodes))
    result = verify(graph, [CEngine(graph, strategy=strategy, flags=GCC.flags)], [images(graph, 6)])
    assert result.ok, result


def test_packed_pooling_equals_the_interpreter() -> None:
    random = np.random.default_rng(5)
    for count in (2, 3, 4, 16):
        cuts = np.sort(random.integers(-900, 900, (count - 1, 37)), axis=0).astype(np.int16)
        graph = Graph(
            nodes=(
                Input(name="input", inputs=(), shape=(2, 7, 6)),
                Conv(
                    name="stem",
                    inputs=("input",),
                    weight=weight(random, 3, 37, 2, 3, 3),
                    exponent=0,
                    stride=(1, 1),
                    padding=(1, 1),
                    dilation=(1, 1),
                ),
                Thresholds(
                    name="act",
                    inputs=("stem",),
                    axis=0,
                    states=States(count=count, signed=False),
                    step_exponent=0,
                    thresholds=cuts,
                    signs=np.ones(37, np.int8),
                ),
                MaxPool(name="pool", inputs=("act",), kernel=(3, 2), stride=(2, 2), padding=(1, 1)),
                Conv(
                    name="conv",
                    inputs=("pool",),
                    weight=weight(random, 3, 40, 37, 2, 2),
                    exponent=0,
                    stride=(2, 1),
                    padding=(1, 1),
                    dilation=(1, 2),
                ),
                Output(name="logits", inputs=("conv",)),
            )
        )
        engine = CEngine(graph, flags=GCC.flags)
        assert "maqd_max_pool_fields(&x" in engine._exported.files["maqd_model.c"].split("the network")[-1]
        result = verify(graph, [engine], [images(graph, 4)])
        assert result.ok, result
