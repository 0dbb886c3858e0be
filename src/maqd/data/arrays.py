"""Decoded images in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What a model and a training loop need to know about a data set.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        image_size: Height and width in pixels.
        num_classes: Number of classes; labels are 0 .. num_classes - 1.
        class_names: Their names, in the order of the labels.
        train_size: Samples to train on over all processes, before `samples_per_epoch`; without those held out.
        test_size: Test samples over all processes.
        validation_size: Samples of the training split that are held out, over all processes.
    """

    in_channels: int
    image_size: int
    num_classes: int
    class_names: tuple[str, ...]
    train_size: int
    test_size: int
    validation_size: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, C x H x W."""
        return self.in_channels, self.image_size, self.image_size


@dataclass(frozen=True, kw_only=True)
class ImageArrays:
    """One split of a data set, decoded.

    Args:
        images: uint8, N x H x W x C with N >= 1, H == W >= 1 and C 1 or 3. May be read-only.
        labels: int64, N, in 0 .. len(class_names) - 1.
        class_names: Names of the classes.

    Raises:
        DataError: A shape, type or label is not as stated.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or min(shape) < 1 or shape[1] != shape[2]:
            raise DataError(f"images must be square uint8 N x H x W x C with N >= 1, got {self.images.dtype} {shape}")
        if shape[3] not in (1, 3):
            raise DataError(f"images must have 1 or 3 channels, got {shape[3]}")
        if self.labels.dtype != np.int64 or self.labels.shape != shape[:1]:
            raise DataError(f"labels must be int64 of shape {shape[:1]}, got {self.labels.dtype} {self.labels.shape}")
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(wrong):
            raise DataError(
                f"labels must be in 0 .. {len(self.class_names) - 1}, got {self.labels[wrong[0]]} at sample {wrong[0]}"
            )
