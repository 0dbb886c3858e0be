"""Small data sets written by the tests themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_sets import Pixels, png, random_pixels, write_parquet

from maqd.data import DataConfig, Source


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
