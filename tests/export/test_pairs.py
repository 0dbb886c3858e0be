"""Activations that passes compute for two outputs at once: the interpreter's integers."""

import re
from pathlib import Path

import numpy as np
import pytest
from effort import LONG
from graphs import thresholds, weight
from programs import GCC, run_selftests

from maqd.bench.tiny import tiny_network
from maqd.export.c99 import Strategy, export_c99
from maqd.export.c99.operations import EventConv
from maqd.export.c99.program import make_program
from maqd.graph import Add, Conv, Graph, Input, Node, Output, Thresholds
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States

PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
AROUND = {**PLAIN, "padding": (1, 1)}


def paired(graph: Graph) -> bool:
    """Whether a program compares two outputs at once."""
    text = export_c99(graph, strategy=Strategy.FAST).files["maqd_model.c"]
    return re.search(r"^ +maqd_events_pairs\(", text, re.M) is not None


def network(acts: int, states: int, outputs: int, addend: str, seed: int) -> Graph:
    """A convolution of codes to codes, to which codes, a convolution's sums or nothing are added."""
    random = np.random.default_rng(seed)
    nodes: list[Node] = [
        Input(name="input", inputs=(), shape=(2, 4, 5)),
        Conv(name="stem", inputs=("input",), weight=weight(random, 3, outputs, 2, 3, 3), exponent=0, **AROUND),
        thresholds(random, "a", "stem", outputs, acts, 400),
        Conv(
            name="conv",
            inputs=("a",),
            weight=weight(random, states, outputs, outputs, 3, 3),
            exponent=-1,
            **AROUND,
        ),
    ]
    if addend == "nothing":
        return Graph(
            nodes=(
                *nodes,
                thresholds(random, "b", "conv", outputs, acts, 12 * acts),
                Conv(name="last", inputs=("b",), weight=weight(random, 3, 3, outputs, 1, 1), exponent=0, **PLAIN),
                Output(name="logits", inputs=("last",)),
            )
        )
    other = "a"
    if addend == "sums":
        nodes.append(
            Conv(name="short", inputs=("a",), weight=weight(random, 3, outputs, outputs, 1, 1), exponent=0, **PLAIN)
        )
        other = "short"
    return Graph(
        nodes=(
            *nodes,
            Add(name="sum", inputs=("conv", other), shifts=(1, 2)),
            Thresholds(
                name="b",
                inputs=("sum",),
                axis=0,
                states=States(count=acts, signed=False),
                step_exponent=0,
                thresholds=np.sort(random.integers(-30 * acts, 30 * acts, (acts - 1, outputs)), 0).astype(np.int16),
                signs=np.ones(outputs, np.int8),
            ),
            Conv(name="last", inputs=("b",), weight=weight(random, 3, 3, outputs, 1, 1), exponent=0, **PLAIN),
            Output(name="logits", inputs=("last",)),
        )
    )


def test_states_outputs_and_addends(tmp_path: Path) -> None:
    graphs = [
        network(acts, 3 + place % 2, outputs, addend, place)
        for acts in (range(2, 9) if LONG else (2, 3, 4, 8))
        for place, (outputs, addend) in enumerate(
            [(5, "nothing"), (16, "codes"), (26, "sums"), (41, "codes"), (9, "sums"), (64, "nothing")]
        )
    ]
    assert all(map(paired, graphs))
    assert not paired(network(9, 3, 16, "nothing", 0))
    assert run_selftests(graphs, [Strategy.FAST], GCC, tmp_path) == len(graphs)


def test_layers_of_the_same_form_share_their_passes() -> None:
    text = export_c99(tiny_network("ic", activations=4), strategy=Strategy.FAST).files["maqd_model.c"]
    found = re.findall(r"^MAQD_SHARED void (pass\d+_\d+)\(", text, re.M)
    # 1 has no addend and 2 has; 6 is like 3 and 8 like 5, but for the channels of their input.
    assert found == ["pass1_16", "pass2_16", "pass3_32", "pass5_32", "pass10_10"]


@pytest.mark.parametrize(("outputs", "fast", "other"), [(9, 4, 3), (17, 5, 5), (21, 6, 6), (26, 8, 7), (29, 8, 8)])
def test_rows_of_weights_that_are_a_byte_short_of_words_are_padded(outputs: int, fast: int, other: int) -> None:
    for strategy, wanted in ((Strategy.FAST, fast), (Strategy.BALANCED, other)):
        program = make_program(network(4, 3, outputs, "nothing", 0), strategy)
        found = [one.passes[0].bytes for one in program.operations if isinstance(one, EventConv)]
        assert found[0] == wanted


def extreme(acts: int, channels: int, end: int) -> Graph:
    """Sums that are all as large as they can be, and thresholds at them, one beyond, and at the other end."""
    outputs, reach = 10, channels * (acts - 1)
    sign = 1 if end > 0 else -1
    cuts = np.array([-sign * reach, sign * reach, sign * reach + 1])[:, None] + np.zeros((1, outputs), np.int64)
    cuts[:, 1] = [-(2**15), 0, 2**15 - 1]
    return Graph(
        nodes=(
            Input(name="input", inputs=(), shape=(1, 1, 2)),
            Conv(
                name="stem",
                inputs=("input",),
                weight=PackedCodes.pack(np.ones((channels, 1, 1, 1), np.int64), States(count=3, signed=True)),
                exponent=0,
                **PLAIN,
            ),
            Thresholds(
                name="a",
                inputs=("stem",),
                axis=0,
                states=States(count=acts, signed=False),
                step_exponent=0,
                thresholds=np.full((acts - 1, channels), -128, np.int16),
                signs=np.ones(channels, np.int8),
            ),
            Conv(
                name="conv",
                inputs=("a",),
                weight=PackedCodes.pack(np.full((outputs, channels, 1, 1), end), States(count=3, signed=True)),
                exponent=0,
                **PLAIN,
            ),
            Thresholds(
                name="b",
                inputs=("conv",),
                axis=0,
                states=States(count=4, signed=False),
                step_exponent=0,
                thresholds=np.sort(cuts, axis=0).astype(np.int16),
                signs=np.ones(outputs, np.int8),
            ),
            Conv(
                name="last",
                inputs=("b",),
                weight=weight(np.random.default_rng(0), 3, 3, outputs, 1, 1),
                exponent=0,
                **PLAIN,
            ),
            Output(name="logits", inputs=("last",)),
        )
    )


@pytest.mark.parametrize("end", [1, -1])
def test_sums_that_reach_the_halves_ends(end: int, tmp_path: Path) -> None:
    """A half holds sums of magnitudes below 2^14 - 1; beyond them outputs are compared one by one."""
    graphs = [extreme(acts, channels, end) for acts, channels in ((16, 1092), (4, 5460), (16, 1093), (4, 5461))]
    assert [paired(graph) for graph in graphs] == [True, True, False, False]
    assert run_selftests(graphs, [Strategy.FAST], GCC, tmp_path) == len(graphs)
