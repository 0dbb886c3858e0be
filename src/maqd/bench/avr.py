"""Exported programs on an emulated AVR: 8 bits, an `int` of 16, no shifts by several places. Tables stay in flash."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maqd.bench.microcontroller import PLENTY
from maqd.errors import EngineError, MissingDependencyError
from maqd.export.c99 import Strategy, export_c99
from maqd.export.c99.source import kernels
from maqd.graph import Graph

CHIP, FLASH, RAM = "atmega1284p", 128 * 1024, 16 * 1024
"""The chip with the most RAM of its kind, and its bytes."""

TABLES = 60 * 1024
"""Bytes of tables that addresses of 16 bits reach, beside what lies in front of them."""

PACKAGES = {"avr-gcc": "gcc-avr, avr-libc", "cc": "gcc"}
"""Debian's packages; the emulator's library is in libsimavr-dev and libelf-dev."""

MAIN = """#include <avr/io.h>
#include <stdint.h>
int maqd_selftest(int32_t *image, int32_t *tensor);
int main(void) {
    int32_t image, tensor;
    GPIOR1 = maqd_selftest(&image, &tensor) ? 1 : 0;
    for (;;) {}
}
"""

MARK = "-DMAQD_LAYER(index)=GPIOR0 = (uint8_t)(index);"
"""What avr.c looks at."""


@dataclass(frozen=True, kw_only=True)
class AvrMeasurement:
    """What a program took.

    Args:
        instructions, cycles: Of each operation, in one run.
        flash: Bytes of code and tables.
        ram: Bytes of static memory.
    """

    instructions: tuple[int, ...]
    cycles: tuple[int, ...]
    flash: int
    ram: int


def measure_avr(graph: Graph, strategy: Strategy, images: NDArray[np.generic]) -> AvrMeasurement:
    """Export a graph, run it on an emulated AVR, compare its results, and count.

    Args:
        graph: A valid graph with one input.
        strategy: Of the export.
        images: N x the input's shape; the last one is counted.

    Raises:
        MissingDependencyError: A tool is not installed.
        EngineError: The program does not fit the chip, or gives other integers.
        ExportError: The graph cannot be exported.
    """
    for tool, package in PACKAGES.items():
        if shutil.which(tool) is None:
            raise MissingDependencyError(f"measuring on an AVR needs {tool}; install {package} (Debian's name)")
    exported = export_c99(graph, strategy=strategy, flash=PLENTY, ram=PLENTY, samples=[images])
    if exported.table_bytes > TABLES or exported.arena_bytes > RAM:
        raise EngineError(
            f"an {CHIP} has {TABLES:,} bytes for tables and {RAM:,} of RAM, and the network needs "
            f"{exported.table_bytes:,} and {exported.arena_bytes:,}: make it narrower"
        )
    with tempfile.TemporaryDirectory(prefix="maqd-avr-") as folder:
        root = Path(folder)
        for name, text in {**exported.files, "main.c": MAIN, "avr.c": kernels("qemu/avr.c")}.items():
            if name.endswith((".c", ".h")):
                (root / name).write_text(text)
        _call(["cc", "-O2", "avr.c", "-o", "avr", "-lsimavr", "-lelf"], root, "libsimavr-dev and libelf-dev")
        compiler = ["avr-gcc", f"-mmcu={CHIP}", "-O2", "-std=gnu99", "-include", "avr/io.h", MARK, "-DMAQD_NO_MAIN"]
        _call([*compiler, "-c", "maqd_model.c", "-o", "model.o"], root)
        _call([*compiler, "main.c", "maqd_selftest.c", "model.o", "-o", "program.elf"], root)
        size = subprocess.run(["avr-size", "model.o"], cwd=root, capture_output=True, text=True, check=True).stdout
        done = subprocess.run(["./avr", CHIP, "program.elf"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        what = "gives other integers" if done.returncode == 1 else "does not run"
        raise EngineError(f"the program {what} on an emulated {CHIP}: {done.stdout[-300:]}{done.stderr[-300:]}".strip())
    rows = [tuple(map(int, row)) for row in re.findall(r"^layer \d+ (\d+) (\d+)$", done.stdout, re.MULTILINE)]
    text, data, bss = map(int, size.splitlines()[1].split()[:3])
    return AvrMeasurement(
        instructions=tuple(row[0] for row in rows),
        cycles=tuple(row[1] for row in rows),
        flash=text + data,
        ram=data + bss,
    )


def _call(command: list[str], root: Path, needs: str = "") -> None:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode and needs:
        raise MissingDependencyError(f"measuring on an AVR needs {needs} (Debian's names):\n{done.stderr[:500]}")
    if done.returncode:
        raise EngineError(f"{command[0]} does not take the program:\n{done.stderr[:2000]}")
