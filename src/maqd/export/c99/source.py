"""The text of a program: its header, and its code with tables, kernels and a function for each step."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import maqd
from maqd import __version__
from maqd.errors import ExportError
from maqd.export.c99.ends import Entry, Exit, shape_in_memory
from maqd.export.c99.layers import write_layers
from maqd.export.c99.operations import FieldConv, Pixels, PlaneConv
from maqd.export.c99.program import Program
from maqd.export.c99.quantize import quantizer
from maqd.export.c99.states import declare_states, write_states
from maqd.export.c99.streaming import declare_rows, write_rows
from maqd.export.c99.text import TYPES, Traced, Writer, comment, element
from maqd.graph import Graph, container


@dataclass(frozen=True, kw_only=True)
class Source:
    """A program's text.

    Args:
        header, code: Contents of the .h and .c file.
        table_bytes: Of all constant tables.
        traced: What the numbers mean that tracing passes on, in the order in which tensors appear.
    """

    header: str
    code: str
    table_bytes: int
    traced: tuple[Traced, ...]


def kernels(name: str) -> str:
    """The text of a file in csrc/, from where the package was installed.

    Raises:
        ExportError: It is not there.
    """
    roots = [Path(root) for root in maqd.__path__]
    # A checkout's own files before those that were installed from it.
    for folder in (*(root.parents[1] / "csrc" for root in roots), *(root / "csrc" for root in roots)):
        if (folder / name).is_file():
            return (folder / name).read_text()
    raise ExportError(f"the kernels' source {name} is not installed with the package; install maqd again")


def model_hash(graph: Graph) -> str:
    """SHA-256 of the graph's nodes."""
    return container.fingerprint(graph)


def write_source(program: Program, prefix: str) -> Source:
    """The text of a program.

    Args:
        program: What to write.
        prefix: Of every name that is visible outside.

    Raises:
        ExportError: A number does not fit.
    """
    writer, functions = write_layers(program, prefix)
    return Source(
        header=_header(program, prefix, writer.tables.bytes),
        code=_code(program, prefix, writer, functions),
        table_bytes=writer.tables.bytes,
        traced=tuple(writer.traced),
    )


def _header(program: Program, name: str, table_bytes: int) -> str:
    upper, ends = name.upper(), program.ends
    stateful = bool(program.graph.metadata.memories)
    return f"""/* A network in integers, written by maqd {__version__}. See README.md. */
#ifndef {upper}_MODEL_H
#define {upper}_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

{_plain_ends(program, upper) if ends.plain else _named_ends(program, name)}

/* Bytes of memory that a run needs, besides its arguments and the stack. */
#define {upper}_ARENA_BYTES {program.arena}

/* Bytes of constant tables. */
#define {upper}_TABLE_BYTES {table_bytes}

/* The network (first half of the SHA-256 of its nodes). */
#define {upper}_HASH "{model_hash(program.graph)[:32]}"

/* Computes the outputs in memory of its own: not to be called by two threads at once.
 * Returns 0, or 1 if a pointer is null. */
{ends.function(f"{name}_run")};

/* The same for arrays whose bytes are known when the program runs: 2 if any has other bytes than the network's. */
{ends.sized(f"{name}_run_sized")};

/* The same in the caller's memory: {upper}_ARENA_BYTES bytes, aligned to 4. May be called by several threads, each
 * with memory of its own. Nothing needs to be kept or cleared between calls. */
{ends.function(f"{name}_run_arena", "uint32_t *arena")};
{declare_rows(program, name) if program.by_rows else ""}{declare_states(program, name) if stateful else ""}
#ifdef MAQD_TRACE
/* Called with every tensor that is computed, a part at a time, in the order of memory (channels innermost). Yours. */
void {name}_trace(int32_t tensor, const int32_t *values, int32_t count);
#endif

#ifdef __cplusplus
}}
#endif
#endif
"""


def _plain_ends(program: Program, upper: str) -> str:
    """The constants of a network from an image to logits."""
    x, out = program.plan.inputs[0], program.plan.outputs[0]
    return f"""/* The image: uint8_t [rows][columns][channels], pixels as they are. */
#define {upper}_ROWS {x.rows}
#define {upper}_COLUMNS {x.columns}
#define {upper}_CHANNELS {x.channels}

/* The logits: int32_t; a score is logit * 2^exponent, and the largest one is the class. */
#define {upper}_CLASSES {out.size}
#define {upper}_EXPONENT ({program.graph.types[program.graph.output.name].exponent})"""


def _named_ends(program: Program, name: str) -> str:
    """The constants of each input and output."""
    upper, ends, types = name.upper(), program.ends, program.graph.types
    lines = [
        "/* Inputs, the channels innermost: value = (integer - zero) * 2^exponent, lowest <= integer <= highest. */"
    ]
    for end in ends.inputs:
        grid, start = end.node.grid, f"#define {upper}_{end.argument.upper()}"
        floats = f"; {quantizer(end, name)} makes them from floats" if end.node.border is not None else ""
        lines += [
            f"/* {comment(end.node.key)}: {end.type} {_dimensions(end.node.shape)}{floats} */",
            f"{start}_SIZE {prod(end.node.shape)}",
            f"{start}_ZERO ({end.zero})",
            f"{start}_LOWEST ({grid.low + end.zero})",
            f"{start}_HIGHEST ({grid.high + end.zero})",
            f"{start}_EXPONENT ({grid.exponent})",
        ]
    lines += ["", "/* Outputs, the channels innermost: value = integer * 2^exponent / divisor. */"]
    for end in ends.outputs:
        kind, start = types[end.node.name], f"#define {upper}_{end.argument.upper()}"
        lines += [
            f"/* {comment(end.node.key)}: int32_t {_dimensions(kind.shape)} */",
            f"{start}_SIZE {kind.size}",
            f"{start}_EXPONENT ({kind.exponent})",
            f"{start}_DIVISOR {end.node.divisor}",
        ]
    return "\n".join(lines)


