"""Small images and parquet files that the tests write for themselves."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def png(pixels: Pixels) -> bytes:
    """Losslessly encoded H x W x C (or H x W) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def random_pixels(count: int, size: int = 8, channels: int = 3, seed: int = 0) -> Pixels:
    """uint8 count x size x size x channels."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def write_parquet(
    path: Path,
    encoded: list[bytes | None],
    labels: list[Any],
    *,
    image: str = "img",
    label: str = "label",
    names: list[str] | None = None,
    row_group_size: int = 7,
) -> None:
    """A file as `datasets` writes it, with the class names in its metadata if there are any."""
    cells = pa.array([None if e is None else {"bytes": e, "path": None} for e in encoded])
    table = pa.table({image: cells, label: pa.array(labels)})
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
