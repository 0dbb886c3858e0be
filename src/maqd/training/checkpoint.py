"""Checkpoints: what is in one, how it is written so that it cannot be lost, and how it is read back.

A checkpoint is a Lightning checkpoint (a zip file of PyTorch's, readable with `weights_only=True`) with one more entry
"maqd": the schema number, the configuration, the data set's sizes, the position in the run and the last test result.
"""

import contextlib
import io
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor, nn

from maqd.data.arrays import DataInfo
from maqd.errors import CheckpointError, ConfigError, advice
from maqd.io.files import write_atomically
from maqd.settings.training import TrainConfig
from maqd.settings.tree import differences, from_plain, to_plain
from maqd.training.ema import CHECKPOINT_KEY as EMA_KEY
from maqd.training.run_directory import RunDirectory

SCHEMA = 3
"""Version of the entry "maqd". Schemas 1 and 2 are translated when they are read, any other is refused."""

SHAPE = ("takes", "num_classes")
"""What a network must have in common with its data."""

KEY = "maqd"
NETWORK_PREFIX = "network."


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come: the next batch to train on.

    Args:
        epoch: Epochs done.
        batch: Batches done in the current epoch (on each device), less than its length.
        step: Optimizer steps done in the whole run.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A result on the held-out samples, or on the test set.

    Args:
        correct: Samples classified correctly (positions, where each has a label); None with a loss or a metric of one's
            own.
        total: Samples (or positions).
        loss: Mean loss; cross-entropy is in nats, without label smoothing.
        metric: Mean of the run's own metric; None without one.
    """

    correct: int | None
    total: int
    loss: float
    metric: float | None = None

    @property
    def accuracy(self) -> float:
        """Fraction classified correctly; not-a-number where that is not counted."""
        return math.nan if self.correct is None else self.correct / self.total

    def figures(self, prefix: str = "") -> dict[str, float]:
        """What is known, by name, for one JSON object."""
        found: dict[str, float] = {} if self.correct is None else {f"{prefix}accuracy": self.accuracy}
        found |= {} if self.metric is None else {f"{prefix}metric": self.metric}
        return {**found, f"{prefix}loss": self.loss}

    def no_worse_than(self, other: "Evaluation") -> bool:
        """Whether it is as good: by right answers, or else by the loss."""
        if self.correct is not None and other.correct is not None:
            return self.correct >= other.correct
        return self.loss <= other.loss

    def __str__(self) -> str:
        if self.correct is not None:
            return f"{100 * self.accuracy:.2f}% ({self.correct}/{self.total})"
        return f"loss {self.loss:.4g}" + ("" if self.metric is None else f", metric {self.metric:.4g}")


def evaluated_images(config: TrainConfig) -> str:
    """The images that a run evaluates after each epoch: "validation" where some are held out, else "test"."""
    return "validation" if config.data.validation else "test"


@dataclass(frozen=True, kw_only=True)
class Header:
    """The entry "maqd" of a checkpoint.

    Args:
        config: Configuration of the run.
        data: Sizes and classes of its data. Runs of schema 1 did not keep how many images there were: 0.
        processes: Number of processes that shared each epoch.
        position: Where it continues.
        evaluation: Result of the weights in this checkpoint, on the images that `evaluated` says; None in the middle of
            an epoch.
        best: Best result on held-out images so far; None where none are held out (or, in runs of older versions, of the
            test set).
    """

    config: TrainConfig
    data: DataInfo
    processes: int
    position: Position
    evaluation: Evaluation | None
    best: Evaluation | None

    @property
    def evaluated(self) -> str:
        """Which images the results are of: "validation" where some are held out, else "test"."""
        return evaluated_images(self.config)

    def plain(self) -> dict[str, Any]:
        """What is stored."""
        return {"schema": SCHEMA, **to_plain(self)}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Args:
        path: Where it came from.
        header: The entry "maqd".
        tree: All of it, as Lightning wrote it.
    """

    path: Path
    header: Header
    tree: Mapping[str, Any]

    def network_state(self) -> dict[str, Tensor]:
        """The state of the network to evaluate: the moving average if the run kept one, else the trained weights."""
        if EMA_KEY in self.tree:
            return dict(self.tree[EMA_KEY])
        return self.trained_state()

    def trained_state(self) -> dict[str, Tensor]:
        """The state of the trained network, which training continues with."""
        return {key.removeprefix(NETWORK_PREFIX): value for key, value in self.tree["state_dict"].items()}


@contextlib.contextmanager
def writing_run_file(path: Path, *, kept: str = "") -> Iterator[None]:
    """Turn a failure to write a file of a run into an error that says how to go on.

    Args:
        path: The file or directory to name.
        kept: What of it is unharmed, a clause that ends in "; ".

    Raises:
        CheckpointError: What the block wrote could not be written.
    """
    try:
        yield
    except OSError as error:
        remedy = advice(error, "remove the cause")
        # A file of a run is in its directory or one below.
        resumable = any(RunDirectory(folder).last.exists() for folder in path.parents[:2])
        remedy += " and continue with --resume" if resumable else " and start again with --overwrite"
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}; {kept}{remedy}") from error


