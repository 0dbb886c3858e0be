"""Programs that take their input row by row: the interpreter's integers, rows that are kept, what calls return."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from graphs import images, thresholds, weight
from programs import GCC, run_selftests

from maqd.export.c99 import Strategy, export_c99
from maqd.export.c99.operations import PixelConv
from maqd.export.c99.program import make_program
from maqd.graph import Add, Concat, Conv, GlobalSum, Graph, Input, Linear, Multiply, Node, Output, SumPool
from maqd.runtime.c99 import WARNINGS


def residual(states: int, *, first: int = 3, fine: bool = False, rows: int = 10) -> Graph:
    """A stem, a block of its width and one that halves rows and columns, with averages in the shortcut; a head."""
    random = np.random.default_rng(states)
    nodes: list[Node] = [Input(name="input", inputs=(), shape=(3, rows, 8))]

    def conv(name: str, source: str, count: int, outputs: int, inputs: int, side: int, stride: int = 1) -> str:
        nodes.append(
            Conv(
                name=name, inputs=(source,), weight=weight(random, count, outputs, inputs, side, side), exponent=0,
                stride=(stride, stride), padding=(side // 2, side // 2), dilation=(1, 1),
            )
        )  # fmt: skip
        return name

    def act(source: str, channels: int, count: int, reach: int, name: str | None = None) -> str:
        nodes.append(thresholds(random, name or f"{source}.act", source, channels, count, reach))
        return nodes[-1].name

    stream = conv("stem", "input", first, 9, 3, 3)
    active = act(stream, 9, states, 900)
    inner = act(conv("a", active, 3, 9, 9, 3), 9, states, 9 * states)
    nodes.append(Add(name="sum", inputs=(conv("b", inner, 3, 9, 9, 3), stream), shifts=(6, 0)))
    active = act("sum", 9, states, 1500)
    source = act("sum", 9, 16, 2000, "fine") if fine else active
    nodes.append(SumPool(name="pool", inputs=(source,), kernel=(2, 2), stride=(2, 2), padding=(0, 0), shift=0))
    shortcut = conv("shortcut", "pool", 15, 34, 9, 1)
    inner = act(conv("c", active, 3, 34, 9, 3, 2), 34, states, 9 * states)
    nodes.append(Add(name="total", inputs=(conv("d", inner, 3, 34, 34, 3), shortcut), shifts=(0, 0)))
    last = act("total", 34, states, 60 * states)
    nodes.append(GlobalSum(name="all", inputs=(last,), shift=0))
    nodes.append(Linear(name="head", inputs=("all",), weight=weight(random, 15, 4, 34), exponent=0))
    return Graph(nodes=(*nodes, Output(name="logits", inputs=("head",))))


def joined(*, wide: bool) -> Graph:
    """Two branches whose channels are joined, a product of two maps, and sums of the whole map of codes or products."""
    random = np.random.default_rng(3)
    nodes: list[Node] = [Input(name="input", inputs=(), shape=(2, 40, 5))]
    for name, outputs in (("a", 5), ("b", 9), ("c", 14)):
        conv = Conv(
            name=name, inputs=("input",), weight=weight(random, 3, outputs, 2, 3, 3), exponent=0, stride=(1, 1),
            padding=(1, 1), dilation=(1, 1),
        )  # fmt: skip
        nodes += [conv, thresholds(random, f"{name}.act", name, outputs, 4, 900)]
    nodes.append(Concat(name="both", inputs=("a.act", "b.act"), axis=0, shifts=(0, 0)))
    nodes.append(Multiply(name="product", inputs=("both", "c.act")))
    last = "product"
    if not wide:
        nodes.append(thresholds(random, "last", "product", 14, 4, 9))
        last = "last"
    nodes.append(GlobalSum(name="all", inputs=(last,), shift=0))
    nodes.append(Linear(name="head", inputs=("all",), weight=weight(random, 3, 4, 14), exponent=0))
    return Graph(nodes=(*nodes, Output(name="logits", inputs=("head",))))


def test_joined_channels_products_and_global_sums_by_rows(tmp_path: Path) -> None:
    graphs = [joined(wide=False), joined(wide=True)]
    for graph in graphs:
        program = make_program(graph, Strategy.BALANCED)
        assert program.memory.early == len(program.operations) - 1
    assert run_selftests([graphs[0], *graphs * 2], list(Strategy), GCC, tmp_path) == 5


def test_residual_networks_equal_the_interpreter(tmp_path: Path) -> None:
    graphs = [residual(states, first=first, fine=fine) for states, first, fine in CASES]
    assert run_selftests(graphs, list(Strategy), GCC, tmp_path) == len(graphs)


CASES = [(2, 3, False), (4, 15, False), (8, 3, False), (16, 3, False), (4, 3, True), (8, 15, True), (2, 15, True)]


@pytest.mark.parametrize("states", [2, 4, 8, 16])
def test_streams_keep_a_few_rows(states: int) -> None:
    program = make_program(residual(states, rows=32), Strategy.FAST)
    assert program.memory.early == len(program.operations) - 1  # all but the head, which reads sums of the whole map
    assert program.memory.size + program.memory.given < (program.whole.size + program.whole.given) / 2
    between = program.memory.codes[1:-2]  # beside the input, the sums of the last map and the result
    assert max(codes.held for codes in between) == 3
    assert all(codes.packed for codes in between if codes.channels == 9 and codes.bits == codes.bits % 8)


def test_averages_read_and_write_fields() -> None:
    for states, bits in ((2, 4), (4, 4), (8, 8), (16, 8)):
        program = make_program(residual(states), Strategy.BALANCED)
        stored = {name: program.stored(buffer) for name, (buffer, _) in program.plan.tensors.items()}
        assert stored["sum.act"].packed
        assert stored["pool"].bits == bits


def test_a_first_kernel_on_pixels_keeps_the_rows_itself() -> None:
    graph = residual(4, rows=32)
    nodes = [graph[name] for name in ("input", "stem", "stem.act", "a")]
    program = make_program(Graph(nodes=(*nodes, Output(name="logits", inputs=("a",)))), Strategy.FAST)
    assert isinstance(program.operations[0], PixelConv)
    assert program.by_rows
    assert program.memory.codes[program.plan.inputs[0].storage].size == 0


MAIN = """#include "maqd_model.h"
#include <stddef.h>
#include <stdio.h>
static const uint8_t image[] = {{{pixels}}};
static uint32_t memory[MAQD_ARENA_BYTES / 4], other[MAQD_ARENA_BYTES / 4];
static int differs(const int32_t *a, const int32_t *b) {{
    for (int i = 0; i < MAQD_CLASSES; i++)
        if (a[i] != b[i]) return 1;
    return 0;
}}
int main(void) {{
    int32_t wanted[MAQD_CLASSES], found[MAQD_CLASSES] = {{0}};
    uint8_t row[MAQD_ROW_SIZE];
    for (size_t i = 0; i < sizeof memory / 4; i++) memory[i] = other[i] = 0xdeadbeefu;
    if (maqd_run(image, wanted) != 0) return 1;
    if (maqd_begin(NULL) != 1 || maqd_begin(memory) != 0 || maqd_begin(other) != 0) return 2;
    if (maqd_push_row(NULL, image) != 1 || maqd_push_row(memory, NULL) != 1) return 3;
    if (maqd_finish(memory, found) != 2) return 4; /* no row has come */
    for (int r = 0; r < MAQD_INPUT_ROWS; r++) {{
        if (maqd_finish(memory, found) != 2) return 5;
        for (size_t i = 0; i < sizeof row; i++) row[i] = image[(size_t)r * sizeof row + i];
        if (maqd_push_row(memory, row) != 0 || maqd_push_row(other, row) != 0) return 6;
        for (size_t i = 0; i < sizeof row; i++) row[i] = 99;
    }}
    if (maqd_push_row(memory, row) != 2) return 7; /* one too many, which changes nothing */
    if (maqd_finish(memory, NULL) != 1 || maqd_finish(memory, found) != 0 || differs(found, wanted)) return 8;
    if (maqd_finish(memory, found) != 2 || maqd_push_row(memory, row) != 2) return 9;
    if (maqd_finish(other, found) != 0 || differs(found, wanted)) return 10;
    if (maqd_run_arena(image, found, memory) != 0 || differs(found, wanted)) return 11;
    return 0;
}}
"""


def test_rows_are_pushed_as_they_come(tmp_path: Path) -> None:
    graph = residual(4)
    pixels = ", ".join(map(str, np.moveaxis(images(graph, 1)[0], 0, -1).reshape(-1)))
    for name, text in export_c99(graph).files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(MAIN.format(pixels=pixels))
    command = ["gcc", *WARNINGS, "-O1", "main.c", "maqd_model.c", "-o", "rows"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    assert subprocess.run(["./rows"], cwd=tmp_path, check=False).returncode == 0


def test_a_whole_input_on_request() -> None:
    exported = export_c99(residual(4), by_rows=False)
    assert "push_row" not in "".join(exported.files.values())
    assert "--whole-input" in export_c99(residual(4)).files["README.md"]