def _dimensions(shape: tuple[int, ...]) -> str:
    return "".join(f"[{size}]" for size in shape_in_memory(shape))


LINKAGE = """#if defined(__GNUC__)
#define MAQD_LINKAGE static __attribute__((unused))
#else
#define MAQD_LINKAGE static
#endif"""


def _code(program: Program, name: str, writer: Writer, functions: list[str]) -> str:
    upper, ends = name.upper(), program.ends
    plain = kernels("c99/kernels.c").replace('#include "kernels.h"\n', "")
    plain = plain.replace('#include "kernels_element.h"\n', kernels("c99/kernels_element.h"))
    handed = [end.argument for end in program.handed]
    separator = " " if ends.plain else "\n        "
    sizes = f" ||{separator}".join(f"{argument}_bytes != {count}u" for argument, count in ends.sizes())
    checks = f" ||{separator}".join(f"{end.argument} == NULL" for end in (*ends.inputs, *ends.outputs))
    calls = "\n".join(
        f"    MAQD_LAYER({index})\n    layer{index}({', '.join((*handed, 'arena'))});"
        for index in range(program.memory.early, len(program.operations))
    )
    taken = "".join(_copied(program, writer, end) for end in ends.inputs)
    given = "".join(_widened(program, writer, end) for end in ends.outputs)
    run = f"""{ends.function(f"{name}_run_arena", "uint32_t *memory")} {{
    maqd_word *const arena = (maqd_word *)memory;
    if ({checks} ||{separator}memory == NULL) return 1;
{taken}{calls}
    MAQD_LAYER(-1)
{given}    return 0;
}}"""
    parts = [
        f"/* Written by maqd {__version__}, strategy {program.strategy.value}. See README.md. */",
        f'#include "{name}_model.h"\n\n#include <stddef.h>\n#include <stdint.h>',
        "/* Yours to define, to count or time layers: what comes before each, and with -1 the end of a run. */\n"
        "#ifndef MAQD_LAYER\n#define MAQD_LAYER(index)\n#endif",
        kernels("c99/packed.h"),
        kernels("c99/activations.h"),
        kernels("c99/pixels.h") if any(isinstance(one, Pixels | FieldConv) for one in program.operations) else "",
        kernels("c99/planes.h") if any(isinstance(one, PlaneConv) for one in program.operations) else "",
        LINKAGE,
        kernels("c99/kernels.h"),
        plain,
        f"/* ---- the network {'-' * 102} */",
        _tracing(name) if writer.traced else "",
        *writer.tables.texts,
        f"typedef char {name}_tables_are_as_large_as_stated[{' + '.join(writer.tables.sizes) or 0} == "
        f"{upper}_TABLE_BYTES ? 1 : -1];\n"
        f"typedef char {name}_arena_is_whole_words[{upper}_ARENA_BYTES % 4 == 0 ? 1 : -1];",
        *writer.shared.values(),
        *functions,
        write_rows(program, writer, name, calls, given) if program.by_rows else run,
        f"""{ends.function(f"{name}_run")} {{
    static uint32_t arena[{upper}_ARENA_BYTES / 4];
    return {name}_run_arena({ends.arguments}, arena);
}}

{ends.sized(f"{name}_run_sized")} {{
    if ({sizes}) return 2;
    return {name}_run({ends.arguments});
}}
""",
        write_states(program, name) if program.graph.metadata.memories else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _copied(program: Program, writer: Writer, end: Entry) -> str:
    """An input as its steps read it, where that is not what the caller has."""
    if not end.copied:
        return ""
    codes = program.stored(end.buffer)
    shift = end.buffer.zero - end.zero
    value = f"{end.argument}[i]{f' + {shift}' if shift > 0 else f' - {-shift}' if shift < 0 else ''}"
    return (
        f"    for (int32_t i = 0; i < {end.buffer.size}; i++)\n"
        f"        (({TYPES[codes.bits]} *){writer.at(codes)})[i] = ({TYPES[codes.bits]})({value});\n"
    )


def _widened(program: Program, writer: Writer, end: Exit) -> str:
    """An output's codes for the caller."""
    codes = program.stored(end.buffer)
    return f"    maqd_widen({writer.at(codes)}, {element(codes)}, {end.buffer.size}, {end.argument});\n"


def _tracing(name: str) -> str:
    return f"""#ifdef MAQD_TRACE
static void trace_codes(int32_t tensor, const maqd_codes *x, const void *from) {{
    int32_t values[16];
    for (int32_t pixel = 0; pixel < x->rows * x->columns; pixel++)
        for (int32_t first = 0; first < x->channels; first += 16) {{
            const int32_t count = x->channels - first < 16 ? x->channels - first : 16;
            for (int32_t i = 0; i < count; i++) {{
                const int32_t c = first + i;
                const ptrdiff_t at = (ptrdiff_t)pixel * x->channels + c;
                if (x->bits == 8) values[i] = ((const uint8_t *)from)[at] - x->zero;
                else if (x->bits == 16) values[i] = ((const int16_t *)from)[at];
                else if (x->bits == 32) values[i] = ((const int32_t *)from)[at];
                else {{
                    const maqd_word *words = (const maqd_word *)from + (ptrdiff_t)pixel * maqd_pixel_words(x);
                    const uint32_t mask = ((uint32_t)1 << x->bits) - 1u;
                    values[i] = (int32_t)((words[c * x->bits / 32] >> (c * x->bits % 32)) & mask);
                }}
            }}
            {name}_trace(tensor, values, count);
        }}
}}
#endif"""
