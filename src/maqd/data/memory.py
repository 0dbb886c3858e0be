"""Data sets of arrays of any shape: from .npz files, or from a function in Python."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maqd.data.arrays import ArrayInfo
from maqd.data.augment import apply, draw
from maqd.data.loaders import Batch
from maqd.data.sampling import Plan
from maqd.errors import ConfigError, DataError
from maqd.io.arrays import read_arrays
from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.functions import import_function

INPUT_TYPES = ("uint8", "int8", "int16", "uint16", "float32")

Named = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """One split of a data set.

    Args:
        where: Where it comes from, for messages.
        inputs: By name, in the order in which the network takes them; N x the shape of a sample, of `INPUT_TYPES`.
        targets: By name; N x anything, int64 or float32.

    Raises:
        DataError: An array has another type, other numbers of samples, or values that are not finite.
    """

    where: str
    inputs: Named
    targets: Named

    def __post_init__(self) -> None:
        counts = {name: len(array) for named in (self.inputs, self.targets) for name, array in named.items()}
        if len(set(counts.values())) != 1 or not len(self):
            told = ", ".join(f"{count} in {name!r}" for name, count in counts.items())
            raise DataError(f"{self.where}: all arrays must have the same number of samples, at least 1, got {told}")
        for name, array in self.inputs.items():
            if array.dtype.name not in INPUT_TYPES:
                raise DataError(
                    f"{self.where}: input {name!r} must be of type {', '.join(INPUT_TYPES)}, got {array.dtype}; "
                    "convert it to the one that the network takes"
                )
        for name, array in (*self.inputs.items(), *self.targets.items()):
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise DataError(f"{self.where}: {name!r} must be finite, got infinity or not-a-number; clean the data")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def infos(self) -> tuple[ArrayInfo, ...]:
        """What the network takes."""
        return tuple(
            ArrayInfo(name=name, shape=array.shape[1:], dtype=array.dtype.name) for name, array in self.inputs.items()
        )

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The only target, if it holds integers."""
        (first, *others) = self.targets.values()
        return first.astype(np.int64, copy=False) if not others and first.dtype == np.int64 else None

    def batch(self, indices: NDArray[np.int64], change: "Augmentation | None" = None) -> Batch:
        """Some samples, as tensors: one input or a tuple, one target or a dict."""
        inputs = [array[indices] for array in self.inputs.values()]
        if change is not None:
            inputs = [change.apply(inputs[0])]
        tensors = tuple(torch.from_numpy(array) for array in inputs)
        targets = {name: torch.from_numpy(array[indices]) for name, array in self.targets.items()}
        return (
            tensors[0] if len(tensors) == 1 else tensors,
            next(iter(targets.values())) if len(targets) == 1 else targets,
        )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random changes of one batch of images.

    Args:
        config: What is changed.
        generator: Of the batch.
    """

    config: AugmentConfig
    generator: np.random.Generator

    def apply(self, images: NDArray[np.generic]) -> NDArray[np.generic]:
        """uint8 N x C x H x W, of which H == W, changed."""
        drawn = draw(self.config, self.generator, count=len(images), size=images.shape[2])
        changed = apply(np.ascontiguousarray(np.moveaxis(images, 1, -1).astype(np.uint8)), self.config, drawn)
        return np.ascontiguousarray(np.moveaxis(changed, -1, 1))


def open_arrays(config: DataConfig) -> tuple[Arrays, Arrays]:
    """The training and the test split of source `arrays` or `function`.

    Raises:
        ConfigError: The function cannot be imported, or random changes are asked for of what is no image.
        DataError: An array is missing, or does not fit; see `Arrays`.
    """
    read = _from_function if config.source is Source.FUNCTION else _from_files
    train, test = (read(config, split) for split in (config.train_split, config.test_split))
    here, there = (", ".join(map(str, arrays.infos)) for arrays in (train, test))
    if here != there:
        raise DataError(f"{test.where}: must have the inputs of the training split, {here}, got {there}")
    for name, array in train.targets.items():
        other = test.targets.get(name)
        if other is None or (other.dtype, other.shape[1:]) != (array.dtype, array.shape[1:]):
            got = "none" if other is None else f"{other.dtype} {other.shape[1:]}"
            raise DataError(
                f"{test.where}: target {name!r} must be {array.dtype} {array.shape[1:]} as in training, got {got}"
            )
    first = train.infos[0]
    square = len(train.inputs) == 1 and len(first.shape) == 3 and first.shape[1] == first.shape[2]
    if config.augment.enabled and not (square and first.dtype == "uint8"):
        raise ConfigError(
            f"augment changes square uint8 images C x H x W, and the data has {here}; leave it unset, and change "
            "samples in the network or in the data's own function"
        )
    return train, test


def train_batches(arrays: Arrays, plan: Plan, augment: AugmentConfig, epoch: int, start: int) -> Iterator[Batch]:
    """Batches of an epoch, from batch `start` on."""
    for number, indices in enumerate(plan.epoch(epoch)[start:], start):
        change = Augmentation(config=augment, generator=plan.augmentation(epoch, number)) if augment.enabled else None
        yield arrays.batch(indices, change)


def test_batches(arrays: Arrays, batches: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
    """The samples of each batch."""
    for indices in batches:
        yield arrays.batch(indices)


def _from_files(config: DataConfig, split: str) -> Arrays:
    """SPLIT.npz of a folder, or the arrays NAME_SPLIT of a file."""
    path = Path(str(config.path))
    single = not path.is_dir()
    file = path if single else path / f"{split}.npz"
    found = read_arrays(file)

    def chosen(names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        wanted = {name: f"{name}_{split}" if single else name for name in names}
        for key in wanted.values():
            if key not in found:
                raise DataError(
                    f"{file}: has no array {key!r}, only {', '.join(found) or 'one without a name'}; save it by that "
                    "name, or name those that there are with --data.x and --data.y"
                )
        return {name: found[key] for name, key in wanted.items()}

    return _arrays(str(file), chosen(config.x), chosen(config.y))


def _from_function(config: DataConfig, split: str) -> Arrays:
    place = str(config.function)
    function = import_function(place)
    try:
        result = function(split)
    except Exception as error:  # whatever the caller's own code raises
        raise ConfigError(
            f"{place}({split!r}) fails: {type(error).__name__}: {error}; return inputs and targets of a split"
        ) from error
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ConfigError(
            f"{place}({split!r}) must return inputs and targets, got {type(result).__name__}; return both"
        )
    named = []
    for part, name in zip(result, ("x", "y"), strict=True):
        found = part if isinstance(part, Mapping) else {name: part}
        named.append({str(key): _array(value, f"{place}({split!r})", str(key)) for key, value in found.items()})
    if not all(named):
        raise ConfigError(f"{place}({split!r}) must return at least one input and one target, got an empty mapping")
    return _arrays(f"{place}({split!r})", *named)


def _array(value: object, where: str, name: str) -> NDArray[np.generic]:
    array = value.numpy() if isinstance(value, Tensor) else value
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where}: {name!r} must be a NumPy array or a tensor, got {type(value).__name__}; convert it")
    return array


def _arrays(where: str, inputs: Named, targets: Named) -> Arrays:
    """The split, floats as float32 and integer targets as int64.

    Raises:
        DataError: An array has another type.
    """
    for name, array in (*inputs.items(), *targets.items()):
        if array.ndim < 1 or array.dtype.kind not in "biuf":
            raise DataError(f"{where}: {name!r} must be an array of numbers, a sample in each row, got {array.dtype}")
    return Arrays(
        where=where,
        inputs={name: _float32(array) for name, array in inputs.items()},
        targets={
            name: _float32(array) if array.dtype.kind == "f" else array.astype(np.int64, copy=False)
            for name, array in targets.items()
        },
    )


def _float32(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
