"""Programs on emulated microcontrollers: compiled, linked, run, and counted.

QEMU executes instructions exactly and counts no cycles; `cycles` is a model of them. The start-up code, the linker
script and the plugin that counts are in csrc/qemu.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

from maqd.errors import EngineError, MissingDependencyError
from maqd.export.c99 import Target
from maqd.export.c99.boards import BOARDS, Board
from maqd.export.c99.source import kernels

FILES = ("start.c", "main.c", "copy.c", "mark.h", "memory.ld", "count.c")
"""Of csrc/qemu."""

RESERVED = 4096
"""Bytes of flash for start-up code, and of RAM for the stack."""

SECONDS = 300
"""A run that takes longer is broken."""

OLDEST = 5
"""Major version of the oldest GCC that programs are tested with."""


PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv32": "qemu-system-misc",
    "cc": "gcc",
}
"""Debian's packages."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What was executed.

    Args:
        instructions: All of them.
        loads, loaded: Instructions that load, and registers that they load.
        stores, stored: The same for stores.
        taken: Branches, calls and returns that do not go on at the next instruction.
        accumulates: Products of 32 bits that are added to something.
        longs, divides: Products of 64 bits, divisions.
    """

    instructions: int
    loads: int
    loaded: int
    stores: int
    stored: int
    taken: int
    accumulates: int
    longs: int
    divides: int


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Cycles beyond the first one of an instruction.

    Args:
        loaded: For each register that an instruction loads.
        stored: For each register that an instruction stores; from the second one on if `buffered`.
        taken, accumulates, longs, divides: Of these instructions.
        buffered: Whether a write buffer hides the store of one register.
    """

    loaded: int
    stored: int
    taken: int
    accumulates: int
    longs: int
    divides: int
    buffered: bool


COSTS = {
    # Cortex-M4 Technical Reference Manual (Arm DDI 0439), 3.3.1: loads and stores of N registers 1 + N, one register
    # stored 1; a branch 1 + P with P of 1 to 3; products 1; divisions 2 to 12.
    Target.CORTEX_M4: Costs(loaded=1, stored=1, taken=2, accumulates=0, longs=0, divides=6, buffered=True),
    # Cortex-M3 Technical Reference Manual (Arm DDI 0337), 3.3.1: the same, but MLA 2, products of 64 bits 3 to 7.
    Target.CORTEX_M3: Costs(loaded=1, stored=1, taken=2, accumulates=1, longs=3, divides=6, buffered=True),
    # Cortex-M0+ Technical Reference Manual (Arm DDI 0484), 3.3: loads and stores 1 + N, branches 2, a product 1 where
    # the fast multiplier is there.
    Target.CORTEX_M0PLUS: Costs(loaded=1, stored=1, taken=1, accumulates=0, longs=0, divides=0, buffered=False),
}
"""From the processors' manuals, without wait states of the flash and without loads that overlap."""


def cycles(tally: Tally, target: Target) -> int | None:
    """Cycles by the model of `COSTS`; None for processors that have none: they execute several instructions at once."""
    costs = COSTS.get(target)
    if costs is None:
        return None
    stored = tally.stored - tally.stores if costs.buffered else tally.stored
    return (
        tally.instructions
        + costs.loaded * tally.loaded
        + costs.stored * stored
        + costs.taken * tally.taken
        + costs.accumulates * tally.accumulates
        + costs.longs * tally.longs
        + costs.divides * tally.divides
    )


