"""The directory of a training run: where its files are, and who may write to it."""

import contextlib
import enum
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maqd.errors import CheckpointError, ConfigError

try:
    import fcntl
except ImportError:  # Not on Windows: there, two runs in one directory are not noticed.
    fcntl = None


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run.

    Args:
        path: The directory.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Directory of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest accuracy on held-out images; absent where none are held out."""
        return self.checkpoints / "best.ckpt"

    @property
    def lock(self) -> Path:
        """Locked by the process that trains here."""
        return self.path / ".lock"

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Check that a run may start here, and make room for it. Call this with the lock held.

        Args:
            resume: The run continues the one that is here.
            overwrite: The run replaces the one that is here.

        Raises:
            ConfigError: There is a run here and neither was asked for, or both were.
            CheckpointError: There is nothing to resume.
        """
        if resume and overwrite:
            raise ConfigError("--resume and --overwrite exclude each other: continue the run or replace it")
        if resume and not self.last.exists():
            raise CheckpointError(f"{self.path} holds no checkpoint to resume from; start it without --resume")
        if self.last.exists() and not (resume or overwrite):
            raise ConfigError(
                f"{self.path} already holds a run; continue it with --resume, replace it with --overwrite, "
                "or choose another directory with --run DIR"
            )
        if not resume:
            # A run that never reached its first checkpoint has nothing worth keeping.
            for leftover in (self.checkpoints, self.tensorboard):
                shutil.rmtree(leftover, ignore_errors=True)
            for leftover in (self.config, self.metrics):
                leftover.unlink(missing_ok=True)
        self.checkpoints.mkdir(exist_ok=True)


class Which(enum.Enum):
    """A checkpoint of a run."""

    LAST = "last"
    BEST = "best"
    """Of those on held-out images."""


def checkpoint_path(run: Path, which: Which) -> Path:
    """The file of a checkpoint.

    Raises:
        CheckpointError: The directory is missing or is no run.
    """
    directory = RunDirectory(run)
    path = directory.best if which is Which.BEST else directory.last
    if not path.exists():
        if which is Which.BEST and directory.last.exists():
            raise CheckpointError(
                f"{run} holds no best checkpoint: it was trained without held-out images; use its last checkpoint, or "
                "train with --data.validation N"
            )
        what = "does not exist" if not run.exists() else f"holds no {which.value} checkpoint"
        raise CheckpointError(f"{run} {what}; pass the directory of a run of `maqd train`")
    return path


@contextlib.contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Hold the lock of a run directory, which is made if it is missing. A killed process releases its lock.

    Raises:
        ConfigError: Another process holds it, or the path is no directory.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{run.path} cannot be a run directory: a file is in the way") from error
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise ConfigError(
                    f"{run.path} is in use by a training run (process {owner}); wait for it or choose another "
                    "directory with --run DIR"
                ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        # The file stays: removing it would let a third process lock a new file beside one that is still waiting.
        os.close(descriptor)
