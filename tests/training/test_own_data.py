"""Training beyond images and classes: arrays, networks, losses and metrics of one's own, at a command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_code
import pytest
import torch

import maqd
from maqd.cli import main
from maqd.data import DataConfig, Source, open_data
from maqd.errors import ConfigError
from maqd.graph import container
from maqd.runtime import NumpyEngine
from maqd.training.runs import open_run

SMALL = ["--compute.threads", "1", "--compute.device", "cpu", "--data.batch_size", "32", "--log_every", "4"]
OWN = [
    *["--model", "own_code:regression", "--data", "own_code:arrays", "--loss", "own_code:squared"],
    *["--metric", "own_code:within", "--data.validation", "0.25", "--optim.lr", "2e-2"],
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads on float windows and 16-bit vectors, with own loss and metric."""
    path = tmp_path_factory.mktemp("own") / "run"
    assert main(["train", "--run", str(path), *OWN, *SMALL, "--epochs", "4"]) == 0
    return path


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def test_a_network_of_ones_own_learns_and_lowers(run: Path, tmp_path: Path, read: Any):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    results = [line for line in lines if line["event"] == "validation"]
    assert results[-1]["validation_loss"] < results[0]["validation_loss"]
    assert not {"correct", "train_accuracy", "validation_accuracy"} & set(results[-1])
    best = min(results, key=lambda line: line["validation_loss"])
    header = open_run(run, allow_import=True).header
    assert header.best is not None
    assert header.best.loss == best["validation_loss"]
    read("lower", run, "-o", tmp_path / "m.maqd", "--allow-import")
    graph = container.load(tmp_path / "m.maqd")
    assert [node.key for node in graph.outputs] == ["sum", "largest"]
    found = read("verify", tmp_path / "m.maqd", "--against", run, "--allow-import", "--images", "96")
    assert (found["ok"], found["samples"]) == (True, 96)
    # The test loss by hand, from the integers of another engine.
    inputs, targets = own_code.arrays("test")
    scores = NumpyEngine(graph).scores(inputs)
    wanted = sum(((scores[key] - targets[key].astype(np.float32)) ** 2).mean() for key in targets)
    found = read("eval", run, "--allow-import")
    assert found["test_loss"] == pytest.approx(float(wanted), rel=1e-5)
    within = np.abs(scores["sum"] - targets["sum"].astype(np.float32)) < 1
    assert found["test_metric"] == pytest.approx(within.mean())
    assert "correct" not in found or found["correct"] is None


def test_two_inputs_of_a_run_are_measured(run: Path, tmp_path: Path, read: Any):
    read("lower", run, "-o", tmp_path / "m.maqd", "--allow-import")
    found = read("bench", tmp_path / "m.maqd", "--against", run, "--allow-import", "--batch", "1,3", "--repeats", "2")
    assert [result["engine"]["batch"] for result in found["results"]] == [1, 3]
    assert {"left", "right"} <= {name for layer in found["layers"] for name in layer["nodes"]}


def test_float_inputs_are_fitted_to_all_training_samples(run: Path):
    border = open_run(run, allow_import=True).network.windows.border
    data = open_data(
        DataConfig(source=Source.FUNCTION, function="own_code:arrays", validation=0.25), seed=0, classifies=False
    )
    assert data.train_inputs is not None
    window = torch.cat([inputs[0] for inputs in data.train_inputs()]).numpy()
    assert len(window) == 192
    codes = border.codes(window, own_code.FINE)
    assert (codes.min(), codes.max()) == (-127, 127)


def test_a_run_imports_nothing_unasked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for command in (
        ["eval", str(run)],
        ["lower", str(run), "-o", str(tmp_path / "m.maqd")],
        ["train", "--run", str(run), "--resume", "--epochs", "5"],
        ["train", "--config", str(run / "config.yaml"), "--run", str(tmp_path / "again")],
    ):
        assert main(command) == 1
        assert "names a function to import" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="allow_import=True"):
        _ = maqd.open_run(run).network
    assert not (tmp_path / "again").exists()


