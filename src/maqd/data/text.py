"""A text file as windows of bytes; the target of each byte is the next one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from maqd.data.holdout import held_out_count
from maqd.data.loaders import Batch
from maqd.data.sampling import Plan
from maqd.errors import DataError
from maqd.settings.data import DataConfig

BYTES = 256
"""Tokens: every byte is one."""

TEST_SHARE = 10
"""The last tenth of a text is for testing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """A text, cut into training, held-out and test parts in this order.

    Args:
        text: uint8, the whole text.
        context: Bytes of a window; its targets are the bytes one further on.
        train: int64, where training windows begin: everywhere in the first part.
        validation: Where held-out windows begin, one after the other.
        test: Where test windows begin, one after the other.
    """

    text: NDArray[np.uint8]
    context: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def batch(self, starts: NDArray[np.int64]) -> Batch:
        """Tokens uint8 N x T, and the tokens that follow each, int64 N x T."""
        rows = self.text[starts[:, None] + np.arange(self.context + 1)]
        return torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].astype(np.int64))


def open_text(config: DataConfig) -> Windows:
    """The windows of the file `config.path`.

    Raises:
        DataError: It cannot be read, or a part of it is shorter than a window and its target.
    """
    if config.path is None:
        raise DataError("source text needs a file; name it with --data.path FILE")
    path = Path(config.path)
    try:
        text = np.frombuffer(path.read_bytes(), np.uint8)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; name a text file with --data.path"
        ) from error
    context, least = config.context, config.context + 1
    split = len(text) - max(len(text) // TEST_SHARE, least)
    windows = max(0, split - 1) // context
    held = held_out_count(config.validation, windows) if windows > 1 else 0
    # Where training ends: the target of its last window is the byte before the first held-out one.
    end = split - (held * context + 1 if held else 0)
    if end < least:
        raise DataError(
            f"{path} has {len(text):,} bytes, and a context of {context} needs {2 * least:,} or more, beside what is "
            "held out; use a longer text or a smaller --data.context"
        )
    return Windows(
        text=text,
        context=context,
        train=np.arange(end - context, dtype=np.int64),
        validation=end + context * np.arange(held, dtype=np.int64),
        test=np.arange(split, len(text) - context, context, dtype=np.int64),
    )


def train_batches(windows: Windows, plan: Plan, epoch: int, start: int) -> Iterator[Batch]:
    """Batches of an epoch, from batch `start` on."""
    for starts in plan.epoch(epoch)[start:]:
        yield windows.batch(starts)


def batches(windows: Windows, starts: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
    """The windows of each batch."""
    for some in starts:
        yield windows.batch(some)
