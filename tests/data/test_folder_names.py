"""Class folders of any name that a file system takes."""

import os
from pathlib import Path

from image_sets import png, random_pixels

from maqd.data import DataConfig, Source, open_data


def test_class_folders_of_names_that_utf8_cannot_hold(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in (os.fsdecode(b"\xff"), "a"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            (tmp_path / "set" / split / name / "0.png").write_bytes(png(random_pixels(1)[0]))
    config = DataConfig(
        source=Source.IMAGE_FOLDER, path=str(tmp_path / "set"), batch_size=2, cache_dir=str(tmp_path / "cache")
    )
    names = open_data(config, seed=0).info.class_names
    assert names == ("a", "\\xff")
    "".join(names).encode()
