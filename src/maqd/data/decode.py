"""Encoded images to uint8 arrays, with Pillow."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maqd.data._optional import require
from maqd.data.arrays import ImageArrays
from maqd.data.encoded import EncodedImages
from maqd.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = frozenset({"1", "L", "LA"})
COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"})
PROBED_IMAGES = 64

# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What every image of a set is decoded to.

    Args:
        size: Height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: Whether images of another size are resized; otherwise they are an error.
    """

    size: int
    channels: int
    resize: bool

    @property
    def bytes_per_image(self) -> int:
        """Size of a decoded image in memory."""
        return self.size * self.size * self.channels


def probe(images: EncodedImages, image_size: int | None) -> Geometry:
    """Finds size and channels from a few images spread over a split.

    Args:
        images: At least one image.
        image_size: Wanted size; None takes the first image's.

    Raises:
        DataError: An image is damaged, or the first one is not square and no size is given.
    """
    chosen = sorted({int(i) for i in np.linspace(0, len(images) - 1, PROBED_IMAGES)})
    channels = 1 if all(open_image(images, i).mode in GREY_MODES for i in chosen) else 3
    if image_size is not None:
        return Geometry(size=image_size, channels=channels, resize=True)
    width, height = open_image(images, 0).size
    if width != height:
        raise DataError(
            f"{images.where(0)}: images must be square, got {width} x {height}; set image_size to resize all images"
        )
    return Geometry(size=width, channels=channels, resize=False)


def open_image(images: EncodedImages, index: int) -> "Image.Image":
    """Reads an image's header and turns it upright as its EXIF data say; pixels may be decoded later.

    Raises:
        DataError: It is no image that Pillow knows, or has more than 8 bits per channel.
    """
    pillow = require("PIL.Image", "decoding images")
    encoded = images.read(index)
    try:
        image = pillow.open(io.BytesIO(encoded))
        if image.info.get("exif"):
            image = require("PIL.ImageOps", "decoding images").exif_transpose(image)
    except (*_DECODER_ERRORS, pillow.DecompressionBombError) as error:
        raise _undecodable(images, index, encoded, error) from error
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise DataError(
            f"{images.where(index)}: images must have 8 bits per channel, got mode {image.mode}; convert it to 8 bits"
        )
    return image


def pixels(images: EncodedImages, index: int, image: "Image.Image", geometry: Geometry) -> "Image.Image":
    """Decodes the pixels of an opened image in the channels of `geometry`, in the image's own size.

    Raises:
        DataError: The pixels are damaged, or the image has colours and the set is grey.
    """
    try:
        if geometry.channels == 1:
            if image.mode not in GREY_MODES:
                raise DataError(
                    f"{images.where(index)}: the set's images are grey, got mode {image.mode}; "
                    "convert all images to the same mode"
                )
            image = image.convert("L")
            image.load()
            return image
        if image.mode == "P":
            # Straight from palette to RGB, Pillow warns about transparency that is given as bytes.
            image = image.convert("RGBA")
        image = image.convert("RGB")
        image.load()
        return image
    except DataError:
        raise
    except _DECODER_ERRORS as error:
        raise _undecodable(images, index, b"", error) from error


def decode(images: EncodedImages, index: int, geometry: Geometry) -> NDArray[np.uint8]:
    """Decodes one image.

    With `geometry.resize` the middle square is resized to the wanted size, antialiased.

    Returns:
        uint8, size x size x channels.

    Raises:
        DataError: The image is damaged or has the wrong size.
    """
    image = open_image(images, index)
    if image.size != (geometry.size, geometry.size):
        if not geometry.resize:
            raise DataError(
                f"{images.where(index)}: images must all be {geometry.size} x {geometry.size} like the first one, "
                f"got {image.size[0]} x {image.size[1]}; set image_size to resize all images"
            )
        image = fit(pixels(images, index, image, geometry), geometry.size)
    else:
        image = pixels(images, index, image, geometry)
    return to_array(image)


def to_array(image: "Image.Image") -> NDArray[np.uint8]:
    """Decoded pixels as uint8 H x W x C."""
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def fit(image: "Image.Image", size: int) -> "Image.Image":
    """Resizes the middle square of an image to size x size pixels."""
    side = min(image.size)
    left, top = (image.size[0] - side) / 2, (image.size[1] - side) / 2
    bilinear = require("PIL.Image", "decoding images").Resampling.BILINEAR
    return image.resize((size, size), bilinear, box=(left, top, left + side, top + side))


def decode_all(images: EncodedImages, geometry: Geometry, advance: Callable[[], None]) -> ImageArrays:
    """Decodes a split; `advance` is called after each image.

    Raises:
        DataError: An image is damaged or has the wrong size.
    """
    array = np.empty((len(images), geometry.size, geometry.size, geometry.channels), np.uint8)
    for index in range(len(images)):
        array[index] = decode(images, index, geometry)
        advance()
    return ImageArrays(images=array, labels=images.labels, class_names=images.class_names)


def _undecodable(images: EncodedImages, index: int, encoded: bytes, error: Exception) -> DataError:
    start = f", the file starts with {encoded[:8]!r}" if encoded else ""
    return DataError(
        f"{images.where(index)}: must be a whole image that Pillow can read, got {type(error).__name__}: "
        f"{error}{start}; replace or remove it"
    )
