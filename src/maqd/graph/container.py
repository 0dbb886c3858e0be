"""The .maqd file: an integer graph as a safetensors file whose metadata describe the nodes; see docs/format.md.

Reading checks everything against the size of the file before anything is allocated, and executes nothing.
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
from maqd.graph import (
    NODES,
    Border,
    Graph,
    Input,
    Labels,
    Metadata,
    Node,
    Storage,
    Stored,
    TensorType,
    Weighted,
)
from maqd.graph.file_codes import FileBytes, FileCodes
from maqd.io.files import write_atomically
from maqd.io.outputs import Artefact, recognize
from maqd.numerics.bounds import narrow
from maqd.numerics.packing import PackedCodes, row_bytes
from maqd.numerics.states import Grid, States

SCHEMA = 2
"""Version of the format; a reader refuses any other."""

MAX_HEADER = 2**24
"""Bytes of the longest header that is read."""

KEY = "maqd"
"""The only key of the safetensors metadata."""

_DTYPES = {"U8": "|u1", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
"""The types of safetensors that a .maqd file may hold."""


@dataclass(frozen=True, kw_only=True)
class _Part:
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


_OPERATIONS = {kind.operation: kind for kind in NODES}


# ---- writing --------------------------------------------------------------------------------------------------------


def save(graph: Graph, path: Path | str) -> None:
    """Write a .maqd file; all of it or nothing.

    Raises:
        GraphError: The graph is inconsistent, or no graph.
        OSError: The file cannot be written; one that was there is untouched.
    """
    if not isinstance(graph, Graph):
        raise GraphError(
            f"a .maqd file holds a Graph, got {type(graph).__name__}; maqd.lower(...) returns it as .graph"
        )
    write_atomically(Path(path), [to_bytes(graph)])


def to_bytes(graph: Graph) -> bytes:
    """The bytes of a .maqd file: the same ones for the same graph, always and everywhere.

    Raises:
        GraphError: The graph is inconsistent.
    """
    graph.validate()
    nodes, tensors = _plain(graph)
    # Wide elements first, so that each tensor is aligned to its own.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    stored = {name: _part(tensors[name]) for name in order}
    document = {"schema": SCHEMA, "nodes": nodes, "metadata": _known(graph.metadata)}
    header: dict[str, Any] = {"__metadata__": {KEY: _canonical({**document, "digest": _digest(document, stored)})}}
    offset = 0
    for name, one in stored.items():
        end = offset + len(one.data)
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(one.data for one in stored.values())])


def fingerprint(graph: Graph) -> str:
    """SHA-256 of a valid graph's nodes, in hexadecimal digits: what is known beside the integers does not change it."""
    nodes, tensors = _plain(graph)
    stored = {name: _part(array) for name, array in tensors.items()}
    return _digest({"nodes": nodes}, stored)


def _plain(graph: Graph) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.generic]]]:
    """The descriptions of the nodes, and the tensors that belong to them by name."""
    tensors: dict[str, NDArray[np.generic]] = {}
    nodes = []
    for place, node in enumerate(graph.nodes):
        entry: dict[str, Any] = {
            "operation": node.operation,
            "name": node.name,
            "inputs": list(node.inputs),
            "output": _describe(graph.types[node.name]),
        }
        for field, kind in node.stored.items():
            value = getattr(node, field)
            match kind:
                case Stored.WEIGHT:
                    entry[field] = {"states": _states(value.states), "shape": list(value.shape)}
                    tensors[f"{place}.{field}"] = value.data
                case Stored.STATES:
                    entry[field] = _states(value)
                case Stored.GRID:
                    entry[field] = {"low": value.low, "high": value.high, "exponent": value.exponent}
                case Stored.STORAGE:
                    entry[field] = value.value
                case Stored.BORDER:
                    entry[field] = None if value is None else {"shift": value.shift, "axis": value.axis}
                    if value is not None:
                        tensors[f"{place}.multiplier"] = narrow(value.multiplier)
                        tensors[f"{place}.offset"] = narrow(value.offset)
                case Stored.ARRAY | Stored.OPTIONAL_ARRAY:
                    if value is not None:
                        tensors[f"{place}.{field}"] = narrow(value)
                case _:
                    entry[field] = list(value) if isinstance(value, tuple) else value
        nodes.append(entry)
    return nodes, tensors


