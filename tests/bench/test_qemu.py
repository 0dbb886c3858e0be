"""Instructions on emulated processors: that each is counted, and what it is."""

import shutil
from pathlib import Path

import pytest

from maqd.bench import qemu
from maqd.bench.cmsis import measure_int8
from maqd.bench.qemu import COSTS, Bench, Tally, cycles
from maqd.bench.tiny import tiny_network
from maqd.errors import ConfigError, MissingDependencyError
from maqd.export.c99 import Target

TOOLS = {"arm": ("arm-none-eabi-gcc", "qemu-system-arm"), "riscv": ("riscv64-unknown-elf-gcc", "qemu-system-riscv32")}
NEEDS = {
    name: pytest.mark.skipif(not all(map(shutil.which, tools)), reason=f"needs {' and '.join(tools)}")
    for name, tools in TOOLS.items()
}

THUMB = r"""
    push {r4, r5, r6}
    mov r0, sp
    ldr r1, [r0]
    ldr.w r2, [r0, #4]
    ldrh r3, [r0, #2]
    ldrd r4, r5, [r0]
    ldmia r0, {r1, r2, r3}
    strb r1, [r0]
    str.w r1, [r0, #8]
    strd r1, r2, [r0]
    mla r4, r1, r2, r3
    mul r4, r1, r2
    umull r4, r5, r1, r2
    udiv r4, r1, r2
    b 1f
    nop
1:  cmp r0, r0
    bne 1b
    it eq
    moveq r1, #0
    pop {r4, r5, r6}
"""

PROGRAM = """
int main(void) {
    MAQD_LAYER(0)
    __asm__ volatile(%s ::: %s"memory");
    MAQD_LAYER(1)
    MAQD_LAYER(-1)
    return 0;
}
"""


def run(target: Target, assembly: str, clobbers: str, folder: Path) -> list[Tally]:
    bench = Bench(folder, target, "-O1")
    text = "".join(f'"{line}\\n"' for line in assembly.strip().splitlines())
    (folder / "program.c").write_text(PROGRAM % (text, clobbers))
    bench.link([bench.compile("program.c", "program.o", "-include", "mark.h")], "program.elf")
    return bench.run("program.elf")


@NEEDS["arm"]
def test_classes_of_instructions(tmp_path: Path) -> None:
    first, second = run(Target.CORTEX_M4, THUMB, '"r0", "r1", "r2", "r3", "cc", ', tmp_path)
    assert first == Tally(
        instructions=20, loads=6, loaded=11, stores=4, stored=7, taken=1, accumulates=1, longs=1, divides=1
    )
    assert second.instructions == 0


@NEEDS["riscv"]
def test_instructions_of_risc_v(tmp_path: Path) -> None:
    first, _ = run(Target.RV32, "nop\nc.nop\nj 1f\nnop\n1: nop", "", tmp_path)
    assert (first.instructions, first.taken) == (4, 1)


def test_cycles_follow_the_manuals() -> None:
    tally = Tally(instructions=20, loads=6, loaded=11, stores=4, stored=7, taken=1, accumulates=1, longs=1, divides=1)
    assert cycles(tally, Target.CORTEX_M4) == 20 + 11 + 3 + 2 + 6
    assert cycles(tally, Target.CORTEX_M3) == 20 + 11 + 3 + 2 + 1 + 3 + 6
    assert cycles(tally, Target.CORTEX_M0PLUS) == 20 + 11 + 7 + 1
    assert cycles(tally, Target.CORTEX_M7) is None
    assert set(COSTS) == {Target.CORTEX_M4, Target.CORTEX_M3, Target.CORTEX_M0PLUS}


@NEEDS["arm"]
def test_a_compiler_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "OLDEST", 99)
    with pytest.raises(MissingDependencyError, match=r"arm-none-eabi-gcc is GCC [\d.]+; programs need 99 or newer"):
        Bench(tmp_path, Target.CORTEX_M4, "-O2")


def test_a_yardstick_without_its_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no Include/arm_nnfunctions\.h; give a checkout of"):
        measure_int8(tiny_network("ad", activations=2), Target.CORTEX_M4, tmp_path)
