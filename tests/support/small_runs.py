"""Runs on the digits, in this process and in others, and what they wrote."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from maqd.settings.training import TrainConfig
from maqd.training.progress import Output
from maqd.training.train import TrainResult, train

SMALL = """
seed: 3
epochs: 2
log_every: 1
model: {architecture: digits, width: 0.25}
data: {batch_size: 32, samples_per_epoch: 224}
compute: {device: cpu, threads: 1}
"""


class Silent:
    """Runs `train` and keeps what it says."""

    def __init__(self) -> None:
        self.text = StringIO()

    def __call__(self, config: TrainConfig, **options: Any) -> TrainResult:
        return train(config, output=Output(self.text), **options)


def entries(config: TrainConfig | Path, event: str) -> list[dict[str, Any]]:
    """The lines of one kind in a run's metrics, without what depends on the clock."""
    path = config if isinstance(config, Path) else Path(str(config.run))
    lines = (json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in line.items() if key not in ("images_per_second", "time")}
        for line in lines
        if line["event"] == event
    ]


def elsewhere(config: TrainConfig, name: str) -> TrainConfig:
    """The same run in another directory."""
    return replace(config, run=str(Path(str(config.run)).parent / name))


def last(config: TrainConfig) -> Path:
    """The last checkpoint of a run."""
    return Path(str(config.run)) / "checkpoints" / "last.ckpt"


def maqd(*arguments: str, cwd: Path, **options: Any) -> "subprocess.Popen[str]":
    """Start `maqd` in another process, in a session of its own."""
    # Below torchrun or pytest-xdist there may be variables that would make this a part of their run.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "maqd.cli", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def names(directory: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond `limit` bytes: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