def test_a_run_resumes_bit_for_bit(tmp_path: Path):
    states = []
    for name, parts in (("whole", [[]]), ("parts", [["--epochs", "1"], ["--epochs", "2", "--resume"]])):
        path = tmp_path / name
        for extra in parts:
            options = [*OWN, *SMALL, "--epochs", "2", "--optim.schedule", "constant", *extra]
            assert main(["train", "--run", str(path), *options]) == 0
        states.append(open_run(path, allow_import=True).network.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_rectangles_of_npz_files_are_classified(tmp_path: Path, read: Any):
    generator = np.random.default_rng(0)
    for split, count in (("train", 192), ("test", 64)):
        labels = generator.integers(0, 3, count).astype(np.uint8)
        pictures = generator.integers(0, 60, (count, 1, 4, 9), dtype=np.uint8)
        pictures[np.arange(count), 0, labels] += 150
        np.savez(tmp_path / f"{split}.npz", pictures=pictures, kind=labels)
    data = ["--data.source", "arrays", "--data.path", tmp_path, "--data.x", "[pictures]", "--data.y", "[kind]"]
    options = [*SMALL, "--epochs", "8", "--model", "own_code:rows", "--model.quant.weight_states", "7"]
    found = read("train", "--run", tmp_path / "run", *data, *options)
    assert found["total"] == 64
    assert found["test_accuracy"] > 0.9
    graph = open_run(tmp_path / "run", allow_import=True).graph
    assert graph.input.shape == (1, 4, 9)
    assert graph.labels("output") == ("0", "1", "2")


def test_square_bytes_train_the_networks_of_the_package(tmp_path: Path, read: Any):
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 96), ("test", 32)):
        arrays[f"x_{split}"] = generator.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 2
    np.savez(tmp_path / "all.npz", **arrays)
    data = ["--data.source", "arrays", "--data.path", tmp_path / "all.npz", "--data.augment.crop_padding", "1"]
    found = read("train", "--run", tmp_path / "run", *data, *SMALL, "--epochs", "1", "--model.width", "0.25")
    assert found["total"] == 32
    assert open_run(tmp_path / "run").header.data.takes == "x uint8[1,8,8]"


def saved(path: Path, **arrays: np.ndarray) -> list[str]:
    path.mkdir()
    for split in ("train", "test"):
        np.savez(path / f"{split}.npz", **arrays)
    return ["--data.source", "arrays", "--data.path", str(path)]


BYTES, LABELS = np.zeros((8, 1, 8, 8), np.uint8), np.arange(8) % 2
FLOATS = np.linspace(0, 1, 8 * 12, dtype=np.float32).reshape(8, 12)


@pytest.mark.parametrize(
    ("arrays", "options", "part"),
    [
        ({"x": BYTES}, [], "has no array 'y', only x"),
        ({"x": BYTES, "y": LABELS[:3]}, [], "same number of samples, at least 1, got 8 in 'x', 3 in 'y'"),
        ({"x": BYTES.astype(np.int64), "y": LABELS}, [], "input 'x' must be of type uint8"),
        ({"x": FLOATS * np.nan, "y": LABELS}, [], "'x' must be finite"),
        ({"x": FLOATS, "y": LABELS}, [], "takes square uint8 images, and the data has x float32[12]"),
        ({"x": BYTES, "y": LABELS / 2}, [], "cross-entropy takes one array of integer labels, got y float32[]"),
        ({"x": BYTES, "y": LABELS - 1}, [], "labels must be numbered from 0 on, got -1 .. 0"),
        ({"x": BYTES, "y": LABELS * 3}, [], "label 1 (1) has no training sample"),
        ({"x": FLOATS, "y": LABELS}, ["--data.augment.flip", "true"], "augment changes square uint8 images"),
        ({"x": FLOATS, "y": LABELS}, ["--model", "own_code:computed"], "this one gets something computed"),
        ({"x": BYTES, "y": LABELS}, ["--model", "own_code:regression"], "fails on a batch of uint8[8, 1, 8, 8]"),
        (
            {"x": BYTES, "y": LABELS},
            ["--model", "own_code:curved"],
            "change it, or train it all the same with --lowerable false: 2: Sigmoid has no integer form",
        ),
        ({"x": BYTES, "y": LABELS}, ["--model", "own_code:not_a_network"], "must return a torch.nn.Module, got int"),
        ({"x": BYTES, "y": LABELS}, ["--model", "own_code:wants_more"], "needs an argument 'depth', and gets quant"),
        ({"x": BYTES, "y": LABELS}, ["--model", "own_code:nothing"], "has no function 'nothing'"),
        ({"x": BYTES, "y": LABELS}, ["--model", "own_code:rows", "--model.width", "2"], "no parameter 'width'"),
        (
            {"x": BYTES, "y": np.zeros((8, 2), np.float32)},
            ["--model", "own_code:rows", "--loss", "own_code:not_a_mean"],
            "the loss must be a float tensor without dimensions, got torch.float32 of shape (8, 2)",
        ),
        ({"x": BYTES, "y": LABELS}, ["--loss", "own_code:squared"], "the data has no classes"),
        (
            {"x": BYTES, "y": LABELS},
            ["--loss", "own_code:squared", "--label_smoothing", "0.1"],
            "label_smoothing must be 0 with the loss own_code:squared",
        ),
        ({"x": BYTES, "y": LABELS}, ["--data.x", "[]"], "x must name at least one array"),
        ({"x": BYTES, "y": LABELS}, ["--data.function", "own_code:arrays"], "do not go together"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    arrays: dict[str, np.ndarray],
    options: list[str],
    part: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    data = saved(tmp_path / "data", **arrays)
    assert main(["train", "--run", str(tmp_path / "run"), *data, *SMALL, *options]) in (1, 2)
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_a_network_that_cannot_be_lowered_is_trained_all_the_same(tmp_path: Path, read: Any):
    data = saved(tmp_path / "data", x=BYTES, y=LABELS)
    options = [*data, *SMALL, "--epochs", "1", "--model", "own_code:curved", "--lowerable", "false"]
    assert read("train", "--run", tmp_path / "run", *options)["total"] == 8
