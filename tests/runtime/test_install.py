"""Installing where the kernels do not compile."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_does_not_compile_is_left_out(tmp_path: Path):
    for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "csrc"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "csrc" / "train" / "norm_act.c").write_text("#error no compiler takes this\n")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", "made", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "made").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "maqd/__init__.py" in names
    # Programs for other processors are written all the same.
    sources = {"c99/kernels.c", "c99/kernels.h", "c99/kernels_element.h", "c99/packed.h", "qemu/main.c"}
    assert {f"maqd/csrc/{name}" for name in sources} <= set(names)
    assert not [name for name in names if name.endswith(".so")]
