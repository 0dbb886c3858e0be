"""Finished runs, opened: `maqd.open_run`."""

import json
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
from maqd.models import build_model
from maqd.settings.training import TrainConfig
from maqd.settings.tree import from_plain, read_tree
from maqd.training.checkpoint import Header, describe, fixed_changes, load_network_state, read_checkpoint
from maqd.training.run_directory import RunDirectory, Which, checkpoint_path

if TYPE_CHECKING:
    from maqd.graph import Graph


def load_network(path: Path) -> tuple[nn.Module, Header]:
    """The network of a checkpoint, on the CPU, in evaluation mode, with the weights to deploy.

    Args:
        path: A checkpoint, or a run directory for its last checkpoint.

    Raises:
        CheckpointError: As `read_checkpoint` and `load_network_state`.
    """
    checkpoint = read_checkpoint(RunDirectory(path).last if path.is_dir() else path)
    info = checkpoint.header.data
    network = build_model(
        checkpoint.header.config.model,
        in_channels=info.in_channels,
        num_classes=info.num_classes,
        image_size=info.image_size,
    )
    load_network_state(network, checkpoint)
    return network.to(memory_format=torch.channels_last).eval(), checkpoint.header  # pyright: ignore[reportCallIssue]


@dataclass(frozen=True)
class Run:
    """A run directory and what is in it. Checkpoints are read when they are first asked for.

    Args:
        path: The directory.
        which: The checkpoint to take.
    """

    path: Path
    which: Which = Which.LAST

    @cached_property
    def _loaded(self) -> tuple[nn.Module, Header]:
        return load_network(checkpoint_path(self.path, self.which))

    @cached_property
    def config(self) -> TrainConfig:
        """Its configuration: what it was trained with, and paths and the like as config.yaml has them now.

        Raises:
            ConfigError: config.yaml was edited in what cannot change any more.
        """
        path, trained = RunDirectory(self.path).config, self.header.config
        if not path.exists():
            return trained
        stored = from_plain(TrainConfig, read_tree(path, TrainConfig))
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
        """Its network, on the CPU, in evaluation mode: uint8 N x C x H x W images -> logits N x classes.

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
            return [json.loads(line) for line in path.read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}; continue the run with --resume to mend it"
            ) from error

    @cached_property
    def graph(self) -> "Graph":
        """Its network as an integer graph, proved equal.

        Raises:
            LoweringError: It has a layer that cannot be lowered.
        """
        from maqd.lowering import lower

        info = self.header.data
        example = torch.zeros(1, *info.shape, dtype=torch.uint8)
        return lower(self.network, example, labels=info.class_names).graph

    def test_images(
        self, count: int, *, data: DataConfig | None = None, batch: int = 50
    ) -> Iterator[NDArray[np.uint8]]:
        """Images of its test set.

        Args:
            count: At most this many.
            data: The data set to take instead of the run's own.
            batch: Images at a time.

        Yields:
            uint8, up to `batch` x C x H x W.

        Raises:
            ConfigError: They have another shape than those it was trained on.
        """
        config = self.config.data if data is None else data
        opened = open_data(replace(config, eval_batch_size=batch), seed=self.config.seed)
        if opened.info.shape != self.header.data.shape:
            raise ConfigError(
                f"{self.path} was trained on images of shape {self.header.data.shape}, the data has "
                f"{opened.info.shape}; pass the data it was trained on"
            )
        left = count
        for images, _ in opened.test_loader():
            if left <= 0:
                return
            yield images[:left].contiguous().numpy()
            left -= len(images)


def open_run(path: Path | str, *, checkpoint: Which = Which.LAST) -> Run:
    """Open the directory of a run of `maqd train`.

    Args:
        path: The directory.
        checkpoint: Which of its checkpoints.

    Raises:
        CheckpointError: It is missing or holds no such checkpoint.
    """
    checkpoint_path(Path(path), checkpoint)
    return Run(Path(path), checkpoint)
