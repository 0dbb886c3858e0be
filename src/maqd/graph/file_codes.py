"""Weights of a file: in memory, or given back to the system until they are looked at again.

A file may be truncated or replaced while a program uses it, so nothing is read from a mapping of it. What was given
back is read again from the file that was opened, and counts only if it is the same to the last bit.
"""

import contextlib
import hashlib
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from maqd.errors import FormatError
from maqd.numerics.packing import PackedCodes, row_bytes
from maqd.numerics.states import States


@dataclass(frozen=True, kw_only=True)
class _Identity:
    """What tells a file from another and from itself after a change."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """That of an open file."""
        found = os.fstat(descriptor)
        return cls(device=found.st_dev, inode=found.st_ino, size=found.st_size, modified=found.st_mtime_ns)


class FileBytes:
    """The bytes of a file.

    Args:
        data: All of them.
        path: The file; None if they come from elsewhere.
        identity: Of the file when it was read.
    """

    def __init__(self, data: bytes, path: Path | None = None, identity: _Identity | None = None) -> None:
        self._data: bytes | None = data
        self._path = path
        self._identity = identity
        self._descriptor = -1
        self._digest = b""

    @classmethod
    def read(cls, path: Path, begins: Callable[[bytes, int], object]) -> Self:
        """Read a file.

        Args:
            path: The file.
            begins: Called with the first 16 bytes and the size before the rest is read; raises if they are wrong.

        Raises:
            OSError: It cannot be read.
        """
        with path.open("rb", buffering=0) as file:
            identity = _Identity.of(file.fileno())
            begins(file.read(16), identity.size)
            file.seek(0)
            return cls(file.read(), path, identity)

    @property
    def data(self) -> bytes:
        """The bytes.

        Raises:
            FormatError: They were released, and the file was changed in place since it was read.
        """
        data = self._data
        if data is None:
            data = _read(self._descriptor)
            if hashlib.sha256(data).digest() != self._digest:
                raise FormatError(
                    f"{self._path} was changed while it was in use; load it again, and replace such files by renaming "
                    "new ones instead of writing into them"
                )
            self._data = data
        return data

    def release(self) -> None:
        """Give the memory back if the bytes can be read again. The file is kept open: another may take its name."""
        data = self._data
        if data is None or self._path is None or not hasattr(os, "pread"):
            return
        if self._descriptor < 0:
            with contextlib.suppress(OSError):  # it is gone, or too many files are open
                self._descriptor = os.open(self._path, os.O_RDONLY)
                weakref.finalize(self, os.close, self._descriptor)
        if self._descriptor >= 0 and _Identity.of(self._descriptor) == self._identity:
            self._digest = hashlib.sha256(data).digest()
            self._data = None


class FileCodes(PackedCodes):
    """Packed codes in a file.

    Args:
        states: The states of the codes.
        shape: Shape of the array.
        file: The file.
        offset: Where in it the codes begin.

    Raises:
        GraphError: As `PackedCodes`.
    """

    file: FileBytes
    offset: int

    def __init__(self, *, states: States, shape: tuple[int, ...], file: FileBytes, offset: int) -> None:
        vars(self).update(states=states, shape=shape, file=file, offset=offset)
        self._check_groups()

    @property
    def data(self) -> NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """uint8, rows x bytes of a row; read-only.

        Raises:
            FormatError: As `FileBytes.data`.
        """
        rows, width = self.shape[0], row_bytes(self.states.count, self.length)
        return np.frombuffer(self.file.data, np.uint8, rows * width, self.offset).reshape(rows, width)

    def reshaped(self, *shape: int) -> "FileCodes":
        """As in the base class; stays in the file."""
        made = object.__new__(FileCodes)
        vars(made).update(vars(self), shape=shape)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _packed, (self.states, self.shape, self.data.copy())


def _packed(states: States, shape: tuple[int, ...], data: NDArray[np.uint8]) -> PackedCodes:
    return PackedCodes(states=states, shape=shape, data=data)


def _read(descriptor: int) -> bytes:
    """All bytes of an open file. Its position, which forked processes share, stays."""
    parts: list[bytes] = []
    end = 0
    while part := os.pread(descriptor, 2**26, end):
        parts.append(part)
        end += len(part)
    return b"".join(parts)
