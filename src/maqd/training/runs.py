"""Finished runs, opened: `maqd.open_run`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from maqd.data import DataConfig, open_data
from maqd.errors import CheckpointError, ConfigError
from maqd.nn.calling import each
from maqd.settings.functions import check_imports
from maqd.settings.training import TrainConfig
from maqd.settings.tree import read_config
from maqd.training.checkpoint import Header, describe, fixed_changes, load_network_state, read_checkpoint
from maqd.training.metrics import parse_entry
from maqd.training.networks import example_of, network_of
from maqd.training.objective import Objective
from maqd.training.run_directory import RunDirectory, Which, checkpoint_path

if TYPE_CHECKING:
    from maqd.graph import Graph


def load_network(path: Path, *, allow_import: bool = False) -> tuple[nn.Module, Header]:
    """The network of a checkpoint, on the CPU, in evaluation mode, with the weights to deploy.

    Args:
        path: A checkpoint, or a run directory for its last checkpoint.
        allow_import: Whether the function that builds the network may be imported, if the checkpoint names one.

    Raises:
        CheckpointError: As `read_checkpoint` and `load_network_state`.
        ConfigError: It names a function that may not be imported, or that cannot be.
    """
    checkpoint = read_checkpoint(RunDirectory(path).last if path.is_dir() else path)
    model = checkpoint.header.config.model
    if model.function is not None:
        check_imports({"model.function": model.function}, (), where=str(checkpoint.path), allow=allow_import)
    network = network_of(model, checkpoint.header.data)
    load_network_state(network, checkpoint)
    return network.eval(), checkpoint.header


@dataclass(frozen=True)
class Run:
    """A run directory and what is in it. Checkpoints are read when they are first asked for.

    Args:
        path: The directory.
        which: The checkpoint to take.
        allow_import: Whether functions that it names, of its network, its data, its loss, may be imported.
    """

    path: Path
    which: Which = Which.LAST
    allow_import: bool = False

    @cached_property
    def _loaded(self) -> tuple[nn.Module, Header]:
        return load_network(checkpoint_path(self.path, self.which), allow_import=self.allow_import)

    def _check_imports(self, *options: str) -> None:
        named = {key: place for key, place in self.config.functions.items() if key in options}
        check_imports(named, (), where=str(self.path), allow=self.allow_import)

    @property
    def objective(self) -> Objective:
        """Its loss and metric.

        Raises:
            ConfigError: It names functions that may not be imported, or that cannot be.
        """
        self._check_imports("loss", "metric")
        return Objective.of(self.config)

    @cached_property
    def config(self) -> TrainConfig:
        """Its configuration: what it was trained with, and paths and the like as config.yaml has them now.

        Raises:
            ConfigError: config.yaml was edited in what cannot change any more.
        """
        path, trained = RunDirectory(self.path).config, self.header.config
        if not path.exists():
            return trained
        stored = read_config(path, TrainConfig)
        changes = fixed_changes(trained, stored)
        if changes:
            raise ConfigError(
                f"{path} was edited after training: {describe(changes, 'in the checkpoint', 'in the file')}; "
                f"undo that, or train a new run with --config {path} --run DIR"
            )
        return stored

    @property
    def header(self) -> Header:
        """What its checkpoint says of its data, its position and its results."""
        return self._loaded[1]

    @property
    def network(self) -> nn.Module:
        """Its network, on the CPU, in evaluation mode; of images: uint8 N x C x H x W -> logits N x classes.

        Raises:
            ConfigError: As `config`.
        """
        _ = self.config  # an edited file is noticed before its network is used
        return self._loaded[0]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of its metrics.jsonl, in order; each has "event" and "step".

        Raises:
            CheckpointError: The file is missing or a line of it is damaged.
        """
        path = RunDirectory(self.path).metrics
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; train again") from error
        found = []
        for number, line in enumerate(lines, 1):
            entry = parse_entry(line)
            if entry is None:
                raise CheckpointError(
                    f'{path}, line {number}, is no JSON object with "event" and "step"; continue the run with --resume '
                    "to mend it"
                )
            found.append(entry)
        return found

    @cached_property
    def graph(self) -> "Graph":
        """Its network as an integer graph, proved equal.

        Raises:
            LoweringError: It has a layer that cannot be lowered.
        """
        from maqd.lowering import lower

        return lower(self.network, self.example, labels=self.header.data.class_names).graph

    @property
    def example(self) -> tuple[torch.Tensor, ...]:
        """One sample of zeros for each input of its network."""
        return example_of(self.header.data)

    def test_inputs(
        self, count: int, *, data: DataConfig | None = None, batch: int = 50
    ) -> Iterator[tuple[NDArray[np.generic], ...]]:
        """What its network is tested on: an array for each input; see `test_batches`."""
        return (inputs for inputs, _ in self.test_batches(count, data=data, batch=batch))

    def test_batches(
        self, count: int, *, data: DataConfig | None = None, batch: int = 50
    ) -> Iterator[tuple[tuple[NDArray[np.generic], ...], NDArray[np.generic] | None]]:
        """What its network is tested on, with targets.

        Args:
            count: At most this many samples.
            data: The data set to take instead of the run's own.
            batch: Samples at a time.

        Yields:
            An array for each input, up to `batch` x its shape; and the target, None where there are several.

        Raises:
            ConfigError: They have other shapes or types than those it was trained on, or the run names a function that
                may not be imported.
        """
        if data is None:
            self._check_imports("data.function")
        config = self.config.data if data is None else data
        opened = open_data(
            replace(config, eval_batch_size=batch), seed=self.config.seed, classifies=self.config.loss is None
        )
        if opened.info.takes != self.header.data.takes:
            raise ConfigError(
                f"{self.path} was trained on {self.header.data.takes}, the data has {opened.info.takes}; "
                "pass the data it was trained on"
            )
        left = count
        for inputs, targets in opened.test_loader():
            if left <= 0:
                return
            given = tuple(one[:left].contiguous().numpy() for one in each(inputs))
            yield given, targets[:left].numpy() if isinstance(targets, torch.Tensor) else None
            left -= len(each(inputs)[0])


def open_run(path: Path | str, *, checkpoint: Which = Which.LAST, allow_import: bool = False) -> Run:
    """Open the directory of a run of `maqd train`.

    Args:
        path: The directory.
        checkpoint: Which of its checkpoints.
        allow_import: Whether functions that the run names, of its network, its data, its loss, may be imported: that
            runs their code. The modules must be found from here.

    Raises:
        CheckpointError: It is missing or holds no such checkpoint.
    """
    checkpoint_path(Path(path), checkpoint)
    return Run(Path(path), checkpoint, allow_import)
