"""Arrow tables as images and labels: which columns are meant, and what their classes are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.data.encoded import EncodedImages, TableImages
from maqd.errors import DataError
from maqd.optional import require
from maqd.settings.data import DataConfig, Source

IMAGE_NAMES = ("img", "image", "images", "picture")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASS_COUNTS = {Source.CIFAR10: 10, Source.CIFAR100: 100}


def open_table(files: list[Path]) -> Any:
    """Reads parquet files into one `pyarrow.Table`.

    Raises:
        DataError: A file is damaged or has other columns than the first.
    """
    parquet = require("pyarrow.parquet", "reading parquet files")
    arrow = require("pyarrow", "reading parquet files")
    tables = []
    for file in files:
        try:
            # Not `read_table`: it reads names of folders in the path as columns.
            with parquet.ParquetFile(file) as opened:
                tables.append(opened.read())
        except (OSError, arrow.ArrowException) as error:
            raise DataError(
                f"{file}: must be a whole parquet file, got {type(error).__name__}: {error}; fetch it again"
            ) from error
        if not tables[-1].schema.equals(tables[0].schema):
            raise DataError(
                f"{file}: must have the columns of {files[0].name} ({_columns(tables[0].schema)}), "
                f"got {_columns(tables[-1].schema)}; remove the file that does not belong to the set"
            )
    return arrow.concat_tables(tables)


def open_tables(
    config: DataConfig, train: Any, test: Any, train_files: list[Path], test_files: list[Path]
) -> tuple[EncodedImages, EncodedImages]:
    """Finds images and labels in the tables of both splits.

    Args:
        config: Names of the columns, and the source.
        train: `pyarrow.Table`, or `data` of a `datasets.Dataset`.
        test: The same.
        train_files: The files whose rows are in `train`, for messages.
        test_files: The files whose rows are in `test`.

    Raises:
        DataError: A column is missing, or a label is missing or out of range.
    """
    image_column, label_column = choose_columns(train.schema, config, str(train_files[0]))
    names = _class_names(train.schema, label_column)
    count = CLASS_COUNTS.get(config.source)
    if count is not None:
        if names is None:
            names = CIFAR10_CLASSES if count == len(CIFAR10_CLASSES) else tuple(map(str, range(count)))
        if len(names) != count:
            raise DataError(
                f"{train_files[0]}, column {label_column!r}: {config.source.value} has {count} classes, "
                f"got {len(names)}; set label_column to the one that is meant, or source to hugging_face"
            )
    splits = []
    for table, files in ((train, train_files), (test, test_files)):
        choose_columns(table.schema, config, str(files[0]), (image_column, label_column))
        labels, names = read_labels(table.column(label_column), names, f"{files[0]}, column {label_column!r}")
        splits.append((table, image_column, _row_counts(table, files), labels, names))
    return TableImages(*splits[0]), TableImages(*splits[1])


def choose_columns(
    schema: Any, config: DataConfig, where: str, wanted: tuple[str, str] | None = None
) -> tuple[str, str]:
    """The columns of the images and of the labels.

    Taken are the ones asked for; else those whose Hugging Face feature is an image or a class label; else those with a
    usual name and fitting type.

    Args:
        schema: `pyarrow.Schema`.
        config: Names asked for, and the source: CIFAR-100 prefers "fine_label".
        where: The table, for messages.
        wanted: Names to take instead of the configuration's.

    Raises:
        DataError: One is missing, is not unique, or has an unusable type.
    """
    types = require("pyarrow.types", "reading parquet files")
    features = _features(schema)

    def holds_images(column: str) -> bool:
        kind = schema.field(column).type
        if types.is_struct(kind):
            return any(
                f.name == "bytes" and _is_binary(types, f.type) for f in (kind.field(i) for i in range(kind.num_fields))
            )
        return _is_binary(types, kind)

    def holds_labels(column: str) -> bool:
        kind = schema.field(column).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)

    def choose(role: str, asked: str | None, feature: str, fits: Callable[[str], bool], usual: tuple[str, ...]) -> str:
        if asked is not None:
            if asked not in schema.names:
                raise DataError(f"{where}: has no {role} column {asked!r}, only {_columns(schema)}; set {role}_column")
            if not fits(asked):
                needs = "encoded bytes" if role == "image" else "integers or strings"
                raise DataError(
                    f"{where}: {role} column {asked!r} must hold {needs}, got {schema.field(asked).type}; "
                    f"set {role}_column"
                )
            return asked
        fitting = [name for name in schema.names if fits(name)]
        named = [name for name in usual if name in fitting]
        typed = [name for name in fitting if features.get(name, {}).get("_type") == feature]
        candidates = [name for name in named if name in typed][:1] or typed or named[:1]
        if len(candidates) != 1:
            found = f"could be any of {candidates}" if candidates else "cannot be found"
            raise DataError(f"{where}: the {role} column {found} among {_columns(schema)}; set {role}_column")
        return candidates[0]

    image_asked, label_asked = wanted or (config.image_column, config.label_column)
    label_names = LABEL_NAMES if config.source is not Source.CIFAR100 else ("fine_label", *LABEL_NAMES)
    return (
        choose("image", image_asked, "Image", holds_images, IMAGE_NAMES),
        choose("label", label_asked, "ClassLabel", holds_labels, label_names),
    )


def read_labels(column: Any, names: tuple[str, ...] | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as numbers.

    Args:
        column: `pyarrow.ChunkedArray` of integers, or of strings, whose sorted values are the classes.
        names: Class names if known; None takes them from the labels.
        where: The column, for messages.

    Returns:
        int64 N in 0 .. K-1, and the K class names.

    Raises:
        DataError: A label is missing or out of range, or there are no rows.
    """
    compute, types = require("pyarrow.compute", "reading labels"), require("pyarrow.types", "reading labels")
    if len(column) == 0:
        raise DataError(f"{where}: a split must have rows, got none; fetch the file again")
    if column.null_count:
        row = int(np.flatnonzero(compute.is_null(column).to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{where}: every row must have a label, got none in row {row}; drop the row or label it")
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not types.is_integer(column.type):
        texts = column.to_pylist()
        names = tuple(sorted(set(texts))) if names is None else names
        index = {name: i for i, name in enumerate(names)}
        unknown = next((row for row, text in enumerate(texts) if text not in index), None)
        if unknown is not None:
            raise DataError(
                f"{where}: a label must be one of the training split's {len(names)} classes, "
                f"got {texts[unknown]!r} in row {unknown}; correct it or drop the row"
            )
        return np.array([index[text] for text in texts], np.int64), names
    numbers = column.to_numpy()
    # Without names the classes are counted by the largest label; more classes than samples is a mistake.
    limit = len(names) if names is not None else len(numbers)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= limit))
    if len(wrong):
        raise DataError(
            f"{where}: labels must be in 0 .. {limit - 1}, got {numbers[wrong[0]]} in row {wrong[0]}; "
            "correct it, drop the row or set label_column"
        )
    return numbers.astype(np.int64), names if names is not None else tuple(map(str, range(int(numbers.max()) + 1)))


def _row_counts(table: Any, files: list[Path]) -> list[tuple[str, int]]:
    if len(files) == 1:
        return [(str(files[0]), table.num_rows)]
    parquet = require("pyarrow.parquet", "reading parquet files")
    return [(str(file), parquet.read_metadata(file).num_rows) for file in files]


def _features(schema: Any) -> dict[str, Any]:
    # What `datasets` writes beside its tables; everything else there is ignored.
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    names = _features(schema).get(column, {}).get("names")
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name!r} ({field.type})" for field in schema)


def _is_binary(types: Any, kind: Any) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind)