def find(name: str) -> str:
    """Path of a tool.

    Raises:
        MissingDependencyError: It is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise MissingDependencyError(
            f"measuring on a microcontroller needs {name}; install {PACKAGES.get(name, name)} (Debian's name)"
        )
    return path


class Bench:
    """A directory in which programs for a processor are built and run.

    Args:
        root: The directory; the files of csrc/qemu are written there.
        target: The processor.
        optimization: Option of the compiler.

    Attributes:
        board: The machine.
        flags: All options that decide what the compiler makes.
        compiler, emulator: Paths of the tools.

    Raises:
        MissingDependencyError: A tool is not installed, or the compiler is too old.
        EngineError: QEMU has no board for the target.
    """

    def __init__(self, root: Path, target: Target, optimization: str) -> None:
        if target not in BOARDS:
            raise EngineError(f"QEMU has no board for {target.value}; take one of {', '.join(t.value for t in BOARDS)}")
        self.root, self.target, self.board = root, target, BOARDS[target]
        self.compiler, self.emulator, self._host = map(find, (target.device.compiler, self.board.emulator, "cc"))
        number = _output([self.compiler, "-dumpversion"]).strip()
        if int(number.partition(".")[0]) < OLDEST:
            raise MissingDependencyError(f"{target.device.compiler} is GCC {number}; programs need {OLDEST} or newer")
        self.flags = (optimization, *target.device.flags)
        self._common = (*self.flags, "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-std=gnu99")
        for name in FILES:
            (root / name).write_text(kernels(f"qemu/{name}"))

    @property
    def versions(self) -> tuple[str, str]:
        """Of the compiler and of QEMU."""
        compiler, emulator = (_output([tool, "--version"]).splitlines()[0] for tool in (self.compiler, self.emulator))
        return compiler, emulator

    def compile(self, source: str, output: str, *more: str) -> str:
        """An object file; its name."""
        self._call([self.compiler, *self._common, *more, "-c", source, "-o", output])
        return output

    def link(self, objects: list[str], output: str, *more: str) -> None:
        """A program that starts with start.c."""
        start, copy = self.compile("start.c", "start.o"), self.compile("copy.c", "copy.o")
        self._call(
            [
                self.compiler, *self._common, start, copy, *objects, "-nostdlib", "-T", "memory.ld",
                f"-Wl,--defsym=FLASH_ORIGIN={self.board.flash}", f"-Wl,--defsym=RAM_ORIGIN={self.board.ram}",
                f"-Wl,--defsym=RAM_BYTES={self.board.ram_bytes}", "-Wl,--gc-sections", *more, "-lgcc", "-o", output,
            ]
        )  # fmt: skip

    def sizes(self, objects: list[str], entry: str) -> tuple[int, int]:
        """Bytes of flash and RAM of what a function needs, linked with the compiler's library and nothing else."""
        copy = self.compile("copy.c", "copy.o")
        self._call(
            [
                self.compiler, *self._common, *objects, copy, "-nostdlib", f"-Wl,-e,{entry}", "-Wl,--gc-sections",
                "-lgcc", "-o", "alone.elf",
            ]
        )  # fmt: skip
        size = find(self.target.device.compiler.replace("-gcc", "-size"))
        text, data, bss = map(int, _output([size, "alone.elf"], self.root).splitlines()[1].split()[:3])
        return text + data, data + bss

    def run(self, program: str) -> list[Tally]:
        """Executes a program; a tally for each of its layers.

        Raises:
            EngineError: It fails, or does not end.
        """
        self._call([self._host, "-O2", "-shared", "-fPIC", "count.c", "-o", "libcount.so"])
        command = [
            self.emulator, "-M", self.board.machine, *self.board.options, "-nographic", "-monitor", "none", "-serial",
            "none", "-semihosting-config", "enable=on,target=native", "-plugin", "./libcount.so", "-d", "plugin", "-D",
            "count.log", "-kernel", program,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{self.board.machine} did not finish within {SECONDS} s") from error
        if done.returncode:
            raise EngineError(
                f"{self.board.machine} ended with status {done.returncode}: {done.stdout}{done.stderr}".strip()
            )
        log = (self.root / "count.log").read_text()
        names = [field.name for field in fields(Tally)]
        found = {
            int(words[0]): Tally(**dict(zip(names, map(int, words[1:]), strict=True)))
            for words in (line.split() for line in re.findall(r"^layer (.*)$", log, re.MULTILINE))
        }
        return [found[index] for index in sorted(found)]

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(f"{Path(command[0]).name} does not take the program:\n{done.stderr[:2000]}")


def check_board(board: Board, *, flash: int, ram: int) -> None:
    """Refuses a program that the board cannot hold, before it runs.

    Raises:
        EngineError: It does not fit.
    """
    for what, need, there in (
        ("flash", flash + RESERVED, board.flash_bytes),
        ("RAM", ram + RESERVED, board.ram_bytes),
    ):
        if need > there:
            raise EngineError(
                f"QEMU's {board.machine} has {there:,} bytes of {what}, and the program needs {need:,}: make the "
                "network narrower, or measure it on a target whose board has more"
            )


def _output(command: list[str], root: Path | None = None) -> str:
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
