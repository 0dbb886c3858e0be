"""Wrong arguments of every command: one line that names the argument and the remedy, never a traceback."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import full_disk

from maqd.cli import Command, main
from maqd.export.onnx.integer import save_onnx
from maqd.graph import container
from maqd.models import Architecture, ModelConfig
from maqd.settings.training import ComputeConfig, TrainConfig
from maqd.training.progress import Output
from maqd.training.runs import open_run
from maqd.training.train import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run, its graph, an ONNX file, an image, a folder, a text file and an empty file."""
    here = tmp_path_factory.mktemp("made")
    config = TrainConfig(
        run=str(here / "run"),
        epochs=1,
        model=ModelConfig(architecture=Architecture.DIGITS, width=0.25),
        compute=ComputeConfig(threads=1),
    )
    train(config, output=Output(silent=True))
    graph = open_run(here / "run").graph
    container.save(graph, here / "m.maqd")
    save_onnx(graph, here / "m.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "image.png")
    (here / "folder").mkdir()
    (here / "text").write_text("text")
    (here / "empty").write_bytes(b"")
    (here / "loop").symlink_to("loop")
    return here


@pytest.fixture(autouse=True)
def _there(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)


GRAPH_COMMANDS = {
    "info": [],
    "verify": ["--images", "1", "--engines", "numpy"],
    "run": ["image.png"],
    "export": ["--to", "onnx", "-o", "new.onnx"],
    "bench": [],
}
"""Commands that read a graph, and what else they need."""

NO_GRAPHS = {
    "missing": "missing",
    "folder": "folder",
    "text": "text",
    "empty": "empty",
    "run": "run is a run; lower it first: maqd lower run -o run.maqd",
    "m.onnx": "an ONNX file, not a .maqd file",
    "image.png": "a PNG picture, not a .maqd file",
    "run/checkpoints/last.ckpt": "a checkpoint, not a .maqd file",
    "m.maqd/x": "m.maqd/x",
    "loop": "loop",
    "n" * 300: "nnn",
    "": "must name a file",
}
"""Arguments that name no graph, and what the message must hold."""

RUN_COMMANDS: dict[str, list[str]] = {"eval": [], "lower": ["-o", "new.maqd"]}
NO_RUNS = {name: name for name in ("missing", "folder", "text", "empty", "m.maqd", "loop", "m.maqd/x")}
NO_RUNS |= {"": "must name a file"}

VALUES: dict[str, list[tuple[list[str], str]]] = {
    "demo": [
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "many"], "--epochs"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "x"], "--seed"),
        (["--output", ""], "--output"),
        (["--output", "text"], "text"),
        (["--output", "text/x"], "text"),
        (["extra"], "extra"),
    ],
    "train": [
        (["--epochs", "x"], "epochs"),
        (["--epochs", ""], "epochs"),
        (["--epochs", "1.5"], "epochs"),
        (["--data.path", "missing", "--data.source", "image_folder", "--run", "newrun"], "missing"),
        (["--data.path", "text", "--data.source", "cifar10", "--run", "newrun"], "text"),
        (["--data.path", "folder", "--data.source", "hugging_face", "--run", "newrun"], "folder"),
        (["--config", "missing"], "missing"),
        (["--config", "folder"], "folder"),
        (["--config", "m.maqd"], "m.maqd"),
        (["--config", "text"], "text"),
        (["--config", ""], "--config"),
        (["--run", "text"], "text"),
        (["--run", "text/x"], "text"),
        (["--run", ""], "--run"),
        (["--run", "/proc/x"], "/proc/x"),
        (["--run", "n" * 300], "nnn"),
        (["--run", "missing", "--resume"], "missing"),
        (["--init.run", "missing", "--run", "newrun"], "missing"),
        (["--init.run", "folder", "--run", "newrun"], "folder"),
        (["--init.run", "text", "--run", "newrun"], "text"),
        (["--compute.device", "tpu"], "compute.device"),
        (["--compute.threads", "0"], "compute.threads"),
        (["--seed", "-1"], "seed"),
        (["--model.quant.overrides", "[{pattern: nothing.*, weight_states: 15}]", "--run", "newrun"], "'nothing.*'"),
        (["--model.quant.overrides", "3"], "overrides"),
        (["--model.quant.overrides", "[3]"], "overrides"),
        (["--model.quant.overrides", "[{pattern: 3}]"], "overrides"),
        (["--optim.lr", "nan"], "optim.lr"),
        (["--optim.lr", "[1]"], "optim.lr"),
        (["--optim", "3"], "optim"),
        (["nothing"], "nothing"),
    ],
    "eval": [
        (["run", "--checkpoint", "x"], "--checkpoint"),
        (["run", "--checkpoint", "best"], "best"),
        (["run", "--data.batch_size", "0"], "batch_size"),
        (["run", "--data.source", "image_folder"], "path"),
        (["run", "--data.source", "image_folder", "--data.path", "folder"], "folder"),
        (["run", "--compute.threads", "x"], "compute.threads"),
        (["run", "extra"], "extra"),
        ([], "RUN"),
    ],
    "lower": [
        (["run"], "--output"),
        (["run", "-o", "n" * 300], "nnn"),
        (["run", "-o", "loop"], "loop"),
        (["run", "-o", "/proc/x"], "/proc/x"),
        (["run", "-o", "new", "--affine", "x"], "--affine"),
        (["run", "-o", "new", "--checkpoint", "best"], "best"),
        (["run", "-o"], "-o"),
    ],
    "verify": [
        (["m.maqd", "--images", "0"], "--images"),
        (["m.maqd", "--images", "x"], "--images"),
        (["m.maqd", "--engines", "x"], "--engines"),
        (["m.maqd", "--engines", ""], "--engines"),
        (["m.maqd", "--against", "missing"], "missing"),
        (["m.maqd", "--against", "m.maqd"], "m.maqd"),
        (["m.maqd", "--against", ""], "--against"),
        (["m.maqd", "--against", "run", "--data.image_size", "x"], "image_size"),
        (["m.maqd", "--against", "run", "--data.image_size", "9"], "9"),
    ],
    "run": [
        (["m.maqd"], "FILE"),
        (["m.maqd", ""], "FILE"),
        *[(["m.maqd", name], name) for name in ("missing", "folder", "text", "empty", "m.onnx", "loop", "text/x")],
        (["m.maqd", "image.png", "--top", "0"], "--top"),
        (["m.maqd", "image.png", "--top", "x"], "--top"),
        (["m.maqd", "image.png", "--engine", "x"], "--engine"),
        (["m.maqd", "image.png", "--input", "output=image.png"], "--input"),
        (["m.maqd", "--input", "image.png"], "KEY=FILE"),
        (["m.maqd", "--input", "y=image.png"], "'y'"),
        (["m.maqd", "--input", "missing.npz"], "missing.npz"),
        (["m.maqd", "image.png", "-o", "new"], "-o"),
        (["m.maqd", "image.png", "-o", "missing/new.npz"], "missing"),
    ],
    "info": [(["m.maqd", "extra"], "extra"), (["m.maqd", "--jsn"], "--json"), ([], "GRAPH")],
    "export": [
        (["m.maqd", "--to", "onnx"], "--output"),
        (["m.maqd", "-o", "new"], "--to"),
        (["m.maqd", "--to", "x", "-o", "new"], "--to"),
        (["m.maqd", "--to", "c99", "-o", "new", "--prefix", "1"], "'1'"),
        (["m.maqd", "--to", "c99", "-o", "new", "--prefix", ""], "''"),
        (["m.maqd", "--to", "c99", "-o", "new", "--flash", "x"], "--flash"),
        (["m.maqd", "--to", "c99", "-o", "new", "--ram", "1"], "--ram"),
        (["m.maqd", "--to", "c99", "-o", "folder/x/y"], "folder/x"),
        (["m.maqd", "--to", "c99", "-o", "new", "--against", "missing"], "missing"),
        (["m.maqd", "--to", "onnx", "-o", "run"], "run"),
        (["m.maqd", "--to", "onnx", "-o", "loop"], "loop"),
        (["m.maqd", "--to", "qonnx", "-o", "/proc/x"], "/proc/x"),
    ],
    "check": [
        ([], "PACKAGE.MODULE:FUNCTION"),
        (["", "--example", "1x1x8x8"], "''"),
        (["nothing", "--example", "1x1x8x8"], "nothing"),
        (["nothing:of_the_kind", "--example", "1x1x8x8"], "nothing"),
        (["maqd.models:nothing", "--example", "1x1x8x8"], "nothing"),
        (["maqd.models:VGG", "--example", "1x1x8x8"], "maqd.models:VGG"),
        (["maqd.machine:machine", "--example", "1x1x8x8"], "maqd.machine:machine"),
        (["maqd.models:VGG"], "--example"),
        (["maqd.models:VGG", "--example", ""], "--example"),
        (["maqd.models:VGG", "--example", "1x0x8"], "--example"),
        (["maqd.models:VGG", "--example", "x"], "--example"),
    ],
    "recipes": [(["nothing"], "nothing"), (["--jsn"], "--json")],
    "bench": [
        (["m.maqd", "--batch", "0"], "--batch"),
        (["m.maqd", "--batch", "x"], "--batch"),
        (["m.maqd", "--batch", ""], "--batch"),
        (["m.maqd", "--threads", "0"], "threads"),
        (["m.maqd", "--threads", "-1"], "threads"),
        (["m.maqd", "--threads", "x"], "--threads"),
        (["m.maqd", "--repeats", "1"], "--repeats"),
        (["m.maqd", "--target", "x"], "--target"),
        (["m.maqd", "--strategy", "small"], "--strategy"),
        (["m.maqd", "--against", "folder"], "folder"),
    ],
}
"""Wrong values of every command's other arguments, and what the message must hold."""

