"""The examples run, on small data."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from effort import long

import maqd
from maqd.cli import main

FOLDER = Path(__file__).parents[2] / "examples"


@long
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


@long
@pytest.mark.parametrize("loop", ["lightning", "accelerate", "transformers"])
@pytest.mark.filterwarnings("default")  # what the loops' own libraries warn of
def test_other_loops_train_converted_networks(
    loop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip(loop)
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module(f"convert_with_{loop}")
    module.main(["--epochs", "2"])
    for name in ("convert_digits", module.__name__):
        sys.modules.pop(name)
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert float(lines["few states"].rstrip("%")) > 60
    assert int(lines["integers"].split()[0]) > 10


@long
def test_maqd_train_takes_a_function_that_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    run, file = tmp_path / "run", tmp_path / "m.maqd"
    options = ["--model.width", "0.5", "--epochs", "1", "--compute.threads", "1"]
    assert main(["train", "--model", "train_converted:network", "--run", str(run), *options]) == 0
    assert main(["lower", str(run), "-o", str(file), "--allow-import"]) == 0
    assert main(["verify", str(file), "--against", str(run), "--allow-import", "--images", "32"]) == 0
    with torch.no_grad():
        x = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
        network = maqd.open_run(run, allow_import=True).network
        assert maqd.load(file).scores(x.numpy()).tolist() == network(x).tolist()
    for name in ("convert_digits", "train_converted"):
        sys.modules.pop(name, None)
