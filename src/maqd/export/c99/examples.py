"""Minimal programs around an exported network, which build and run as they are."""

import enum

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ExportError
from maqd.export.c99.boards import BOARDS
from maqd.export.c99.program import Program
from maqd.export.c99.selftest import Vectors
from maqd.export.c99.source import kernels
from maqd.export.c99.targets import Target

OPTIMIZATION = "-O2"
"""What compilers are asked for; -Os makes programs 1 to 5% smaller and 25% slower."""


class Example(enum.Enum):
    """What `maqd export --example` takes."""

    BARE = "bare"
    """A processor without an operating system or C library; runs in QEMU."""
    ARDUINO = "arduino"
    """A sketch."""


def example_files(example: Example, program: Program, target: Target, prefix: str, vectors: Vectors) -> dict[str, str]:
    """Names and contents of an example's files, in a directory of a program.

    Args:
        example: Which one.
        program: What it runs.
        target: The processor.
        prefix: Of the program's names.
        vectors: Of which the first sample is computed and compared.

    Raises:
        ExportError: There is no board for the target.
    """
    if example is Example.ARDUINO:
        return {"examples/Run/Run.ino": _sketch(program, prefix, vectors)}
    if target not in BOARDS:
        raise ExportError(
            f"the bare example needs a processor, got target {target.value!r}; name one with --target: "
            f"{', '.join(one.value for one in BOARDS)}"
        )
    return {
        "example/main.c": _main(program, prefix, vectors),
        "example/start.c": kernels("qemu/start.c"),
        "example/copy.c": kernels("qemu/copy.c"),
        "example/memory.ld": kernels("qemu/memory.ld"),
        "example/Makefile": _makefile(prefix, target),
    }


def _values(values: NDArray[np.integer]) -> str:
    words = [str(value) if value > -(2**31) else "(-2147483647 - 1)" for value in values.tolist()]
    return ",\n".join("    " + ", ".join(words[start : start + 20]) for start in range(0, len(words), 20))


def _data(program: Program, vectors: Vectors) -> str:
    """A sample, what it must give, and the memory for what it gives."""
    ends, tables = program.ends, []
    for end, values in zip(ends.inputs, vectors.inputs, strict=True):
        tables.append(f"static const {end.type} {end.argument}[{values.shape[1]}] = {{\n{_values(values[0])}\n}};")
    for end, values in zip(ends.outputs, vectors.outputs, strict=True):
        size = values.shape[1]
        tables.append(f"static const int32_t expected_{end.argument}[{size}] = {{\n{_values(values[0])}\n}};")
        tables.append(f"static int32_t {end.argument}[{size}];")
    return "\n\n".join(tables)


def _call(program: Program, prefix: str) -> str:
    return f"{prefix}_run({', '.join(end.argument for end in (*program.ends.inputs, *program.ends.outputs))})"


def _comparison(program: Program, vectors: Vectors) -> str:
    """Counts the integers that differ, and finds the place of the largest one of the first output."""
    lines = []
    for end, values in zip(program.ends.outputs, vectors.outputs, strict=True):
        lines.append(f"    for (int32_t i = 0; i < {values.shape[1]}; i++)")
        lines.append(f"        if ({end.argument}[i] != expected_{end.argument}[i]) different++;")
    first = program.ends.outputs[0].argument
    lines.append(f"    for (int32_t i = 0; i < {vectors.outputs[0].shape[1]}; i++)")
    lines.append(f"        if ({first}[i] > {first}[best]) best = i;")
    return "\n".join(lines)


def _main(program: Program, prefix: str, vectors: Vectors) -> str:
    return f"""/* Runs the network once and compares. Put your data where `{program.ends.inputs[0].argument}` is. */
#include "../{prefix}_model.h"

#include <stdint.h>

void print(const char *text);
int main(void);

{_data(program, vectors)}

int main(void) {{
    int32_t best = 0, different = 0, place = 11;
    char text[12] = {{0}};
    if ({_call(program, prefix)} != 0) return 1;
{_comparison(program, vectors)}
    print(different == 0 ? "the same integers; class " : "different integers; class ");
    do text[--place] = (char)('0' + best % 10);
    while ((best /= 10) > 0 && place > 0);
    print(text + place);
    print("\\n");
    return different != 0;
}}
"""


def _makefile(prefix: str, target: Target) -> str:
    board, device = BOARDS[target], target.device
    options = " ".join(board.options)
    return f"""# `make` builds program.elf for {target.value}; `make run` runs it in QEMU's {board.machine}.
# For your board: its memory below, and in start.c what `print` and the end of the program do.
CC = {device.compiler}
CFLAGS = {OPTIMIZATION} {" ".join(device.flags)} -std=gnu99 -ffreestanding -ffunction-sections -fdata-sections
FLASH_ORIGIN = {board.flash:#x}
RAM_ORIGIN = {board.ram:#x}
RAM_BYTES = {board.ram_bytes}
QEMU = {board.emulator} -M {board.machine}{f" {options}" if options else ""}

program.elf: main.c start.c copy.c memory.ld ../{prefix}_model.c ../{prefix}_model.h
	$(CC) $(CFLAGS) -Wall -Wextra main.c start.c copy.c ../{prefix}_model.c -nostdlib -T memory.ld \\
		-Wl,--defsym=FLASH_ORIGIN=$(FLASH_ORIGIN) -Wl,--defsym=RAM_ORIGIN=$(RAM_ORIGIN) \\
		-Wl,--defsym=RAM_BYTES=$(RAM_BYTES) -Wl,--gc-sections -lgcc -o $@

run: program.elf
	$(QEMU) -nographic -monitor none -serial none -semihosting-config enable=on,target=native -kernel program.elf

clean:
	rm -f program.elf

.PHONY: run clean
"""


def _sketch(program: Program, prefix: str, vectors: Vectors) -> str:
    return f"""// Runs the network once and prints. Put your data where `{program.ends.inputs[0].argument}` is.
#include <{prefix}_model.h>

{_data(program, vectors)}

void setup() {{
    int32_t best = 0, different = 0;
    Serial.begin(115200);
    const unsigned long start = millis();
    if ({_call(program, prefix)} != 0) return;
    const unsigned long took = millis() - start;
{_comparison(program, vectors)}
    Serial.print(different == 0 ? F("the same integers; class ") : F("different integers; class "));
    Serial.print(best);
    Serial.print(F(", milliseconds "));
    Serial.println(took);
}}

void loop() {{}}
"""


def library_properties(prefix: str, version: str) -> str:
    """What makes the directory a library for the Arduino IDE."""
    name = prefix.replace("_", " ")
    return f"""name={name} network
version=0.0.1
author=maqd {version}
maintainer=maqd
sentence=A neural network of few states in integers.
paragraph=Exported by maqd; needs no other library, and no memory but its own.
category=Data Processing
url=
architectures=*
includes={prefix}_model.h
"""
