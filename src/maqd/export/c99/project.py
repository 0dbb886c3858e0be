"""The directory of an exported program."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maqd import __version__
from maqd.errors import ExportError
from maqd.export.c99.choices import MEASURED, Choices
from maqd.export.c99.ends import shape_in_memory
from maqd.export.c99.examples import OPTIMIZATION, Example, example_files, library_properties
from maqd.export.c99.operations import Weighted, step_of
from maqd.export.c99.program import Program, Strategy, make_program
from maqd.export.c99.quantize import quantized, quantizer, write_quantizers
from maqd.export.c99.selftest import make_vectors, random_samples, write_selftest
from maqd.export.c99.source import Source, model_hash, write_source
from maqd.export.c99.targets import Target
from maqd.graph import Graph
from maqd.io.files import write_directory

VECTORS = 2
"""Samples of the self-test."""

STACK = 512
"""Bytes that a function of the program may need on the stack; the Makefile asks the compiler to check."""

CODE = 4096, 1024
"""Bytes of code that are expected, and more of them for each layer; the compiler decides."""

KEYWORDS = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register|"
    "restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while"
)
"""Identifiers that C99 keeps for itself."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        files: Names and contents.
        table_bytes: Of constant tables.
        arena_bytes: Of memory for tensors and scratch.
        source: The program's text and what it traces.
        program: What it was written from.
    """

    files: dict[str, str]
    table_bytes: int
    arena_bytes: int
    source: Source
    program: Program


def is_prefix(text: str) -> bool:
    """Whether C names may begin with it: letters, digits and underscores, a letter first, and no word of C."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) is not None and not KEYWORDS.fullmatch(text)


def export_c99(
    graph: Graph,
    *,
    strategy: Strategy = Strategy.BALANCED,
    target: Target = Target.GENERIC,
    prefix: str = "maqd",
    flash: int | None = None,
    ram: int | None = None,
    samples: Sequence[NDArray[np.generic]] | None = None,
    example: Example | None = None,
    by_rows: bool = True,
    choices: Choices = MEASURED,
) -> Exported:
    """A graph as a C99 program; the same text for the same arguments.

    Args:
        graph: A valid graph.
        strategy: What matters most.
        target: What it is compiled for, and whose memory it must fit.
        prefix: Of all names that are visible outside, and of the files' names.
        flash, ram: Bytes there are, instead of the target's.
        samples: An array for each input, N x its shape, for the self-test; random ones by default.
        example: A minimal program to add, or None.
        by_rows: Whether the program may take its input row by row, where that needs less memory.
        choices: What kernels cost.

    Raises:
        ExportError: The prefix is no identifier, or the network does not fit the memory.
    """
    if not is_prefix(prefix):
        raise ExportError(f"a prefix must be a C identifier that begins with a letter, got {prefix!r}; name another")
    program = make_program(graph, strategy, target, by_rows=by_rows, choices=choices)
    source = write_source(program, prefix)
    _check_memory(program, source, target, flash, ram, by_rows=by_rows)
    vectors = make_vectors(graph, program, source, samples or random_samples(program, VECTORS))
    quantizers = write_quantizers(program.ends, prefix)
    files = {
        f"{prefix}_model.h": source.header,
        f"{prefix}_model.c": source.code,
        f"{prefix}_selftest.c": write_selftest(prefix, program, source, vectors),
        **quantizers,
        "Makefile": _makefile(prefix, target),
        "CMakeLists.txt": _cmake(prefix, [name for name in quantizers if name.endswith(".c")]),
        "README.md": _readme(program, source, prefix, target),
        "library.properties": library_properties(prefix, __version__),
        **({} if example is None else example_files(example, program, target, prefix, vectors)),
    }
    return Exported(
        files=files, table_bytes=source.table_bytes, arena_bytes=program.arena, source=source, program=program
    )


