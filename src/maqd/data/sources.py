"""Finds the images that a configuration names: what they are made of, and how to open them."""

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maqd.data.encoded import EncodedImages, FolderImages
from maqd.data.tables import open_table, open_tables
from maqd.errors import DataError
from maqd.optional import require
from maqd.settings.data import DataConfig, Source

HUB_NAMES = {Source.CIFAR10: "uoft-cs/cifar10", Source.CIFAR100: "uoft-cs/cifar100"}
TEST_SPLIT_NAMES = ("test", "val", "valid", "validation")

MAPPED_BYTES = 1 << 30
"""Parquet files larger than this are converted to Arrow files and mapped instead of being read into memory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Located:
    """A data set that has been found but not read.

    Args:
        name: What the cache file is called after.
        fingerprint: Changes when the source or the way to decode it changes.
        open: Opens the training and the test split.
    """

    name: str
    fingerprint: str
    open: Callable[[], tuple[EncodedImages, EncodedImages]]


def locate(config: DataConfig, cache_dir: Path) -> Located:
    """Finds the data set without reading images.

    Args:
        config: Any source but digits.
        cache_dir: Where large parquet files are converted to.

    Raises:
        DataError: The path, a split, a class folder or a file is missing.
    """
    if config.path is None:
        return _locate_hub(config, HUB_NAMES[config.source], cache_dir)
    root = Path(config.path).expanduser()
    if config.source is Source.IMAGE_FOLDER:
        return _locate_folder(config, _existing(root, "image_folder"))
    if config.source is Source.HUGGING_FACE and not root.exists() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.path):
        if config.path.endswith(".parquet"):
            raise DataError(f"{root}: the file must exist; set path to the folder of the parquet files")
        return _locate_hub(config, config.path, cache_dir)
    return _locate_parquet(config, _existing(root, config.source.value), cache_dir)


def _existing(root: Path, source: str) -> Path:
    if not root.is_dir():
        kind = "a file" if root.exists() else "missing"
        raise DataError(f"{root}: source {source} needs a folder, which is {kind}; set path to the data set's folder")
    return root.resolve()


def _split_names(config: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    test = TEST_SPLIT_NAMES if config.test_split == TEST_SPLIT_NAMES[0] else (config.test_split,)
    return (config.train_split,), tuple(name for name in test if name != config.train_split)


def _located(
    config: DataConfig,
    root: str,
    files: list[Path],
    open_splits: Callable[[], tuple[EncodedImages, EncodedImages]],
) -> Located:
    # The name depends on the set and the options, the fingerprint on the state of the files as well: a cache that is
    # built from changed files replaces the one before.
    identity = [
        config.source.value,
        root,
        config.image_size if config.image_width is None else [config.image_size, config.image_width],
        config.image_column,
        config.label_column,
        config.train_split,
        config.test_split,
    ]
    try:
        states = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error}); restore or remove it") from error
    name = f"{config.source.value}-{_digest(identity)[:16]}.maqdset"
    return Located(name=name, fingerprint=_digest([identity, states]), open=open_splits)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _locate_folder(config: DataConfig, root: Path) -> Located:
    train_names, test_names = _split_names(config)
    train, test = (_class_files(_split_folder(root, names)) for names in (train_names, test_names))
    class_names = tuple(train)
    unknown = [name for name in test if name not in train]
    if unknown:
        raise DataError(
            f"{root}: every class of the test split must be in the training split, got {unknown[0]!r}; "
            f"training has {_listed(class_names)}"
        )

    def split(classes: dict[str, list[Path]]) -> EncodedImages:
        labels = np.repeat([class_names.index(name) for name in classes], [len(files) for files in classes.values()])
        return FolderImages(
            [file for files in classes.values() for file in files], labels.astype(np.int64), class_names
        )

    files = [file for classes in (train, test) for group in classes.values() for file in group]
    return _located(config, str(root), files, lambda: (split(train), split(test)))


def _split_folder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root}: there must be a folder {' or '.join(map(repr, names))}, the folder has {_contents(root)}; "
        "set train_split and test_split to the names of its folders"
    )


def _class_files(folder: Path) -> dict[str, list[Path]]:
    classes = {
        os.fsencode(child.name).decode(errors="backslashreplace"): child  # a file of any name, a text of UTF-8
        for child in sorted(folder.iterdir())
        if child.is_dir() and child.name[0] != "."
    }
    if not classes:
        raise DataError(f"{folder}: there must be a folder per class, got {_contents(folder)}; move images into those")
    found = {
        # A broken link stays in the list, so that reading it is an error.
        name: sorted(f for f in child.rglob("*") if not f.is_dir() and not _is_hidden(f.relative_to(folder)))
        for name, child in classes.items()
    }
    for name, files in found.items():
        if not files:
            raise DataError(
                f"{folder / name}: a class folder must have images, got none; add some or remove the folder"
            )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _locate_parquet(config: DataConfig, root: Path, cache_dir: Path) -> Located:
    train_names, test_names = _split_names(config)
    train, test = _parquet_files(root, train_names), _parquet_files(root, test_names)
    mapped = sum(file.stat().st_size for file in (*train, *test)) > MAPPED_BYTES

    def open_splits() -> tuple[EncodedImages, EncodedImages]:
        if mapped:
            datasets = require("datasets", "reading large parquet files")
            names = [[str(file) for file in files] for files in (train, test)]
            files = dict(zip(("train", "test"), names, strict=True))
            converted = _hugging_face(datasets, str(root), "parquet", cache_dir, data_files=files)
            return open_tables(config, converted["train"].data, converted["test"].data, train, test)
        return open_tables(config, open_table(train), open_table(test), train, test)

    return _located(config, str(root), [*train, *test], open_splits)


def _parquet_files(root: Path, names: tuple[str, ...]) -> list[Path]:
    for name in names:
        for pattern in (f"{name}.parquet", f"{name}-*.parquet", f"{name}/*.parquet", f"*/{name}-*.parquet"):
            files = sorted(file for file in root.glob(pattern) if file.is_file())
            if files:
                _check_shards(root, files)
                return files
    raise DataError(
        f"{root}: there must be a file {' or '.join(f'{name}.parquet' for name in names)} (or NAME-*.parquet, or "
        f"NAME/*.parquet), the folder has {_contents(root)}; set train_split and test_split to the names of its files"
    )


def _check_shards(root: Path, files: list[Path]) -> None:
    if len({file.parent for file in files}) > 1:
        raise DataError(
            f"{root}: the files of a split must lie in one folder, got {files[0]} and {files[-1]}; "
            "set path to the folder that is meant"
        )
    counts = {match[1] for file in files if (match := re.search(r"-of-(\d+)\.parquet$", file.name))}
    if counts and counts != {f"{len(files):05d}"}:
        raise DataError(
            f"{files[0]}: its split must have {' or '.join(sorted(counts))} files, got {len(files)}; "
            "fetch the missing ones or remove those of another version"
        )


def _locate_hub(config: DataConfig, name: str, cache_dir: Path) -> Located:
    def open_splits() -> tuple[EncodedImages, EncodedImages]:
        datasets = require("datasets", f"downloading {name}")
        splits = _hugging_face(datasets, name, name, cache_dir)
        chosen = []
        for names in _split_names(config):
            split = next((n for n in names if n in splits), None)
            if split is None:
                raise DataError(
                    f"{name}: there must be a split {' or '.join(map(repr, names))}, the set has "
                    f"{_listed(splits)}; set train_split and test_split to those"
                )
            chosen.append(splits[split])
        train, test = chosen
        labels = [[Path(f"{name} ({split.split})")] for split in chosen]
        return open_tables(config, train.data, test.data, *labels)

    return _located(config, name, [], open_splits)


def _hugging_face(datasets: Any, what: str, path: str, cache_dir: Path, **options: Any) -> Any:
    quiet = not sys.stderr.isatty() and datasets.is_progress_bar_enabled()
    try:
        if quiet:
            datasets.disable_progress_bars()
        return datasets.load_dataset(path, cache_dir=str(cache_dir / "hugging_face"), **options)
    # Network, hub and builder may raise anything.
    except Exception as error:
        raise DataError(
            f"{what}: must be a local folder or a data set that `datasets` can load, "
            f"got {type(error).__name__}: {error}; check the name and the network, or set path to a local folder"
        ) from error
    finally:
        if quiet:
            datasets.enable_progress_bars()


def _contents(folder: Path) -> str:
    return _listed(sorted(child.name + "/" * child.is_dir() for child in folder.iterdir()))


def _listed(names: Any) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "") if shown else "nothing"
