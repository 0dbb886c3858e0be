"""Images that are not decoded yet: the files of a folder, or a column of a table."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from maqd.errors import DataError
from maqd.optional import require


class EncodedImages(abc.ABC):
    """One split: images as files are stored, and their labels.

    Args:
        labels: int64, N, in 0 .. len(class_names) - 1.
        class_names: Names of the classes.
    """

    def __init__(self, labels: NDArray[np.int64], class_names: tuple[str, ...]) -> None:
        self.labels = labels
        self.class_names = class_names

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @abc.abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded bytes of an image.

        Raises:
            DataError: They are not there.
        """

    @abc.abstractmethod
    def where(self, index: int) -> str:
        """Where an image lies, for messages."""


@final
class FolderImages(EncodedImages):
    """Images that are files."""

    def __init__(self, paths: Sequence[Path], labels: NDArray[np.int64], class_names: tuple[str, ...]) -> None:
        super().__init__(labels, class_names)
        self._paths = paths

    def read(self, index: int) -> bytes:
        """Reads the file."""
        try:
            return self._paths[index].read_bytes()
        except OSError as error:
            raise DataError(
                f"{self._paths[index]}: cannot be read ({error}); restore the file or its rights"
            ) from error

    def where(self, index: int) -> str:
        """The file's path."""
        return str(self._paths[index])


@final
class TableImages(EncodedImages):
    """Images that are a column of an Arrow table.

    Args:
        table: A `pyarrow.Table`, or the `data` of a `datasets.Dataset`, which is mapped from disk.
        column: Name of the image column: binary, or a struct with a binary field "bytes", and for images that are files
            of their own a string field "path".
        files: Name and row count of each file that the rows come from, in order.
        labels: int64, N.
        class_names: Names of the classes.
    """

    def __init__(
        self,
        table: Any,
        column: str,
        files: Sequence[tuple[str, int]],
        labels: NDArray[np.int64],
        class_names: tuple[str, ...],
    ) -> None:
        super().__init__(labels, class_names)
        self._table = table
        self._column = column
        self._files = files
        self._chunks: Any = None
        self._starts: NDArray[np.int64] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state for a worker process: a mapped table is sent as the name of its file, a column as a copy."""
        return {**self.__dict__, "_chunks": None, "_starts": None}

    def read(self, index: int) -> bytes:
        """Reads the cell."""
        value = self._cell(index, "bytes")
        if value:
            return value
        path = self._cell(index, "path")
        if path:
            # How `datasets` refers to images that are files of their own.
            try:
                return Path(path).read_bytes()
            except OSError as error:
                raise DataError(
                    f"{self.where(index)}: has no image bytes, and its file cannot be read ({error}); "
                    "save the table with the images embedded"
                ) from error
        raise DataError(
            f"{self.where(index)}: has no image bytes; save the table with the images embedded or drop the row"
        )

    def where(self, index: int) -> str:
        """File, row and column of the cell."""
        row = index
        for name, count in self._files:
            if row < count:
                return f"{name}, row {row}, column {self._column!r}"
            row -= count
        return f"row {index}, column {self._column!r}"

    def _cell(self, index: int, field: str) -> Any:
        if self._starts is None:
            chunks = self._table.column(self._column).chunks
            self._chunks = [_fields(chunk) for chunk in chunks]
            self._starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        cells = self._chunks[chunk].get(field)
        return cells[index - int(self._starts[chunk])].as_py() if cells is not None else None


def _fields(chunk: Any) -> dict[str, Any]:
    compute = require("pyarrow.compute", "reading tables")
    if not require("pyarrow.types", "reading tables").is_struct(chunk.type):
        return {"bytes": chunk}
    # The fields carry the struct's nulls, and nothing is copied.
    names = {chunk.type.field(i).name for i in range(chunk.type.num_fields)} & {"bytes", "path"}
    return {name: compute.struct_field(chunk, name) for name in names}