def save_c99(exported: Exported, directory: Path) -> None:
    """Write a program into a directory that is empty or not there.

    Raises:
        ExportError: There is something in the directory.
        OSError: It could not be written; nothing is left of it then.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"{directory} must be an empty or a new directory; remove it or take another one")
    directory.parent.mkdir(parents=True, exist_ok=True)
    write_directory(directory, {name: text.encode() for name, text in exported.files.items()})


def _check_memory(
    program: Program, source: Source, target: Target, flash: int | None, ram: int | None, *, by_rows: bool
) -> None:
    """Refuses what does not fit, and says where to begin."""
    flash = target.device.flash if flash is None else flash
    ram = target.device.ram if ram is None else ram
    code, stack = CODE[0] + CODE[1] * len(program.operations), 2 * STACK
    missing = 0 if flash is None else source.table_bytes + code - flash
    if missing > 0:
        weights = [one.weight_bytes if isinstance(one, Weighted) else 0 for one in program.operations]
        raise ExportError(
            f"{target.value} has {flash:,} bytes of flash; the network needs {source.table_bytes:,} for tables and "
            f"about {code:,} for code, {missing:,} too many. Most are the {max(weights):,} bytes of weights of "
            f"{_largest(program, weights)}: make it narrower, or say with --flash what there is"
        )
    missing = 0 if ram is None else program.arena + stack - ram
    if missing > 0:
        tensors = [
            sum(program.stored(b).size for b in (*step_of(one).links.inputs, *step_of(one).links.outputs))
            for one in program.operations
        ]
        raise ExportError(
            f"{target.value} has {ram:,} bytes of RAM; the network needs {program.arena:,} and about {stack:,} of "
            f"stack, {missing:,} too many. The largest tensors are the {max(tensors):,} bytes around "
            f"{_largest(program, tensors)}: {'' if by_rows else 'leave out --whole-input, '}use fewer channels or "
            "states, a larger stride, or say with --ram what there is"
        )


def _largest(program: Program, sizes: list[int]) -> str:
    """Name of the operation with the largest size."""
    return (*step_of(program.operations[int(np.argmax(sizes))]).links.nodes, "a reordering")[0]


def _makefile(prefix: str, target: Target) -> str:
    flags = " ".join(target.device.flags)
    return f"""# `make` compiles the network for {target.value}; `make test` checks every tensor on this computer.
CC = {target.device.compiler}
CFLAGS = {OPTIMIZATION} {flags}
HOST_CC = cc
WARNINGS = -std=c99 -pedantic -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow

{prefix}_model.o: {prefix}_model.c {prefix}_model.h
	$(CC) $(CFLAGS) $(WARNINGS) -Wstack-usage={STACK} -Werror=stack-usage={STACK} -c $< -o $@

test: {prefix}_selftest
	./{prefix}_selftest

{prefix}_selftest: {prefix}_selftest.c {prefix}_model.c {prefix}_model.h
	$(HOST_CC) -O2 $(WARNINGS) -DMAQD_TRACE {prefix}_selftest.c {prefix}_model.c -o $@

clean:
	rm -f {prefix}_model.o {prefix}_selftest

.PHONY: test clean
"""


def _cmake(prefix: str, more: list[str]) -> str:
    """`more`: source files beside the network's."""
    return f"""cmake_minimum_required(VERSION 3.13)
project({prefix}_model C)

add_library({prefix}_model STATIC {" ".join([f"{prefix}_model.c", *more])})
target_include_directories({prefix}_model PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
set_target_properties({prefix}_model PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF)

enable_testing()
add_executable({prefix}_selftest EXCLUDE_FROM_ALL {prefix}_selftest.c {prefix}_model.c)
target_compile_definitions({prefix}_selftest PRIVATE MAQD_TRACE)
set_target_properties({prefix}_selftest PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF)
add_test(NAME build_{prefix} COMMAND ${{CMAKE_COMMAND}} --build ${{CMAKE_BINARY_DIR}} --target {prefix}_selftest)
add_test(NAME {prefix} COMMAND {prefix}_selftest)
set_tests_properties({prefix} PROPERTIES DEPENDS build_{prefix})
"""


