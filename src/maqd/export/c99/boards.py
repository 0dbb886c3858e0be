"""Machines of QEMU on which programs run: those that are measured, and those of examples."""

from dataclasses import dataclass

from maqd.export.c99.targets import Target


@dataclass(frozen=True, kw_only=True)
class Board:
    """A machine of QEMU.

    Args:
        machine: Its name there.
        flash, ram: Where they begin.
        flash_bytes, ram_bytes: How large they are.
        emulator: Command of QEMU for it.
        options: What that needs to know.
    """

    machine: str
    flash: int
    ram: int
    flash_bytes: int = 4 * 2**20
    ram_bytes: int = 4 * 2**20
    emulator: str = "qemu-system-arm"
    options: tuple[str, ...] = ()


BOARDS = {
    Target.CORTEX_M0PLUS: Board(machine="mps2-an385", flash=0, ram=0x20000000),
    Target.CORTEX_M3: Board(machine="mps2-an385", flash=0, ram=0x20000000),
    Target.CORTEX_M4: Board(machine="mps2-an386", flash=0, ram=0x20000000),
    Target.CORTEX_M7: Board(machine="mps2-an500", flash=0, ram=0x20000000),
    Target.CORTEX_M33: Board(machine="mps2-an505", flash=0x10000000, ram=0x38000000),
    Target.CORTEX_M55: Board(
        machine="mps3-an547", flash=0x10000000, ram=0x31000000, flash_bytes=512 * 1024, ram_bytes=2 * 2**20
    ),
    Target.RV32: Board(
        machine="virt",
        flash=0x80000000,
        ram=0x81000000,
        emulator="qemu-system-riscv32",
        options=("-bios", "none"),
    ),
}
"""A Cortex-M0+ is measured on the board of a Cortex-M3: it has its instructions, and QEMU's board with a Cortex-M0 has
too little memory."""
