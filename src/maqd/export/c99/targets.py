"""Processors that programs are made for."""

import enum
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Device:
    """A class of processors.

    Args:
        flash, ram: Bytes that a typical small member has; None where nothing is typical.
        compiler: Command of GCC for it.
        flags: What that needs to know.
    """

    flash: int | None
    ram: int | None
    compiler: str
    flags: tuple[str, ...]


class Target(enum.Enum):
    """What `maqd export --target` takes."""

    GENERIC = "generic"
    CORTEX_M0PLUS = "cortex-m0plus"
    CORTEX_M3 = "cortex-m3"
    CORTEX_M4 = "cortex-m4"
    CORTEX_M7 = "cortex-m7"
    CORTEX_M33 = "cortex-m33"
    CORTEX_M55 = "cortex-m55"
    RV32 = "rv32"

    @property
    def device(self) -> Device:
        """Its properties."""
        return _DEVICES[self]


def _arm(cpu: str, flash: int, ram: int) -> Device:
    return Device(
        flash=flash * 1024,
        ram=ram * 1024,
        compiler="arm-none-eabi-gcc",
        flags=(f"-mcpu={cpu}", "-mthumb", "-mfloat-abi=soft"),
    )


_DEVICES = {
    Target.GENERIC: Device(flash=None, ram=None, compiler="cc", flags=()),
    Target.CORTEX_M0PLUS: _arm("cortex-m0plus", 128, 16),
    Target.CORTEX_M3: _arm("cortex-m3", 256, 64),
    Target.CORTEX_M4: _arm("cortex-m4", 256, 64),
    Target.CORTEX_M7: _arm("cortex-m7", 1024, 256),
    Target.CORTEX_M33: _arm("cortex-m33", 512, 128),
    Target.CORTEX_M55: _arm("cortex-m55+nomve", 1024, 256),
    Target.RV32: Device(
        flash=256 * 1024, ram=64 * 1024, compiler="riscv64-unknown-elf-gcc", flags=("-march=rv32imc", "-mabi=ilp32")
    ),
}
