"""The functions of a program that takes its input row by row."""

from maqd.export.c99.operations import Pixels, step_of
from maqd.export.c99.pixels import take
from maqd.export.c99.program import Program
from maqd.export.c99.rows import reaches, turns
from maqd.export.c99.text import TYPES, Writer
from maqd.plan import SumStep


def declare_rows(program: Program, name: str) -> str:
    """The declarations, with what they ask for.

    Args:
        program: One that takes its input row by row.
        name: Prefix of its names.
    """
    upper, x = name.upper(), program.plan.inputs[0]
    end = program.ends.inputs[0]
    outputs = ", ".join(one.declaration for one in program.ends.outputs)
    return f"""
/* Rows of the input, and integers of each: [columns][channels]. */
#define {upper}_INPUT_ROWS {x.rows}
#define {upper}_ROW_SIZE {x.columns * x.channels}

/* The same with an input that comes row by row, and is never there as a whole: begin, push all rows in their order,
 * finish. A row may be overwritten as soon as it was pushed. All three return 0, or 1 if a pointer is null; push_row
 * returns 2 where all rows are there already, and finish where rows are missing, which change nothing. */
int {name}_begin(uint32_t *arena);
int {name}_push_row(uint32_t *arena, const {end.type} *row);
int {name}_finish(uint32_t *arena, {outputs});
"""


def write_rows(program: Program, writer: Writer, name: str, later: str, given: str) -> str:
    """The definitions, and the function that runs a whole input with them.

    Args:
        program: One that takes its input row by row.
        writer: Of its layers.
        name: Prefix of its names.
        later: Calls of the layers that run when all rows have come.
        given: Text that hands over the outputs.
    """
    upper, memory, ends = name.upper(), program.memory, program.ends
    end, x = ends.inputs[0], program.plan.inputs[0]
    counts = f"    int32_t *const done = (int32_t *)(void *)(arena + {memory.counts // 4});"
    outputs = " || ".join(f"{one.argument} == NULL" for one in ends.outputs)
    results = ", ".join(one.argument for one in ends.outputs)
    parameters = ", ".join(one.declaration for one in ends.outputs)
    separator = " " if ends.plain else "\n        "
    checks = f" ||{separator}".join(f"{one.argument} == NULL" for one in (*ends.inputs, *ends.outputs))
    return f"""/* Computes the rows that can be computed, each by the last layer that can. done[0] is the number
 * of rows of the input that are there, and done[1 + i] that of layer i's result, or of what it sums up. */
static void advance(maqd_word *arena) {{
{counts}
    for (int32_t i = 0; i < {sum(_rows(program))}; i++) {{
{_choices(program)}
        return;
    }}
}}

int {name}_begin(uint32_t *memory) {{
    maqd_word *const arena = (maqd_word *)memory;
    if (memory == NULL) return 1;
{counts}
    for (int32_t i = 0; i < {memory.early + 1}; i++) done[i] = 0;
    return 0;
}}

int {name}_push_row(uint32_t *memory, const {end.type} *row) {{
    maqd_word *const arena = (maqd_word *)memory;
    if (memory == NULL || row == NULL) return 1;
{counts}
    if (done[0] >= {upper}_INPUT_ROWS) return 2;
{_kept(program, writer)}
    done[0]++;
    advance(arena);
    return 0;
}}

int {name}_finish(uint32_t *memory, {parameters}) {{
    maqd_word *const arena = (maqd_word *)memory;
    if (memory == NULL || {outputs}) return 1;
{counts}
    if (done[0] != {upper}_INPUT_ROWS) return 2;
    done[0]++; /* neither another row nor this once more */
{later}
    MAQD_LAYER(-1)
{given}    return 0;
}}

{ends.function(f"{name}_run_arena", "uint32_t *memory")} {{
    if ({checks} ||{separator}memory == NULL) return 1;
    (void){name}_begin(memory);
    for (int32_t row = 0; row < {x.rows}; row++)
        (void){name}_push_row(memory, {end.argument} + row * {upper}_ROW_SIZE);
    return {name}_finish(memory, {results});
}}"""


def _rows(program: Program) -> list[int]:
    """How often each of the layers that run early is called."""
    return [turns(one) for one in program.operations[: program.memory.early]]


def _choices(program: Program) -> str:
    """The layers that run early, the last one first, each where it has what it reads."""
    rows, lines = _rows(program), []
    source = program.plan.inputs[0].storage
    maker = {source: 0}
    for index in range(len(rows)):
        for buffer in step_of(program.operations[index]).links.outputs:
            maker[buffer.storage] = index + 1
    for index in reversed(range(len(rows))):
        mine = f"done[{index + 1}]"
        conditions = [f"{mine} < {rows[index]}"]
        for reach in reaches(program.operations[index]) or ():
            made = maker[reach.buffer.storage]
            there, limit = f"done[{made}]", reach.buffer.rows
            if made > 0 and isinstance(program.operations[made - 1], SumStep):
                conditions.append(f"{there} == {rows[made - 1]}")
                continue
            more = reach.span - reach.padding
            scaled = mine if reach.stride == 1 else f"{mine} * {reach.stride}"
            wanted = f"{scaled}{f' + {more}' if more > 0 else f' - {-more}' if more < 0 else ''}"
            inside = (rows[index] - 1) * reach.stride + more <= limit
            conditions.append(f"{there} >= {wanted}" if inside else f"({there} == {limit} || {there} >= {wanted})")
        lines += [
            f"        if ({' && '.join(conditions)}) {{",
            f"            MAQD_LAYER({index})",
            f"            layer{index}(arena, {mine}++);",
            "            continue;",
            "        }",
        ]
    return "\n".join(lines)


def _kept(program: Program, writer: Writer) -> str:
    """Keeps a row of the input as its readers take it."""
    end, x = program.ends.inputs[0], program.stored(program.plan.inputs[0])
    first = program.operations[0]
    if x.held == 0 and isinstance(first, Pixels):
        ring = program.memory.scratch[0] // 4
        return f"    {take(writer, 0, first)}(arena + {ring}, row, done[0]);"
    size = x.columns * x.channels
    shift = program.plan.inputs[0].zero - end.zero
    value = f"row[i]{f' + {shift}' if shift > 0 else f' - {-shift}' if shift < 0 else ''}"
    value = value if end.dtype.itemsize * 8 == x.bits and not shift else f"({TYPES[x.bits]})({value})"
    place = f"{x.at('done[0]')} * {size}"
    return (
        f"    {TYPES[x.bits]} *const to = {writer.write(x, place)};\n"
        f"    for (int32_t i = 0; i < {size}; i++) to[i] = {value};"
    )
