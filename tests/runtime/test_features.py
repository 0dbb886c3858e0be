"""What an instruction set needs is stated once: for the compiler, and for the check before it runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_compiler_and_the_check_read_one_table() -> None:
    rows = re.findall(
        r'^FEATURE\((\w+), "([\w.]+)", (\d+), (\w+), (\d+)\)', (ROOT / "csrc/isa/features.h").read_text(), re.MULTILINE
    )
    assert len({row[2:] for row in rows}) == len(rows)  # a bit of CPUID each
    assert ("avx512", "bmi2") in {row[:2] for row in rows}
    assert '#include "isa/features.h"' in (ROOT / "csrc/isa/dispatch.cpp").read_text()
    options = (ROOT / "CMakeLists.txt").read_text()
    assert "csrc/isa/features.h" in options
    assert not re.search(r"-m(avx|bmi|amx|fma|popcnt|gfni|sse)", options)
