"""The kernels of every instruction set against the scalar ones, on random convolutions: compare_kernels.cpp."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from effort import examples, long

ROOT = Path(__file__).parents[2]
CROSS = ("aarch64-linux-gnu-g++", "qemu-aarch64")


def compared(folder: Path, count: int, configuration: list[str], emulator: list[str]) -> str:
    """What compare_kernels prints for `count` convolutions; built in a folder that stays."""
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *configuration]
    run = [*emulator, str(folder / "compare_kernels"), str(count)]
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # cmake and ninja
    for command in (configure, ["ninja", "-C", str(folder), "compare_kernels"], run):
        done = subprocess.run(command, env=tools, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} convolutions" in done.stdout
    return done.stdout


def test_kernels_equal_scalar_ones():
    # Where `make setup` compiled the engine, its objects are linked; elsewhere they are compiled for the test.
    setup = [path.parent for path in sorted((ROOT / "build").glob("cp*/build.ninja"))]
    folder, configuration = (
        (setup[0], []) if setup else (ROOT / "build/compare_kernels", ["-DCMAKE_BUILD_TYPE=Release"])
    )
    assert "no difference: " in compared(folder, examples(2000), configuration, [])


@pytest.mark.skipif(
    not all(map(shutil.which, CROSS)), reason="needs Debian's packages g++-aarch64-linux-gnu and qemu-user"
)
@long
def test_neon_kernels_equal_scalar_ones():
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'tests/csrc/aarch64.cmake'}"
    printed = compared(
        ROOT / "build/compare_kernels_neon", 500, [toolchain], ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    )
    assert "no difference: neon scalar" in printed
