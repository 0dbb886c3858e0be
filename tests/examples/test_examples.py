"""The examples run, on small data."""

import importlib
import sys
from pathlib import Path

import pytest

import maqd

FOLDER = Path(__file__).parents[2] / "examples"


def test_convert_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("convert_digits")
    sys.modules.pop("convert_digits")
    module.main(["--epochs", "2", "--width", "8", "-o", str(tmp_path / "m.maqd")])
    lines = {line.split(": ")[0]: line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if ": " in line}
    share = {name: float(value.rstrip("%")) for name, value in lines.items() if value.endswith("%")}
    integers = next(value for name, value in share.items() if name.endswith("integers only"))
    assert integers == share["few states, trained"]
    assert integers > 50
    assert maqd.load(tmp_path / "m.maqd").graph.inputs[0].storage.value == "float32"
