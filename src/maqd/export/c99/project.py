"""The directory of an exported program."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maqd import __version__
from maqd.errors import ExportError
from maqd.export.c99.operations import Weighted, step_of
from maqd.export.c99.program import Program, Strategy, make_program
from maqd.export.c99.selftest import make_vectors, write_selftest
from maqd.export.c99.source import Source, model_hash, write_source
from maqd.export.c99.targets import Target
from maqd.graph import Graph
from maqd.io.files import write_directory

VECTORS = 2
"""Images of the self-test."""

STACK = 512
"""Bytes that a function of the program may need on the stack; the Makefile asks the compiler to check."""

OPTIMIZATION = "-O2"
"""What compilers are asked for; -Os makes programs 1 to 5% smaller and 25% slower."""

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
    images: NDArray[np.uint8] | None = None,
) -> Exported:
    """A graph as a C99 program; the same text for the same arguments.

    Args:
        graph: A valid graph.
        strategy: What matters most.
        target: What it is compiled for, and whose memory it must fit.
        prefix: Of all names that are visible outside, and of the files' names.
        flash, ram: Bytes there are, instead of the target's.
        images: uint8, N x the input's shape, for the self-test; random ones by default.

    Raises:
        ExportError: The prefix is no identifier, or the network does not fit the memory.
    """
    if not is_prefix(prefix):
        raise ExportError(f"a prefix must be a C identifier that begins with a letter, got {prefix!r}; name another")
    program = make_program(graph, strategy, target)
    source = write_source(program, prefix)
    _check_memory(program, source, target, flash, ram)
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (VECTORS, *graph.input.shape), dtype=np.uint8)
    files = {
        f"{prefix}_model.h": source.header,
        f"{prefix}_model.c": source.code,
        f"{prefix}_selftest.c": write_selftest(prefix, source, make_vectors(graph, source, images)),
        "Makefile": _makefile(prefix, target),
        "CMakeLists.txt": _cmake(prefix),
        "README.md": _readme(program, source, prefix, target),
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


def _check_memory(program: Program, source: Source, target: Target, flash: int | None, ram: int | None) -> None:
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
            f"{_largest(program, tensors)}: use fewer channels or states, a larger stride, or say with --ram what "
            "there is"
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


def _cmake(prefix: str) -> str:
    return f"""cmake_minimum_required(VERSION 3.13)
project({prefix}_model C)

add_library({prefix}_model STATIC {prefix}_model.c)
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


def _readme(program: Program, source: Source, prefix: str, target: Target) -> str:
    upper, graph = prefix.upper(), program.graph
    x = program.plan.input
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

    int {prefix}_run(const uint8_t *image, int32_t *logits);
    int {prefix}_run_arena(const uint8_t *image, int32_t *logits, uint32_t *arena);

`image` is {x.rows} x {x.columns} x {x.channels} (rows, columns, channels), pixels as they are. The class is the
largest of {program.plan.result.size} logits. Nothing is allocated, nothing is a float, and of the C library only
stdint.h and stddef.h are needed. `{prefix}_run_arena` uses memory of the caller, so several threads may run it at once.
`make test` compiles the program here and compares every tensor with what the interpreter computed.

| | bytes |
|---|---|
| flash: tables | {source.table_bytes:,} (`{upper}_TABLE_BYTES`, checked by the compiler) |
| flash: code | what the compiler makes of it; `maqd bench --target` measures it |
| RAM | {max(program.arena, 4):,} (`{upper}_ARENA_BYTES`), besides the image and the logits |
| stack | at most {STACK:,} a function, checked by `make`; calls are two deep |

| layer | kernel | output | bits | bytes |
|---|---|---|---|---|
{chr(10).join(rows)}

Network: {model_hash(graph)}
"""
