"""What a run records of its layers: the same numbers as counted by hand, and the same after resuming."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import Silent, elsewhere, entries, last
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resume import interrupted_and_resumed

from maqd.data import open_data
from maqd.report.sparsity import activations, nonzero_ratio, weights
from maqd.settings.training import TrainConfig
from maqd.training.checkpoint import read_checkpoint
from maqd.training.recording import CHECKPOINT_KEY, changed, weight_codes
from maqd.training.runs import load_network


def test_layers_are_those_of_the_checkpoint(config: TrainConfig, run: Silent) -> None:
    run(config)
    record = entries(config, "layers")[-1]
    network, _ = load_network(Path(str(config.run)))
    images, _ = next(iter(open_data(config.data, seed=config.seed).test_loader()))
    layers, active = weights(network), activations(network, [images])
    assert record["R_w"] == nonzero_ratio(layers)
    assert record["test_R_a"] == nonzero_ratio(active)
    assert [(entry["name"], entry["nonzero"]) for entry in record["weights"]] == [
        (layer.name, layer.nonzero / layer.count) for layer in layers
    ]
    assert [(entry["name"], entry["nonzero"]) for entry in record["activations"]] == [
        (layer.name, layer.nonzero / layer.count) for layer in active
    ]


def test_what_is_recorded_says_what_it_was_measured_on(config: TrainConfig, run: Silent) -> None:
    """No figure of images in the metrics or in TensorBoard goes without the name of the set."""
    for validation, images in ((0, "test"), (100, "validation")):
        one = replace(elsewhere(config, images), data=replace(config.data, validation=validation))
        run(one)
        record = entries(one, "layers")[-1]
        assert (record["images"], record["count"]) == (images, min(one.data.eval_batch_size, validation or 360))
        other = {"test": "validation", "validation": "test"}[images]
        assert entries(one, other) == []
        for entry in entries(one, images):
            measured = {key for key in entry if key.endswith(("accuracy", "loss"))}
            assert measured == {f"{images}_accuracy", f"{images}_loss", "train_accuracy", "train_loss"}
        board = EventAccumulator(str(Path(str(one.run)) / "tensorboard"))
        board.Reload()
        free = (
            "R_w/",
            "flips/",
            "train/",
            "layers/R_w",
            "layers/epoch",
            "layers/count",
            f"layers/{images}_R_a",
            "start/",
        )
        for tag in board.Tags()["scalars"]:
            assert tag.startswith((*free, f"{images}/")) or f" on {images}" in tag, tag
    assert "test " not in run.text.getvalue().splitlines()[-1]
    assert run.text.getvalue().splitlines()[-1].count("validation ") == 1


def test_flips_compare_with_the_evaluation_before(config: TrainConfig, run: Silent) -> None:
    run(config)
    first, second = entries(config, "layers")
    assert all(entry["flips"] is None for entry in first["weights"])
    flips = {entry["name"]: entry["flips"] for entry in second["weights"]}
    assert all(0 < share < 1 for share in flips.values())
    kept = read_checkpoint(last(config)).tree[CHECKPOINT_KEY]
    network, _ = load_network(Path(str(config.run)))
    assert all(torch.equal(codes, kept[name]) for name, codes in weight_codes(network).items())


def test_changed_codes_are_counted() -> None:
    before = {"a": torch.tensor([0, 1, -1, 0], dtype=torch.int16)}
    after = {"a": torch.tensor([0, 1, 1, 1], dtype=torch.int16), "b": torch.tensor([1])}
    assert changed(after, before) == {"a": 0.5}


def test_resumed_runs_record_the_same(config: TrainConfig, run: Silent) -> None:
    whole, parts = elsewhere(config, "whole"), elsewhere(config, "parts")
    run(whole)
    interrupted_and_resumed(parts, run, 10)
    assert entries(whole, "layers") == entries(parts, "layers")
    assert entries(whole, "test") == entries(parts, "test")


def test_training_accuracy_and_rate_are_written(config: TrainConfig, run: Silent) -> None:
    run(config)
    for entry in entries(config, "test"):
        # 224 images an epoch in batches of 32: the mean of equal batches is a fraction of the images.
        assert (entry["train_accuracy"] * 224) % 1 == pytest.approx(0, abs=1e-4)
        assert 0 < entry["train_accuracy"] <= 1
        assert entry["lr"] > 0


def test_tensorboard_gets_scalars_and_histograms(config: TrainConfig, run: Silent) -> None:
    run(config)
    board = EventAccumulator(str(Path(str(config.run)) / "tensorboard"))
    board.Reload()
    record = entries(config, "layers")[-1]
    for title, group in (("R_w", "weights"), ("R_a on test", "activations")):
        for entry in record[group]:
            assert board.Scalars(f"{title}/{entry['name']}")[-1].value == pytest.approx(entry["nonzero"], rel=1e-6)
    network, _ = load_network(Path(str(config.run)))
    for name, codes in weight_codes(network).items():
        assert board.Histograms(f"weight codes/{name}")[-1].histogram_value.num == codes.numel()
