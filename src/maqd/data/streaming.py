"""Images of large sets, decoded anew each epoch by worker processes."""

from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from maqd.data.augment import apply, draw
from maqd.data.decode import Geometry, decode, open_image, pixels
from maqd.data.encoded import EncodedImages
from maqd.data.loaders import Batch, to_batch
from maqd.data.sampling import Plan
from maqd.io.images import to_array
from maqd.optional import require
from maqd.settings.data import AugmentConfig

AREA = (0.08, 1.0)
"""Smallest and largest part of an image's area that a random resized crop takes."""
RATIO = (3 / 4, 4 / 3)
"""Smallest and largest width / height of a random resized crop."""


def train_batches(
    images: EncodedImages,
    plan: Plan,
    augment: AugmentConfig,
    epoch: int,
    start: int,
    *,
    geometry: Geometry,
    workers: int,
) -> Iterator[Batch]:
    """Batches of an epoch, from batch `start` on; the same whatever the number of workers."""
    batches = _TrainBatches(images, geometry, plan, augment, epoch)
    return _in_workers(batches, range(start, len(batches)), workers)


def test_batches(
    images: EncodedImages, batches: Sequence[NDArray[np.int64]], *, geometry: Geometry, workers: int
) -> Iterator[Batch]:
    """The images of each batch."""
    return _in_workers(_TestBatches(images, geometry, batches), range(len(batches)), workers)


def random_box(width: int, height: int, numbers: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of a random resized crop in an image of width x height pixels.

    Args:
        width: Of the image.
        height: Of the image.
        numbers: Four uniform numbers in [0, 1): area (uniform in `AREA`), ratio (log-uniform in `RATIO`), left, top.
            A box that does not fit is narrowed to the image.
    """
    area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * numbers[0])
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** numbers[1]
    box_width = min(width, max(1, round((area * ratio) ** 0.5)))
    box_height = min(height, max(1, round((area / ratio) ** 0.5)))
    left, top = int(numbers[2] * (width - box_width + 1)), int(numbers[3] * (height - box_height + 1))
    return left, top, left + box_width, top + box_height


@final
class _TrainBatches(Dataset[Batch]):
    def __init__(
        self, images: EncodedImages, geometry: Geometry, plan: Plan, augment: AugmentConfig, epoch: int
    ) -> None:
        self.images, self.geometry, self.plan, self.augment, self.epoch = images, geometry, plan, augment, epoch
        self.indices = plan.epoch(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, batch: int) -> Batch:
        indices, rng = self.indices[batch], self.plan.augmentation(self.epoch, batch)
        numbers = rng.random((len(indices), 4))
        decoded = [self._decode(int(i), own) for i, own in zip(indices, numbers, strict=True)]
        arrays = np.stack([array for array, _ in decoded])
        drawn = draw(self.augment, rng, count=len(indices), size=self.geometry.height, width=self.geometry.width)
        if drawn.crop is not None:
            # Offsets equal to the padding leave an image as it is: these have had their crop.
            drawn.crop[[done for _, done in decoded]] = self.augment.crop_padding
        return to_batch(apply(arrays, self.augment, drawn), self.images.labels[indices])

    def _decode(self, index: int, numbers: NDArray[np.float64]) -> tuple[NDArray[np.uint8], bool]:
        # The second value: whether the image was cropped at random.
        size = (self.geometry.width, self.geometry.height)
        if self.augment.crop_padding and self.geometry.resize:
            image = open_image(self.images, index)
            if image.size[0] > size[0] and image.size[1] > size[1]:
                bilinear = require("PIL.Image", "decoding images").Resampling.BILINEAR
                image = pixels(self.images, index, image, self.geometry)
                return to_array(image.resize(size, bilinear, box=random_box(*image.size, numbers))), True
        return decode(self.images, index, self.geometry), False


@final
class _TestBatches(Dataset[Batch]):
    def __init__(self, images: EncodedImages, geometry: Geometry, indices: Sequence[NDArray[np.int64]]) -> None:
        self.images, self.geometry, self.indices = images, geometry, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, batch: int) -> Batch:
        indices = self.indices[batch]
        arrays = np.stack([decode(self.images, int(i), self.geometry) for i in indices])
        return to_batch(arrays, self.images.labels[indices])


def _in_workers(batches: Dataset[Batch], order: range, workers: int) -> Iterator[Batch]:
    # With a generator of its own: a DataLoader draws a seed for its workers, which would advance the global generator.
    return iter(DataLoader(batches, batch_size=None, sampler=order, num_workers=workers, generator=Generator()))
