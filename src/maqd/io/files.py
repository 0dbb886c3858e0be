"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

LONGEST = 48
"""Characters of a name that its temporary name repeats: systems take 255 bytes, of which a character may need four."""


def write_atomically(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file so that at any time, even after a power cut, `path` holds all of the old or all of the new bytes.

    Raises:
        OSError: It could not be written; the old file is untouched and no temporary file is left. Its `filename` is
            `path`.
    """
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _sync_directory(path.parent)


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory of files, which is empty or not there before, so that it appears whole.

    Args:
        path: The directory.
        files: Their bytes by name, which may have folders in it.

    Raises:
        OSError: It could not be written; nothing is left of it. Its `filename` is `path`.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _sync_directory(path.parent)


def _beside(path: Path) -> Path:
    """A name for what is not complete yet: no longer than systems take, and no other process's on any machine.

    Raises:
        OSError: The path names no file.
    """
    if path.name in ("", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f".{path.name[:LONGEST]}.{secrets.token_hex(8)}.tmp")


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open directories.
        return
    # What was written is in its place. Directories that may not be listed, or lie elsewhere, cannot always be synced.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