def _known(metadata: Metadata) -> dict[str, Any]:
    """The metadata, without what is not known."""
    found = {
        "labels": {labels.output: list(labels.names) for labels in metadata.labels},
        "image_size": list(metadata.image_size),
        "channel_order": metadata.channel_order,
        "float_accuracy": metadata.float_accuracy,
        "licence": metadata.licence,
        "provenance": metadata.provenance,
    }
    return {key: value for key, value in found.items() if value not in ({}, [], "", None)}


def _states(states: States) -> dict[str, Any]:
    return {"count": states.count, "signed": states.signed}


def _describe(kind: TensorType) -> dict[str, Any]:
    grid = kind.grid
    return {"shape": list(kind.shape), "low": grid.low, "high": grid.high, "exponent": grid.exponent}


def _canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _part(array: NDArray[np.generic]) -> _Part:
    dtype = next(name for name, code in _DTYPES.items() if np.dtype(code) == array.dtype.newbyteorder("<"))
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return _Part(dtype=dtype, shape=array.shape, data=little.tobytes())


def _digest(document: Mapping[str, object], tensors: Mapping[str, _Part]) -> str:
    """SHA-256 of the document without its digest and of every tensor, description and bytes, by name."""
    digest = hashlib.sha256(_canonical(document).encode())
    for name in sorted(tensors):
        one = tensors[name]
        digest.update(_canonical([name, one.dtype, list(one.shape)]).encode())
        digest.update(one.data)
    return digest.hexdigest()


# ---- reading --------------------------------------------------------------------------------------------------------


