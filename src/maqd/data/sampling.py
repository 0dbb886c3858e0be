"""Which samples make up a batch, and its random generator: functions of the seed and the position, without state."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ConfigError

_SHUFFLE, _AUGMENT = 0, 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the epochs of one process are made.

    Args:
        count: Samples to train on: those of the training split that are not held out.
        samples: Samples per epoch over all processes, the first of its shuffle; rounded down to a multiple of
            `world_size`, so that all processes take the same number of steps.
        batch_size: Samples per batch and process. The last batch of an epoch is dropped when it is smaller, unless it
            is the only one.
        seed: At least 0; determines everything random.
        rank: This process, 0 .. world_size - 1.
        world_size: Number of processes.
        rows: int64, count: where they are in the training split; None for all of it in its own order.

    Raises:
        ConfigError: A value is out of its range, or there are fewer samples than processes.
    """

    count: int
    samples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    rows: NDArray[np.int64] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"seed must be an integer of at least 0, got {self.seed!r}")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank must be in 0 .. world_size - 1, got rank {self.rank} of {self.world_size}")
        if self.samples > self.count:
            raise ConfigError(
                f"samples_per_epoch must be at most the {self.count} training samples, got {self.samples}"
            )
        if self.samples < self.world_size:
            raise ConfigError(f"an epoch of {self.samples} samples cannot be shared by {self.world_size} processes")

    @property
    def share(self) -> int:
        """Samples per epoch of this process."""
        return self.samples // self.world_size

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return max(1, self.share // self.batch_size)

    def epoch(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """The indices in the training split of the samples of each batch of an epoch."""
        shuffled = self._generator(_SHUFFLE, epoch).permutation(self.count)
        if self.rows is not None:
            shuffled = self.rows[shuffled]
        mine = shuffled[: self.share * self.world_size][self.rank :: self.world_size]
        return [mine[i * self.batch_size : (i + 1) * self.batch_size] for i in range(self.batches)]

    def augmentation(self, epoch: int, batch: int) -> np.random.Generator:
        """The random generator of a batch: the same whatever was drawn before it."""
        return self._generator(_AUGMENT, epoch, batch, self.rank)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key)))
