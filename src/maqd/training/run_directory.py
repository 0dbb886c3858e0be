"""The directory of a training run: where its files are, and which process may write to it."""

import contextlib
import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maqd.errors import CheckpointError, ConfigError, OutputError, advice
from maqd.io.outputs import COMMENT, make_directory
from maqd.settings.training import TrainConfig
from maqd.settings.tree import check_keys

try:
    import fcntl
except ImportError:  # Not on Windows: there, two runs in one directory are not noticed.
    fcntl = None


def stored_options(tree: Any) -> bytes:
    """Options as YAML, with a line that tells them from a user's own: those are never replaced."""
    return f"{COMMENT} train, which may replace it.\n{yaml.safe_dump(tree, sort_keys=False)}".encode()


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

    def holds(self) -> list[Path]:
        """What makes this directory a run: its configuration, its metrics, and any checkpoint or log of any name."""
        found = [path for path in (self.config, self.metrics) if path.exists()]
        for folder in (self.checkpoints, self.tensorboard):
            if folder.is_dir():
                found += sorted(folder.iterdir())
            elif folder.exists():
                found.append(folder)
        return found

    @property
    def only_begun(self) -> bool:
        """Whether a run was stopped here before its first result, so that starting again loses nothing."""
        if self.checkpoints.is_dir() and any(self.checkpoints.iterdir()):
            return False
        if not self._is_ours():
            return False
        lines = self.metrics.read_text(errors="replace").splitlines() if self.metrics.exists() else []
        return all('"event": "validation"' not in line and '"event": "test"' not in line for line in lines)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Check that a run may start here. Call this with the lock held.

        Args:
            resume: The run continues the one that is here.
            overwrite: The run replaces the one that is here.

        Raises:
            ConfigError: There is a run here and neither was asked for, or both were; or what is here to be replaced
                was not written by a run.
            CheckpointError: There is nothing to resume.
        """
        if resume and overwrite:
            raise ConfigError("--resume and --overwrite exclude each other: continue the run or replace it")
        held = self.holds()
        if resume and not self.last.exists():
            remedy = "start it again with --overwrite" if held else "start it without --resume"
            raise CheckpointError(f"{self.path} holds no checkpoint to resume from; {remedy}")
        for folder in (self.checkpoints, self.tensorboard):
            if folder.exists() and not folder.is_dir():
                raise ConfigError(f"{folder} must be a directory, and a file is in the way; choose another --run DIR")
        if held and not (resume or overwrite):
            what = (
                "" if self.last.exists() else f" without {self.last.name} ({held[0].relative_to(self.path)} is there)"
            )
            remedy = "continue it with --resume, " if self.last.exists() else ""
            raise ConfigError(
                f"{self.path} already holds a run{what}; {remedy}replace it with --overwrite, "
                "or choose another directory with --run DIR"
            )
        if held and overwrite and not self._is_ours():
            raise ConfigError(
                f"{self.path} holds {held[0].relative_to(self.path)} but no {self.config.name} that maqd wrote: "
                "it is not replaced; choose another directory with --run DIR, or remove the files yourself"
            )

    def clear(self) -> None:
        """Remove the files of the run that is here, after `check`. Only what a run wrote is removed: nothing else.

        The configuration stays until another one replaces it: without it, what is left would not be known as a run's.
        """
        for written in self._written():
            written.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed process left half written. Call this with the lock held."""
        for left in self._half_written():
            left.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Whether the configuration here was written by a training run: one that a user wrote has the same keys."""
        try:
            text = self.config.read_text()
            check_keys(TrainConfig, yaml.safe_load(text), str(self.config))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ConfigError):
            return False
        # Earlier versions wrote no comment, but had metrics beside the configuration at once.
        return text.startswith(COMMENT) or self.metrics.exists()

    def _written(self) -> Iterator[Path]:
        """The files that runs write beside their configuration, and what a killed one left of them."""
        yield from (self.last, self.best, self.metrics)
        yield from self.tensorboard.glob("events.out.tfevents.*")
        yield from self._half_written()

    def _half_written(self) -> Iterator[Path]:
        for file in (self.last, self.best, self.config, self.metrics):
            yield from file.parent.glob(f".{file.name}.*.tmp")


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
        ConfigError: Another process holds it.
        OutputError: The directory cannot be made or written to.
    """
    try:
        os.fspath(run.path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the directory of a run must have a name that UTF-8 can hold, got {os.fspath(run.path)!a}: logs cannot be "
            "written there; choose another --run DIR"
        ) from error
    make_directory(run.path)
    try:
        descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            f"{run.path} cannot be written to: {error.strerror}; {advice(error, 'choose another --run DIR')}"
        ) from error
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
        # The file stays: without it a third process could lock a new file while a second one waits for the old one.
        os.close(descriptor)
