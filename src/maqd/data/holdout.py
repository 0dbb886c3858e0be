"""Which training images are held out for choosing hyperparameters. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ConfigError


def held_out_count(size: float, total: int) -> int:
    """The number of images that `size` asks for.

    Args:
        size: Below 1 a fraction of the images, from 1 on their number; 0 for none.
        total: Images of the training split.

    Raises:
        ConfigError: It is negative, a number that is not whole, or leaves nothing to train on or to hold out.
    """
    count = round(size * total) if 0 < size < 1 else size
    if not 0 <= count < total or count != int(count) or (size and not count):
        raise ConfigError(
            f"validation must be 0, a fraction in (0, 1) that holds at least one image, or a whole number below the "
            f"{total} training images, got {size!r}"
        )
    return int(count)


def hold_out(labels: NDArray[np.int64], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits the training images into those to train on and those held out, each class by the same fraction.

    A class with n of the N images gives floor(n count / N) of them, or one more: the classes with the largest
    remainders do, the first ones among equals. Within a class the images are drawn at random.

    Args:
        labels: int64, N, in 0 .. classes - 1.
        count: Images to hold out, 0 .. N - 1.
        seed: At least 0; determines the draw.

    Returns:
        Indices to train on and indices held out, each ascending.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    sizes = np.bincount(labels)
    shares, remainders = np.divmod(sizes * count, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1
    # One order of all images, from which every class takes its first ones.
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    held = np.concatenate([by_class[start : start + share] for start, share in zip(starts, shares, strict=True)])
    kept = np.ones(len(labels), bool)
    kept[held] = False
    return np.flatnonzero(kept), np.sort(held)
