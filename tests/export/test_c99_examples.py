"""Minimal programs beside an exported network: they build, run, and compute the interpreter's integers."""

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import every_node, weight

from maqd.cli import main
from maqd.errors import ExportError
from maqd.export.c99 import Example, Strategy, Target, export_c99, save_c99
from maqd.export.c99.boards import BOARDS
from maqd.graph import Conv, Flatten, Graph, Input, Linear, Output, Storage, container

CORE = Path("/usr/share/arduino/hardware/arduino/avr")
CHIP = "atmega2560"


@pytest.mark.parametrize("target", [Target.CORTEX_M0PLUS, Target.CORTEX_M4, Target.CORTEX_M33, Target.RV32])
def test_a_bare_processor(target: Target, tmp_path: Path) -> None:
    tools = target.device.compiler, BOARDS[target].emulator, "make"
    if not all(map(shutil.which, tools)):
        pytest.skip(f"needs {', '.join(tools)}")
    container.save(every_node(), tmp_path / "net.maqd")
    arguments = ["export", str(tmp_path / "net.maqd"), "--to", "c99", "-o", str(tmp_path / "program")]
    assert main([*arguments, "--target", target.value, "--example", "bare", "--prefix", "net"]) == 0
    done = subprocess.run(
        ["make", "-s", "run"],
        cwd=tmp_path / "program" / "example",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same integers; class " in done.stdout + done.stderr
    assert "warning" not in done.stderr


def test_a_bare_processor_must_be_named() -> None:
    with pytest.raises(
        ExportError, match="needs a processor, got target 'generic'; name one with --target: cortex-m0plus"
    ):
        export_c99(every_node(), example=Example.BARE)


@pytest.mark.skipif(
    not CORE.is_dir() or not all(map(shutil.which, ("avr-g++", "simavr"))),
    reason="needs Debian's packages arduino-core-avr, gcc-avr, avr-libc and simavr",
)
def test_sketches(tmp_path: Path) -> None:
    """Of an image, and of two inputs; the core is compiled once."""
    flags = [
        f"-mmcu={CHIP}", "-DF_CPU=16000000L", "-DARDUINO=10819", "-DARDUINO_AVR_MEGA2560", "-DARDUINO_ARCH_AVR", "-Os",
        "-ffunction-sections", "-fdata-sections", f"-I{CORE / 'cores' / 'arduino'}", f"-I{CORE / 'variants' / 'mega'}",
    ]  # fmt: skip

    def compiled(source: Path, *more: str) -> str:
        # Debian's GCC 5 has DECIMAL_DIG, which strings made of floats need, in C only.
        digits = "-DDECIMAL_DIG=__DECIMAL_DIG__"
        options = ["-std=gnu++11", "-fpermissive", "-fno-exceptions", "-fno-threadsafe-statics", digits]
        compiler = ["avr-gcc", "-std=gnu11"] if source.suffix == ".c" else ["avr-g++", *options]
        to = f"{source.parent.name}_{source.name}.o"
        command = [*compiler, *flags, *more, "-c", str(source), "-o", to]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        return to

    objects = [compiled(path) for path in sorted((CORE / "cores" / "arduino").glob("*.c*"))]
    for name, graph in {"image": every_node(), "pair": pair()}.items():
        folder = tmp_path / name
        save_c99(export_c99(graph, strategy=Strategy.SIZE, example=Example.ARDUINO), folder)
        sketch = "#include <Arduino.h>\n" + (folder / "examples" / "Run" / "Run.ino").read_text()
        (folder / "sketch.cpp").write_text(sketch)
        own = [compiled(path, f"-I{folder}") for path in (folder / "sketch.cpp", *sorted(folder.glob("*.c")))]
        command = ["avr-gcc", f"-mmcu={CHIP}", "-Os", "-Wl,--gc-sections", *objects, *own, "-lm", "-o", f"{name}.elf"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        said = _serial(["simavr", "-m", CHIP, "-f", "16000000", f"{name}.elf"], tmp_path)
        assert "the same integers; class" in said, name


def pair() -> Graph:
    """Two inputs, one of signed numbers, and two outputs."""
    random = np.random.default_rng(0)
    left = Input(name="left", key="left", inputs=(), shape=(3, 4, 4))
    right = Input(name="right", key="right", inputs=(), shape=(5,), storage=Storage.I8, zero=0)
    conv = Conv(
        name="conv", inputs=("left",), weight=weight(random, 3, 4, 3, 4, 4), exponent=0, stride=(1, 1),
        padding=(0, 0), dilation=(1, 1),
    )  # fmt: skip
    flat = Flatten(name="flat", inputs=("conv",))
    linear = Linear(name="linear", inputs=("right",), weight=weight(random, 3, 2, 5), exponent=0)
    outputs = [Output(name=f"out_{name}", key=name, inputs=(name,)) for name in ("flat", "linear")]
    return Graph(nodes=(left, right, conv, flat, linear, *outputs))


def _serial(command: list[str], folder: Path) -> str:
    """What a sketch prints in its first line, or within a minute; sketches never end."""
    with (folder / "serial.txt").open("w+") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            for _ in range(600):
                time.sleep(0.1)
                text = (folder / "serial.txt").read_text(errors="replace")
                if "milliseconds" in text or process.poll() is not None:
                    break
        finally:
            process.kill()
            process.wait()
    return text
