"""Encoded images to pixels, with Pillow; NumPy and plain Python else."""

import io
import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maqd.errors import DataError
from maqd.optional import require

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = frozenset({"1", "L", "LA"})
COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"})
DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
"""Grey with 16 bits; "I" in older versions of Pillow."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24
"""Where a PNG file states its bits per channel: signature, length and name of the first chunk, width, height."""

# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def open_encoded(encoded: bytes, where: str, *, bits: int = 8) -> "Image.Image":
    """Reads an image's header and turns it upright as its EXIF data say; pixels may be decoded later.

    Args:
        encoded: The bytes of its file.
        where: Where it comes from, for messages.
        bits: Bits per channel that are wanted, 8 or 16. With 16 the image must be grey: of colours with 16 bits Pillow
            keeps the upper 8 only.

    Raises:
        DataError: It is no image that Pillow knows, or has other bits per channel.
    """
    pillow = require("PIL.Image", "decoding images")
    try:
        image = pillow.open(io.BytesIO(encoded))
        if image.info.get("exif"):
            image = require("PIL.ImageOps", "decoding images").exif_transpose(image)
    except (*_DECODER_ERRORS, pillow.DecompressionBombError) as error:
        raise _undecodable(where, encoded, error) from error
    reduced = encoded.startswith(_PNG) and encoded[_PNG_DEPTH] == 16 and image.mode not in DEEP_MODES
    got = f"16 bits, of which mode {image.mode} keeps 8" if reduced else f"mode {image.mode}"
    if bits == 16 and (reduced or image.mode not in DEEP_MODES):
        raise DataError(f"{where}: the image must be grey with 16 bits, got {got}; convert it, or pass a .npy array")
    if bits == 8 and (reduced or image.mode not in GREY_MODES | COLOUR_MODES):
        raise DataError(f"{where}: images must have 8 bits per channel, got {got}; convert it to 8 bits")
    return image


def decoded(image: "Image.Image", channels: int, where: str) -> "Image.Image":
    """Decodes the pixels of an opened image, in its own size.

    Args:
        image: From `open_encoded`. One with 16 bits becomes mode "I", exactly.
        channels: 1 for grey, 3 for RGB; not used with 16 bits.
        where: Where it comes from, for messages.

    Raises:
        DataError: The pixels are damaged.
    """
    try:
        if image.mode in DEEP_MODES:
            image = image.convert("I")
        elif channels == 1:
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


def read_image(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], *, resize: bool
) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """An image file as an array of a network's input.

    Args:
        path: The file.
        shape: C x H x W with C 1 or 3; with 16 bits C is 1.
        dtype: uint8, or uint16 for grey images with 16 bits, whose values are kept as they are.
        resize: Whether the middle square of an image of another size is resized.

    Returns:
        The array, C x H x W, and what it leaves out of the image, in words.

    Raises:
        DataError: The file is missing, damaged, has other bits, or another size and is not to be resized; or the
            network takes no images.
    """
    bits = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}.get(dtype, 0)
    if not bits or len(shape) != 3 or shape[0] not in ((1, 3) if bits == 8 else (1,)):
        sizes = " x ".join(map(str, shape))
        raise DataError(f"{path}: the network takes {dtype} arrays of {sizes}, no images; pass them as .npy or .npz")
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; pass an image file") from error
    image = open_encoded(encoded, str(path), bits=bits)
    lost = losses(image)
    channels, height, width = shape
    pixels = decoded(image, channels, str(path))
    if image.size != (width, height):
        if not resize:
            raise DataError(
                f"{path}: the network takes images of {width} x {height} pixels, got {image.size[0]} x "
                f"{image.size[1]}; pass --resize"
            )
        pixels = fit(pixels, width, height)
    array = np.asarray(pixels)
    if not 0 <= array.min() <= array.max() < 2**bits:  # 32-bit files have the mode of 16-bit ones
        raise DataError(f"{path}: pixels must fit {dtype}, got {array.min()} .. {array.max()}; convert the image")
    array = array[:, :, None] if array.ndim == 2 else array
    return np.ascontiguousarray(array.transpose(2, 0, 1), dtype), lost


def fit(image: "Image.Image", width: int, height: int) -> "Image.Image":
    """Resizes the middle part of an image, of the proportions width : height, to that many pixels."""
    scale = min(image.size[0] / width, image.size[1] / height)
    wide, high = (min(image.size), min(image.size)) if width == height else (width * scale, height * scale)
    left, top = (image.size[0] - wide) / 2, (image.size[1] - high) / 2
    bilinear = require("PIL.Image", "decoding images").Resampling.BILINEAR
    return image.resize((width, height), bilinear, box=(left, top, left + wide, top + high))


def _undecodable(where: str, encoded: bytes, error: Exception) -> DataError:
    # Pillow speaks of the memory that it read from.
    text = re.sub(r" ?(from )?<_io\.BytesIO[^>]*>", "", str(error))
    start = f", the file starts with {encoded[:8]!r}" if encoded else ""
    return DataError(
        f"{where}: must be a whole image that Pillow can read, got {type(error).__name__}: {text}{start}; "
        "replace or remove it"
    )
