"""What the networks of MLPerf Tiny cost with weights and activations of 8 bits: the yardstick for microcontrollers.

Instructions counted in QEMU 7.2.22, gcc 12.2.1 (arm-none-eabi), CMSIS-NN 99f736a at -Ofast, one image, shapes of
mlcommons/tiny 1afd2c9. They repeat exactly; they are not cycles, which are those of the model of `maqd.bench.qemu` for
the same programs (`benchmarks/microcontroller.py --cmsis-nn` counts both again). Flash and RAM are those of a
Cortex-M4.
"""

import enum
from dataclasses import dataclass

from maqd.export.c99 import Target

SOURCE = "CMSIS-NN 99f736a, gcc 12.2.1 -Ofast, QEMU 7.2.22"
"""What was measured, and with what."""


class Kind(enum.Enum):
    """Kinds of layers that cost about the same for each multiplication."""

    FIRST = "first"
    DEPTHWISE = "depthwise"
    POINTWISE = "pointwise"
    CONV3X3 = "conv3x3"
    DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Int8:
    """A network in 8 bits.

    Args:
        instructions, cycles: Of one image, by processor.
        flash, ram: Bytes.
    """

    instructions: dict[Target, int]
    cycles: dict[Target, int]
    flash: int
    ram: int


CORES = (Target.CORTEX_M4, Target.CORTEX_M3, Target.CORTEX_M0PLUS)
"""Processors of the tables below, in the order of their columns."""


def _network(instructions: tuple[int, int, int], cycles: tuple[int, int, int], flash: int, ram: int) -> Int8:
    return Int8(
        instructions=dict(zip(CORES, instructions, strict=True)),
        cycles=dict(zip(CORES, cycles, strict=True)),
        flash=flash,
        ram=ram,
    )


NETWORKS = {
    "ic": _network((29_707_834, 41_755_168, 97_567_053), (40_507_568, 78_284_992, 137_325_893), 102_216, 49_728),
    "ic26": _network((67_668_386, 97_673_601, 232_394_837), (91_325_485, 186_807_198, 326_403_211), 230_568, 80_816),
    "kws": _network((7_683_970, 10_539_847, 29_006_344), (9_803_399, 18_094_992, 41_311_770), 54_292, 16_000),
    "vww": _network((24_223_090, 32_076_309, 86_891_927), (31_429_292, 54_716_536, 123_850_022), 269_920, 55_296),
    "ad": _network((579_075, 952_353, 1_755_065), (728_379, 1_773_801, 2_344_466), 276_696, 768),
}
"""The networks of `maqd.bench.tiny`."""

_EACH: dict[Kind, dict[str, tuple[float, float, float]]] = {
    Kind.FIRST: {"ic": (4.77, 5.45, 11.7), "kws": (3.46, 4.26, 9.4), "vww": (6.10, 6.86, 13.7)},
    Kind.CONV3X3: {"ic": (2.06, 3.02, 7.00)},
    Kind.POINTWISE: {"ic": (3.69, 4.63, 11.2), "kws": (2.05, 3.11, 7.57), "vww": (2.31, 3.35, 8.11)},
    Kind.DEPTHWISE: {"kws": (8.09, 9.37, 35.7), "vww": (8.56, 9.82, 37.3)},
    Kind.DENSE: {"ad": (2.19, 3.60, 6.64)},
}


def each(kind: Kind, target: Target, network: str | None = None) -> float | None:
    """Instructions of a multiplication and addition in 8 bits.

    Args:
        kind: Of layer.
        target: The processor; a Cortex-M7 runs the code of a Cortex-M4.
        network: Whose layers; the mean of those that have the kind by default.

    Returns:
        None where nothing was measured.
    """
    core = Target.CORTEX_M4 if target is Target.CORTEX_M7 else target
    if core not in CORES:
        return None
    column, found = CORES.index(core), _EACH[kind]
    if network in found:
        return found[network][column]
    return sum(row[column] for row in found.values()) / len(found)


def kind_of(*, first: bool, groups: int, kernel: tuple[int, int], pixels: int) -> Kind:
    """The kind of a layer.

    Args:
        first: Whether it reads the image.
        groups: Of a convolution; 1 otherwise.
        kernel: Rows and columns of the window.
        pixels: Rows x columns of the output.
    """
    if first and pixels > 1:
        return Kind.FIRST
    if groups > 1:
        return Kind.DEPTHWISE
    if pixels == 1:
        return Kind.DENSE
    return Kind.POINTWISE if kernel == (1, 1) else Kind.CONV3X3
