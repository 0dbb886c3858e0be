"""Fixtures of the training tests."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import Silent

from maqd.data import DataConfig
from maqd.models import Architecture, ModelConfig
from maqd.settings.training import ComputeConfig, Device, OptimConfig, TrainConfig


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ended_threads() -> Iterator[None]:
    """Wait for threads that the test started, such as TensorBoard's, which fails on its own on a full disk."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Two epochs of seven batches."""
    return TrainConfig(
        seed=3,
        run=str(tmp_path / "run"),
        epochs=2,
        log_every=1,
        label_smoothing=0.1,
        model=ModelConfig(architecture=Architecture.DIGITS, width=0.25),
        data=DataConfig(batch_size=32, samples_per_epoch=224),
        optim=OptimConfig(),
        compute=ComputeConfig(device=Device.CPU, threads=1),
    )


@pytest.fixture
def run() -> Silent:
    return Silent()
