"""C programs where `int` has 16 bits: compiled for an AVR, run in its emulator."""

import shutil
import subprocess
from pathlib import Path

import pytest
from graphs import every_node

from maqd.export.c99 import Strategy, export_c99

CHIP = "atmega1284p"
MAIN = """#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <stdint.h>
int maqd_selftest(int32_t *image, int32_t *tensor);
static void put(char c) {
    while (!(UCSR0A & (1 << UDRE0))) {}
    UDR0 = (uint8_t)c;
}
int main(void) {
    int32_t image, tensor;
    const char *text;
    UCSR0B = 1 << TXEN0;
    text = maqd_selftest(&image, &tensor) ? "different integers\\n" : "the same integers\\n";
    while (*text) put(*text++);
    cli();
    sleep_enable();
    sleep_cpu();
    return 0;
}
"""


@pytest.mark.skipif(
    not all(map(shutil.which, ("avr-gcc", "simavr"))), reason="needs Debian's packages gcc-avr, avr-libc and simavr"
)
@pytest.mark.parametrize("strategy", list(Strategy))
def test_ints_of_16_bits(strategy: Strategy, tmp_path: Path) -> None:
    for name, text in export_c99(every_node(), strategy=strategy).files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(MAIN)
    command = [
        "avr-gcc", f"-mmcu={CHIP}", "-Os", "-std=c99", "-Wall", "-Wextra", "-Werror", "-DMAQD_NO_MAIN", "-DMAQD_TRACE",
        "main.c", "maqd_model.c", "maqd_selftest.c", "-o", "program.elf",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    command = ["simavr", "-m", CHIP, "-f", "16000000", "program.elf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert "the same integers" in done.stdout + done.stderr