CASES = [
    *[([command, name, *rest], part) for command, rest in GRAPH_COMMANDS.items() for name, part in NO_GRAPHS.items()],
    *[([command, name, *rest], part) for command, rest in RUN_COMMANDS.items() for name, part in NO_RUNS.items()],
    *[([command, *arguments], part) for command, cases in VALUES.items() for arguments, part in cases],
]


def test_every_command_is_tried():
    assert set(VALUES) == {command.value for command in Command}


@pytest.mark.parametrize(("arguments", "part"), CASES, ids=[" ".join(arguments)[:60] for arguments, _ in CASES])
def test_wrong_arguments_end_in_one_line(
    arguments: list[str], part: str, made: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(path.name for path in made.iterdir())
    status = main(arguments)
    out, err = capsys.readouterr()
    assert status in (1, 2)
    assert out == ""
    assert err.startswith("maqd: error: ")
    assert err.count("\n") == 1
    assert part in err
    # What was wrong, and what to do: two clauses, or the list of what may be given.
    assert re.search(r"; |\(see maqd |choose from", err), err
    left = sorted(path.name for path in made.iterdir() if path.name != "newrun")
    assert left == [name for name in before if name != "newrun"]


@pytest.mark.parametrize("command", [command.value for command in Command])
def test_unknown_options_are_usage_errors(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "--nothing-of-the-kind", "3"]) == 2
    assert f"(see maqd {command} --help)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["lower", "run", "-o", "written"], "written"),
        (["export", "m.maqd", "--to", "onnx", "-o", "written"], "written"),
        (["export", "m.maqd", "--to", "qonnx", "-o", "written"], "written"),
        (["export", "m.maqd", "--to", "c99", "-o", "written"], "written"),
    ],
)
def test_a_full_disk_leaves_nothing_and_names_the_output(
    arguments: list[str], output: str, made: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(path.name for path in made.iterdir())
    with full_disk(1000):
        assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"maqd: error: {output}: ")
    assert "; free some space" in err
    assert sorted(path.name for path in made.iterdir()) == before


