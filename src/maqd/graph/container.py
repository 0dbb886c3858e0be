"""The .maqd file: an integer graph as a safetensors file whose metadata describe the nodes; see docs/format.md.

Reading checks everything against the size of the file before anything is allocated, and executes nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import FormatError, GraphError
from maqd.graph import (
    NODES,
    Border,
    Graph,
    Input,
    Labels,
    Memory,
    Metadata,
    Node,
    Storage,
    Stored,
    TensorType,
    Weighted,
)
from maqd.graph.envelope import (
    DTYPES,
    GRAPH,
    Part,
    Reader,
    canonical,
    digest_of,
    open_reader,
    pack_file,
    part_of,
    short,
)
from maqd.graph.file_codes import FileBytes, FileCodes
from maqd.io.files import write_atomically
from maqd.numerics.bounds import narrow
from maqd.numerics.states import Grid, States

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
    return pack_file(GRAPH, nodes, _known(graph.metadata), tensors)


def fingerprint(graph: Graph) -> str:
    """SHA-256 of a valid graph's nodes, in hexadecimal digits: what is known beside the integers does not change it."""
    nodes, tensors = _plain(graph)
    stored = {name: part_of(array) for name, array in tensors.items()}
    return digest_of({GRAPH: nodes}, stored)


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
        "memories": [[one.input, one.output, one.initial] for one in metadata.memories],
    }
    return {key: value for key, value in found.items() if value not in ({}, [], "", None)}


def _states(states: States) -> dict[str, Any]:
    return {"count": states.count, "signed": states.signed}


def _describe(kind: TensorType) -> dict[str, Any]:
    grid = kind.grid
    return {"shape": list(kind.shape), "low": grid.low, "high": grid.high, "exponent": grid.exponent}


# ---- reading --------------------------------------------------------------------------------------------------------


def load(path: Path | str) -> Graph:
    """The graph in a .maqd file, read into memory: what happens to the file later does not matter to it.

    Raises:
        FormatError: The file is missing, damaged, malformed or of another schema; the message says what and where.
    """
    return graph_of(open_reader(path))


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
    return graph_of(Reader("the data", FileBytes(data)))


def graph_of(reader: Reader) -> Graph:
    """The graph in an opened file.

    Raises:
        FormatError: As `load`.
    """
    return _GraphReader(reader.name, reader.file).graph()


class _GraphReader(Reader):
    """Reads the graph of a file."""

    def graph(self) -> Graph:
        document, tensors = self.document(GRAPH)
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
            if canonical(entry["output"]) != canonical(found):
                self.fail(f"node {node.name!r} must have the output {found}, got {short(entry['output'])}")
        return graph

    def node(self, place: int, entry: object, tensors: Mapping[str, Part]) -> Node:
        """One node; the graph's own checks come later."""
        if not isinstance(entry, dict):
            self.fail(f"node {place} must be an object, got {short(entry)}")
        kind = _OPERATIONS.get(str(entry.get("operation")))
        if kind is None:
            self.fail(
                f"node {short(entry.get('name'))} has the operation {short(entry.get('operation'))}, and this "
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

    def metadata(self, value: object) -> Metadata:
        known = {"labels", "image_size", "channel_order", "float_accuracy", "licence", "provenance", "memories"}
        if not isinstance(value, dict) or not value.keys() <= known:
            self.fail(f'"metadata" must be an object with keys of {sorted(known)}, got {short(value)}')
        labels, accuracy = value.get("labels", {}), value.get("float_accuracy")
        if not isinstance(labels, dict):
            self.fail(f'"labels" must be an object of lists of strings, got {short(labels)}')
        if accuracy is not None and (type(accuracy) is not float or not 0 <= accuracy <= 1):
            self.fail(f'"float_accuracy" must be in 0.0 .. 1.0, got {short(accuracy)}')
        return Metadata(
            labels=tuple(
                Labels(output=key, names=self.texts(names, f"labels of {key!r}")) for key, names in labels.items()
            ),
            image_size=self.integers(value.get("image_size", []), '"image_size"'),
            channel_order=self.text(value.get("channel_order", ""), '"channel_order"'),
            float_accuracy=accuracy,
            licence=self.text(value.get("licence", ""), '"licence"'),
            provenance=self.text(value.get("provenance", ""), '"provenance"'),
            memories=self.memories(value.get("memories", [])),
        )

    def memories(self, value: object) -> tuple[Memory, ...]:
        if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == 3 for one in value):
            self.fail(f'"memories" must be a list of lists of input, output and first code, got {short(value)}')
        return tuple(
            Memory(
                input=self.text(one[0], '"memories"'),
                output=self.text(one[1], '"memories"'),
                initial=self.integers([one[2]], '"memories"')[0],
            )
            for one in value
        )

    def grid(self, value: object, what: str) -> Grid:
        keys = ("low", "high", "exponent")
        if not isinstance(value, dict) or value.keys() != set(keys):
            self.fail(f"{what} must have {', '.join(keys)}, got {short(value)}")
        low, high, exponent = self.integers([value[key] for key in keys], what)
        if low > high:
            self.fail(f"{what} must have low <= high, got {low} .. {high}")
        return Grid(low=low, high=high, exponent=exponent)

    def storage(self, value: object, what: str) -> Storage:
        found = next((storage for storage in Storage if storage.value == value), None)
        if found is None:
            self.fail(f"{what} must be one of {', '.join(s.value for s in Storage)}, got {short(value)}")
        return found

    def border(self, value: object, multiplier: Part | None, offset: Part | None, what: str) -> Border | None:
        if value is None and multiplier is None and offset is None:
            return None
        if not isinstance(value, dict) or value.keys() != {"shift", "axis"} or multiplier is None or offset is None:
            self.fail(f'{what} must have "shift", "axis" and two tensors, multiplier and offset, got {short(value)}')
        shift, axis = self.integers([value["shift"], value["axis"]], what)
        arrays = {"multiplier": self.array(multiplier, what), "offset": self.array(offset, what)}
        return Border(**arrays, shift=shift, axis=axis)

    def array(self, tensor: Part, what: str) -> NDArray[np.signedinteger]:
        if tensor.dtype == "U8":
            self.fail(f"{what} must be signed integers, got U8")
        array = np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape)
        if narrow(array).dtype.itemsize != array.dtype.itemsize:
            self.fail(f"{what} must be in their narrowest type, got {tensor.dtype}")
        # A copy: a view would keep the bytes of the whole file in memory.
        return array.astype(array.dtype.newbyteorder("="))