def _arguments(program: Program, prefix: str) -> str:
    """What the arguments are."""
    ends = program.ends
    if ends.plain:
        x, out = program.plan.inputs[0], program.plan.outputs[0]
        return (
            f"`image` is {x.rows} x {x.columns} x {x.channels} (rows, columns, channels), pixels as they are. "
            f"The class is the\nlargest of {out.size} logits."
        )
    lines = [
        f"- `{end.argument}`: {end.type} {' x '.join(map(str, shape_in_memory(end.node.shape)))}"
        + (f"; `{quantizer(end, prefix)}` makes it from floats" if end.node.border is not None else "")
        for end in ends.inputs
    ]
    lines += [
        f"- `{end.argument}`: int32_t {' x '.join(map(str, shape_in_memory(program.graph.types[end.node.name].shape)))}"
        for end in ends.outputs
    ]
    optional = ""
    if quantized(ends):
        optional = f"\n`{prefix}_quantize.c` is optional: it turns floats into integers. The network itself has none.\n"
    return (
        f"The channels are innermost. {prefix}_model.h says what the integers mean.\n\n"
        + "\n".join(lines)
        + f"\n{optional}\n"
    )


def _row_functions(program: Program, prefix: str) -> str:
    """The functions of a program that takes its input row by row."""
    end = program.ends.inputs[0]
    outputs = ", ".join(one.declaration for one in program.ends.outputs)
    return f"""
    int {prefix}_begin(uint32_t *arena);
    int {prefix}_push_row(uint32_t *arena, const {end.type} *row);
    int {prefix}_finish(uint32_t *arena, {outputs});

Rows can be pushed as they come: the input need not be there as a whole.
"""


def _input_memory(program: Program) -> str:
    """RAM with an input that comes row by row, and with one that is there as a whole."""
    if not program.by_rows:
        return ""
    mine, whole = program.memory, program.whole
    return (
        f"| RAM with a row of the input | {mine.size + mine.given:,}: {mine.given:,} for the row |\n"
        f"| computed at once instead | {max(whole.size, 4) + whole.given:,}: {whole.given:,} for the input; "
        "`--whole-input` does that |\n"
    )


def _readme(program: Program, source: Source, prefix: str, target: Target) -> str:
    upper, graph = prefix.upper(), program.graph
    rows = []
    for operation in program.operations:
        links = step_of(operation).links
        stored = [program.stored(buffer) for buffer in links.outputs]
        rows.append(
            f"| {', '.join(links.nodes) or 'reorder'} | {type(operation).__name__} | "
            f"{' + '.join(f'{codes.rows} x {codes.columns} x {codes.channels}' for codes in stored)} | "
            f"{' + '.join(str(codes.bits) for codes in stored)} | {sum(codes.size for codes in stored):,} |"
        )
    return f"""# A network in C99

Written by maqd {__version__} for {target.value}, strategy {program.strategy.value}.

    {program.ends.function(f"{prefix}_run")};
    {program.ends.function(f"{prefix}_run_arena", "uint32_t *arena")};
{_row_functions(program, prefix) if program.by_rows else ""}
{_arguments(program, prefix)} Nothing is allocated, no float is used, and of the C library only
stdint.h and stddef.h are needed. `{prefix}_run_arena` uses memory of the caller, so several threads may run it at once.
`make test` compiles the program here and compares every tensor with what the interpreter computed.

| | bytes |
|---|---|
| flash: tables | {source.table_bytes:,} (`{upper}_TABLE_BYTES`, checked by the compiler) |
| flash: code | what the compiler makes of it; `maqd bench --target` measures it |
| RAM | {program.arena:,} (`{upper}_ARENA_BYTES`), besides the arguments |
{_input_memory(program)}| stack | at most {STACK:,} a function, checked by `make`; calls are two deep |

| layer | kernel | output | bits | bytes |
|---|---|---|---|---|
{chr(10).join(rows)}

Network: {model_hash(graph)}
"""
