"""What all .maqd files have in common: a safetensors file, one document in its metadata, a digest; docs/format.md.

Reading checks everything against the size of the file before anything is allocated, and executes nothing. What the
document says is read by `maqd.graph.container` (graphs) and `maqd.language.file` (language models).
"""

import hashlib
import json
import math
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from maqd.errors import FormatError, GraphError
from maqd.graph.file_codes import FileBytes, FileCodes
from maqd.io.outputs import Artefact, recognize
from maqd.numerics.packing import PackedCodes, row_bytes
from maqd.numerics.states import FEW_STATES, MAX_STATES, States

SCHEMA = 2
"""Version of the format; a reader refuses any other."""

MAX_HEADER = 2**24
"""Bytes of the longest header that is read."""

KEY = "maqd"
"""The only key of the safetensors metadata."""

GRAPH, LANGUAGE = "nodes", "language"
"""Keys of the document that hold what a file is about: a graph, or a language model."""

CONTENTS = {GRAPH: "an integer graph", LANGUAGE: "a language model"}
"""What messages call it."""

REMEDIES = {GRAPH: "pass a file of a language model", LANGUAGE: "use maqd generate, maqd info or maqd.load"}
"""What to do about a file that holds the other."""

DTYPES = {"U8": "|u1", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F32": "<f4"}
"""The types of safetensors that a .maqd file may hold; floats in language models only."""

GRAPH_DTYPES = tuple(name for name in DTYPES if name != "F32")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A tensor of a file.

    Args:
        dtype: As safetensors call it.
        shape: One or two dimensions.
        offset: Where it begins in the file; 0 before it is written.
        data: Its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview
    offset: int = 0


# ---- writing --------------------------------------------------------------------------------------------------------


def pack_file(content: str, described: object, metadata: object, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The bytes of a .maqd file: the same ones for the same content, always and everywhere.

    Args:
        content: `GRAPH` or `LANGUAGE`.
        described: What the document says of it, as plain JSON.
        metadata: What is known beside it, as plain JSON.
        tensors: Of `DTYPES`, by name.
    """
    # Wide elements first, so that each tensor is aligned to its own.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    stored = {name: part_of(tensors[name]) for name in order}
    document = {"schema": SCHEMA, content: described, "metadata": metadata}
    signed = canonical({**document, "digest": digest_of(document, stored)})
    header: dict[str, Any] = {"__metadata__": {KEY: signed}}
    offset = 0
    for name, one in stored.items():
        end = offset + len(one.data)
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(one.data for one in stored.values())])


def canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def part_of(array: NDArray[np.generic]) -> Part:
    dtype = next(name for name, code in DTYPES.items() if np.dtype(code) == array.dtype.newbyteorder("<"))
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return Part(dtype=dtype, shape=array.shape, data=little.tobytes())


def digest_of(document: Mapping[str, object], tensors: Mapping[str, Part]) -> str:
    """SHA-256 of the document without its digest and of every tensor, description and bytes, by name."""
    digest = hashlib.sha256(canonical(document).encode())
    for name in sorted(tensors):
        one = tensors[name]
        digest.update(canonical([name, one.dtype, list(one.shape)]).encode())
        digest.update(one.data)
    return digest.hexdigest()


# ---- reading --------------------------------------------------------------------------------------------------------


def open_reader(path: Path | str) -> "Reader":
    """The reader of a file, which is read into memory: what happens to the file later does not matter to it.

    Raises:
        FormatError: The file is missing or cannot be read, or is no .maqd file.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FormatError(f"{path} is {'a directory' if path.is_dir() else 'no regular file'}; pass a .maqd file")
        file = FileBytes.read(path, lambda start, size: Reader(str(path), FileBytes(start)).length(start, size))
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; pass a .maqd file"
        ) from error
    return Reader(str(path), file)


@dataclass(frozen=True)
class Reader:
    """Reads one file.

    Args:
        name: Of the file, for messages.
        file: Its bytes.
    """

    name: str
    file: FileBytes

    def content(self) -> str:
        """What the file says that it holds, `GRAPH` or `LANGUAGE`, before it is checked."""
        header, _ = self.header(memoryview(self.file.data))
        metadata = header.get("__metadata__")
        text = metadata.get(KEY) if isinstance(metadata, dict) else None
        document = self.parse(text, "the metadata") if isinstance(text, str) else None
        return LANGUAGE if isinstance(document, dict) and LANGUAGE in document else GRAPH

    def document(self, content: str) -> tuple[dict[str, Any], dict[str, Part]]:
        """The document without its digest, which was checked, and the tensors.

        Args:
            content: What the caller reads, `GRAPH` or `LANGUAGE`.

        Raises:
            FormatError: The file is damaged, of another schema, or holds something else.
        """
        data = memoryview(self.file.data)
        header, begin = self.header(data)
        metadata = header.pop("__metadata__", None)
        if not isinstance(metadata, dict) or metadata.keys() != {KEY} or not isinstance(metadata[KEY], str):
            self.fail(f'"__metadata__" must hold one string, "{KEY}"', "it is no file of maqd")
        document = self.parse(metadata[KEY], f'the metadata "{KEY}"')
        found = GRAPH if content == LANGUAGE else LANGUAGE
        if isinstance(document, dict) and content not in document and found in document:
            self.fail(f"it holds {CONTENTS[found]}, and {CONTENTS[content]} is wanted", REMEDIES[found])
        tensors = self.tensors(header, data, begin, tuple(DTYPES) if content == LANGUAGE else GRAPH_DTYPES)
        schema = document.get("schema") if isinstance(document, dict) else None
        if not isinstance(document, dict) or type(schema) is not int:
            self.fail(f'the metadata need an integer "schema", got {schema!r}', "lower the network again")
        if schema != SCHEMA:
            remedy = "use the newer version of maqd that wrote it" if schema > SCHEMA else "lower the network again"
            self.fail(f"it has schema {schema}, and this version of maqd reads schema {SCHEMA}", remedy)
        if document.keys() != {"schema", content, "metadata", "digest"}:
            self.fail(f'the metadata must have "schema", "{content}", "metadata" and "digest", got {sorted(document)}')
        try:
            written = metadata[KEY] == canonical(document)
        except RecursionError as error:  # writing JSON takes more of the stack than reading it
            self.fail(f'the metadata "{KEY}" cannot be read: {error}')
        if not written:
            self.fail("the metadata are not in canonical form: sorted keys, no spaces, ASCII")
        digest = document.pop("digest")
        if digest != digest_of(document, tensors):
            self.fail("it does not match its digest", "it was damaged; copy it again or lower the network again")
        return document, tensors

    def fail(
        self, what: str, remedy: str = "it is damaged or was not written by maqd; lower the network again"
    ) -> NoReturn:
        raise FormatError(f"{self.name}: {what}; {remedy}")

    def parse(self, text: str | bytes, what: str) -> Any:
        """JSON without duplicate keys and other things that readers disagree about."""

        def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(items)
            if len(found) != len(items):
                raise ValueError("a key occurs twice")
            return found

        def constant(name: str) -> NoReturn:
            raise ValueError(f"{name} is no number")

        def number(digits: str) -> float:
            return float(digits) if math.isfinite(float(digits)) else constant(digits)

        try:
            return json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_float=number)
        except (ValueError, RecursionError) as error:  # bad JSON or UTF-8, numbers of too many digits, too deep
            self.fail(f"{what} cannot be read: {error}")

    def length(self, start: bytes, size: int) -> int:
        """Bytes of the header, from the first 16 bytes of a file and its size."""
        if size < 8:
            self.fail(f"it has {size} bytes, and even the length of the header takes 8")
        found = recognize(start)
        if found not in (None, Artefact.GRAPH, Artefact.TENSORS):
            self.fail(f"it is {found.value}, not a .maqd file", "pass the .maqd file")
        (length,) = struct.unpack("<Q", start[:8])
        most = min(MAX_HEADER, size - 8)
        if length > most or length % 8:
            self.fail(f"its header must have a multiple of 8 and at most {most} bytes, got {length}")
        return length

    def header(self, data: memoryview) -> tuple[dict[str, Any], int]:
        """The parsed header and where the tensors begin."""
        length = self.length(bytes(data[:16]), len(data))
        text = bytes(data[8 : 8 + length])
        if not text.startswith(b"{") or not text.isascii() or text.rstrip(b" ")[-1:] != b"}":
            self.fail("its header must be one JSON object in ASCII, padded with spaces")
        header = self.parse(text, "the header")
        return header, 8 + length

    def tensors(
        self, header: dict[str, Any], data: memoryview, begin: int, allowed: tuple[str, ...]
    ) -> dict[str, Part]:
        """Type, shape and bytes of each tensor; they must fill the rest of the file without holes or overlaps."""
        found: dict[str, Part] = {}
        end = 0
        for name, entry in header.items():
            if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
                self.fail(f"tensor {name!r} must have dtype, shape and data_offsets")
            shape = self.integers(entry["shape"], f"shape of tensor {name!r}")
            offsets = self.integers(entry["data_offsets"], f"data_offsets of tensor {name!r}")
            code = DTYPES[entry["dtype"]] if isinstance(entry["dtype"], str) and entry["dtype"] in allowed else None
            if code is None:
                self.fail(f"tensor {name!r} must be of type {', '.join(allowed)}, got {entry['dtype']!r}")
            if not 1 <= len(shape) <= 2:
                self.fail(f"tensor {name!r} must have one or two dimensions, got {len(shape)}")
            size = math.prod(shape) * np.dtype(code).itemsize
            if min(shape) < 1 or list(offsets) != [end, end + size]:
                self.fail(
                    f"tensor {name!r} of type {entry['dtype']} and shape {list(shape)} must take the {size} bytes from "
                    f"{end} on, got data_offsets {list(offsets)}"
                )
            if end % np.dtype(code).itemsize:
                self.fail(f"tensor {name!r} must be aligned to its type, got offset {end}")
            end += size
            found[name] = Part(
                dtype=entry["dtype"],
                shape=shape,
                data=data[begin + end - size : begin + end],
                offset=begin + end - size,
            )
        if begin + end != len(data):
            self.fail(f"its tensors end at byte {begin + end} of {len(data)}")
        return found

    def integers(self, value: object, what: str) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(type(item) is int and abs(item) < 2**63 for item in value):
            self.fail(f"{what} must be a list of integers, got {short(value)}")
        return tuple(value)

    def text(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            self.fail(f"{what} must be a string, got {short(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            self.fail(f"{what} must be a string that UTF-8 can hold, got {value!a}: {error.reason}")
        return value

    def texts(self, value: object, what: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            self.fail(f"{what} must be a list of strings, got {short(value)}")
        return tuple(self.text(item, what) for item in value)

    def states(self, value: object, what: str, most: int = MAX_STATES) -> States:
        if not isinstance(value, dict) or value.keys() != {"count", "signed"} or type(value["signed"]) is not bool:
            self.fail(f'{what} must have "count" and "signed", got {short(value)}')
        (count,) = self.integers([value["count"]], what)
        if not 2 <= count <= most:
            self.fail(f"{what} must be 2 .. {most}, got {count}")
        return States(count=count, signed=value["signed"])

    def weight(self, value: object, tensor: Part | None, what: str) -> PackedCodes:
        if not isinstance(value, dict) or value.keys() != {"states", "shape"} or tensor is None:
            self.fail(f'{what} must have "states", "shape" and a tensor, got {short(value)}')
        states, shape = self.states(value["states"], what, FEW_STATES), self.integers(value["shape"], what)
        if not 2 <= len(shape) <= 5 or min(shape) < 1:
            self.fail(f"{what} must have 2 to 5 positive dimensions, got {list(shape)}")
        expected = (shape[0], row_bytes(states.count, math.prod(shape[1:])))
        if tensor.dtype != "U8" or tensor.shape != expected:
            self.fail(
                f"{what} must be a tensor U8 of shape {list(expected)}, got {tensor.dtype} of shape "
                f"{list(tensor.shape)}"
            )
        try:
            return FileCodes(states=states, shape=shape, file=self.file, offset=tensor.offset)
        except GraphError as error:
            raise FormatError(f"{self.name}: {what}: {error}") from error


def short(value: object) -> str:
    """A value in messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
