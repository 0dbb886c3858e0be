"""Images as text of a page."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def png(image: NDArray[np.uint8]) -> bytes:
    """An image as a PNG file.

    Args:
        image: uint8 C x H x W, one channel (grey) or three (red, green, blue).
    """
    channels, height, width = image.shape
    rows = np.moveaxis(image, 0, 2).reshape(height, width * channels)
    # Each row after the number of its filter, which is none.
    data = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def data_uri(image: NDArray[np.uint8]) -> str:
    """An image as an address that holds it: a page with it requests nothing."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
