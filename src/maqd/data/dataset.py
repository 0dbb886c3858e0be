"""Opens a data set: from the cache, from its source into the cache, or as a stream."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from maqd.data import cache, loaders, memory, streaming, text
from maqd.data.arrays import TEXT, ArrayInfo, DataInfo, ImageArrays
from maqd.data.decode import Geometry, decode_all, probe
from maqd.data.encoded import EncodedImages
from maqd.data.holdout import held_out_count, hold_out
from maqd.data.loaders import Batch, TestLoader, TrainLoader
from maqd.data.sampling import Plan
from maqd.data.sources import locate
from maqd.errors import ConfigError, DataError
from maqd.io.images import fit, to_array
from maqd.optional import require
from maqd.settings.data import DataConfig, Source

STREAMED_BYTES = 2 * 10**9
"""Sets that are larger than this when decoded are streamed unless the configuration says otherwise."""

DIGITS_TEST_SIZE = 360
DIGITS_SPLIT_SEED = 0
DIGITS_WHITE = 16


@final
@dataclass(frozen=True, kw_only=True)
class Data:
    """An open data set, made by `open_data`.

    Args:
        info: Its sizes and classes.
        plan: How epochs are made of the training split.
        train_batches: Training batches of an epoch, from a given one on.
        test_batches: A pass over this process' test samples.
        test_length: How many batches that pass has.
        validation_batches: A pass over this process' held-out samples; empty without any.
        validation_length: How many batches that pass has.
        train_inputs: A pass over the inputs of all training samples, of all processes; None for images.
    """

    info: DataInfo
    plan: Plan
    train_batches: Callable[[int, int], Iterator[Batch]]
    test_batches: Callable[[], Iterator[Batch]]
    test_length: int
    validation_batches: Callable[[], Iterator[Batch]]
    validation_length: int
    train_inputs: Callable[[], Iterator[Any]] | None = None

    def train_loader(self) -> TrainLoader:
        """A new loader of shuffled, augmented training batches, at the beginning of epoch 0.

        Images are uint8 N x C x H x W, channels last in memory; labels int64 N. See `maqd.data.loaders.Batch`.
        """
        return TrainLoader(self.plan.batches, self.train_batches)

    def test_loader(self) -> TestLoader:
        """A new loader of this process' test samples, unshuffled; tensors as in training."""
        return TestLoader(self.test_length, self.test_batches)

    def validation_loader(self) -> TestLoader | None:
        """A new loader of this process' held-out samples, without augmentation; None where none are held out."""
        if not self.info.validation_size:
            return None
        return TestLoader(self.validation_length, self.validation_batches)


@dataclass(frozen=True, kw_only=True)
class _Streams:
    train: EncodedImages
    test: EncodedImages
    geometry: Geometry


def open_data(config: DataConfig, *, seed: int, rank: int = 0, world_size: int = 1, classifies: bool = True) -> Data:
    """Opens a data set.

    Args:
        config: Which set, and how it is batched and augmented.
        seed: At least 0; determines shuffling and augmentation.
        rank: This process among those that train together, 0 .. world_size - 1.
        world_size: Number of those processes. Each gets its own share of every epoch and of the test split.
        classifies: Whether targets must be labels; if not, the loss decides what it takes.

    Raises:
        ConfigError: An option does not fit the data set.
        DataError: The data set is missing, damaged or inconsistent.
        MissingDependencyError: What reads the source is not installed.
    """
    if config.source in (Source.ARRAYS, Source.FUNCTION):
        return _open_arrays(config, seed=seed, rank=rank, world_size=world_size, classifies=classifies)
    if config.source is Source.TEXT:
        return _open_text(config, seed=seed, rank=rank, world_size=world_size)
    opened = _digits(config.image_size) if config.source is Source.DIGITS else _open(config)
    train, test = (opened.train, opened.test) if isinstance(opened, _Streams) else opened
    if isinstance(opened, _Streams):
        height, width, channels = opened.geometry.height, opened.geometry.width, opened.geometry.channels
    else:
        height, width, channels = opened[0].images.shape[1:]
    names = class_names(config, train.class_names, train.labels)
    count = held_out_count(config.validation, len(train.labels))
    rows, held = hold_out(train.labels, count, config.validation_seed)
    info = DataInfo(
        inputs=(ArrayInfo(name="image", shape=(channels, height, width), dtype="uint8"),),
        num_classes=len(names),
        class_names=names,
        train_size=len(rows),
        test_size=len(test.labels),
        validation_size=len(held),
    )
    _check_augment(config, min(height, width))
    plan = _plan(config, info, rows, seed=seed, rank=rank, world_size=world_size)
    indices = loaders.test_indices(info.test_size, config.eval_batch_size, rank, world_size)
    held_indices = [held[i] for i in loaders.test_indices(len(held), config.eval_batch_size, rank, world_size)]
    if isinstance(opened, _Streams):
        decoding = {"geometry": opened.geometry, "workers": config.workers}
        train_batches = partial(streaming.train_batches, opened.train, plan, config.augment, **decoding)
        test_batches = partial(streaming.test_batches, opened.test, indices, **decoding)
        validation_batches = partial(streaming.test_batches, opened.train, held_indices, **decoding)
    else:
        train_batches = partial(loaders.train_batches, opened[0], plan, config.augment)
        test_batches = partial(loaders.test_batches, opened[1], indices)
        validation_batches = partial(loaders.test_batches, opened[0], held_indices)
    return Data(
        info=info,
        plan=plan,
        train_batches=train_batches,
        test_batches=test_batches,
        test_length=len(indices),
        validation_batches=validation_batches,
        validation_length=len(held_indices),
    )


