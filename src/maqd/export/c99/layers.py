"""The functions of a program: one for each operation."""

from maqd.errors import ExportError
from maqd.export.c99 import convolution, pixels, planes, steps
from maqd.export.c99.operations import (
    TRITS,
    EventConv,
    FieldConv,
    Operation,
    PixelConv,
    PixelSums,
    PlainConv,
    PlaneConv,
    step_of,
)
from maqd.export.c99.program import Program
from maqd.export.c99.rows import turns
from maqd.export.c99.text import Body, Writer, comment
from maqd.graph.rules import Rules
from maqd.plan import (
    AddStep,
    ConcatStep,
    FixedPointStep,
    MoveStep,
    MultiplyStep,
    PoolStep,
    QuantizeStep,
    SumStep,
    TransposeStep,
)


def write_layers(program: Program, prefix: str) -> tuple[Writer, list[str]]:
    """The functions of all operations in order, and what they need besides.

    Args:
        program: Whose operations they are.
        prefix: Of names that are visible outside.

    Raises:
        ExportError: A number does not fit.
    """
    writer = Writer(program, prefix)
    if any(isinstance(one, EventConv) and one.rows.trits for one in program.operations):
        writer.tables.add("trits", "uint16_t", TRITS)
    return writer, [_function(writer, index, operation) for index, operation in enumerate(program.operations)]


def _function(w: Writer, index: int, operation: Operation) -> str:
    """The function of an operation."""
    links = step_of(operation).links
    shapes = " -> ".join(
        " and ".join(f"{b.rows} x {b.columns} x {b.channels}" for b in side) for side in (links.inputs, links.outputs)
    )
    what = ", ".join(links.nodes) or "reorder"
    body, early = C99.find(operation, what)(w, index, operation), index < w.program.memory.early
    if early and isinstance(operation, SumStep):
        trace = w.trace(operation, row=False)
        trace = (
            [trace[0], f"    if (row == {turns(operation) - 1}) {{", *trace[1:-1], "    }", trace[-1]] if trace else []
        )
    else:
        trace = w.trace(operation, row=early)
    if isinstance(body, Body):
        rows = body.row
        if not early:
            rows = [line if line.startswith("#") else "    " + line for line in rows]
            rows = [f"    for (int32_t row = 0; row < {body.rows}; row++) {{", *rows, "    }"]
        body = [*body.start, *rows]
    return "\n".join(
        [
            f"/* {comment(what)}: {shapes} */",
            f"MAQD_SHARED void layer{index}({', '.join(w.program.parameters(index))}) {{",
            *body,
            *trace,
            *(f"    (void){end.argument};" for end in w.program.handed),
            *(["    (void)row;"] if early else []),  # of tensors of which one row is kept
            "}",
        ]
    )


C99 = Rules(
    "the C export",
    ExportError,
    {
        EventConv: convolution.events,
        FieldConv: convolution.fields,
        PixelConv: pixels.pixels,
        PixelSums: pixels.sums,
        PlaneConv: planes.planes,
        PlainConv: convolution.plain,
        QuantizeStep: steps.activation,
        FixedPointStep: steps.fixed_point,
        PoolStep: steps.pooling,
        SumStep: steps.total,
        AddStep: steps.addition,
        MultiplyStep: steps.product,
        ConcatStep: steps.concatenation,
        TransposeStep: steps.transposition,
        MoveStep: steps.move,
    },
)
"""The text of each kind of operation."""
