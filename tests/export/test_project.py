"""The directory that `maqd export --to c99` writes, and what it refuses."""

import errno
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from effort import long
from graphs import every_node, images

from maqd.bench import microcontroller
from maqd.cli import main
from maqd.errors import EngineError, ExportError, MissingDependencyError
from maqd.export.c99 import Strategy, Target, export_c99, program, save_c99
from maqd.export.c99.project import STACK
from maqd.graph import container
from maqd.plan import Step, make_plan
from maqd.runtime import c99
from maqd.runtime.c99 import WARNINGS, CEngine

FILES = [
    "CMakeLists.txt", "Makefile", "README.md", "library.properties", "maqd_model.c", "maqd_model.h", "maqd_selftest.c",
]  # fmt: skip


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "every.maqd"
    container.save(every_node(), path)
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    assert main([*map(str, arguments)]) == status
    error = capsys.readouterr().err
    assert error.startswith("maqd: error: ")
    assert error.count("\n") == 1
    return error


def test_the_command_writes_a_project_that_tests_itself(graph: Path, tmp_path: Path, capsys) -> None:
    directory = tmp_path / "program"
    assert main(["export", str(graph), "--to", "c99", "-o", str(directory), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in directory.iterdir()) == FILES
    header = (directory / "maqd_model.h").read_text()
    assert f"#define MAQD_ARENA_BYTES {found['bytes_of_RAM']}\n" in header
    assert f"#define MAQD_TABLE_BYTES {found['bytes_of_tables']}\n" in header
    for command in (["make", "-s"], ["make", "-s", "test"]):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "2 images: the same integers" in done.stdout


@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_text_is_c_and_c_plus_plus_of_every_age(strategy: Strategy, tmp_path: Path) -> None:
    (tmp_path / "maqd_model.h").write_text(export_c99(every_node(), strategy=strategy).files["maqd_model.h"])
    (tmp_path / "model.c").write_text(export_c99(every_node(), strategy=strategy).files["maqd_model.c"])
    flags = [flag for flag in WARNINGS if not flag.startswith("-std")]
    for language, standards in (("c", ("c99", "c11")), ("c++", ("c++11", "c++17", "c++20"))):
        for standard in standards:
            command = ["gcc", "-x", language, f"-std={standard}", *flags, "-fsyntax-only", "model.c"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[:2000]


def test_cmake_builds_and_tests_it(tmp_path: Path) -> None:
    save_c99(export_c99(every_node()), tmp_path / "program")
    for command in (
        ["cmake", "-S", tmp_path / "program", "-B", tmp_path / "build", "-G", "Ninja"],
        ["cmake", "--build", tmp_path / "build"],
        ["ctest", "--test-dir", tmp_path / "build"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_text_is_deterministic(strategy: Strategy) -> None:
    first, second = (export_c99(every_node(), strategy=strategy) for _ in range(2))
    assert first.files == second.files


def test_the_code_keeps_what_it_promises() -> None:
    for strategy in Strategy:
        text = export_c99(every_node(), strategy=strategy).files["maqd_model.c"]
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(float|double|malloc|calloc|free|memcpy|memset|goto|alloca)\b", code)
        assert set(re.findall(r"#include (\S+)", code)) == {'"maqd_model.h"', "<stddef.h>", "<stdint.h>"}
        assert not re.search(r"\(\s*\*\s*\w+\s*\)\s*\(", code), "a function pointer"


def test_the_stack_is_small_and_nothing_is_called_from_a_library(tmp_path: Path) -> None:
    for name, text in export_c99(every_node()).files.items():
        (tmp_path / name).write_text(text)
    flags = [*WARNINGS, "-O2", "-ffreestanding", f"-Wstack-usage={STACK}", "-c", "maqd_model.c"]
    subprocess.run(["gcc", *flags], cwd=tmp_path, check=True)
    symbols = subprocess.run(["nm", "maqd_model.o"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    undefined = {line.split()[-1] for line in symbols.splitlines() if " U " in line}
    assert undefined <= {"memcpy", "memset"}, "only what every freestanding compiler may call"
    visible = {line.split()[-1] for line in symbols.splitlines() if re.search(r" [TDBRC] ", line)}
    assert visible == {f"maqd_{name}" for name in ("run", "run_arena", "run_sized", "begin", "push_row", "finish")}


def test_a_caller_may_own_the_memory_and_several_models_share_a_program(tmp_path: Path) -> None:
    graphs = {"cat": every_node(1), "dog": every_node(2)}
    x = images(graphs["cat"], 1)
    for prefix, graph in graphs.items():
        for name, text in export_c99(graph, prefix=prefix).files.items():
            (tmp_path / name).write_text(text)
    pixels = ", ".join(map(str, np.moveaxis(x[0], 0, -1).reshape(-1)))
    (tmp_path / "main.c").write_text(f"""#include "cat_model.h"
#include "dog_model.h"
#include <stdio.h>
static const uint8_t image[] = {{{pixels}}};
static uint32_t memory[CAT_ARENA_BYTES / 4 > DOG_ARENA_BYTES / 4 ? CAT_ARENA_BYTES / 4 : DOG_ARENA_BYTES / 4];
int main(void) {{
    int32_t a[CAT_CLASSES], b[DOG_CLASSES];
    for (unsigned i = 0; i < sizeof memory / 4; i++) memory[i] = 0xdeadbeefu;
    if (cat_run_arena(image, a, memory) || dog_run_arena(image, b, memory)) return 1;
    if (!cat_run_arena(NULL, a, memory) || !cat_run(image, NULL)) return 1;
    if (cat_run_sized(image, sizeof image, a, sizeof a) != 0) return 1;
    if (cat_run_sized(image, sizeof image - 1, a, sizeof a) != 2) return 1;
    if (cat_run_sized(image, sizeof image, a, sizeof a + 4) != 2) return 1;
    for (int i = 0; i < 5; i++) printf("%d %d\\n", (int)a[i], (int)b[i]);
    return 0;
}}
""")
    command = ["gcc", *WARNINGS, "main.c", "cat_model.c", "dog_model.c", "-o", "both"]
    subprocess.run(command, cwd=tmp_path, check=True)
    out = subprocess.run(["./both"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    found = np.array([line.split() for line in out.splitlines()], int)
    for column, graph in enumerate(graphs.values()):
        np.testing.assert_array_equal(found[:, column], CEngine(graph).run(x)[0])


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "1net", "a-b", "int", "_net", "größe"])
def test_prefixes_that_are_no_identifiers(prefix: str, graph: Path, tmp_path: Path, capsys) -> None:
    error = refusal(capsys, "export", graph, "--to", "c99", "-o", tmp_path / "new", f"--prefix={prefix}", status=2)
    assert f"must be a C identifier that begins with a letter, got {prefix!r}" in error
    assert not (tmp_path / "new").exists()


def test_directories_that_are_not_empty(graph: Path, tmp_path: Path, capsys) -> None:
    error = refusal(capsys, "export", graph, "--to", "c99", "-o", tmp_path)
    assert "must be an empty or a new directory" in error
    assert list(tmp_path.iterdir()) == [graph]
    (tmp_path / "empty").mkdir()
    assert main(["export", str(graph), "--to", "c99", "-o", str(tmp_path / "empty")]) == 0


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_c99(export_c99(every_node()), tmp_path / "program")
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_too_small() -> None:
    with pytest.raises(ExportError, match=r"has 8,192 bytes of flash; .* too many\. Most are the .* bytes .* of wide"):
        export_c99(every_node(), flash=8192)
    with pytest.raises(ExportError, match=r"has 1,500 bytes of RAM; .* too many\. The largest tensors are the"):
        export_c99(every_node(), ram=1500)
    with pytest.raises(ExportError, match=r"around .*: leave out --whole-input, use fewer channels"):
        export_c99(every_node(), ram=1500, by_rows=False)
    export_c99(every_node(), target=Target.CORTEX_M0PLUS)


def test_steps_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(Step):
        pass

    plan = make_plan(every_node())
    strange = replace(plan, steps=(*plan.steps, Strange(links=replace(plan.steps[0].links, nodes=("gelu",)))))
    monkeypatch.setattr(program, "make_plan", lambda graph: strange)
    with pytest.raises(ExportError, match="gelu: the C export has no rule for Strange"):
        export_c99(every_node())


def test_options_that_do_not_belong(graph: Path, tmp_path: Path, capsys) -> None:
    error = refusal(capsys, "export", graph, "--to", "onnx", "-o", tmp_path / "m", "--strategy", "fast", status=2)
    assert "--strategy belongs to --to c99, not to --to onnx" in error
    error = refusal(capsys, "export", graph, "--to", "c99", "-o", tmp_path / "m", "--ram", "lots", status=2)
    assert "--ram must be a number of bytes such as 65536, 64K or 1M, got 'lots'" in error
    error = refusal(capsys, "export", graph, "--to", "c99", "-o", tmp_path / "m", "--data.path", "x", status=2)
    assert "--data.path belongs to --against RUN" in error
    error = refusal(capsys, "bench", graph, "--strategy", "fast", status=2)
    assert "--strategy belongs to --target" in error


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c99.shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"needs a compiler \(cc, gcc or clang\)"):
        CEngine(every_node())
    with pytest.raises(MissingDependencyError, match="needs arm-none-eabi-gcc; install gcc-arm-none-eabi"):
        microcontroller.emulate(export_c99(every_node()), Target.CORTEX_M4)


def test_a_program_that_a_board_cannot_hold_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    if not all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm"))):
        pytest.skip("needs Debian's packages gcc-arm-none-eabi and qemu-system-arm")
    small = replace(microcontroller.BOARDS[Target.CORTEX_M4], ram_bytes=4096)
    monkeypatch.setitem(microcontroller.BOARDS, Target.CORTEX_M4, small)
    with pytest.raises(EngineError, match=r"mps2-an386 has 4,096 bytes of RAM, and the program needs [\d,]+: make"):
        microcontroller.emulate(export_c99(every_node()), Target.CORTEX_M4)


@pytest.mark.skipif(not shutil.which("riscv64-unknown-elf-gcc"), reason="needs Debian's gcc-riscv64-unknown-elf")
def test_processors_that_cannot_multiply_are_refused(tmp_path: Path) -> None:
    for name, text in export_c99(every_node()).files.items():
        (tmp_path / name).write_text(text)
    flags = ["-march=rv32ic", "-mabi=ilp32", "-ffreestanding", "-fsyntax-only", "maqd_model.c"]
    for more, fails in (([], True), (["-DMAQD_SOFTWARE_MULTIPLY"], False)):
        command = ["riscv64-unknown-elf-gcc", *flags, *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails
        assert ("this processor cannot multiply: take one that can" in done.stderr) is fails


# ---- microcontrollers -----------------------------------------------------------------------------------------------


OFTEN = (Target.CORTEX_M0PLUS, Target.CORTEX_M4)
"""The processors of `make test`: without and with instructions for two halves of a word."""


@pytest.mark.skipif(
    not all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm"))),
    reason="needs Debian's packages gcc-arm-none-eabi and qemu-system-arm",
)
@pytest.mark.parametrize(
    "target", [pytest.param(target, marks=() if target in OFTEN else long) for target in microcontroller.BOARDS]
)
def test_emulated_processors(target: Target, graph: Path, capsys) -> None:
    assert main(["bench", str(graph), "--target", target.value, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    layers = found["layers"]
    assert found["instructions"] == sum(layer["instructions"] for layer in layers)
    assert min(layer["instructions"] for layer in layers) > 10
    assert found["ram"] == export_c99(every_node()).arena_bytes
    assert 0 < found["stack"] < 2 * STACK
    assert main(["bench", str(graph), "--target", target.value]) == 0
    assert f"\n{found['instructions']:,} instructions" in capsys.readouterr().out  # and always as many
