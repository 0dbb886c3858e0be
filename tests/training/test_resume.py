"""A run that is interrupted and resumed is the run that was not, bit for bit."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Silent, elsewhere, entries, last
from torch import Tensor, nn

from maqd.errors import CheckpointError, ConfigError
from maqd.settings.training import OptimConfig, Optimizer, Schedule, TrainConfig
from maqd.training import train as training
from maqd.training.checkpoint import read_checkpoint
from maqd.training.interrupt import Interrupted, StopCallback
from maqd.training.module import TrainingModule


class Dropping(nn.Module):
    """A network with a layer that draws from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.float() / 255)


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Press Ctrl-C in the training batch of this number."""
    original, seen = TrainingModule.training_step, [0]

    def step(self: TrainingModule, batch: Any, batch_idx: int) -> Tensor:
        seen[0] += 1
        if seen[0] == batches:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", step)


def interrupted_and_resumed(config: TrainConfig, run: Silent, batches: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, batches)
        with pytest.raises(Interrupted) as stop:
            run(config)
    assert stop.value.saved
    torch.manual_seed(999)
    torch.rand(7)
    run(config, resume=True)


def tensors(config: TrainConfig) -> dict[str, Tensor]:
    return read_checkpoint(last(config)).trained_state()


def assert_same_run(one: TrainConfig, two: TrainConfig) -> None:
    assert entries(one, "train") == entries(two, "train")
    assert entries(one, "test") == entries(two, "test")
    first, second = tensors(one), tensors(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("batches", [3, 7, 10, 13], ids=["mid first", "end of first", "mid second", "near the end"])
def test_resumed_run_equals_an_uninterrupted_one(config: TrainConfig, run: Silent, batches: int) -> None:
    whole, parts = elsewhere(config, "whole"), elsewhere(config, "parts")
    run(whole)
    interrupted_and_resumed(parts, run, batches)
    assert len(entries(whole, "train")) == 14
    assert_same_run(whole, parts)


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_resuming_keeps_averages_accumulation_and_windows(
    config: TrainConfig, run: Silent, optimizer: Optimizer
) -> None:
    # Two batches a step leave one batch over in each epoch; three steps a line leave losses unread at the stop.
    optim = OptimConfig(optimizer=optimizer, lr=1e-3, schedule=Schedule.COSINE, accumulate=2, gradient_clip=1.0)
    config = replace(config, optim=optim, ema_decay=0.9, log_every=3)
    whole, parts = elsewhere(config, "whole"), elsewhere(config, "parts")
    run(whole)
    interrupted_and_resumed(parts, run, 9)
    assert [entry["step"] for entry in entries(whole, "train")] == [3, 6]
    assert_same_run(whole, parts)


def test_resuming_keeps_what_is_random_in_layers(
    config: TrainConfig, run: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "network_of", lambda *_, **__: Dropping())
    whole, parts = elsewhere(config, "whole"), elsewhere(config, "parts")
    run(whole)
    interrupted_and_resumed(parts, run, 4)
    assert_same_run(whole, parts)


def test_a_killed_run_loses_what_it_wrote_after_its_checkpoint(config: TrainConfig, run: Silent) -> None:
    whole, parts = elsewhere(config, "whole"), elsewhere(config, "parts")
    run(whole)
    with pytest.MonkeyPatch.context() as patch:
        original, seen = TrainingModule.training_step, [0]

        def step(self: TrainingModule, batch: Any, batch_idx: int) -> Tensor:
            seen[0] += 1
            if seen[0] == 11:
                raise MemoryError
            return original(self, batch, batch_idx)

        patch.setattr(TrainingModule, "training_step", step)
        with pytest.raises(MemoryError):
            run(parts)
    assert len(entries(parts, "train")) == 10
    with (Path(str(parts.run)) / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    run(parts, resume=True)
    assert_same_run(whole, parts)


def test_the_second_ctrl_c_stops_at_once(config: TrainConfig, run: Silent) -> None:
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    original, seen = TrainingModule.training_step, [0]

    def step(self: TrainingModule, batch: Any, batch_idx: int) -> Tensor:
        seen[0] += 1
        if seen[0] == 10:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", step)
        with pytest.raises(Interrupted) as stop:
            run(config)
    assert not stop.value.saved
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert read_checkpoint(last(config)).header.position.step == 7
    assert run(config, resume=True).steps == 14


def test_seeds_reproduce_runs(config: TrainConfig, run: Silent) -> None:
    one, two, other = (elsewhere(config, name) for name in ("one", "two", "other"))
    run(one)
    run(two)
    run(replace(other, seed=4))
    assert_same_run(one, two)
    assert entries(one, "train") != entries(other, "train")


def test_more_epochs_can_be_asked_for(config: TrainConfig, run: Silent) -> None:
    config = replace(config, optim=OptimConfig(schedule=Schedule.CONSTANT))
    run(config)
    assert run(config, resume=True).steps == 14
    assert "complete" in run.text.getvalue()
    assert run(replace(config, epochs=3), resume=True).steps == 21
    with pytest.raises(ConfigError, match="done 3 epochs, epochs is 2"):
        run(config, resume=True)


@pytest.mark.parametrize("schedule", [Schedule.ONE_CYCLE, Schedule.COSINE])
def test_a_finished_schedule_is_not_begun_again(config: TrainConfig, run: Silent, schedule: Schedule) -> None:
    config = replace(config, epochs=1, optim=OptimConfig(schedule=schedule))
    run(config)
    before = last(config).read_bytes()
    with pytest.raises(ConfigError, match=r"lowered the learning rate .* train a new run with --epochs 5"):
        run(replace(config, epochs=5), resume=True)
    assert last(config).read_bytes() == before


def test_another_configuration_is_refused(config: TrainConfig, run: Silent) -> None:
    run(replace(config, epochs=1))
    quant = replace(config.model.quant, act_states=2)
    with pytest.raises(CheckpointError, match=r"model\.quant\.act_states is 4 there, 2 here"):
        run(replace(config, model=replace(config.model, quant=quant)), resume=True)
    with pytest.raises(ConfigError, match=r"optim\.lr is 0\.004 there, 0\.1 here"):
        run(replace(config, optim=OptimConfig(lr=0.1)), resume=True)


def test_epochs_that_are_not_evaluated_are_saved_and_resumed(config: TrainConfig, run: Silent) -> None:
    config = replace(config, epochs=3, evaluate_every=3)
    whole = elsewhere(config, "whole")
    result = run(whole)
    assert [entry["epoch"] for entry in entries(whole, "test")] == [3]
    assert [entry["epoch"] for entry in entries(whole, "epoch")] == [1, 2]
    assert run.text.getvalue().count("test ") == 1
    run(replace(config, epochs=2, evaluate_every=5))
    assert [entry["epoch"] for entry in entries(config, "test")] == [2]
    every = elsewhere(config, "every")
    run(replace(every, evaluate_every=1))
    assert [entry["epoch"] for entry in entries(every, "test")] == [1, 2, 3]
    # Evaluating changes nothing in training.
    assert entries(every, "train") == entries(whole, "train")
    assert entries(every, "test")[-1] == entries(whole, "test")[-1]
    assert entries(whole, "test")[-1]["correct"] == result.evaluation.correct


def test_a_run_stopped_after_an_epoch_without_evaluation_goes_on(config: TrainConfig, run: Silent) -> None:
    config = replace(config, epochs=3, evaluate_every=3)
    whole, parts = elsewhere(config, "whole"), elsewhere(config, "parts")
    run(whole)

    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopCallback, "on_train_epoch_end", stop)
        with pytest.raises(StopError):
            run(parts)
    assert read_checkpoint(last(parts)).header.evaluation is None
    run(parts, resume=True)
    assert_same_run(whole, parts)
