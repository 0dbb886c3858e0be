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
    "spikes": ["--images", "1"],
    "generate": [],
}
"""Commands that read a graph, and what else they need."""

NO_GRAPHS = {
    "missing": "missing",
    "folder": "folder",
    "text": "text",
    "empty": "empty",
    "run": "run is a run, not a .maqd file; lower it first: maqd lower run -o run.maqd",
    "m.onnx": "an ONNX file, not a .maqd file",
    "image.png": "a PNG picture, not a .maqd file",
    "run/checkpoints/last.ckpt": "a checkpoint, not a .maqd file",
    "m.maqd/x": "m.maqd/x",
    "loop": "loop",
    "n" * 300: "nnn",
    "": "must name a file",
}
"""Arguments that name no graph, and what the message must hold."""

RUN_COMMANDS: dict[str, list[str]] = {"eval": [], "lower": ["-o", "new.maqd"], "mix": []}
NO_RUNS = {name: name for name in ("missing", "folder", "text", "empty", "m.maqd", "loop", "m.maqd/x")}
NO_RUNS |= {"": "must name a file"}


def huge(*words: str) -> list[tuple[list[str], str, int]]:
    """Each option with a number that no machine holds."""
    names, flags = ([word for word in words if word.startswith("--") is flag] for flag in (False, True))
    return [([*names, flag, "9" * 30], flag, 2) for flag in flags]