def test_the_demo_replaces_no_run_but_its_own(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(made / "run", tmp_path / "demo" / "w3a4")
    before = sorted(tmp_path.rglob("*"))
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 1
    assert "w3a4 holds a run that is not the demo's; name another directory" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


# ---- what works where something else would be clumsy ----------------------------------------------------------------


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with --json; its status, object and standard error."""

    def call(*arguments: object) -> tuple[int, Any, str]:
        status = main([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out), err

    return call


def test_run_takes_folders_and_batches(made: Path, tmp_path: Path, read: Callable[..., Any]):
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image[0]).save(folder / f"{number}.png")
    (folder / ".hidden").write_text("")
    np.save(tmp_path / "first.npy", pixels)
    np.save(tmp_path / "last.npy", np.moveaxis(pixels, 1, -1))
    for path, names in (
        (folder, [str(folder / f"{number}.png") for number in range(3)]),
        (tmp_path / "first.npy", [f"{tmp_path / 'first.npy'}[{number}]" for number in range(3)]),
        (tmp_path / "last.npy", [f"{tmp_path / 'last.npy'}[{number}]" for number in range(3)]),
    ):
        status, found, err = read("run", "m.maqd", path)
        assert (status, err) == (0, "")
        assert [entry["sample"] for entry in found["samples"]] == names
        assert [entry["outputs"] for entry in found["samples"]] == [
            entry["outputs"] for entry in read("run", "m.maqd", folder)[1]["samples"]
        ]


def test_one_bad_image_does_not_hide_the_others(made: Path, read: Callable[..., Any]):
    status, found, err = read("run", "m.maqd", "image.png", "text", "image.png")
    assert status == 1
    assert [entry["sample"] for entry in found["samples"]] == ["image.png"] * 2
    assert err.startswith("maqd: error: text: must be a whole image")
    assert err.count("\n") == 1


def test_run_says_what_it_leaves_out_of_an_image(made: Path, tmp_path: Path, read: Callable[..., Any]):
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 100, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(tmp_path / "a.png")
    assert "a.gif: only the first of its 3 frames is used" in read("run", "m.maqd", tmp_path / "a.gif")[2]
    assert "a.png: its transparency is ignored" in read("run", "m.maqd", tmp_path / "a.png")[2]


def test_a_training_that_learns_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--optim.lr", "30", "--optim.optimizer", "sgd", "--epochs", "2", "--log_every", "10"]
    options += ["--compute.threads", "1", "--model.width", "0.25", "--optim.schedule", "constant"]
    assert main(["train", "--run", str(tmp_path / "run"), *options]) == 1
    err = capsys.readouterr().err
    assert re.search(
        r"the training loss ended at [\d.e+]+ and began at [\d.e+]+: nothing was learned; lower optim.lr", err
    )
