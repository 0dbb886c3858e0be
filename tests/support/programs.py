"""Exported programs, compiled and run in batches: many graphs with a self-test each in one executable."""

import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from random_graphs import hard_samples

from maqd.errors import EngineError
from maqd.export.c99 import Strategy, export_c99
from maqd.graph import Graph
from maqd.runtime.c99 import WARNINGS

BATCH = 16
"""Graphs in an executable."""

MAIN = """#include <stdio.h>
{declarations}
int main(void) {{
    int failed = 0;
    int32_t image, tensor;
{calls}
    return failed;
}}
"""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """How programs are compiled and run."""

    compiler: str
    flags: tuple[str, ...]
    runner: tuple[str, ...] = ()


GCC = Toolchain(compiler="gcc", flags=("-Og",))
"""The fastest to compile that drops functions which are not called."""

NETWORK = "/* ---- the network "
"""Begins what is a network's own in a program's text; in front of it are the kernels."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """An exported program.

    Args:
        prefix: Of its names.
        files: Its C files.
    """

    prefix: str
    files: dict[str, str]

    @property
    def kernels(self) -> str:
        """What its network calls. Calls stay calls: the text of kernels in every caller takes half of the time."""
        text = self.files[f"{self.prefix}_model.c"].split(NETWORK)[0].split("\n\n", 2)[2]
        return text.replace("__attribute__((always_inline, unused))", "__attribute__((unused))")

    @property
    def own(self) -> str:
        """The rest, with names of its own for what only it sees."""
        text = self.files[f"{self.prefix}_model.c"].split(NETWORK, 1)[1].split("\n", 1)[1]
        names = sorted(set(re.findall(r"^(?:static|MAQD_\w+) [^;{(=]*?(\w+)(?=[\[(=; ]*[\[(=;])", text, re.MULTILINE)))
        defined = "\n".join(f"#define {name} {self.prefix}_{name}" for name in names)
        forgotten = "\n".join(f"#undef {name}" for name in names)
        return f'#include "{self.prefix}_model.h"\n{defined}\n{text}\n{forgotten}\n'


def run_selftests(
    graphs: Sequence[Graph], strategies: Sequence[Strategy], tools: Toolchain, folder: Path, *, apart: bool = False
) -> int:
    """Exports, compiles, links and runs; how many programs were compared, every tensor of three samples each.

    Args:
        graphs: Of the programs.
        strategies: Each program has the next one.
        tools: How they are compiled and run.
        folder: Where.
        apart: Whether each program is compiled by itself, as it is exported; otherwise the kernels are compiled once
            for several.

    Raises:
        AssertionError: A compiler or a self-test failed.
    """
    made = [_export(graph, strategies[place % len(strategies)], place) for place, graph in enumerate(graphs)]
    programs = sorted((program for program in made if program is not None), key=lambda program: program.kernels)
    batches = [programs[start : start + BATCH] for start in range(0, len(programs), BATCH)]
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda job: _run(job[1], tools, folder / f"batch{job[0]}", apart), enumerate(batches)):
            pass
    return len(programs)


def _export(graph: Graph, strategy: Strategy, place: int) -> Program | None:
    """The program, or None where no engine but the interpreter takes such sums."""
    samples, prefix = [samples[:3] for samples in hard_samples(graph)], f"net{place}"
    try:
        exported = export_c99(graph, strategy=strategy, prefix=prefix, samples=samples, by_rows=place % 4 > 0)
    except EngineError as error:
        assert "thresholds must be able to exceed" in str(error)  # noqa: PT017
        return None
    return Program(
        prefix=prefix, files={name: text for name, text in exported.files.items() if name.endswith((".c", ".h"))}
    )


def _run(programs: list[Program], tools: Toolchain, folder: Path, apart: bool) -> None:
    folder.mkdir()
    sources = ["main.c", *(f"{program.prefix}_selftest.c" for program in programs)]
    for program in programs:
        for name, text in program.files.items():
            (folder / name).write_text(text)
    if apart:
        sources += [f"{program.prefix}_model.c" for program in programs]
    else:
        for kernels, some in groupby(programs, lambda program: program.kernels):
            name = f"models{len(sources)}.c"
            head = "#include <stddef.h>\n#include <stdint.h>\n\n"
            (folder / name).write_text(head + kernels + "\n".join(program.own for program in some))
            sources.append(name)
    (folder / "main.c").write_text(
        MAIN.format(
            declarations="\n".join(
                f'#include "{one.prefix}_model.h"\nint {one.prefix}_selftest(int32_t *image, int32_t *tensor);'
                for one in programs
            ),
            calls="\n".join(
                f"    if ({one.prefix}_selftest(&image, &tensor)) {{\n"
                f'        printf("{one.prefix}: image %d, tensor %d\\n", (int)image, (int)tensor);\n'
                "        failed++;\n    }"
                for one in programs
            ),
        )
    )
    command = [tools.compiler, *WARNINGS, *tools.flags, "-DMAQD_TRACE", "-DMAQD_NO_MAIN", *sources, "-o", "all"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    done = subprocess.run([*tools.runner, "./all"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:2000] + done.stderr[:2000]
