"""Encoded images to uint8 arrays, with Pillow."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maqd.data.arrays import ImageArrays
from maqd.data.encoded import EncodedImages
from maqd.errors import DataError
from maqd.io.images import GREY_MODES, decoded, fit, losses, open_encoded, to_array

if TYPE_CHECKING:
    from PIL import Image

PROBED_IMAGES = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What every image of a set is decoded to.

    Args:
        height, width: In pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: Whether images of another size are resized; otherwise they are an error.
    """

    height: int
    width: int
    channels: int
    resize: bool

    @property
    def bytes_per_image(self) -> int:
        """Size of a decoded image in memory."""
        return self.height * self.width * self.channels


def probe(images: EncodedImages, image_size: int | None, image_width: int | None = None) -> Geometry:
    """Finds size and channels from a few images spread over a split.

    Args:
        images: At least one image.
        image_size: Wanted height, and width unless `image_width` says otherwise; None takes the first image's.
        image_width: Wanted width.

    Raises:
        DataError: An image is damaged.
    """
    chosen = sorted({int(i) for i in np.linspace(0, len(images) - 1, PROBED_IMAGES)})
    opened = [open_image(images, i) for i in chosen]
    channels = 1 if all(image.mode in GREY_MODES for image in opened) else 3
    for index, image in zip(chosen, opened, strict=True):
        if lost := losses(image):
            log.warning("%s: %s (said of the first such image only)", images.where(index), ", ".join(lost))
            break
    if image_size is not None:
        return Geometry(height=image_size, width=image_width or image_size, channels=channels, resize=True)
    width, height = open_image(images, 0).size
    return Geometry(height=height, width=width, channels=channels, resize=False)


def open_image(images: EncodedImages, index: int) -> "Image.Image":
    """Reads an image's header; see `maqd.io.images.open_encoded`."""
    return open_encoded(images.read(index), images.where(index))


def pixels(images: EncodedImages, index: int, image: "Image.Image", geometry: Geometry) -> "Image.Image":
    """Decodes the pixels of an opened image in the channels of `geometry`, in the image's own size.

    Raises:
        DataError: The pixels are damaged, or the image has colours and the set is grey.
    """
    if geometry.channels == 1 and image.mode not in GREY_MODES:
        raise DataError(
            f"{images.where(index)}: the set's images are grey, got mode {image.mode}; "
            "convert all images to the same mode"
        )
    return decoded(image, geometry.channels, images.where(index))


def decode(images: EncodedImages, index: int, geometry: Geometry) -> NDArray[np.uint8]:
    """Decodes one image.

    With `geometry.resize` the middle part of the wanted proportions is resized to the wanted size, antialiased.

    Returns:
        uint8, height x width x channels.

    Raises:
        DataError: The image is damaged or has the wrong size.
    """
    image = open_image(images, index)
    if image.size != (geometry.width, geometry.height):
        if not geometry.resize:
            raise DataError(
                f"{images.where(index)}: images must all be {geometry.width} x {geometry.height} like the first one, "
                f"got {image.size[0]} x {image.size[1]}; set image_size to resize all images"
            )
        image = fit(pixels(images, index, image, geometry), geometry.width, geometry.height)
    else:
        image = pixels(images, index, image, geometry)
    return to_array(image)


def decode_all(images: EncodedImages, geometry: Geometry, advance: Callable[[], None]) -> ImageArrays:
    """Decodes a split; `advance` is called after each image.

    Raises:
        DataError: An image is damaged or has the wrong size.
    """
    array = np.empty((len(images), geometry.height, geometry.width, geometry.channels), np.uint8)
    for index in range(len(images)):
        array[index] = decode(images, index, geometry)
        advance()
    return ImageArrays(images=array, labels=images.labels, class_names=images.class_names)
