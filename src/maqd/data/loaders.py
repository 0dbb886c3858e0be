"""Iterables of batches: a training loader that can stop and go on anywhere, and a test loader."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from maqd.data.arrays import ImageArrays
from maqd.data.augment import apply, draw
from maqd.data.sampling import Plan
from maqd.errors import CheckpointError
from maqd.settings.data import AugmentConfig

Batch = tuple[Any, Any]
"""Images uint8 N x C x H x W, channels last in memory, and labels int64 N; of other data one tensor or a tuple of
inputs, and one tensor or a dict of targets."""


@final
class TrainLoader:
    """Shuffled, augmented batches, epoch by epoch.

    The position is the epoch and the number of batches that it has returned. A loader with the saved state of another
    one continues with exactly the batches that the other one had left. `set_epoch` before each pass selects its
    shuffle; it may come after `iter`, as Lightning's Trainer does it, since a pass begins with its first batch.

    Args:
        length: Batches per epoch.
        batches: Batches of an epoch from a given one on.
    """

    def __init__(self, length: int, batches: Callable[[int, int], Iterator[Batch]]) -> None:
        self._length = length
        self._batches = batches
        self._epoch = 0
        self._handed_out = 0
        self._skip = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, also when going on in the middle of one."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """One pass over the epoch, or over what is left of it after `load_state_dict`."""
        # A generator: nothing happens before the first batch is asked for.
        self._handed_out, self._skip = self._skip, 0
        for batch in self._batches(self._epoch, self._handed_out):
            self._handed_out += 1
            yield batch

    @property
    def sampler(self) -> "TrainLoader":
        """Itself: Lightning looks for `set_epoch` here."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Selects the shuffle of the next pass. The epoch that is already selected keeps its position."""
        if epoch != self._epoch:
            self._epoch, self._handed_out, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """The position: {"epoch", "batch"}, where "batch" counts the batches already handed out."""
        return {"epoch": self._epoch, "batch": self._handed_out}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the next pass begin at a position.

        Raises:
            CheckpointError: It is not a position in an epoch of this length.
        """
        epoch, batch = state_dict.get("epoch"), state_dict.get("batch")
        if type(epoch) is not int or type(batch) is not int or epoch < 0 or not 0 <= batch <= self._length:
            raise CheckpointError(
                f"a position of this training loader has an epoch of at least 0 and a batch of 0 .. {self._length}, "
                f"got {state_dict!r}; resume with the data, batch size and number of processes of the checkpoint"
            )
        self._epoch, self._handed_out, self._skip = epoch, batch, batch


@final
class TestLoader:
    """All test or held-out samples of this process in order; the last batch may be smaller.

    Args:
        length: Number of batches.
        batches: A pass over all of them.
    """

    __test__ = False  # The name is not that of a test class.

    def __init__(self, length: int, batches: Callable[[], Iterator[Batch]]) -> None:
        self._length = length
        self._batches = batches

    def __len__(self) -> int:
        """Number of batches."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        """A pass over all batches."""
        return self._batches()


def train_batches(arrays: ImageArrays, plan: Plan, augment: AugmentConfig, epoch: int, start: int) -> Iterator[Batch]:
    """Batches of an epoch of decoded images, from batch `start` on."""
    for batch, indices in enumerate(plan.epoch(epoch)[start:], start):
        images = arrays.images[indices]
        sides = {"size": images.shape[1], "width": images.shape[2]}
        drawn = draw(augment, plan.augmentation(epoch, batch), count=len(images), **sides)
        yield to_batch(apply(images, augment, drawn), arrays.labels[indices])


def test_batches(arrays: ImageArrays, batches: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
    """The decoded images of each batch."""
    for indices in batches:
        yield to_batch(arrays.images[indices], arrays.labels[indices])


def test_indices(count: int, batch_size: int, rank: int, world_size: int) -> list[NDArray[np.int64]]:
    """The samples of each test batch of a process. Processes share the samples without repeating any."""
    mine = np.arange(rank, count, world_size)
    return [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]


def to_batch(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Batch:
    """Tensors on the memory of writable arrays, uint8 N x H x W x C and int64 N."""
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
