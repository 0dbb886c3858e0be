"""Files of JSON lines that are only ever added to, safe for many writers.

A file is UTF-8 text; each line MUST be one JSON object and end in a line feed. A writer that was killed may leave a
last line without one: a reader passes over it, and the next writer removes it. Anything else that is no row is an
error. Rows are never changed; what was measured again adds a second row.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from maqd.errors import DataError, advice

try:
    import fcntl
except ImportError:  # Not on Windows: there, only one process may write at a time.
    fcntl = None


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a file, which is made if it is missing. Any number of processes may do so at once.

    Raises:
        DataError: The file cannot be written.
    """
    line = json.dumps(row, sort_keys=True).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file, _locked(file):
            _remove_torn_line(file)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; {advice(error, 'pass another file')}"
        ) from error


def whole_lines(path: Path) -> list[tuple[str, bytes]]:
    """The whole lines of a file, each with its place; none if it is missing. A last line cut short is passed over.

    Raises:
        DataError: It cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    # What follows the last line feed is empty, or was cut short.
    return [(f"{path}:{number}", line) for number, line in enumerate(lines[:-1], 1)]


def read_fields(line: bytes, where: str, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The fields of a line.

    Args:
        line: One JSON object.
        where: Its place, for errors.
        types: The types that each of its fields may have.

    Raises:
        DataError: It is no JSON object with these fields, of these types.
    """
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise no_row(where, error) from error
    if not isinstance(tree, dict) or tree.keys() != types.keys():
        raise no_row(where, f"its fields are {sorted(tree) if isinstance(tree, dict) else tree!r}")
    for name, allowed in types.items():
        if type(tree[name]) not in allowed:
            raise no_row(where, f"{name} is {tree[name]!r}")
    return tree


def no_row(where: str, what: object) -> DataError:
    """The error of a line that is no row."""
    return DataError(f"{where} is no row of results: {what}; restore the file, its lines must not be edited")


@contextlib.contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_UN)


def _remove_torn_line(file: BinaryIO) -> None:
    # Its writer is gone: it would hold the lock.
    end = file.seek(0, os.SEEK_END)
    tail = b""
    start = end
    while start and b"\n" not in tail:
        start = max(0, start - 65536)
        file.seek(start)
        tail = file.read(end - start)
    whole = start + tail.rfind(b"\n") + 1
    if whole < end:
        file.truncate(whole)
