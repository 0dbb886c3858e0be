"""Decoded images and arrays in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import DataError

TEXT = "text"
"""Name of the input that holds tokens of a text."""


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """What a network takes.

    Args:
        name: Of the input in its data set.
        shape: Of one sample, channels first.
        dtype: uint8, int8, int16, uint16 or float32.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What a model and a training loop need to know about a data set.

    Args:
        inputs: What the network takes, in its order; images are one input.
        num_classes: Number of classes; labels are 0 .. num_classes - 1. 0 where there are none.
        class_names: Their names, in the order of the labels; none where a label is not of a whole sample.
        train_size: Samples to train on over all processes, before `samples_per_epoch`; without those held out.
        test_size: Test samples over all processes.
        validation_size: Samples of the training split that are held out, over all processes.
    """

    inputs: tuple[ArrayInfo, ...]
    num_classes: int
    class_names: tuple[str, ...]
    train_size: int
    test_size: int
    validation_size: int = 0

    @property
    def takes(self) -> str:
        """What the network takes, in words."""
        return ", ".join(map(str, self.inputs))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample.

        Raises:
            DataError: The network takes several inputs.
        """
        if len(self.inputs) != 1:
            raise DataError(f"one input is wanted, and the data has {self.takes}; name a network that takes these")
        return self.inputs[0].shape

    @property
    def in_channels(self) -> int:
        """Channels of square uint8 images.

        Raises:
            DataError: The data are something else.
        """
        if not self.images:
            raise DataError(
                f"this network takes square uint8 images, and the data has {self.takes}; "
                "name one that takes these with --model package.module:function"
            )
        return self.shape[0]

    @property
    def image_size(self) -> int:
        """Height and width in pixels of square uint8 images.

        Raises:
            DataError: The data are something else.
        """
        return self.shape[1] if self.in_channels else 0

    @property
    def text(self) -> bool:
        """Whether the only input is a row of tokens."""
        first = self.inputs[0]
        return len(self.inputs) == 1 and first.name == TEXT and len(first.shape) == 1

    @property
    def images(self) -> bool:
        """Whether the only input is a square uint8 image."""
        first = self.inputs[0]
        square = len(first.shape) == 3 and first.shape[1] == first.shape[2]
        return len(self.inputs) == 1 and first.dtype == "uint8" and square


@dataclass(frozen=True, kw_only=True)
class ImageArrays:
    """One split of a data set, decoded.

    Args:
        images: uint8, N x H x W x C with N >= 1, H and W >= 1 and C 1 or 3. May be read-only.
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
        if self.images.dtype != np.uint8 or len(shape) != 4 or min(shape) < 1:
            raise DataError(f"images must be uint8 N x H x W x C with N >= 1, got {self.images.dtype} {shape}")
        if shape[3] not in (1, 3):
            raise DataError(f"images must have 1 or 3 channels, got {shape[3]}")
        if self.labels.dtype != np.int64 or self.labels.shape != shape[:1]:
            raise DataError(f"labels must be int64 of shape {shape[:1]}, got {self.labels.dtype} {self.labels.shape}")
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(wrong):
            raise DataError(
                f"labels must be in 0 .. {len(self.class_names) - 1}, got {self.labels[wrong[0]]} at sample {wrong[0]}"
            )
