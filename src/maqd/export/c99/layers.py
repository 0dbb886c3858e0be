"""The functions of a program: one for each operation."""

from maqd.export.c99 import convolution, pixels, planes, steps
from maqd.export.c99.operations import TRITS, EventConv, FieldConv, Operation, PixelConv, PlainConv, PlaneConv, step_of
from maqd.export.c99.program import Program
from maqd.export.c99.text import Writer
from maqd.plan import AddStep, ConcatStep, PoolStep, QuantizeStep, SumStep, TransposeStep


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
    body = "\n".join([*_body(w, index, operation), *w.trace(operation), "    (void)image;"])
    return (
        f"/* {', '.join(links.nodes) or 'reorder'}: {shapes} */\n"
        f"static void layer{index}(const uint8_t *image, maqd_word *arena) {{\n{body}\n}}"
    )


def _body(w: Writer, index: int, operation: Operation) -> list[str]:
    match operation:
        case EventConv():
            return convolution.events(w, index, operation)
        case FieldConv():
            return convolution.fields(w, index, operation)
        case PixelConv():
            return pixels.pixels(w, index, operation)
        case PlaneConv():
            return planes.planes(w, index, operation)
        case PlainConv():
            return convolution.plain(w, index, operation)
        case QuantizeStep():
            return steps.activation(w, index, operation)
        case PoolStep() | SumStep():
            return steps.pooling(w, index, operation)
        case AddStep():
            return steps.addition(w, index, operation)
        case ConcatStep():
            return steps.concatenation(w, index, operation)
        case TransposeStep():
            return steps.transposition(w, operation)