def write_run_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file of a run; see `maqd.io.files.write_atomically`.

    Raises:
        CheckpointError: It could not be written; the old file is untouched and no temporary file is left.
    """
    with writing_run_file(path, kept="the previous one is intact; " if path.exists() else ""):
        write_atomically(path, [data])


def read_checkpoint(path: Path, *, map_location: Any = "cpu") -> Checkpoint:
    """Read a checkpoint with `weights_only=True` and check all of its bytes and its header.

    Raises:
        CheckpointError: The file is missing, damaged, no checkpoint of this package, or of another schema.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; train first, or pass another run directory") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        # PyTorch does not compare the checksums in the file; zipfile does.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: wrong checksum of {damaged}; use another checkpoint")
        tree = torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain values, it was not written here") from error
    except CheckpointError:
        raise
    except Exception as error:
        # A damaged zip or pickle raises nearly anything: BadZipFile, EOFError, RuntimeError, UnicodeDecodeError, ...
        raise CheckpointError(
            f"{path} is damaged ({len(data)} bytes, {type(error).__name__}); use another checkpoint"
        ) from error
    header = read_header(path, tree)
    for key in ("state_dict", *([EMA_KEY] if EMA_KEY in tree else [])):
        state = tree[key]
        if not isinstance(state, Mapping) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
        ):
            raise CheckpointError(f'{path} is damaged: "{key}" must hold tensors by name; use another checkpoint')
    return Checkpoint(path, header, tree)


def read_header(path: Path, tree: object) -> Header:
    """The checked entry "maqd" of a checkpoint.

    Raises:
        CheckpointError: It is missing, incomplete or of another schema.
    """
    if not isinstance(tree, Mapping) or not isinstance(tree.get(KEY), Mapping) or "state_dict" not in tree:
        raise CheckpointError(f"{path} is no checkpoint of a maqd training run; pass one that `maqd train` wrote")
    entries = dict(tree[KEY])
    schema = entries.pop("schema", None)
    if schema == 1:
        shape = entries.pop("shape", None)
        if isinstance(shape, Mapping):
            entries["data"] = {"class_names": (), "train_size": 0, "test_size": 0, **shape}
    if schema in (1, 2):
        data = entries.get("data")
        if isinstance(data, Mapping) and {"in_channels", "image_size"} <= data.keys():
            size = data["image_size"]
            image = {"name": "image", "shape": (data["in_channels"], size, size), "dtype": "uint8"}
            others = {key: value for key, value in data.items() if key not in ("in_channels", "image_size")}
            entries["data"] = {"inputs": [image], **others}
        schema = SCHEMA
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        remedy = "use the newer version of maqd that wrote it" if newer else "train again"
        raise CheckpointError(f"{path} has schema {schema!r}, this version of maqd reads schema {SCHEMA}; {remedy}")
    try:
        return from_plain(Header, entries)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path} has a header that does not fit schema {SCHEMA}: {error}") from error


def check_same_run(checkpoint: Checkpoint, config: TrainConfig, info: DataInfo) -> None:
    """Check that a checkpoint can continue under a configuration.

    Raises:
        CheckpointError: The network or the shape of the data differ; the message says in what.
    """
    stored = checkpoint.header
    changes = {
        **{f"model.{key}": pair for key, pair in _changes(stored.config.model, config.model).items()},
        **{
            key: (getattr(stored.data, key), getattr(info, key))
            for key in SHAPE
            if getattr(stored.data, key) != getattr(info, key)
        },
    }
    if changes:
        raise CheckpointError(
            f"{checkpoint.path} belongs to another model: {describe(changes)}; "
            "resume with the model of the checkpoint or start a new run"
        )


RESUMABLE_CHANGES = (
    "run",
    "epochs",
    "lowerable",
    "log_every",
    "evaluate_every",
    "compute.",
    "data.path",
    "data.cache_dir",
    "data.workers",
    "data.stream",
    "data.eval_batch_size",
)
"""Options that may differ when a run is resumed: all others would make it another run under the same name."""


def fixed_changes(stored: TrainConfig, asked: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Differences between two configurations that make them different runs: dotted key -> (stored, asked)."""
    return {
        key: pair
        for key, pair in _changes(stored, asked).items()
        if not any(key == free or (free.endswith(".") and key.startswith(free)) for free in RESUMABLE_CHANGES)
    }


def describe(changes: Mapping[str, tuple[Any, Any]], there: str = "there", here: str = "here") -> str:
    """One line for differences between what is stored and what was asked for."""
    return ", ".join(f"{key} is {stored} {there}, {asked} {here}" for key, (stored, asked) in changes.items())


def _changes(stored: object, asked: object) -> dict[str, tuple[Any, Any]]:
    return differences(to_plain(stored), to_plain(asked))


def load_network_state(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the evaluated weights of a checkpoint into a network.

    Raises:
        CheckpointError: Names or shapes of its tensors are others than the network's.
    """
    check_tensors(checkpoint.path, network.state_dict(), checkpoint.network_state())
    network.load_state_dict(checkpoint.network_state())


def check_tensors(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint's tensors have the names and shapes of a network's.

    Raises:
        CheckpointError: They do not; the message names the first one.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name in expected and name in found and not expected[name].numel():
            continue  # the border of an input that is not fitted yet takes any size
        here = tuple(expected[name].shape) if name in expected else "absent"
        there = tuple(found[name].shape) if name in found else "absent"
        if here != there:
            raise CheckpointError(
                f"{path} belongs to another model: {name} is {there} there, {here} here; "
                "use the version of maqd that wrote it or train again"
            )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to files: checkpoints appear whole or not at all, and are checked when read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; see `write_run_file`."""
        # Into memory first: a failing write inside PyTorch's zip writer cannot be handled cleanly.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_run_file(Path(path), buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`."""
        return dict(read_checkpoint(Path(path), map_location=map_location or "cpu").tree)
