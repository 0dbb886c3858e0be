"""Encoded images to pixels, with Pillow; NumPy and plain Python else."""

import io
import re
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maqd.errors import DataError
from maqd.optional import require

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = frozenset({"1", "L", "LA"})
COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"})

# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def open_encoded(encoded: bytes, where: str) -> "Image.Image":
    """Reads an image's header and turns it upright as its EXIF data say; pixels may be decoded later.

    Args:
        encoded: The bytes of its file.
        where: Where it comes from, for messages.

    Raises:
        DataError: It is no image that Pillow knows, or has more than 8 bits per channel.
    """
    pillow = require("PIL.Image", "decoding images")
    try:
        image = pillow.open(io.BytesIO(encoded))
        if image.info.get("exif"):
            image = require("PIL.ImageOps", "decoding images").exif_transpose(image)
    except (*_DECODER_ERRORS, pillow.DecompressionBombError) as error:
        raise _undecodable(where, encoded, error) from error
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise DataError(f"{where}: images must have 8 bits per channel, got mode {image.mode}; convert it to 8 bits")
    return image


def decoded(image: "Image.Image", channels: int, where: str) -> "Image.Image":
    """Decodes the pixels of an opened image, in its own size.

    Args:
        image: From `open_encoded`.
        channels: 1 for grey, 3 for RGB.
        where: Where it comes from, for messages.

    Raises:
        DataError: The pixels are damaged.
    """
    try:
        if channels == 1:
            image = image.convert("L")
        else:
            if image.mode == "P":
                # Straight from palette to RGB, Pillow warns about transparency that is given as bytes.
                image = image.convert("RGBA")
            image = image.convert("RGB")
        image.load()
    except _DECODER_ERRORS as error:
        raise _undecodable(where, b"", error) from error
    return image


def losses(image: "Image.Image") -> tuple[str, ...]:
    """What of an opened image decoding leaves out, in words: transparency, later frames of an animation."""
    found = []
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        found.append("its transparency is ignored")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        found.append(f"only the first of its {frames} frames is used")
    return tuple(found)


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


def _undecodable(where: str, encoded: bytes, error: Exception) -> DataError:
    # Pillow speaks of the memory that it read from.
    text = re.sub(r" ?(from )?<_io\.BytesIO[^>]*>", "", str(error))
    start = f", the file starts with {encoded[:8]!r}" if encoded else ""
    return DataError(
        f"{where}: must be a whole image that Pillow can read, got {type(error).__name__}: {text}{start}; "
        "replace or remove it"
    )
