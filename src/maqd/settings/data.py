"""Which images or arrays to train on, and how they are batched and augmented. Values only."""

import enum
from dataclasses import dataclass, field

from maqd.errors import ConfigError


class Source(enum.Enum):
    """Where images and arrays come from."""

    DIGITS = "digits"
    """scikit-learn's embedded 8x8 digits: no network, no files."""
    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"
    IMAGE_FOLDER = "image_folder"
    """A local folder SPLIT/CLASS/IMAGE."""
    HUGGING_FACE = "hugging_face"
    """A local folder of parquet files, or the name of a data set on the Hugging Face hub."""
    ARRAYS = "arrays"
    """A local folder with SPLIT.npz for each split, or one .npz file whose arrays are called NAME_SPLIT."""
    TEXT = "text"
    """A local text file, its bytes as tokens."""
    FUNCTION = "function"
    """A function in Python that returns the arrays of a split."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images, drawn for each sample on its own.

    Args:
        crop_padding: Pixels of padding around an image before a random crop back to its size; 0 turns it off. Streamed
            images larger than `image_size` get a random resized crop instead.
        flip: Whether half of the images are mirrored left to right.
        cutout: Side in pixels of a square painted over at a random place; 0 turns it off.

    Raises:
        ConfigError: A number of pixels is negative.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            _check_integer(f"augment.{name}", getattr(self, name), minimum=0)

    @property
    def enabled(self) -> bool:
        """Whether anything is changed at all."""
        return self.crop_padding > 0 or self.flip or self.cutout > 0


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A data set and its batches.

    Args:
        source: Kind of the data set.
        path: Local folder, for `arrays` also a file, for `text` a file, or for `hugging_face` a data set's name on
            the hub. None for digits (embedded), for CIFAR (downloaded from the hub) and for a function. Recipes of text
            leave it to the caller.
        function: package.module:function of source `function`. Called with the name of a split, it returns inputs and
            targets: each an array, or a mapping from names to arrays; what `x` and `y` say of arrays holds for them.
        x: Names of the input arrays, in the order in which the network takes them: N x the shape of a sample, channels
            first, of type uint8, int8, int16, uint16 or float. Of source `arrays`.
        y: Names of the target arrays, N x anything: integers such as labels, or floats. With several the loss gets a
            dict. Of source `arrays`.
        context: Bytes that a sample of source `text` has, and most that its network sees.
        image_size: Height in pixels; images are resized and cropped to it in the middle. None keeps their own size,
            which must then be the same for all. The networks of this package take square images.
        image_width: Width in pixels where it is not the height.
        image_column: Column of the images in parquet files; None finds it.
        label_column: Column of the labels in parquet files; None finds it.
        train_split: Name of the training split.
        test_split: Name of the test split; "test" also accepts "val", "valid" and "validation".
        cache_dir: Where decoded images are kept; None is $XDG_CACHE_HOME/maqd or ~/.cache/maqd.
        batch_size: Training samples per batch and process.
        eval_batch_size: Test samples per batch and process.
        classes: Number of classes; null takes those of the set, each of which must then have training images.
        validation: Images of the training split to hold out for choosing hyperparameters and the best checkpoint: below
            1 a fraction, from 1 on their number, each class by the same fraction. 0 trains on all.
        validation_seed: Determines which; the same for all seeds of a run, so that their results can be compared.
        samples_per_epoch: An epoch takes this number of samples, the first of its shuffle; None takes all.
        augment: Random changes of training images; arrays must be uint8 images C x H x W for it.
        workers: Worker processes that decode streamed images; 0 decodes in the main process.
        stream: Whether images are decoded anew each epoch instead of once into the cache; None streams sets that are
            larger than 2 GB when decoded.

    Raises:
        ConfigError: A value is out of its range, or `source` and `path` do not go together.
    """

    source: Source = Source.DIGITS
    path: str | None = None
    function: str | None = None
    x: list[str] = field(default_factory=lambda: ["x"])
    y: list[str] = field(default_factory=lambda: ["y"])
    context: int = 128
    image_size: int | None = None
    image_width: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    cache_dir: str | None = None
    batch_size: int = 128
    eval_batch_size: int = 500
    classes: int | None = None
    validation: float = 0.0
    validation_seed: int = 0
    samples_per_epoch: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    workers: int = 0
    stream: bool | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_batch_size", "context"):
            _check_integer(name, getattr(self, name), minimum=1)
        for name in ("image_size", "image_width", "samples_per_epoch", "classes"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), minimum=1)
        _check_integer("workers", self.workers, minimum=0)
        _check_integer("validation_seed", self.validation_seed, minimum=0)
        if not self.validation >= 0 or (self.validation >= 1 and self.validation % 1):
            raise ConfigError(
                f"validation must be 0, a fraction below 1 or a whole number of images, got {self.validation!r}"
            )
        if self.source is Source.DIGITS and self.path is not None:
            raise ConfigError(
                f"source digits is embedded and takes no path, got path={self.path!r}; "
                "set source to image_folder or hugging_face to read that path"
            )
        if self.image_width is not None and (self.image_size is None or self.source is Source.DIGITS):
            raise ConfigError("image_width goes with image_size, and not with digits; set both, or leave it out")
        if self.source is Source.DIGITS and self.stream:
            raise ConfigError("source digits is embedded and cannot be streamed; leave stream unset")
        if self.source in (Source.IMAGE_FOLDER, Source.HUGGING_FACE, Source.ARRAYS) and not self.path:
            raise ConfigError(f"source {self.source.value} needs a path, got {self.path!r}; set path")
        if (self.source is Source.FUNCTION) != (self.function is not None):
            raise ConfigError(
                f"source {self.source.value} and function {self.function!r} do not go together; set source to function "
                "and function to package.module:function, as --data package.module:function does"
            )
        if self.source in (Source.ARRAYS, Source.FUNCTION, Source.TEXT) and (
            self.image_size is not None or self.stream
        ):
            raise ConfigError(f"source {self.source.value} is read as it is; leave image_size and stream unset")
        for name in ("x", "y"):
            names = getattr(self, name)
            if not names or len(set(names)) < len(names):
                raise ConfigError(f"{name} must name at least one array, each once, got {names}")
        if self.train_split == self.test_split:
            raise ConfigError(f"train_split and test_split must differ, both are {self.train_split!r}")


def _check_integer(name: str, value: object, *, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be an integer of at least {minimum}, got {value!r}")
