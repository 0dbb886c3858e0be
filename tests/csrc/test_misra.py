"""MISRA C:2012 by cppcheck's addon: kernels and an exported program report no rule but those recorded here.

Each file is checked by itself, in one configuration. `MAQD_EACH` writes a text out for eight registers; here it stands
for the first one, because the tool takes hours for the products of all of them, which differ in a number only.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from effort import long
from graphs import every_node

from maqd.export.c99 import Strategy, export_c99
from maqd.export.c99.source import kernels

PAGE = Path(__file__).parents[2] / "docs" / "microcontroller.md"
HEADERS = ("packed.h", "activations.h", "pixels.h", "planes.h")
CPPCHECK = "cppcheck", "--addon=misra", "--std=c99", "--platform=unix32", "--max-configs=1", "--enable=style", "-q"
DEFINED = "-D__GNUC__=12", "-D__SIZEOF_INT__=4", "-UMAQD_TRACE"


def recorded() -> set[str]:
    """The rules of the page's table of deviations."""
    table = PAGE.read_text().split("**MISRA C:2012.**")[1].split("\n\n**")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return set(re.findall(r"\d+\.\d+", " ".join(rows)))


def reported(folder: Path, name: str) -> set[str]:
    done = subprocess.run([*CPPCHECK, *DEFINED, name], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    assert "error:" not in done.stderr, done.stderr[:2000]
    return set(re.findall(r"misra-c2012-(\d+\.\d+)", done.stderr))


@long
@pytest.mark.skipif(shutil.which("cppcheck") is None, reason="needs Debian's package cppcheck")
def test_deviations_are_recorded(tmp_path: Path) -> None:
    for name in (*HEADERS, "kernels.h", "kernels.c", "kernels_element.h"):
        text = kernels(f"c99/{name}")
        (tmp_path / name).write_text(re.sub(r"(#define MAQD_EACH\(what\)).*", r"\1 what(0)", text))
    exported = export_c99(every_node(), strategy=Strategy.FAST)
    (tmp_path / "maqd_model.h").write_text(exported.files["maqd_model.h"])
    own = exported.files["maqd_model.c"].partition("/* ---- the network")[2].partition("\n")[2]
    included = ["maqd_model.h", *HEADERS, "kernels.h"]
    first = ["#define MAQD_LAYER(index)", "#define MAQD_LINKAGE static", *(f'#include "{name}"' for name in included)]
    (tmp_path / "network.c").write_text("\n".join(first) + "\n" + own)
    for name in HEADERS:
        before = [] if name == "packed.h" else ['#include "packed.h"']
        (tmp_path / f"check_{name[:-2]}.c").write_text("\n".join([*before, f'#include "{name}"', ""]))
    known, found = recorded(), {}
    for name in (*(f"check_{one[:-2]}.c" for one in HEADERS), "kernels.c", "network.c"):
        for rule in reported(tmp_path, name):
            found.setdefault(rule, []).append(name)
    assert {rule: names for rule, names in found.items() if rule not in known} == {}
    assert known <= set(found), "the page records rules that nothing reports"
