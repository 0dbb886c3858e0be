"""Random crop, mirror and cutout of a batch, drawn for each sample. Pure NumPy functions on uint8 N x H x W x C."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from maqd.numerics.states import PIXELS
from maqd.settings.data import AugmentConfig

FILL = -PIXELS.low
"""What padding and cutout are painted with: the pixel that enters the network as code 0."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The random numbers of one batch, one entry per sample; None where the change is off.

    Args:
        crop: int64, N x 2: top and left of the crop in the padded image, 0 .. 2 * padding.
        flip: bool, N.
        cutout: int64, N x 2: top and left of the square, which may reach over the border.
    """

    crop: NDArray[np.int64] | None
    flip: NDArray[np.bool_] | None
    cutout: NDArray[np.int64] | None


def draw(config: AugmentConfig, rng: np.random.Generator, *, count: int, size: int, width: int | None = None) -> Draw:
    """Draws what happens to `count` images of `size` rows and `width` columns, as many as rows if it is None.

    The square of a cutout has its centre at any pixel with the same probability, as in DeVries & Taylor
    (arXiv 1708.04552), so it can be cut by the border.
    """
    # All numbers are drawn, also of changes that are off: switching one on does not change the others.
    crop = rng.integers(0, 2 * config.crop_padding + 1, (count, 2))
    flip = rng.integers(0, 2, count).astype(bool)
    if width in (None, size):
        centres = rng.integers(0, size, (count, 2))
    else:
        centres = np.stack([rng.integers(0, side, count) for side in (size, width)], axis=1)
    cutout = centres - config.cutout // 2
    return Draw(
        crop=crop if config.crop_padding else None,
        flip=flip if config.flip else None,
        cutout=cutout if config.cutout else None,
    )


def apply(images: NDArray[np.uint8], config: AugmentConfig, drawn: Draw) -> NDArray[np.uint8]:
    """Crops, mirrors and cuts out, in this order.

    Args:
        images: uint8, N x H x W x C; left as it is.
        config: Padding of the crop and side of the cutout.
        drawn: Where, per sample.

    Returns:
        uint8, N x H x W x C, contiguous; `images` itself when nothing is drawn.
    """
    if drawn.crop is not None:
        images = crop(images, drawn.crop, padding=config.crop_padding)
    if drawn.flip is not None:
        images = mirror(images, drawn.flip)
    if drawn.cutout is not None:
        images = cutout(images, drawn.cutout, size=config.cutout)
    return images


def crop(images: NDArray[np.uint8], offsets: NDArray[np.int64], *, padding: int) -> NDArray[np.uint8]:
    """Pads each image by `padding` pixels and crops it back to its size at its own offset.

    Args:
        images: uint8, N x H x W x C.
        offsets: int64, N x 2: top and left in the padded image, 0 .. 2 * padding. `padding` leaves an image as it is.
        padding: Pixels added on each side, of value `FILL`.
    """
    count, height, width, channels = images.shape
    padded = _framed(images, padding)
    rows = _windows(padded, height, width)[np.arange(count), offsets[:, 0], offsets[:, 1]]
    return rows.reshape(count, height, width, channels)


def mirror(images: NDArray[np.uint8], flip: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Reverses the columns of the images where `flip` (bool, N) is set."""
    images = np.array(images, order="C")
    # A pixel as one element: three times as fast as moving its channels one by one.
    pixels = images.view(f"V{images.shape[3]}")
    pixels[flip] = pixels[flip][:, :, ::-1]
    return images


def cutout(images: NDArray[np.uint8], corners: NDArray[np.int64], *, size: int) -> NDArray[np.uint8]:
    """Paints a square of `size` x `size` pixels with `FILL` in each image.

    Args:
        images: uint8, N x H x W x C.
        corners: int64, N x 2: top and left, -size .. H or W; what lies outside of the image is not painted.
        size: Side of the square.
    """
    count, height, width, _ = images.shape
    # With a frame as wide as the square, all squares have the same shape and are painted at once.
    framed = _framed(images, size)
    squares = _windows(framed, size, size)
    squares[np.arange(count), corners[:, 0] + size, corners[:, 1] + size] = FILL
    return np.ascontiguousarray(framed[:, size : size + height, size : size + width])


def _framed(images: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    count, height, width, channels = images.shape
    framed = np.full((count, height + 2 * margin, width + 2 * margin, channels), FILL, np.uint8)
    framed[:, margin : margin + height, margin : margin + width] = images
    return framed


def _windows(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    # All crops as a view N x tops x lefts x height x (width * C): picking one per sample copies whole rows.
    count, full_height, full_width, channels = images.shape
    sample, row, pixel, byte = images.strides
    return as_strided(
        images,
        (count, full_height - height + 1, full_width - width + 1, height, width * channels),
        (sample, row, pixel, row, byte),
    )
