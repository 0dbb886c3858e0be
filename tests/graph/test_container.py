"""The .maqd file: the same bytes always, readable by others, and one clear error for whatever is wrong with it."""

import copy
import errno
import hashlib
import json
import os
import pickle
import random
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_safetensors

from maqd.errors import FormatError, GraphError
from maqd.graph import Conv, Graph, Labels, Metadata, Output, Thresholds, Weighted, container
from maqd.runtime.numpy import NumpyEngine

GRAPH = graphs.every_node()
DATA = container.to_bytes(GRAPH)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: object, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + tensors


def canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def signed(header: dict[str, Any], tensors: bytes, document: dict[str, Any]) -> bytes:
    """A file with the right digest, by the words of docs/format.md."""
    document = {key: value for key, value in document.items() if key != "digest"}
    digest = hashlib.sha256(canonical(document).encode())
    for name in sorted(set(header) - {"__metadata__"}):
        entry = header[name]
        digest.update(canonical([name, entry["dtype"], entry["shape"]]).encode())
        digest.update(tensors[slice(*entry["data_offsets"])])
    text = canonical({**document, "digest": digest.hexdigest()})
    return join({**header, "__metadata__": {"maqd": text}}, tensors)


def edit(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with another document and the right digest."""
    header, tensors = split(DATA)
    document = json.loads(header["__metadata__"]["maqd"])
    change(document)
    return signed(header, tensors, document)


# ---- what is right --------------------------------------------------------------------------------------------------


def test_the_helpers_of_this_file_write_the_same_file():
    assert edit(lambda document: None) == DATA


def test_round_trip_keeps_everything():
    read = container.from_bytes(DATA)
    assert str(read) == str(GRAPH)
    assert container.to_bytes(read) == DATA
    assert [type(node) for node in read.nodes] == [type(node) for node in GRAPH.nodes]
    assert read.metadata == GRAPH.metadata
    images = graphs.images(GRAPH, 3)
    np.testing.assert_array_equal(NumpyEngine(read).run(images), NumpyEngine(GRAPH).run(images))


def test_bytes_do_not_depend_on_the_types_in_memory():
    nodes = []
    for old in GRAPH.nodes:
        wide = isinstance(old, Thresholds)
        nodes.append(replace(old, thresholds=old.thresholds.astype(np.int64)) if wide else replace(old))
    assert container.to_bytes(Graph(nodes=tuple(nodes), metadata=GRAPH.metadata)) == DATA


def test_the_safetensors_library_reads_the_same_tensors():
    found = load_safetensors(DATA)
    assert len(found) == len(split(DATA)[0]) - 1
    for place, node in enumerate(GRAPH.nodes):
        if isinstance(node, Weighted):
            np.testing.assert_array_equal(found[f"{place}.weight"], node.weight.data)
        if isinstance(node, Thresholds):
            np.testing.assert_array_equal(found[f"{place}.thresholds"], node.thresholds)


def test_tensors_are_aligned_and_in_their_narrowest_type():
    header, _ = split(DATA)
    (length,) = struct.unpack("<Q", DATA[:8])
    assert (8 + length) % 8 == 0
    sizes = {"U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % sizes[entry["dtype"]] == 0
    assert header["7.offset"]["dtype"] == "I16"
    assert header["7.multiplier"]["dtype"] == "I8"


def large() -> Graph:
    """A graph whose weights take 4 MB."""
    weight = graphs.weight(np.random.default_rng(0), 3, 512, 4608, 3, 3)
    conv = replace(GRAPH["stem"], weight=weight, inputs=("input",))
    first = replace(GRAPH.input, shape=(4608, 4, 4))
    return Graph(nodes=(first, conv, Output(name="logits", inputs=("stem",))))


def test_loading_takes_little_more_memory_than_the_file(tmp_path: Path):
    path = tmp_path / "m.maqd"
    container.save(large(), path)
    container.load(path)
    tracemalloc.start()
    read = container.load(path)["stem"]
    peak = tracemalloc.get_traced_memory()[1]
    assert isinstance(read, Conv)
    assert not read.weight.data.flags.writeable
    assert not read.weight.data.flags.owndata
    assert path.stat().st_size > 4_000_000
    assert peak < path.stat().st_size + 3 * 2**20
    tracemalloc.stop()


def test_released_memory_comes_back_from_the_file(tmp_path: Path):
    path = tmp_path / "m.maqd"
    container.save(large(), path)
    tracemalloc.start()
    read = container.load(path)
    before = tracemalloc.get_traced_memory()[0]
    container.release(read)
    assert tracemalloc.get_traced_memory()[0] < before - 4_000_000
    tracemalloc.stop()
    assert container.to_bytes(read) == path.read_bytes()


def test_graphs_of_no_file_have_nothing_to_release():
    read = container.from_bytes(DATA)
    container.release(read)
    container.release(GRAPH)
    assert container.to_bytes(read) == container.to_bytes(GRAPH) == DATA


def test_graphs_of_files_can_be_copied_and_pickled(tmp_path: Path):
    path = tmp_path / "m.maqd"
    container.save(GRAPH, path)
    read = container.load(path)
    container.release(read)
    for twin in (copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        path.unlink(missing_ok=True)
        assert container.to_bytes(twin) == DATA


def test_saving_replaces_a_file_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m.maqd"
    container.save(GRAPH, path)
    assert container.load(path).metadata == GRAPH.metadata

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        container.save(graphs.every_node(1), path)
    assert path.read_bytes() == DATA
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.maqd"]


def test_an_inconsistent_graph_is_not_saved(tmp_path: Path):
    with pytest.raises(GraphError, match="output"):
        container.save(Graph(nodes=GRAPH.nodes[:-1]), tmp_path / "m.maqd")
    assert list(tmp_path.iterdir()) == []


# ---- what is wrong --------------------------------------------------------------------------------------------------


LABELS = ("\udcff", *"bcde")
UNREADABLE = {
    "labels": Metadata(labels=(Labels(output="logits", names=LABELS),)),
    "labels twice": Metadata(labels=(Labels(output="logits", names=tuple("abcde")),) * 2),
    "licence": Metadata(licence="\ud800"),
    "integer accuracy": Metadata(float_accuracy=1),
    "accuracy": Metadata(float_accuracy=float("nan")),
    "image_size": Metadata(image_size=(3.0, 4.0)),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("case", [*UNREADABLE, "name"])
def test_what_no_reader_would_take_is_not_written(case: str, tmp_path: Path):
    graph = graphs.every_node()
    if case == "name":
        names = {node.name: node.name for node in graph.nodes} | {"stem": "\udcff"}
        nodes = [
            replace(node, name=names[node.name], inputs=tuple(names[name] for name in node.inputs))
            for node in graph.nodes
        ]
        graph = replace(graph, nodes=tuple(nodes))
    else:
        graph = replace(graph, metadata=UNREADABLE[case])
    with pytest.raises(GraphError, match=r"; (use another|keep one|pass)"):
        container.save(graph, tmp_path / "m.maqd")
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused():
    for length in range(len(DATA)):
        with pytest.raises(FormatError):
            container.from_bytes(DATA[:length])


def test_every_flipped_bit_is_refused():
    generator = random.Random(0)
    positions = {8 * byte + generator.randrange(8) for byte in range(len(DATA))}
    for position in sorted(positions):
        damaged = bytearray(DATA)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(FormatError):
            container.from_bytes(bytes(damaged))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_random_damage_is_refused(data: st.DataObject):
    damaged = bytearray(DATA)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(DATA) - 1))
        replaced = data.draw(st.binary(max_size=20))
        damaged[start : start + data.draw(st.integers(0, 20))] = replaced
    if bytes(damaged) != DATA:
        with pytest.raises(FormatError):
            container.from_bytes(bytes(damaged))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_refused(value: object):
    header, tensors = split(DATA)
    for data in (join(value, tensors), join({**header, "__metadata__": value}, tensors)):
        with pytest.raises(FormatError):
            container.from_bytes(data)
    with pytest.raises(FormatError):
        edit_and_read(lambda document: document.update(nodes=value))


def edit_and_read(change: Callable[[dict[str, Any]], object]) -> Graph:
    return container.from_bytes(edit(change))


def node(place: int, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["nodes"][place].update(values)


def metadata(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["metadata"].update(values)


WRONG_DOCUMENTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer schema": (
        lambda d: d.update(schema=3),
        "it has schema 3, .* reads schema 2; use the newer version",
    ),
    "older schema": (lambda d: d.update(schema=0), "it has schema 0, .*; lower the network again"),
    "schema is no integer": (lambda d: d.update(schema=True), 'need an integer "schema", got True'),
    "unknown key": (lambda d: d.update(extra=1), r'must have "schema", "nodes", "metadata" and "digest", got \['),
    "nodes are no list": (lambda d: d.update(nodes={}), '"nodes" must be a list'),
    "no nodes": (lambda d: d.update(nodes=[]), "belongs to no node"),
    "node is no object": (lambda d: d["nodes"].append(3), "node 18 must be an object, got 3"),
    "unknown operation": (
        node(3, operation="exec"),
        "node 'pool' has the operation 'exec', and this version of maqd knows input, conv.*; use the version",
    ),
    "missing key": (
        lambda d: d["nodes"][3].pop("kernel"),
        r"node 3, max_pool, must have the keys \['dilation', 'kernel'",
    ),
    "unknown key of a node": (node(3, extra=1), "node 3, max_pool, must have the keys"),
    "name is a number": (node(3, name=4), "name of node 3 must be a string, got 4"),
    "name twice": (node(3, name="stem"), "inconsistent graph: max_pool node 'stem': needs a name of its own"),
    "inputs are a string": (node(3, inputs="stem"), "inputs of node 3 must be a list of strings"),
    "unknown input": (node(3, inputs=["nothing"]), "inconsistent graph: .* input 'nothing' is no node before it"),
    "float for an integer": (node(11, shift=3.0), "shift of node 11 must be a list of integers"),
    "true for an integer": (node(11, shift=True), "shift of node 11 must be a list of integers"),
    "huge integer": (node(11, shift=2**64), "shift of node 11 must be a list of integers"),
    "text for a tuple": (node(3, kernel="33"), "kernel of node 3 must be a list of integers, got '33'"),
    "nested tuple": (node(3, kernel=[[3], 2]), "kernel of node 3 must be a list of integers"),
    "too many states": (
        node(2, states={"count": 65537, "signed": False}),
        "states of node 2 must be 2 .. 65536, got 65537",
    ),
    "other states": (node(2, states={"count": 5, "signed": False}), "needs signed integer thresholds of shape"),
    "states without a sign": (node(2, states={"count": 4}), 'states of node 2 must have "count" and "signed"'),
    "sign is a number": (node(2, states={"count": 4, "signed": 0}), 'must have "count" and "signed"'),
    "weight of another shape": (
        node(1, weight={"states": {"count": 7, "signed": True}, "shape": [8, 3, 3, 4]}),
        r"weight of node 1 must be a tensor U8 of shape \[8, 15\], got U8 of shape \[8, 10\]",
    ),
    "weight of a wild shape": (
        node(1, weight={"states": {"count": 7, "signed": True}, "shape": [2**40, 2**40]}),
        "weight of node 1 must be a tensor U8 of shape",
    ),
    "weight of a negative shape": (
        node(1, weight={"states": {"count": 7, "signed": True}, "shape": [8, -3, 3, 3]}),
        "must have 2 to 5 positive dimensions",
    ),
    "wild input": (node(0, shape=[3, 2**30, 2**30]), "has more than 268435456 elements"),
    "wild window": (
        node(3, kernel=[2**31, 2]),
        "max_pool node 'pool': needs 2 numbers in 1 .. 32768",
    ),
    "wild padding": (node(1, padding=[2**20, 2**20]), "needs 2 numbers in 0 .. 32768 for its padding"),
    "zero stride": (node(1, stride=[0, 1]), "needs 2 numbers in 1 .. 32768 for its stride"),
    "wild shift": (node(6, shifts=[0, 62]), "needs a shift in 0 .. 31"),
    "wild exponent": (node(0, grid={"low": -128, "high": 127, "exponent": 10**9}), "is not within"),
    "a code does not fit": (
        node(1, weight={"states": {"count": 2, "signed": True}, "shape": [8, 3, 3, 3]}),
        "weight of node 1 must be a tensor U8 of shape",
    ),
    "wrong output shape": (
        lambda d: d["nodes"][3]["output"].update(shape=[8, 5, 4]),
        "node 'pool' must have the output .*'shape': .8, 5, 3.*got",
    ),
    "output of another type": (lambda d: d["nodes"][3]["output"].update(low=True), "node 'pool' must have the output"),
    "output with a float": (
        lambda d: d["nodes"][3]["output"].update(exponent=-3.0),
        "node 'pool' must have the output",
    ),
    "wrong output range": (lambda d: d["nodes"][1]["output"].update(high=1), "node 'stem' must have the output"),
    "labels that do not fit": (metadata(labels={"logits": ["a"]}), "1 labels do not fit output 'logits'"),
    "labels that are no lists": (metadata(labels={"logits": "a"}), "labels of 'logits' must be a list of strings"),
    "a name that is no text": (node(3, name="\ud800"), "name of node 3 must be a string that UTF-8 can hold"),
    "an input of many dimensions": (node(0, shape=[1] * 65), "input node 'input': needs 1 to 8 positive sizes"),
    "an input of no dimensions": (node(0, shape=[]), "input node 'input': needs 1 to 8 positive sizes"),
    "metadata of another kind": (metadata(colour="red"), '"metadata" must be an object with keys of'),
    "an accuracy above 1": (metadata(float_accuracy=1.5), '"float_accuracy" must be in 0.0 .. 1.0, got 1.5'),
}


@pytest.mark.parametrize("case", WRONG_DOCUMENTS)
def test_wrong_documents_with_the_right_digest(case: str):
    change, message = WRONG_DOCUMENTS[case]
    with pytest.raises(FormatError, match=message):
        edit_and_read(change)


def header_with(**changes: object) -> bytes:
    header, tensors = split(DATA)
    return join({**header, **changes}, tensors)


def entry(name: str, **values: object) -> bytes:
    header, tensors = split(DATA)
    header[name] = {**header[name], **values}
    return join(header, tensors)


def resized(name: str, dtype: str) -> bytes:
    """A tensor with the same number of bytes and the right digest, in another type."""
    header, tensors = split(DATA)
    header[name] = {**header[name], "dtype": dtype}
    return signed(header, tensors, json.loads(header["__metadata__"]["maqd"]))


def widened() -> bytes:
    """The last tensor stored in a wider type than it needs."""
    nodes = [*GRAPH.nodes]
    data = container.to_bytes(Graph(nodes=tuple(nodes)))
    header, tensors = split(data)
    name = "5.bias"
    low, high = header[name]["data_offsets"]
    values = np.frombuffer(tensors[low:high], np.int8).astype("<i4").tobytes()
    rest = {key: value for key, value in header.items() if key not in ("__metadata__", name)}
    moved = {
        key: {
            **value,
            "data_offsets": [o - (high - low if o > low else 0) + len(values) for o in value["data_offsets"]],
        }
        for key, value in rest.items()
    }
    moved = {name: {"dtype": "I32", "shape": header[name]["shape"], "data_offsets": [0, len(values)]}, **moved}
    whole = {"__metadata__": {}, **moved}
    return signed(whole, values + tensors[:low] + tensors[high:], json.loads(header["__metadata__"]["maqd"]))


def document_text(change: Callable[[str], str]) -> bytes:
    header, tensors = split(DATA)
    return join({**header, "__metadata__": {"maqd": change(header["__metadata__"]["maqd"])}}, tensors)


HEADER, TENSORS = split(DATA)
TEXT = json.dumps(HEADER, separators=(",", ":"))
WRONG_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has 0 bytes"),
    "header beyond the file": (struct.pack("<Q", 2**62) + DATA[8:], "its header must have .* got 4611686018427387904"),
    "header beyond the limit": (struct.pack("<Q", 2**24 + 8) + b"{}" + b" " * 2**25, "at most 16777216 bytes"),
    "header of odd length": (struct.pack("<Q", 2) + b"{}", "its header must have a multiple of 8"),
    "header is a list": (join(b"[]", b""), "its header must be one JSON object in ASCII"),
    "header is no JSON": (join(b"{'a': 1}", b""), "the header cannot be read: Expecting property name"),
    "header is not ASCII": (join('{"é":1}'.encode(), b""), "one JSON object in ASCII"),
    "deep header": (join(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""), "the header cannot be read"),
    "deep document": (document_text(lambda text: "[" * 100_000 + "]" * 100_000), 'the metadata "maqd" cannot be read'),
    "long number": (join(b'{"a":' + b"9" * 5000 + b"}", b""), "the header cannot be read"),
    "not a number": (join(b'{"a":NaN}', b""), "NaN is no number"),
    "infinity": (document_text(lambda text: text.replace('"schema":2', '"schema":Infinity')), "Infinity is no number"),
    "infinite number": (
        document_text(lambda text: text.replace('"schema":2', '"schema":1e999')),
        "1e999 is no number",
    ),
    "many dimensions": (entry("1.weight", shape=[2**62] * 10**5), "must have one or two dimensions, got 100000"),
    "duplicate key": (join(TEXT.replace("{", '{"0.weight":{},"0.weight":{},', 1).encode(), TENSORS), "occurs twice"),
    "duplicate key in the document": (
        document_text(lambda text: text.replace('"schema":2', '"schema":2,"schema":2')),
        "a key occurs twice",
    ),
    "no metadata": (
        join({k: v for k, v in HEADER.items() if k != "__metadata__"}, TENSORS),
        '"__metadata__" must hold',
    ),
    "more metadata": (header_with(__metadata__={**HEADER["__metadata__"], "a": "b"}), '"__metadata__" must hold'),
    "spaces in the document": (document_text(lambda text: text.replace(":", ": ", 1)), "not in canonical form"),
    "escapes in the document": (
        document_text(lambda text: text.replace("stem", "\\u0073tem")),
        "not in canonical form",
    ),
    "unsorted document": (
        document_text(lambda text: '{"schema":2,' + text[1:].replace(',"schema":2', "")),
        "not in canonical form",
    ),
    "wrong digest": (
        document_text(lambda text: text.replace('"digest":"', '"digest":"0')),
        "it does not match its digest; it was damaged",
    ),
    "trailing bytes": (DATA + b"\0", r"its tensors end at byte \d+ of \d+"),
    "missing bytes": (DATA[:-1], r"its tensors end at byte \d+ of \d+"),
    "tensor is a list": (header_with(**{"1.weight": [1]}), "tensor '1.weight' must have dtype, shape and data_offsets"),
    "tensor with more keys": (entry("1.weight", extra=1), "must have dtype, shape and data_offsets"),
    "float tensor": (entry("1.weight", dtype="F32"), "must be of type U8, I8, I16, I32, I64, got 'F32'"),
    "type is a list": (entry("1.weight", dtype=["U8"]), "must be of type U8"),
    "negative shape": (entry("1.weight", shape=[-8, -10]), "must take the 80 bytes"),
    "zero in the shape": (entry("1.weight", shape=[0, 10]), "must take the 0 bytes"),
    "wild shape": (entry("1.weight", shape=[2**62, 2**62]), "must take the"),
    "three dimensions": (entry("1.weight", shape=[8, 5, 2]), "must have one or two dimensions, got 3"),
    "hole": (entry("1.weight", data_offsets=[100, 180]), r"must take the 80 bytes from \d+ on, got data_offsets \[100"),
    "offsets backwards": (entry("1.weight", data_offsets=[80, 0]), "must take the 80 bytes"),
    "three offsets": (entry("1.weight", data_offsets=[0, 80, 80]), "must take the 80 bytes"),
    "offset is true": (entry("1.weight", data_offsets=[True, 80]), "data_offsets of tensor '1.weight' must be a list"),
    "tensor of no node": (
        signed(
            {**HEADER, "18.weight": {"dtype": "U8", "shape": [1], "data_offsets": [len(TENSORS), len(TENSORS) + 1]}},
            TENSORS + b"\0",
            json.loads(HEADER["__metadata__"]["maqd"]),
        ),
        "tensor '18.weight' belongs to no node",
    ),
    "weight in a signed type": (resized("1.weight", "I8"), "weight of node 1 must be a tensor U8"),
    "signs in an unsigned type": (resized("2.signs", "U8"), "signs of node 2 must be signed integers, got U8"),
    "wider than needed": (widened(), "bias of node 5 must be in their narrowest type, got I32"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_files(case: str):
    data, message = WRONG_FILES[case]
    with pytest.raises(FormatError, match=message):
        container.from_bytes(data)


def test_a_group_that_is_no_code_is_refused():
    header, tensors = split(DATA)
    low, _ = header["4.weight"]["data_offsets"]  # three states, five in a byte below 243
    damaged = tensors[:low] + b"\xff" + tensors[low + 1 :]
    with pytest.raises(FormatError, match="weight of node 4: a group of 5 codes of 3 states is a number below 243"):
        container.from_bytes(signed(header, damaged, json.loads(header["__metadata__"]["maqd"])))


@pytest.mark.parametrize("case", ["wild shape", "header beyond the file", "deep header"])
def test_wrong_files_allocate_little(case: str):
    data, _ = WRONG_FILES[case]
    tracemalloc.start()
    with pytest.raises(FormatError):
        container.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(data) + 2**20


@pytest.mark.parametrize("case", ["wild input", "weight of a wild shape", "wild window", "wild padding"])
def test_wrong_documents_allocate_little(case: str):
    data = edit(WRONG_DOCUMENTS[case][0])
    tracemalloc.start()
    with pytest.raises(FormatError):
        container.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_files_that_are_no_files_are_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FormatError, match=r"(pipe|zero) is no regular file; pass a \.maqd file"):
            container.load(path)
    with pytest.raises(FormatError, match=r"null byte"):
        container.load("a\0b")


def test_only_the_beginning_of_other_large_files_is_read(tmp_path: Path):
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.write(b"\0\0\0\x20ftypisom")
        file.truncate(2**40)  # no file of this size is in memory
    with pytest.raises(FormatError, match=r"film\.mp4: its header must have"):
        container.load(path)


def test_messages_name_the_file(tmp_path: Path):
    missing, empty, text = tmp_path / "missing.maqd", tmp_path / "empty.maqd", tmp_path / "text.maqd"
    empty.write_bytes(b"")
    text.write_text("no graph at all, but some text")
    with pytest.raises(FormatError, match=r"missing\.maqd cannot be read: No such file"):
        container.load(missing)
    with pytest.raises(FormatError, match=r"empty\.maqd: it has 0 bytes"):
        container.load(empty)
    with pytest.raises(FormatError, match=r"text\.maqd: its header must have"):
        container.load(text)
    with pytest.raises(FormatError, match="is a directory; pass"):
        container.load(tmp_path)
