"""Exported programs, compiled and run in batches: many graphs with a self-test each in one executable."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from random_graphs import hard_samples

from maqd.errors import EngineError
from maqd.export.c99 import Strategy, export_c99
from maqd.graph import Graph
from maqd.runtime.c99 import WARNINGS

BATCH = 8
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


def run_selftests(graphs: Sequence[Graph], strategies: Sequence[Strategy], tools: Toolchain, folder: Path) -> int:
    """Exports, compiles, links and runs; how many programs were compared, every tensor of three samples each.

    Raises:
        AssertionError: A compiler or a self-test failed.
    """
    cases = [(graph, strategies[place % len(strategies)]) for place, graph in enumerate(graphs)]
    batches = [cases[start : start + BATCH] for start in range(0, len(cases), BATCH)]
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda job: _batch(job[1], tools, folder / f"batch{job[0]}"), enumerate(batches)))


def _batch(cases: list[tuple[Graph, Strategy]], tools: Toolchain, folder: Path) -> int:
    folder.mkdir()
    prefixes, sources = [], []
    for place, (graph, strategy) in enumerate(cases):
        prefix = f"net{len(prefixes)}"
        try:
            exported = export_c99(
                graph,
                strategy=strategy,
                prefix=prefix,
                samples=[samples[:3] for samples in hard_samples(graph)],
                by_rows=place % 4 > 0,
            )
        except EngineError as error:
            if "thresholds must be able to exceed" not in str(error):  # no engine but the interpreter takes such sums
                raise
            continue
        for name, text in exported.files.items():
            if name.endswith((".c", ".h")):
                (folder / name).write_text(text)
        prefixes.append(prefix)
        sources += [f"{prefix}_model.c", f"{prefix}_selftest.c"]
    (folder / "main.c").write_text(
        MAIN.format(
            declarations="\n".join(
                f'#include "{p}_model.h"\nint {p}_selftest(int32_t *image, int32_t *tensor);' for p in prefixes
            ),
            calls="\n".join(
                f"    if ({p}_selftest(&image, &tensor)) {{\n"
                f'        printf("{p}: image %d, tensor %d\\n", (int)image, (int)tensor);\n        failed++;\n    }}'
                for p in prefixes
            ),
        )
    )
    command = [
        tools.compiler,
        *WARNINGS,
        *tools.flags,
        "-DMAQD_TRACE",
        "-DMAQD_NO_MAIN",
        "main.c",
        *sources,
        "-o",
        "all",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    done = subprocess.run([*tools.runner, "./all"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:2000] + done.stderr[:2000]
    return len(prefixes)