def load(path: Path | str) -> Graph:
    """The graph in a .maqd file, read into memory: what happens to the file later does not matter to it.

    Raises:
        FormatError: The file is missing, damaged, malformed or of another schema; the message says what and where.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FormatError(f"{path} is {'a directory' if path.is_dir() else 'no regular file'}; pass a .maqd file")
        file = FileBytes.read(path, lambda start, size: _Reader(str(path), FileBytes(start)).length(start, size))
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; pass a .maqd file"
        ) from error
    return _Reader(str(path), file).graph()


def release(graph: Graph) -> None:
    """Give back the memory of a loaded file's weights; they are read again from the file when they are looked at.

    That raises FormatError if the file was changed in place since. Does nothing to graphs that do not come from a file,
    and where the file or the system does not allow it.
    """
    for node in graph.nodes:
        if isinstance(node, Weighted) and isinstance(node.weight, FileCodes):
            node.weight.file.release()
            return


def from_bytes(data: bytes) -> Graph:
    """The graph in the bytes of a .maqd file.

    Raises:
        FormatError: As `load`.
    """
    return _Reader("the data", FileBytes(data)).graph()


@dataclass(frozen=True)
class _Reader:
    """Reads one file.

    Args:
        name: Of the file, for messages.
        file: Its bytes.
    """

    name: str
    file: FileBytes

    def graph(self) -> Graph:
        document, tensors = self.document()
        if not isinstance(document["nodes"], list):
            self.fail('"nodes" must be a list')
        nodes = [self.node(place, entry, tensors) for place, entry in enumerate(document["nodes"])]
        used = {
            f"{place}.{field}"
            for place, entry in enumerate(nodes)
            for field in (*entry.stored, *(("multiplier", "offset") if isinstance(entry, Input) else ()))
        }
        if unused := sorted(tensors.keys() - used):
            self.fail(f"tensor {unused[0]!r} belongs to no node")
        try:
            graph = Graph(nodes=tuple(nodes), metadata=self.metadata(document["metadata"]))
            graph.validate()
        except GraphError as error:
            raise FormatError(f"{self.name} holds an inconsistent graph: {error}") from error
        for entry, node in zip(document["nodes"], nodes, strict=True):
            found = _describe(graph.types[node.name])
            # As text: in Python 1.0 and true equal 1.
            if _canonical(entry["output"]) != _canonical(found):
                self.fail(f"node {node.name!r} must have the output {found}, got {_short(entry['output'])}")
        return graph

    def document(self) -> tuple[dict[str, Any], dict[str, _Part]]:
        """The document without its digest, which was checked, and the tensors."""
        data = memoryview(self.file.data)
        header, begin = self.header(data)
        metadata = header.pop("__metadata__", None)
        if not isinstance(metadata, dict) or metadata.keys() != {KEY} or not isinstance(metadata[KEY], str):
            self.fail(f'"__metadata__" must hold one string, "{KEY}"', "it is no file of maqd")
        tensors = self.tensors(header, data, begin)
        document = self.parse(metadata[KEY], f'the metadata "{KEY}"')
        schema = document.get("schema") if isinstance(document, dict) else None
        if not isinstance(document, dict) or type(schema) is not int:
            self.fail(f'the metadata need an integer "schema", got {schema!r}', "lower the network again")
        if schema != SCHEMA:
            remedy = "use the newer version of maqd that wrote it" if schema > SCHEMA else "lower the network again"
            self.fail(f"it has schema {schema}, and this version of maqd reads schema {SCHEMA}", remedy)
        if document.keys() != {"schema", "nodes", "metadata", "digest"}:
            self.fail(f'the metadata must have "schema", "nodes", "metadata" and "digest", got {sorted(document)}')
        try:
            canonical = metadata[KEY] == _canonical(document)
        except RecursionError as error:  # writing JSON takes more of the stack than reading it
            self.fail(f'the metadata "{KEY}" cannot be read: {error}')
        if not canonical:
            self.fail("the metadata are not in canonical form: sorted keys, no spaces, ASCII")
        digest = document.pop("digest")
        if digest != _digest(document, tensors):
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
        if found not in (None, Artefact.GRAPH):
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

    def tensors(self, header: dict[str, Any], data: memoryview, begin: int) -> dict[str, _Part]:
        """Type, shape and bytes of each tensor; they must fill the rest of the file without holes or overlaps."""
        found: dict[str, _Part] = {}
        end = 0
        for name, entry in header.items():
            if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
                self.fail(f"tensor {name!r} must have dtype, shape and data_offsets")
            shape = self.integers(entry["shape"], f"shape of tensor {name!r}")
            offsets = self.integers(entry["data_offsets"], f"data_offsets of tensor {name!r}")
            code = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
            if code is None:
                self.fail(f"tensor {name!r} must be of type {', '.join(_DTYPES)}, got {entry['dtype']!r}")
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
            found[name] = _Part(
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
            self.fail(f"{what} must be a list of integers, got {_short(value)}")
        return tuple(value)

    def node(self, place: int, entry: object, tensors: Mapping[str, _Part]) -> Node:
        """One node; the graph's own checks come later."""
        if not isinstance(entry, dict):
            self.fail(f"node {place} must be an object, got {_short(entry)}")
        kind = _OPERATIONS.get(str(entry.get("operation")))
        if kind is None:
            self.fail(
                f"node {_short(entry.get('name'))} has the operation {_short(entry.get('operation'))}, and this "
                f"version of maqd knows {', '.join(_OPERATIONS)}",
                "use the version of maqd that wrote it",
            )
        stored = {field for field, how in kind.stored.items() if how not in (Stored.ARRAY, Stored.OPTIONAL_ARRAY)}
        if entry.keys() != {"operation", "name", "inputs", "output", *stored}:
            self.fail(f"node {place}, {kind.operation}, must have the keys {sorted(stored)}, got {sorted(entry)}")
        what = f"node {place}"
        values: dict[str, Any] = {
            "name": self.text(entry["name"], f"name of {what}"),
            "inputs": self.texts(entry["inputs"], f"inputs of {what}"),
        }
        for field, how in kind.stored.items():
            label, tensor = f"{field} of {what}", tensors.get(f"{place}.{field}")
            match how:
                case Stored.INTEGER:
                    values[field] = self.integers([entry[field]], label)[0]
                case Stored.INTEGERS:
                    values[field] = self.integers(entry[field], label)
                case Stored.TEXT:
                    values[field] = self.text(entry[field], label)
                case Stored.GRID:
                    values[field] = self.grid(entry[field], label)
                case Stored.STORAGE:
                    values[field] = self.storage(entry[field], label)
                case Stored.BORDER:
                    pair = tensors.get(f"{place}.multiplier"), tensors.get(f"{place}.offset")
                    values[field] = self.border(entry[field], *pair, label)
                case Stored.STATES:
                    values[field] = self.states(entry[field], label)
                case Stored.WEIGHT:
                    values[field] = self.weight(entry[field], tensor, label)
                case Stored.ARRAY | Stored.OPTIONAL_ARRAY:
                    if tensor is None and how is Stored.ARRAY:
                        self.fail(f"{label}: tensor {place}.{field} is missing")
                    values[field] = None if tensor is None else self.array(tensor, label)
        return kind(**values)

    def text(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            self.fail(f"{what} must be a string, got {_short(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            self.fail(f"{what} must be a string that UTF-8 can hold, got {value!a}: {error.reason}")
        return value

    def texts(self, value: object, what: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            self.fail(f"{what} must be a list of strings, got {_short(value)}")
        return tuple(self.text(item, what) for item in value)

    def metadata(self, value: object) -> Metadata:
        known = {"labels", "image_size", "channel_order", "float_accuracy", "licence", "provenance"}
        if not isinstance(value, dict) or not value.keys() <= known:
            self.fail(f'"metadata" must be an object with keys of {sorted(known)}, got {_short(value)}')
        labels, accuracy = value.get("labels", {}), value.get("float_accuracy")
        if not isinstance(labels, dict):
            self.fail(f'"labels" must be an object of lists of strings, got {_short(labels)}')
        if accuracy is not None and (type(accuracy) is not float or not 0 <= accuracy <= 1):
            self.fail(f'"float_accuracy" must be in 0.0 .. 1.0, got {_short(accuracy)}')
        return Metadata(
            labels=tuple(
                Labels(output=key, names=self.texts(names, f"labels of {key!r}")) for key, names in labels.items()
            ),
            image_size=self.integers(value.get("image_size", []), '"image_size"'),
            channel_order=self.text(value.get("channel_order", ""), '"channel_order"'),
            float_accuracy=accuracy,
            licence=self.text(value.get("licence", ""), '"licence"'),
            provenance=self.text(value.get("provenance", ""), '"provenance"'),
        )

    def grid(self, value: object, what: str) -> Grid:
        keys = ("low", "high", "exponent")
        if not isinstance(value, dict) or value.keys() != set(keys):
            self.fail(f"{what} must have {', '.join(keys)}, got {_short(value)}")
        low, high, exponent = self.integers([value[key] for key in keys], what)
        if low > high:
            self.fail(f"{what} must have low <= high, got {low} .. {high}")
        return Grid(low=low, high=high, exponent=exponent)

    def storage(self, value: object, what: str) -> Storage:
        found = next((storage for storage in Storage if storage.value == value), None)
        if found is None:
            self.fail(f"{what} must be one of {', '.join(s.value for s in Storage)}, got {_short(value)}")
        return found

    def border(self, value: object, multiplier: _Part | None, offset: _Part | None, what: str) -> Border | None:
        if value is None and multiplier is None and offset is None:
            return None
        if not isinstance(value, dict) or value.keys() != {"shift", "axis"} or multiplier is None or offset is None:
            self.fail(f'{what} must have "shift", "axis" and two tensors, multiplier and offset, got {_short(value)}')
        shift, axis = self.integers([value["shift"], value["axis"]], what)
        arrays = {"multiplier": self.array(multiplier, what), "offset": self.array(offset, what)}
        return Border(**arrays, shift=shift, axis=axis)

    def states(self, value: object, what: str) -> States:
        if not isinstance(value, dict) or value.keys() != {"count", "signed"} or type(value["signed"]) is not bool:
            self.fail(f'{what} must have "count" and "signed", got {_short(value)}')
        (count,) = self.integers([value["count"]], what)
        if not 2 <= count <= 256:
            self.fail(f"{what} must be 2 .. 256, got {count}")
        return States(count=count, signed=value["signed"])

    def weight(self, value: object, tensor: _Part | None, what: str) -> PackedCodes:
        if not isinstance(value, dict) or value.keys() != {"states", "shape"} or tensor is None:
            self.fail(f'{what} must have "states", "shape" and a tensor, got {_short(value)}')
        states, shape = self.states(value["states"], what), self.integers(value["shape"], what)
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

    def array(self, tensor: _Part, what: str) -> NDArray[np.signedinteger]:
        if tensor.dtype == "U8":
            self.fail(f"{what} must be signed integers, got U8")
        array = np.frombuffer(tensor.data, _DTYPES[tensor.dtype]).reshape(tensor.shape)
        if narrow(array).dtype.itemsize != array.dtype.itemsize:
            self.fail(f"{what} must be in their narrowest type, got {tensor.dtype}")
        # A copy: a view would keep the bytes of the whole file in memory.
        return array.astype(array.dtype.newbyteorder("="))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
