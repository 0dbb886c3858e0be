"""Decoded data sets on disk, so that they open in a fraction of a second.

A file holds both splits of a set, all integers little-endian:

    offset  bytes
    0       8        magic b"MAQDDATA"
    8       4        schema version
    12      4        H, length of the header
    16      4        CRC-32 of the header and everything after it
    20      4        zero
    24      H        header: JSON with the fingerprint of the source, class names, image shape and sample counts
    24 + H  ..       zeros up to a multiple of 64
            8 * N    labels, int64, training samples before test samples
            ..       images, uint8 N x H x W x C, in the same order

The file MUST end with the last image. Whatever differs from this, or from the fingerprint asked for, makes the file
unusable, and it is built again from the source. Files are written under another name and
renamed when complete, so a reader never sees half a file, and two processes building the same one do not disturb each
other. They are read into memory, not mapped: what was checked stays as it is when a file is truncated or written to
later, and a mapping would end the process then. That takes no more memory than building the file did.
"""

import json
import logging
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maqd.data.arrays import ImageArrays
from maqd.errors import DataError
from maqd.io.files import write_atomically

MAGIC = b"MAQDDATA"
SCHEMA = 1
"""Version of the layout and of the decoding: to be raised when the same source comes to give other bytes."""

ALIGNMENT = 64
MAX_HEADER = 1 << 26

_PREFIX = struct.Struct("<8sIIII")
_CHUNK = 1 << 24

log = logging.getLogger(__name__)

Splits = tuple[ImageArrays, ImageArrays]


class CacheMissError(DataError):
    """A cache file is absent, stale or damaged; the message says which."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    fingerprint: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: tuple[int, int]

    def dump(self) -> bytes:
        return json.dumps(self.__dict__, sort_keys=True).encode()

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of all labels and of all images."""
        height, width, channels = self.shape
        return 8 * sum(self.counts), sum(self.counts) * height * width * channels


def find(path: Path, fingerprint: str) -> Splits | None:
    """What `read` gives, or None, with a line in the log that says why.

    Args:
        path: The cache file.
        fingerprint: What identifies the present state of the source.
    """
    try:
        return read(path, fingerprint)
    except CacheMissError as reason:
        absent = isinstance(reason.__cause__, FileNotFoundError)
        log.log(logging.INFO if absent else logging.WARNING, "%s; building it from the source", reason)
        return None


def keep(path: Path, fingerprint: str, splits: Splits) -> Splits:
    """Writes a cache file and gives `splits` back.

    A file that cannot be written is logged and done without.
    """
    try:
        write(path, fingerprint, splits)
    except OSError as error:
        log.warning(
            "%s: cannot be kept (%s); going on without a cache, set cache_dir to a writable folder", path, error
        )
    return splits


def write(path: Path, fingerprint: str, splits: Splits) -> None:
    """Writes a cache file, all of it or nothing.

    Raises:
        OSError: The folder cannot be created or written to.
    """
    train, test = splits
    header = _Header(
        fingerprint=fingerprint,
        class_names=train.class_names,
        shape=train.images.shape[1:],
        counts=(len(train.labels), len(test.labels)),
    ).dump()
    parts = [
        header,
        bytes(_padding(len(header))),
        *(np.ascontiguousarray(split.labels, "<i8").view(np.uint8) for split in splits),
        *(np.ascontiguousarray(split.images).reshape(-1) for split in splits),
    ]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = _PREFIX.pack(MAGIC, SCHEMA, len(header), checksum, 0)
    write_atomically(path, [prefix, *(memoryview(part) for part in parts)])


def read(path: Path, fingerprint: str) -> Splits:
    """Reads and checks a cache file.

    Returns:
        Training and test split; in memory, so that nothing that happens to the file later matters to them.

    Raises:
        CacheMissError: The file is absent, damaged, or made from something else than `fingerprint` identifies.
    """
    try:
        with path.open("rb") as file:
            data = np.empty(os.fstat(file.fileno()).st_size, np.uint8)
            data = data[: file.readinto(data.data)]  # it may have become shorter
    except FileNotFoundError as error:
        raise CacheMissError(f"{path}: there is no cache yet") from error
    except (OSError, ValueError, MemoryError) as error:
        raise CacheMissError(f"{path}: the cache cannot be read ({error})") from error
    if len(data) < _PREFIX.size:
        raise CacheMissError(f"{path}: a cache has at least {_PREFIX.size} bytes, got {len(data)}")
    magic, schema, length, checksum, zero = _PREFIX.unpack(data[: _PREFIX.size].tobytes())
    if magic != MAGIC or zero != 0:
        raise CacheMissError(f"{path}: not a cache, it starts with {data[: _PREFIX.size].tobytes()!r}")
    if schema != SCHEMA:
        raise CacheMissError(f"{path}: the cache must have schema version {SCHEMA}, got {schema}")
    if length > min(MAX_HEADER, len(data) - _PREFIX.size):
        raise CacheMissError(f"{path}: the cache's header of {length} bytes does not fit into {len(data)} bytes")
    header = _parse(path, data[_PREFIX.size : _PREFIX.size + length].tobytes())
    if header.fingerprint != fingerprint:
        raise CacheMissError(f"{path}: the cache is stale, its source or the way to decode it has changed")
    labels_at = _PREFIX.size + length + _padding(length)
    labels_size, images_size = header.sizes
    if len(data) != labels_at + labels_size + images_size:
        raise CacheMissError(
            f"{path}: the cache must have {labels_at + labels_size + images_size} bytes, got {len(data)}"
        )
    actual = 0
    for start in range(_PREFIX.size, len(data), _CHUNK):
        actual = zlib.crc32(data[start : start + _CHUNK].data, actual)
    if actual != checksum:
        raise CacheMissError(f"{path}: the cache is damaged, its checksum is {actual:#x} instead of {checksum:#x}")
    # Copied, so that labels are aligned, writable and in the machine's byte order.
    labels = np.frombuffer(data[labels_at : labels_at + labels_size].tobytes(), "<i8").astype(np.int64)
    images = data[labels_at + labels_size :].reshape(-1, *header.shape)
    train_count = header.counts[0]
    try:
        return (
            ImageArrays(images=images[:train_count], labels=labels[:train_count], class_names=header.class_names),
            ImageArrays(images=images[train_count:], labels=labels[train_count:], class_names=header.class_names),
        )
    except DataError as error:
        raise CacheMissError(f"{path}: the cache is damaged: {error}") from error


def _padding(header_length: int) -> int:
    return -(_PREFIX.size + header_length) % ALIGNMENT


def _parse(path: Path, encoded: bytes) -> _Header:
    try:
        fields = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise CacheMissError(f"{path}: the cache's header is no JSON ({error})") from error
    if (
        not isinstance(fields, dict)
        or fields.keys() != {"fingerprint", "class_names", "shape", "counts"}
        or not isinstance(fields["fingerprint"], str)
        or not _is_list(fields["class_names"], str)
        or not _is_list(fields["shape"], int, 3)
        or not _is_list(fields["counts"], int, 2)
        or min(*fields["shape"], *fields["counts"]) < 1
    ):
        raise CacheMissError(f"{path}: the cache's header is incomplete or has values of the wrong type")
    return _Header(
        fingerprint=fields["fingerprint"],
        class_names=tuple(fields["class_names"]),
        shape=tuple(fields["shape"]),
        counts=tuple(fields["counts"]),
    )


def _is_list(value: Any, kind: type, length: int | None = None) -> bool:
    # `type`, because a JSON true would pass as an int.
    return isinstance(value, list) and all(type(item) is kind for item in value) and length in (None, len(value))
