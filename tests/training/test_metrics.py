"""Metrics that cannot be written: the run ends with an error that says how to go on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import full_disk

from maqd.errors import CheckpointError
from maqd.training.checkpoint import Position
from maqd.training.metrics import MetricsCallback, MetricsWriter, loss_trend, read_metrics, truncate_metrics

pytestmark = [
    pytest.mark.usefixtures("ended_threads"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


def test_full_disk_names_the_metrics_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, None, step=0) as writer:
        writer.write("train", step=1, loss=2.5)
    before = path.read_text()
    with (
        full_disk(len(before) + 10),
        pytest.raises(CheckpointError, match=r"metrics\.jsonl cannot be written: File too large; free some space and"),
        MetricsWriter(path, None, step=1) as writer,
    ):
        writer.write("train", step=2, loss=1.5)
    # What was cut short is dropped when the run is resumed.
    truncate_metrics(path, Position(epoch=0, batch=1, step=1))
    assert path.read_text() == before


def test_full_disk_under_tensorboard_alone(tmp_path: Path) -> None:
    def write() -> None:
        writer.write("train", step=1, loss=2.5)
        writer.close()

    writer = MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", step=0)
    with full_disk(60), pytest.raises(CheckpointError, match="tensorboard cannot be written: File too large; free"):
        write()


def test_full_disk_at_the_start(tmp_path: Path) -> None:
    with full_disk(60), pytest.raises(CheckpointError, match="tensorboard cannot be written: File too large; free"):
        MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", step=0)


def test_what_ended_the_run_is_not_hidden(tmp_path: Path) -> None:
    def write() -> None:
        with writer:
            writer.write("train", step=1, loss=2.5)
            raise ValueError("first")

    writer = MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", step=0)
    with full_disk(60), pytest.raises(ValueError, match="first"):
        write()


def losses(*values: float, every: int = 1) -> list[dict[str, Any]]:
    lines = [{"event": "train", "step": every * (place + 1), "loss": loss} for place, loss in enumerate(values)]
    return [{"event": "start", "step": 0}, *lines, {"event": "test", "step": every * len(values)}]


def test_the_trend_of_losses_by_hand() -> None:
    assert loss_trend(losses(*[3.0] * 10, *[9.0] * 5, *[2.0] * 9, 1.0)) == (3.0, 1.9)
    assert loss_trend(losses(4.0, 9.0, 5.0, every=50)) == (4.0, 5.0)
    assert loss_trend(losses(*range(100, 0, -1), every=50)) == (95.5, 5.5)
    assert loss_trend(losses(*[1.0] * 19)) is None
    assert loss_trend(losses(2.0, every=50)) is None
    assert loss_trend([]) is None


def test_the_norm_of_the_gradient_is_that_of_the_step_with_the_line(tmp_path: Path) -> None:
    weights = [
        torch.nn.Parameter(torch.zeros(2)),
        torch.nn.Parameter(torch.zeros(1)),
        torch.nn.Parameter(torch.zeros(1)),
    ]
    module: Any = SimpleNamespace(
        parameters=lambda: weights, stepped=True, check_loss=lambda *_: None, start=Position(), learning_rate=0.1,
        losses=SimpleNamespace(read=lambda: 1.5),
    )  # fmt: skip
    trainer: Any = SimpleNamespace(world_size=1, current_epoch=0)
    batch = (torch.zeros(4, 1), torch.zeros(4))
    with MetricsWriter(tmp_path / "metrics.jsonl", None, step=0) as writer:
        callback = MetricsCallback(writer, log_every=2)
        for step in range(4):
            weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]) * (step + 1), torch.tensor([4.0]) * (step + 1)
            module.position = Position(step=step)
            callback.on_before_optimizer_step(trainer, module, None)
            module.position = Position(step=step + 1)
            callback.on_train_batch_end(trainer, module, None, batch, step)
    assert [(line["step"], line["gradient_norm"]) for line in read_metrics(tmp_path / "metrics.jsonl")] == [
        (2, 10),
        (4, 20),
    ]
