"""Exported programs on an emulated microcontroller: instructions of each layer, flash, RAM and stack.

QEMU does not count cycles; instructions are what it executes exactly. The programs' start-up code, linker script and
the plugin that counts are in csrc/qemu.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from maqd.errors import EngineError, MissingDependencyError
from maqd.export.c99 import Exported, Target
from maqd.export.c99.project import OPTIMIZATION
from maqd.export.c99.source import kernels

PACKAGES = "gcc-arm-none-eabi and qemu-system-arm (Debian's names)"
"""What has to be installed."""

FILES = ("start.c", "main.c", "mark.h", "memory.ld", "count.c")
"""Of csrc/qemu."""

RESERVED = 4096
"""Bytes of flash for start-up code, and of RAM for the stack."""

SECONDS = 300
"""A run that takes longer is broken."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A machine of QEMU.

    Args:
        machine: Its name there.
        flash, ram: Where they begin.
        flash_bytes, ram_bytes: How large they are.
    """

    machine: str
    flash: int
    ram: int
    flash_bytes: int
    ram_bytes: int


BOARDS = {
    Target.CORTEX_M0PLUS: Board(
        machine="mps2-an385", flash=0, ram=0x20000000, flash_bytes=4 * 2**20, ram_bytes=4 * 2**20
    ),
    Target.CORTEX_M3: Board(machine="mps2-an385", flash=0, ram=0x20000000, flash_bytes=4 * 2**20, ram_bytes=4 * 2**20),
    Target.CORTEX_M4: Board(machine="mps2-an386", flash=0, ram=0x20000000, flash_bytes=4 * 2**20, ram_bytes=4 * 2**20),
    Target.CORTEX_M7: Board(machine="mps2-an500", flash=0, ram=0x20000000, flash_bytes=4 * 2**20, ram_bytes=4 * 2**20),
    Target.CORTEX_M33: Board(
        machine="mps2-an505", flash=0x10000000, ram=0x38000000, flash_bytes=4 * 2**20, ram_bytes=4 * 2**20
    ),
    Target.CORTEX_M55: Board(
        machine="mps3-an547", flash=0x10000000, ram=0x31000000, flash_bytes=512 * 1024, ram_bytes=2 * 2**20
    ),
}
"""A Cortex-M0+ is measured on the board of a Cortex-M3: it has its instructions, and QEMU's board with a Cortex-M0 has
too little memory."""


@dataclass(frozen=True, kw_only=True)
class Emulation:
    """What a program took.

    Args:
        instructions: Of each of the program's operations, in one run.
        flash: Bytes of code and tables.
        ram: Bytes of static memory: the arena.
        stack: Bytes that the deepest chain of the program's functions needs.
        compiler, emulator: Versions.
        flags: The compiler's options.
    """

    instructions: tuple[int, ...]
    flash: int
    ram: int
    stack: int
    compiler: str
    emulator: str
    flags: tuple[str, ...]


def emulate(exported: Exported, target: Target, *, prefix: str = "maqd") -> Emulation:
    """Compile a program with its self-test, run it, and count.

    Args:
        exported: The program.
        target: Which processor.
        prefix: The program's.

    Raises:
        MissingDependencyError: The compiler or QEMU is not installed.
        EngineError: There is no board for the target, the program does not fit it, or gives other integers.
    """
    if target not in BOARDS:
        raise EngineError(f"QEMU has no board for {target.value}; take one of {', '.join(t.value for t in BOARDS)}")
    board, device = BOARDS[target], target.device
    compiler, emulator, host = (_find(name) for name in (device.compiler, "qemu-system-arm", "cc"))
    flags = (OPTIMIZATION, *device.flags)
    with tempfile.TemporaryDirectory(prefix="maqd-qemu-") as folder:
        root = Path(folder)
        for name, text in exported.files.items():
            (root / name).write_text(text)
        for name in FILES:
            (root / name).write_text(kernels(f"qemu/{name}"))
        common = (*flags, "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-std=gnu99")
        _call(
            [compiler, *common, "-fstack-usage", "-include", "mark.h", "-c", f"{prefix}_model.c", "-o", "model.o"], root
        )
        text, data, bss = _sizes(compiler, root)
        _check_board(board, flash=text + data, ram=data + bss)
        _call([compiler, *common, "-DMAQD_NO_MAIN", "-c", f"{prefix}_selftest.c", "-o", "selftest.o"], root)
        _call(
            [
                compiler, *common, f"-DSELFTEST={prefix}_selftest", "start.c", "main.c", "model.o", "selftest.o",
                "-nostdlib", "-T", "memory.ld", f"-Wl,--defsym=FLASH_ORIGIN={board.flash}",
                f"-Wl,--defsym=RAM_ORIGIN={board.ram}", f"-Wl,--defsym=RAM_BYTES={board.ram_bytes}",
                "-Wl,--gc-sections", "-lgcc", "-o", "program.elf",
            ],
            root,
        )  # fmt: skip
        _call([host, "-O2", "-shared", "-fPIC", "count.c", "-o", "libcount.so"], root)
        command = [
            emulator, "-M", board.machine, "-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config",
            "enable=on,target=native", "-plugin", "./libcount.so", "-d", "plugin", "-D", "count.log",
            "-kernel", "program.elf",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{board.machine} did not finish within {SECONDS} s") from error
        if done.returncode:
            raise EngineError(
                f"{board.machine} ended with status {done.returncode}: {done.stdout}{done.stderr}".strip()
            )
        log = (root / "count.log").read_text()
        stack = _stack((root / "model.su").read_text(), prefix)
    counts = {int(index): int(count) for index, count in re.findall(r"^layer (\d+) (\d+)$", log, re.MULTILINE)}
    if sorted(counts) != list(range(len(exported.program.operations))):
        raise EngineError(f"QEMU's plugin counted layers {sorted(counts)} of {len(exported.program.operations)}")
    return Emulation(
        instructions=tuple(counts[index] for index in sorted(counts)),
        flash=text + data,
        ram=data + bss,
        stack=stack,
        compiler=_version([compiler, "--version"]),
        emulator=_version([emulator, "--version"]),
        flags=flags,
    )


def _check_board(board: Board, *, flash: int, ram: int) -> None:
    """Refuses a program that the board cannot hold, before it runs."""
    for what, need, there in (
        ("flash", flash + RESERVED, board.flash_bytes),
        ("RAM", ram + RESERVED, board.ram_bytes),
    ):
        if need > there:
            raise EngineError(
                f"QEMU's {board.machine} has {there:,} bytes of {what}, and the program needs {need:,}: make the "
                "network narrower, or measure it on a target whose board has more"
            )


def _find(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingDependencyError(
            f"measuring on a microcontroller needs {name}; install {PACKAGES} and a host compiler"
        )
    return path


def _call(command: list[str], root: Path) -> None:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{Path(command[0]).name} does not take the program:\n{done.stderr[:2000]}")


def _version(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _sizes(compiler: str, root: Path) -> tuple[int, int, int]:
    """Bytes of code and constants, of initialized data and of cleared data in the program's object file."""
    size = _find(compiler.replace("-gcc", "-size"))
    lines = subprocess.run([size, "model.o"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    text, data, bss = (int(word) for word in lines[1].split()[:3])
    return text, data, bss


def _stack(usage: str, prefix: str) -> int:
    """Bytes of the deepest chain: run, run_arena, a layer, and a shared kernel, as far as they were not inlined."""
    frames: dict[str, int] = {}
    for line in usage.splitlines():
        where, size, _ = line.split("\t")
        name = where.rsplit(":", 1)[1].partition(".")[0]  # compilers split functions into parts
        frames[name] = frames.get(name, 0) + int(size)
    entry = frames.get(f"{prefix}_run", 0) + frames.get(f"{prefix}_run_arena", 0)
    layers = max((size for name, size in frames.items() if name.startswith("layer")), default=0)
    others = max((size for name, size in frames.items() if not name.startswith(("layer", prefix + "_run"))), default=0)
    return entry + layers + others
