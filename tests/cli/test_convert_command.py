"""`maqd convert`: from a float network and some data to a .maqd file."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import maqd
from maqd.cli import main

MODULE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()

def leaves():
    raise SystemExit(0)

def refused():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(1, 4), nn.Conv2d(4, 4, 1))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Networks and data in the working directory."""
    (tmp_path / "float_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "float_module", raising=False)
    np.save("data.npy", np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32))
    yield
    sys.modules.pop("float_module", None)


def test_a_file_that_agrees_with_the_float_network(capsys: pytest.CaptureFixture[str]):
    arguments = ["convert", "float_module:network", "--calibrate", "data.npy", "-o", "m.maqd"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agreement"]["top1"] == 1.0
    assert found["bytes"] == Path("m.maqd").stat().st_size
    import float_module  # pyright: ignore[reportMissingImports]

    data = np.load("data.npy")
    scores = maqd.load("m.maqd").scores(data)
    with torch.no_grad():
        expected = float_module.network()(torch.from_numpy(data)).numpy()
    assert np.abs(scores - expected).max() < 0.05
    assert main([*arguments[:-1], "n.maqd", "--weights", "3", "--activations", "4"]) == 0
    assert "QuantLinear, head" in capsys.readouterr().out


def test_a_folder_of_images(capsys: pytest.CaptureFixture[str]):
    from PIL import Image

    Path("images").mkdir()
    for place in range(4):
        pixels = np.random.default_rng(place).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{place}.png")
    arguments = ["convert", "float_module:network", "--calibrate", "images", "-o", "m.maqd"]
    assert main([*arguments, "--size", "3x8x8", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]) == 0
    assert maqd.load("m.maqd").run(np.zeros((2, 3, 8, 8), np.uint8)).shape == (2, 5)
    capsys.readouterr()
    assert main(arguments) == 2
    assert "pass --size" in capsys.readouterr().err
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save("images/4.png")
    assert main([*arguments, "--size", "3x8x8"]) == 0
    assert "images/4.png: its transparency is ignored" in capsys.readouterr().err


def test_a_state_of_another_network_names_all_faults(capsys: pytest.CaptureFixture[str]):
    import float_module  # pyright: ignore[reportMissingImports]

    state = float_module.network().state_dict()
    torch.save(state, "good.pt")
    state["extra"] = state.pop("0.bias")
    state["4.weight"] = state["4.weight"][:2]
    torch.save(state, "bad.pt")
    arguments = ["convert", "float_module:network", "--calibrate", "data.npy", "-o", "m.maqd", "--state"]
    assert main([*arguments, "good.pt"]) == 0
    assert main([*arguments, "bad.pt"]) == 1
    error = capsys.readouterr().err
    for fault in ("0.bias is missing", "extra is not the network's", "4.weight is (2, 144), the network's (5, 144)"):
        assert fault in error


def test_the_state_is_no_output(capsys: pytest.CaptureFixture[str]):
    import float_module  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file

    save_file(float_module.network().state_dict(), "state.safetensors")
    before = Path("state.safetensors").read_bytes()
    arguments = ["convert", "float_module:network", "--calibrate", "data.npy"]
    assert main([*arguments, "--state", "state.safetensors", "-o", "state.safetensors"]) == 1
    assert "is the input itself" in capsys.readouterr().err
    assert main([*arguments, "-o", "state.safetensors"]) == 1  # also a safetensors file, but no .maqd file
    assert "is a file of tensors, and a .maqd file would replace it" in capsys.readouterr().err
    assert Path("state.safetensors").read_bytes() == before


BATCHES = {
    "no samples": np.zeros((0, 3, 8, 8), np.float32),
    "one number": np.float32(3),
    "texts": np.array([["a", "b"]]),
    "complex": np.zeros((4, 3, 8, 8), np.complex64),
    "bits": np.zeros((4, 3, 8, 8), bool),
    "other channels": np.zeros((4, 2, 8, 8), np.float32),
    "channels last": np.zeros((4, 8, 8, 3), np.float32),
    "an image": np.zeros((3, 8, 8), np.float32),
    "wide integers": np.zeros((4, 3, 8, 8), np.int64),
    "not a number": np.full((4, 3, 8, 8), np.nan, np.float32),
}


@pytest.mark.parametrize("name", BATCHES)
def test_samples_of_another_kind_end_in_one_error(name: str, capsys: pytest.CaptureFixture[str]):
    np.save("odd.npy", BATCHES[name])
    assert main(["convert", "float_module:network", "--calibrate", "odd.npy", "-o", "m.maqd"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("maqd: error: ")
    assert "Traceback" not in error
    assert not Path("m.maqd").exists()


def test_samples_of_other_byte_orders_and_widths_are_the_same(capsys: pytest.CaptureFixture[str]):
    data = np.load("data.npy").astype(np.float16)
    found = []
    for dtype in (">f4", "<f8", "<f2"):
        np.save("data.npy", data.astype(dtype))
        assert main(["convert", "float_module:network", "--calibrate", "data.npy", "-o", "m.maqd"]) == 0
        found.append(Path("m.maqd").read_bytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["float_module:leaves", "--calibrate", "data.npy"], "float_module:leaves fails: SystemExit"),
        (["float_module:network", "--calibrate", "data.npy", "--state", "numbers.pt"], "no tensors by name"),
        (["float_module:network", "--calibrate", "data.npy", "--state", "none.pt"], "cannot be read as a state"),
        (["float_module:refused", "--calibrate", "data.npy"], "1: it takes its statistics from each sample"),
        (["float_module:network", "--calibrate", "none.npy"], "cannot be read"),
        (["float_module:network", "--calibrate", "float_module.py"], "no folder and no .npy or .npz file"),
        (["float_module:network", "--calibrate", "data.npy", "--state", "data.npy"], "cannot be read as a state"),
    ],
)
def test_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    torch.save({"0.weight": 3}, "numbers.pt")
    assert main(["convert", *arguments, "-o", "m.maqd"]) == 1
    assert message in capsys.readouterr().err
    assert not Path("m.maqd").exists()


def test_help_shows_the_three_lines(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    told = capsys.readouterr().out
    assert "maqd.convert(network, images, weights=3, activations=4)" in told
    assert "--calibrate samples.npy" in told
