"""Small data sets written by the tests themselves."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from maqd.data import DataConfig, Source

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


@pytest.fixture
def parquet_set(tmp_path: Path) -> tuple[Path, Pixels, Pixels]:
    """A folder with 40 training and 10 test images of 3 classes, and their pixels; labels are number modulo 3."""
    train, test = random_pixels(40), random_pixels(10, seed=1)
    for name, pixels in (("train", train), ("test", test)):
        labels = [i % 3 for i in range(len(pixels))]
        write_parquet(tmp_path / "set" / f"{name}.parquet", [png(p) for p in pixels], labels, names=["a", "b", "c"])
    return tmp_path / "set", train, test


@pytest.fixture
def parquet_config(parquet_set: tuple[Path, Pixels, Pixels], tmp_path: Path) -> Callable[..., DataConfig]:
    """Makes configurations of `parquet_set` whose cache is in `tmp_path`."""

    def make(**options: Any) -> DataConfig:
        options = {"batch_size": 6, "eval_batch_size": 4, "cache_dir": str(tmp_path / "cache"), **options}
        return DataConfig(**{"source": Source.HUGGING_FACE, "path": str(parquet_set[0]), **options})

    return make