def _check_augment(config: DataConfig, size: int) -> None:
    for name in ("crop_padding", "cutout"):
        if getattr(config.augment, name) > size:
            raise ConfigError(
                f"augment.{name} must be at most the image size of {size} pixels, got {getattr(config.augment, name)}"
            )


def _plan(
    config: DataConfig, info: DataInfo, rows: NDArray[np.int64], *, seed: int, rank: int, world_size: int
) -> Plan:
    return Plan(
        count=info.train_size,
        samples=info.train_size if config.samples_per_epoch is None else config.samples_per_epoch,
        batch_size=config.batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        rows=rows if info.validation_size else None,
    )


def _open_arrays(config: DataConfig, *, seed: int, rank: int, world_size: int, classifies: bool) -> Data:
    """A set of arrays in memory."""
    train, test = memory.open_arrays(config)
    labels, names, classes = train.labels, (), 0
    if classifies:
        names, classes = _classes(config, train, test)
    # Without a label for each sample, all count as one class and are held out at random.
    stratified = labels if classifies and labels is not None and labels.ndim == 1 else np.zeros(len(train), np.int64)
    count = held_out_count(config.validation, len(train))
    rows, held = hold_out(stratified, count, config.validation_seed)
    info = DataInfo(
        inputs=train.infos,
        num_classes=classes,
        class_names=names,
        train_size=len(rows),
        test_size=len(test),
        validation_size=len(held),
    )
    if config.augment.enabled:
        _check_augment(config, info.image_size)
    plan = _plan(config, info, rows, seed=seed, rank=rank, world_size=world_size)
    indices = loaders.test_indices(info.test_size, config.eval_batch_size, rank, world_size)
    held_indices = [held[i] for i in loaders.test_indices(len(held), config.eval_batch_size, rank, world_size)]
    all_rows = [rows[i] for i in loaders.test_indices(len(rows), config.eval_batch_size, 0, 1)]
    return Data(
        info=info,
        plan=plan,
        train_batches=partial(memory.train_batches, train, plan, config.augment),
        test_batches=partial(memory.test_batches, test, indices),
        test_length=len(indices),
        validation_batches=partial(memory.test_batches, train, held_indices),
        validation_length=len(held_indices),
        train_inputs=lambda: (inputs for inputs, _ in memory.test_batches(train, all_rows)),
    )


def _open_text(config: DataConfig, *, seed: int, rank: int, world_size: int) -> Data:
    """Windows of a text."""
    if config.augment.enabled:
        raise ConfigError("augment changes images, and the data is text; leave it unset")
    windows = text.open_text(config)
    info = DataInfo(
        inputs=(ArrayInfo(name=TEXT, shape=(config.context,), dtype="uint8"),),
        num_classes=text.BYTES,
        class_names=(),
        train_size=len(windows.train),
        test_size=len(windows.test),
        validation_size=len(windows.validation),
    )
    plan = _plan(config, info, windows.train, seed=seed, rank=rank, world_size=world_size)
    size = config.eval_batch_size
    tests, held = (
        [rows[i] for i in loaders.test_indices(len(rows), size, rank, world_size)]
        for rows in (windows.test, windows.validation)
    )
    return Data(
        info=info,
        plan=plan,
        train_batches=partial(text.train_batches, windows, plan),
        test_batches=partial(text.batches, windows, tests),
        test_length=len(tests),
        validation_batches=partial(text.batches, windows, held),
        validation_length=len(held),
    )