VALUES: dict[str, list[tuple[list[str], str, int]]] = {
    "demo": [
        (["--epochs", "0"], "--epochs", 2),
        (["--epochs", "many"], "--epochs", 2),
        *huge("--epochs", "--seed"),
        (["--seed", "-1"], "--seed", 2),
        (["--seed", "x"], "--seed", 2),
        (["--output", ""], "--output", 2),
        (["--output", "text"], "text", 1),
        (["--output", "text/x"], "text", 1),
        (["extra"], "extra", 2),
    ],
    "train": [
        (["--epochs", "x"], "epochs", 2),
        (["--epochs", ""], "epochs", 2),
        (["--epochs", "1.5"], "epochs", 2),
        (["--data.path", "missing", "--data.source", "image_folder", "--run", "newrun"], "missing", 1),
        (["--data.path", "text", "--data.source", "cifar10", "--run", "newrun"], "text", 1),
        (["--data.path", "folder", "--data.source", "hugging_face", "--run", "newrun"], "folder", 1),
        (["--config", "missing"], "missing", 2),
        (["--config", "folder"], "folder", 2),
        (["--config", "m.maqd"], "m.maqd", 2),
        (["--config", "text"], "text", 2),
        (["--config", ""], "--config", 2),
        (["--run", "text"], "text", 1),
        (["--run", "text/x"], "text", 1),
        (["--run", ""], "--run", 2),
        (["--run", "/proc/x"], "/proc/x", 1),
        (["--run", "n" * 300], "nnn", 1),
        (["--run", "missing", "--resume"], "missing", 1),
        (["--init.run", "missing", "--run", "newrun"], "missing", 1),
        (["--init.run", "folder", "--run", "newrun"], "folder", 1),
        (["--init.run", "text", "--run", "newrun"], "text", 1),
        (["--compute.device", "tpu"], "compute.device", 2),
        (["--compute.threads", "0"], "compute.threads", 2),
        (["--compute.threads", "100000"], "compute.threads", 2),
        (["--seed", "-1"], "seed", 2),
        (["--model.width", "0"], "width", 2),
        (["--model.width", "nan"], "width", 2),
        (["--model.quant.overrides", "[{pattern: nothing.*, weight_states: 15}]", "--run", "newrun"], "'nothing.*'", 1),
        (["--model.quant.overrides", "3"], "overrides", 2),
        (["--model.quant.overrides", "[3]"], "overrides", 2),
        (["--model.quant.overrides", "[{pattern: 3}]"], "overrides", 2),
        (["--optim.lr", "nan"], "optim.lr", 2),
        (["--optim.lr", "[1]"], "optim.lr", 2),
        (["--optim", "3"], "optim", 2),
        (["nothing"], "nothing", 2),
    ],
    "eval": [
        (["run", "--checkpoint", "x"], "--checkpoint", 2),
        (["run", "--checkpoint", "best"], "best", 1),
        (["run", "--data.batch_size", "0"], "batch_size", 2),
        (["run", "--data.source", "image_folder"], "path", 2),
        (["run", "--data.source", "image_folder", "--data.path", "folder"], "folder", 1),
        (["run", "--compute.threads", "x"], "compute.threads", 2),
        (["run", "extra"], "extra", 2),
        ([], "RUN", 2),
    ],
    "lower": [
        (["run"], "--output", 2),
        (["run", "-o", "n" * 300], "nnn", 1),
        (["run", "-o", "loop"], "loop", 1),
        (["run", "-o", "/proc/x"], "/proc/x", 1),
        (["run", "-o", "new", "--affine", "x"], "--affine", 2),
        (["run", "-o", "new", "--checkpoint", "best"], "best", 1),
        (["run", "-o"], "-o", 2),
    ],
    "verify": [
        (["m.maqd", "--images", "0"], "--images", 2),
        (["m.maqd", "--images", "x"], "--images", 2),
        *huge("m.maqd", "--images"),
        (["m.maqd", "--engines", "x"], "--engines", 2),
        (["m.maqd", "--engines", ""], "--engines", 2),
        (["m.maqd", "--against", "missing"], "missing", 1),
        (["m.maqd", "--against", "m.maqd"], "m.maqd", 1),
        (["m.maqd", "--against", ""], "--against", 2),
        (["m.maqd", "--against", "run", "--data.image_size", "x"], "image_size", 2),
        (["m.maqd", "--against", "run", "--data.image_size", "9"], "9", 1),
    ],
    "run": [
        (["m.maqd"], "FILE", 2),
        (["m.maqd", ""], "FILE", 2),
        *[(["m.maqd", name], name, 1) for name in ("missing", "folder", "text", "empty", "m.onnx", "loop", "text/x")],
        (["m.maqd", "image.png", "--top", "0"], "--top", 2),
        (["m.maqd", "image.png", "--top", "x"], "--top", 2),
        *huge("m.maqd", "--top"),
        (["m.maqd", "image.png", "--engine", "x"], "--engine", 2),
        (["m.maqd", "image.png", "--input", "output=image.png"], "--input", 2),
        (["m.maqd", "--input", "image.png"], "KEY=FILE", 2),
        (["m.maqd", "--input", "y=image.png"], "'y'", 2),
        (["m.maqd", "--input", "missing.npz"], "missing.npz", 1),
        (["m.maqd", "image.png", "-o", "new"], "-o", 2),
        (["m.maqd", "image.png", "-o", "missing/new.npz"], "missing", 1),
    ],
    "info": [(["m.maqd", "extra"], "extra", 2), (["m.maqd", "--jsn"], "--json", 2), ([], "GRAPH", 2)],
    "export": [
        (["m.maqd", "--to", "onnx"], "--output", 2),
        (["m.maqd", "-o", "new"], "--to", 2),
        (["m.maqd", "--to", "x", "-o", "new"], "--to", 2),
        (["m.maqd", "--to", "c99", "-o", "new", "--prefix", "1"], "'1'", 2),
        (["m.maqd", "--to", "c99", "-o", "new", "--prefix", ""], "''", 2),
        (["m.maqd", "--to", "c99", "-o", "new", "--flash", "x"], "--flash", 2),
        (["m.maqd", "--to", "c99", "-o", "new", "--ram", "1"], "--ram", 1),
        (["m.maqd", "--to", "onnx", "-o", "new", "--type", "f32"], "--type belongs to --to gguf", 2),
        (["m.maqd", "--to", "gguf", "-o", "new"], "m.maqd: it holds an integer graph", 1),
        (["m.maqd", "--to", "c99", "-o", "folder/x/y"], "folder/x", 1),
        (["m.maqd", "--to", "c99", "-o", "new", "--against", "missing"], "missing", 1),
        (["m.maqd", "--to", "onnx", "-o", "run"], "run", 1),
        (["m.maqd", "--to", "onnx", "-o", "loop"], "loop", 1),
        (["m.maqd", "--to", "qonnx", "-o", "/proc/x"], "/proc/x", 1),
    ],
    "check": [
        ([], "PACKAGE.MODULE:FUNCTION", 2),
        (["", "--example", "1x1x8x8"], "''", 2),
        (["nothing", "--example", "1x1x8x8"], "nothing", 2),
        (["nothing:of_the_kind", "--example", "1x1x8x8"], "nothing", 1),
        (["maqd.models:nothing", "--example", "1x1x8x8"], "nothing", 1),
        (["maqd.models:VGG", "--example", "1x1x8x8"], "maqd.models:VGG", 1),
        (["maqd.machine:machine", "--example", "1x1x8x8"], "maqd.machine:machine", 1),
        (["maqd.models:VGG"], "--example", 2),
        (["maqd.models:VGG", "--example", ""], "--example", 2),
        (["maqd.models:VGG", "--example", "1x0x8"], "--example", 2),
        (["maqd.models:VGG", "--example", "x"], "--example", 2),
    ],
    "report": [
        ([], "RUN|GRAPH", 2),
        (["missing"], "missing", 1),
        (["folder"], "folder", 1),
        (["text"], "text", 1),
        (["m.maqd", "--samples", "0"], "--samples", 2),
        *huge("m.maqd", "--samples"),
        (["m.maqd", "-o", "image.png"], "image.png", 1),
        (["m.maqd", "-o", "missing/x.html"], "missing", 1),
        (["m.maqd", "--checkpoint", "best"], "--checkpoint belongs to a RUN", 2),
        (["m.maqd", "--allow-import"], "--allow-import", 2),
    ],
    "convert": [
        ([], "PACKAGE.MODULE:FUNCTION", 2),
        (["maqd.models:VGG", "-o", "new.maqd"], "--calibrate", 2),
        (["maqd.models:VGG", "--calibrate", "folder"], "--output", 2),
        (["maqd.models", "--calibrate", "folder", "-o", "new.maqd"], "'maqd.models'", 2),
        (["a:b", "--calibrate", "folder", "-o", "new.maqd"], "--size", 2),
        (["a:b", "--calibrate", "folder", "-o", "new.maqd", "--size", "3"], "--size", 2),
        (["a:b", "--calibrate", "folder", "-o", "new.maqd", "--size", "3x8x8", "--mean", "1,2"], "--mean", 2),
        (["a:b", "--calibrate", "folder", "-o", "new.maqd", "--size", "3x8x8", "--std", "0"], "--std", 2),
        (["a:b", "--calibrate", "folder", "-o", "new.maqd", "--std", "nan"], "--std", 2),
        (["a:b", "--calibrate", "text", "-o", "new.maqd", "--mean", "0.5"], "--mean", 2),
        (["a:b", "--calibrate", "text", "-o", "new.maqd", "--weights", "1"], "--weights", 2),
        (["a:b", "--calibrate", "text", "-o", "new.maqd", "--activations", "65537"], "--activations", 2),
        (["a:b", "--calibrate", "text", "-o", "new.maqd", "--weights", "3.5"], "--weights", 2),
        (["a:b", "--calibrate", "", "-o", "new.maqd"], "--calibrate", 2),
        (["maqd.models:nothing", "--calibrate", "text", "-o", "new.maqd"], "nothing", 1),
        (["maqd.models.tiny:resnet8", "--calibrate", "missing", "-o", "new.maqd"], "missing", 1),
        (["maqd.models.tiny:resnet8", "--calibrate", "text", "-o", "image.png"], "image.png", 1),
    ],
    "spikes": [
        (["m.maqd", "--mode", "both"], "--mode", 2),
        *huge("m.maqd", "--images", "--steps", "--leak"),
        (["m.maqd", "--steps", "3"], "--mode free", 2),
        (["m.maqd", "--leak", "2"], "--mode free", 2),
        (["m.maqd", "--mode", "free", "--steps", "0"], "--steps", 2),
        (["m.maqd", "--mode", "free", "--leak", "0"], "leak is a shift", 2),
        (["m.maqd", "--images", "0"], "--images", 2),
        (["m.maqd", "--against", "folder"], "folder", 1),
    ],
    "generate": [
        (["m.maqd"], "m.maqd: it holds an integer graph", 1),
        (["m.maqd", "--temperature", "-1"], "temperature must be 0 or positive", 2),
        (["m.maqd", "--temperature", "x"], "--temperature", 2),
        *huge("m.maqd", "--tokens", "--top-k", "--seed", "--threads"),
        (["m.maqd", "--top-k", "0"], "top_k must be at least 1", 2),
        (["m.maqd", "--top-p", "0"], "top_p must be in (0, 1]", 2),
        (["m.maqd", "--threads", "0"], "threads", 2),
        (["m.maqd", "--seed", "-1"], "seed must be 0 or positive", 2),
        (["m.maqd", "--tokens", "-1"], "tokens must be 0 or positive", 2),
        (["m.maqd", "text", "more"], "unexpected argument 'more'", 2),
    ],
    "experiment": [
        (["nothing"], "nothing", 2),
        (["--threads", "0"], "--threads", 2),
        (["--budget", "x"], "--budget", 2),
    ],
    "mix": [
        (["run", "--bytes", "1", "--operations", "1"], "two budgets", 2),
        (["run", "-o", "mixed.yaml"], "--bytes", 2),
        (["run", "--weight-states", "3,x"], "--weight-states", 2),
        (["run", "--act-states", "1,2"], "--act-states", 2),
        (["run", "--batches", "0"], "--batches", 2),
        *huge("run", "--batches"),
    ],
    "recipes": [(["nothing"], "nothing", 2), (["--jsn"], "--json", 2)],
    "bench": [
        (["m.maqd", "--batch", "0"], "--batch", 2),
        (["m.maqd", "--batch", "x"], "--batch", 2),
        (["m.maqd", "--threads", "4097"], "--threads", 2),
        *huge("m.maqd", "--batch", "--threads", "--repeats"),
        (["m.maqd", "--batch", ""], "--batch", 2),
        (["m.maqd", "--threads", "0"], "threads", 2),
        (["m.maqd", "--threads", "-1"], "threads", 2),
        (["m.maqd", "--threads", "x"], "--threads", 2),
        (["m.maqd", "--repeats", "1"], "--repeats", 2),
        (["m.maqd", "--target", "x"], "--target", 2),
        (["m.maqd", "--strategy", "small"], "--strategy", 2),
        (["m.maqd", "--against", "folder"], "folder", 1),
    ],
}
"""Wrong values of every command's other arguments, what the message must hold, and the status.

2: the text of the command line, or of a file of options that it names, is wrong. 1: what it names is missing or unfit.
"""

CASES = [
    *[
        ([command, name, *rest], part, 1 if name else 2)
        for commands, names in ((GRAPH_COMMANDS, NO_GRAPHS), (RUN_COMMANDS, NO_RUNS))
        for command, rest in commands.items()
        for name, part in names.items()
    ],
    *[([command, *arguments], part, status) for command, cases in VALUES.items() for arguments, part, status in cases],
]


def test_every_command_is_tried():
    assert set(VALUES) == {command.value for command in Command}


@pytest.mark.parametrize(("arguments", "part", "status"), CASES, ids=[" ".join(case[0])[:60] for case in CASES])
def test_wrong_arguments_end_in_one_line(
    arguments: list[str], part: str, status: int, made: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(path.name for path in made.iterdir())
    assert main(arguments) == status
    out, err = capsys.readouterr()
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


def test_memory_that_is_not_enough_ends_a_command_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def allocate(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 728. TiB for an array")

    monkeypatch.setattr("maqd.cli.bench._samples", allocate)
    assert main(["bench", "m.maqd", "--batch", "2147483647"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("maqd: error: memory is not enough: Unable to allocate 728. TiB for an array; take fewer")
    assert err.count("\n") == 1


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
