"""The kernels for 64-bit ARM in an emulator, against the scalar ones, where Debian's cross compiler is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("aarch64-linux-gnu-g++", "qemu-aarch64", "cmake", "ninja")


@pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="needs Debian's packages g++-aarch64-linux-gnu and qemu-user"
)
def test_neon_kernels_equal_scalar_ones(tmp_path: Path):
    toolchain = ROOT / "tests/native/aarch64.cmake"
    configure = ["cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_TOOLCHAIN_FILE={toolchain}"]
    for command in (configure, ["ninja", "-C", tmp_path, "compare_kernels"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    emulator = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    done = subprocess.run([*emulator, tmp_path / "compare_kernels", "500"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "500 convolutions" in done.stdout
    assert "no difference: neon scalar" in done.stdout