def _classes(config: DataConfig, train: memory.Arrays, test: memory.Arrays) -> tuple[tuple[str, ...], int]:
    """Names and number of the classes of integer targets; no names where a sample has several labels.

    Raises:
        DataError: The target is no label, or the test split has one that the training split has not.
    """
    labels, others = train.labels, test.labels
    if labels is None or others is None:
        told = ", ".join(f"{name} {array.dtype}{list(array.shape[1:])}" for name, array in train.targets.items())
        raise DataError(
            f"{train.where}: cross-entropy takes one array of integer labels, got {told}; "
            "name a loss with --loss package.module:function"
        )
    flat, count = labels.reshape(-1), int(max(labels.max(), others.max())) + 1
    lowest = int(min(labels.min(), others.min()))
    if lowest < 0 or count > max(flat.size, config.classes or 0):
        raise DataError(
            f"{train.where}: labels must be numbered from 0 on, got {lowest} .. {count - 1}; number them, or "
            "name a loss with --loss package.module:function"
        )
    names = class_names(config, tuple(map(str, range(count))), flat)
    return names if labels.ndim == 1 else (), len(names)


def class_names(config: DataConfig, names: tuple[str, ...], labels: NDArray[np.int64]) -> tuple[str, ...]:
    """The names of the classes, as many as `config.classes` if that is set.

    Args:
        config: The set.
        names: Those that the set has.
        labels: Of its training images, in 0 .. len(names) - 1.

    Raises:
        ConfigError: `config.classes` is too small.
        DataError: There is one class only, or one without training images and `config.classes` does not allow that.
    """
    where = config.path or config.source.value
    if config.classes is not None:
        if config.classes < max(2, len(names)):
            raise ConfigError(f"{where}: data.classes must be at least 2 and {len(names)}, got {config.classes}")
        return (*names, *(str(number) for number in range(len(names), config.classes)))
    if len(names) < 2:
        raise DataError(f"{where}: a classifier needs two classes, got {', '.join(names)}; add samples of another one")
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        raise DataError(
            f"{where}: label {empty[0]} ({names[empty[0]]}) has no training sample, and {len(empty)} of {len(names)} "
            f"labels have none; number the labels without gaps, or set data.classes to {len(names)} to keep them"
        )
    return names


def _open(config: DataConfig) -> cache.Splits | _Streams:
    cache_dir = _cache_dir(config)
    located = locate(config, cache_dir)
    path = cache_dir / located.name
    if not config.stream:
        found = cache.find(path, located.fingerprint)
        if found is not None:
            return found
    train, test = located.open()
    geometry = probe(train, config.image_size, config.image_width)
    decoded_bytes = (len(train) + len(test)) * geometry.bytes_per_image
    if config.stream or (config.stream is None and decoded_bytes > STREAMED_BYTES):
        return _Streams(train=train, test=test, geometry=geometry)
    with _progress(f"decoding {config.source.value}", len(train) + len(test)) as advance:
        decoded = decode_all(train, geometry, advance), decode_all(test, geometry, advance)
    return cache.keep(path, located.fingerprint, decoded)


def _cache_dir(config: DataConfig) -> Path:
    if config.cache_dir is not None:
        return Path(config.cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maqd"


def _digits(image_size: int | None) -> cache.Splits:
    digits = require("sklearn.datasets", "the digits data set").load_digits()
    split = require("sklearn.model_selection", "the digits data set").train_test_split
    images = (digits.images.astype(np.int64) * 255 // DIGITS_WHITE).astype(np.uint8)[..., None]
    if image_size is not None and image_size != images.shape[1]:
        pillow = require("PIL.Image", "resizing images")
        images = np.stack([to_array(fit(pillow.fromarray(image[..., 0]), image_size, image_size)) for image in images])
    labels, names = digits.target.astype(np.int64), tuple(map(str, digits.target_names))
    # The same split whatever the run's seed, so that accuracies can be compared.
    train, test = split(
        np.arange(len(labels)), test_size=DIGITS_TEST_SIZE, stratify=labels, random_state=DIGITS_SPLIT_SEED
    )
    return (
        ImageArrays(images=images[train], labels=labels[train], class_names=names),
        ImageArrays(images=images[test], labels=labels[test], class_names=names),
    )


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda: None
        return
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
