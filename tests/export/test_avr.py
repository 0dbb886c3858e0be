"""C programs where `int` has 16 bits: compiled for an AVR, run in its emulator."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from graphs import every_node, images

from maqd.bench.avr import measure_avr
from maqd.bench.tiny import tiny_network
from maqd.errors import EngineError, MissingDependencyError
from maqd.export.c99 import Strategy, export_c99
from maqd.graph import Graph
from maqd.lowering import lower
from maqd.models import build_model
from maqd.recipes import recipe

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


AVR = all(map(shutil.which, ("avr-gcc", "simavr")))
NEEDS = pytest.mark.skipif(not AVR, reason="needs Debian's packages gcc-avr, avr-libc and simavr")


@NEEDS
@pytest.mark.parametrize("strategy", list(Strategy))
def test_ints_of_16_bits(strategy: Strategy, tmp_path: Path) -> None:
    """With tables in flash (`gnu99`) but for one strategy."""
    standard = "c99" if strategy is Strategy.BALANCED else "gnu99"
    for name, text in export_c99(every_node(), strategy=strategy).files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(MAIN)
    command = [
        "avr-gcc", f"-mmcu={CHIP}", "-Os", f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-DMAQD_NO_MAIN",
        "-DMAQD_TRACE", "main.c", "maqd_model.c", "maqd_selftest.c", "-o", "program.elf",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    command = ["simavr", "-m", CHIP, "-f", "16000000", "program.elf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert "the same integers" in done.stdout + done.stderr


def digits() -> Graph:
    """The network of the recipe digits-tiny-w3a4, untrained."""
    torch.manual_seed(0)
    config = recipe("digits-tiny-w3a4").variant().config
    network = build_model(config.model, in_channels=1, num_classes=10, image_size=8).eval()
    return lower(network, torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).graph


def sizes(command: list[str], folder: Path) -> tuple[int, int]:
    """Bytes of constant data that are copied to RAM, and of tables in flash."""
    subprocess.run([*command, "-c", "maqd_model.c", "-o", "model.o"], cwd=folder, check=True)
    sections = subprocess.run(["avr-size", "-A", "model.o"], cwd=folder, capture_output=True, text=True, check=True)
    rows = [line.split() for line in sections.stdout.splitlines() if line.startswith(".")]
    return tuple(  # type: ignore[return-value]
        sum(int(row[1]) for row in rows if row[0].startswith(start)) for start in ((".rodata", ".data"), ".progmem")
    )


@NEEDS
def test_digits_with_tables_in_flash(tmp_path: Path) -> None:
    graph = digits()
    exported = export_c99(graph, strategy=Strategy.FAST)
    for name, text in exported.files.items():
        (tmp_path / name).write_text(text)
    command = ["avr-gcc", f"-mmcu={CHIP}", "-O2", "-Wall", "-Wextra", "-Werror"]
    copied, tables = sizes([*command, "-std=gnu99"], tmp_path)
    assert 0.8 * exported.table_bytes < tables <= exported.table_bytes, "some have no reader left"
    assert copied < 200, "structs that describe layers"
    assert sizes([*command, "-std=c99"], tmp_path)[0] >= tables
    try:
        found = measure_avr(graph, Strategy.FAST, images(graph, 2))
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert len(found.instructions) == len(exported.program.operations)
    assert 100_000 < sum(found.instructions) < sum(found.cycles) < 10_000_000


def test_a_network_that_no_avr_holds() -> None:
    if not all(map(shutil.which, ("avr-gcc", "cc"))):
        pytest.skip("needs avr-gcc and cc")
    graph = tiny_network("ad", activations=2)
    with pytest.raises(EngineError, match=r"an atmega1284p has 61,440 bytes for tables and 16,384 of RAM, .* narrower"):
        measure_avr(graph, Strategy.SIZE, images(graph, 1))


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_clang_takes_the_program(tmp_path: Path) -> None:
    for name, text in export_c99(every_node(), strategy=Strategy.FAST).files.items():
        (tmp_path / name).write_text(text)
    command = ["clang", "--target=avr", f"-mmcu={CHIP}", "-std=gnu99", "-ffreestanding", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [*command, "-fsyntax-only", "maqd_model.c"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "unable to create target" in done.stderr or "unknown target" in done.stderr:
        pytest.skip("this clang knows no AVR")
    assert done.returncode == 0, done.stderr[:2000]
