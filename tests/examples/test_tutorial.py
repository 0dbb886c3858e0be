"""The tutorial does what it says: its commands and its code are run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from effort import LONG

from maqd.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not LONG, reason="trains the digits network")
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text())
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), {"__name__": "tutorial"})
            continue
        for command in text.splitlines():
            program, *arguments = shlex.split(command)
            assert program == "maqd"
            assert main(arguments) == 0, command
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"digits", "digits.maqd", "digits.onnx", "digits_c", "digits.html", "mine.maqd"}
    assert {"maqd_model.h", "maqd_selftest.c", "Makefile"} <= {path.name for path in (tmp_path / "digits_c").iterdir()}
    assert "tensor([-1,  0,  1], dtype=torch.int16)" in capsys.readouterr().out
