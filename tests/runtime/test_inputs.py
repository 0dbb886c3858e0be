"""Several inputs and outputs of every type: what engines take, and the same integers from all of them."""

import copy
import pickle
from typing import Any

import graphs
import numpy as np
import pytest
import torch

from maqd.errors import EngineError
from maqd.graph import (
    Add,
    Border,
    Conv,
    Flatten,
    Graph,
    Input,
    Labels,
    Linear,
    Metadata,
    Output,
    Storage,
    container,
)
from maqd.numerics.states import Grid
from maqd.runtime import NativeEngine, NumpyEngine, inputs
from maqd.runtime.c99 import CEngine
from maqd.runtime.engine import BaseEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

ENGINES: list[type[BaseEngine]] = [NumpyEngine, NativeEngine, OnnxRuntime, CEngine]
BORDER = Border(multiplier=np.array([3, -5, 2**29 - 1]), offset=np.array([1, 0, -7]), shift=20)


def node(storage: Storage) -> Input:
    grids = {
        Storage.U8: (Grid(low=-10, high=100, exponent=-3), 50),
        Storage.I8: (Grid(low=-128, high=127, exponent=-6), 0),
        Storage.I16: (Grid(low=-3000, high=3000, exponent=-8), 7),
        Storage.U16: (Grid(low=-300, high=65235, exponent=-8), 300),
        Storage.F32: (Grid(low=-128, high=127, exponent=-4), 0),
    }
    grid, zero = grids[storage]
    border = BORDER if storage is Storage.F32 else None
    return Input(name="x", key="data", inputs=(), shape=(3, 5, 4), grid=grid, storage=storage, zero=zero, border=border)


def one_input(storage: Storage) -> Graph:
    random = np.random.default_rng(1)
    geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    conv = Conv(name="c", inputs=("x",), weight=graphs.weight(random, 3, 6, 3, 3, 3), exponent=-2, **geometry)
    return Graph(nodes=(node(storage), conv, Output(name="y", key="map", inputs=("c",), divisor=9)))


def siamese() -> Graph:
    """Two inputs of different types, three outputs, one of them an input of others."""
    random = np.random.default_rng(2)
    floats = Input(
        name="floats",
        key="b.x",
        inputs=(),
        shape=(7,),
        grid=Grid(low=-100, high=100, exponent=-4),
        storage=Storage.F32,
        border=Border(multiplier=np.array([1 << 10]), offset=np.array([3]), shift=6),
    )
    bytes_ = Input(name="bytes", key="a", inputs=(), shape=(2, 3, 2))
    nodes = (
        bytes_,
        floats,
        Flatten(name="flat", inputs=("bytes",)),
        Linear(name="one", inputs=("flat",), weight=graphs.weight(random, 3, 5, 12), exponent=0),
        Linear(name="two", inputs=("floats",), weight=graphs.weight(random, 5, 5, 7), exponent=-2),
        Add(name="sum", inputs=("one", "two"), shifts=(0, 0)),
        Output(name="first", key="scores", inputs=("sum",)),
        Output(name="second", key="parts.one", inputs=("one",)),
        Output(name="third", key="parts.two", inputs=("two",), divisor=49),
    )
    labels = Labels(output="scores", names=("ant", "bee", "cat", "dog", "eel"))
    return Graph(nodes=nodes, metadata=Metadata(labels=(labels,), licence="none", float_accuracy=0.5))


@pytest.mark.parametrize("storage", list(Storage))
def test_every_storage_gives_the_same_integers(storage: Storage):
    graph = container.from_bytes(container.to_bytes(one_input(storage)))
    samples = inputs.random(graph, 20)
    assert samples[0].dtype == storage.dtype
    result = verify(graph, [kind(graph) for kind in ENGINES], [samples])
    assert result.ok, result
    codes = dict(NumpyEngine(graph).layers(*samples))["x"]
    assert (codes[1] == graph.input.grid.low).all() or storage is Storage.F32
    assert codes.min() == graph.input.grid.low
    assert codes.max() == graph.input.grid.high


def test_floats_are_quantized_as_exact_arithmetic_does():
    graph = one_input(Storage.F32)
    (samples,) = inputs.random(graph, 30)
    samples[1:3] = 0  # no infinities
    codes = dict(NumpyEngine(graph).layers(samples))["x"]
    for index in np.ndindex(samples.shape):
        exact = float(samples[index]).as_integer_ratio()
        a, b = int(BORDER.multiplier[index[1]]), int(BORDER.offset[index[1]])
        # floor(x a 2^-K + 1/2) = floor((2 x a + 2^K) / 2^(K + 1)), with x = n / d.
        wanted = (2 * exact[0] * a + exact[1] * 2**BORDER.shift) // (exact[1] * 2 ** (BORDER.shift + 1)) + b
        assert codes[index] == min(max(wanted, -128), 127)


def test_what_is_no_number_is_refused_in_python_and_the_lowest_code_in_onnx():
    graph = one_input(Storage.F32)
    samples = np.zeros((1, 3, 5, 4), np.float32)
    samples[0, 1, 2, 3] = np.nan
    for kind in ENGINES:
        with pytest.raises(EngineError, match="input 'data' must hold numbers, got not-a-number"):
            kind(graph).run(samples)
    onnxruntime = pytest.importorskip("onnxruntime")
    from maqd.export.onnx.integer import onnx_model

    model = onnx_model(graph, layers=True).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    codes = session.run(["x/layer"], {"data": samples})[0]
    assert codes[0, 1, 2, 3] == -128
    assert codes[0, 0, 0, 0] == 1


@pytest.mark.parametrize("kind", ENGINES)
def test_several_inputs_and_outputs(kind: type[BaseEngine]):
    graph = container.from_bytes(container.to_bytes(siamese()))
    engine = kind(graph)
    first, second = inputs.random(graph, 6)
    found = engine.run(first, second)
    assert list(found) == ["scores", "parts.one", "parts.two"]
    np.testing.assert_array_equal(found["scores"], found["parts.one"] + found["parts.two"])
    by_name = engine.run({"b.x": torch.from_numpy(second), "a": torch.from_numpy(first)})
    single = engine.run(first[3], second[3])
    last = engine.run(np.moveaxis(first, 1, -1), second)
    for key, codes in found.items():
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(by_name[key], codes)
        np.testing.assert_array_equal(last[key], codes)
        np.testing.assert_array_equal(single[key], codes[3])
    scores = engine.scores(first, second)
    np.testing.assert_array_equal(scores["scores"], found["scores"].astype(np.float32) * np.float32(2**-6))
    np.testing.assert_array_equal(
        scores["parts.two"], found["parts.two"].astype(np.float32) * np.float32(2**-6) / np.float32(49)
    )
    best = engine.classify(first, second, top=2, output="scores")
    for row, classes in zip(found["scores"], best, strict=True):
        assert classes[0].logit == row.max()
        assert classes[0].label == graph.labels("scores")[int(row.argmax())]
        assert classes[0].score >= classes[1].score
    assert verify(graph, [engine], [(first, second)]).ok


@pytest.mark.parametrize("kind", ENGINES)
def test_engines_can_be_copied_and_sent_to_other_processes(kind: type[BaseEngine]):
    engine = kind(siamese())
    samples = inputs.random(engine.graph, 4)
    for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert type(other) is kind
        assert other.options() == engine.options()
        for key, codes in engine.run(*samples).items():
            np.testing.assert_array_equal(other.run(*samples)[key], codes)
    assert repr(engine) == (
        f"<{kind.__name__} a uint8[2, 3, 2], b.x float32[7] -> scores [5], parts.one [5], parts.two [5]>"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((np.zeros((2, 2, 3, 2), np.uint8),), "takes 2 inputs \\(a, b.x\\), got 1"),
        (({"a": np.zeros((2, 2, 3, 2), np.uint8)},), "takes the inputs a, b.x, got a"),
        ((np.zeros((2, 2, 3, 2), np.uint8), np.zeros((3, 7), np.float32)), "same number of samples, got \\[2, 3\\]"),
        ((np.zeros((2, 2, 3, 2), np.uint8), np.zeros((2, 7), np.int8)), "a float32 array .* 'b.x', got int8"),
    ],
)
def test_wrong_inputs_are_refused(given: tuple[Any, ...], message: str):
    with pytest.raises(EngineError, match=message):
        NumpyEngine(siamese()).run(*given)


def test_integers_outside_of_the_grid_are_refused():
    graph = one_input(Storage.I16)
    samples = np.full((1, 3, 5, 4), 3008, np.int16)
    with pytest.raises(EngineError, match=r"input 'data' must be in -2993 \.\. 3007, got 3008 \.\. 3008"):
        NumpyEngine(graph).run(samples)


def test_classifying_by_a_map_or_by_no_output_is_refused():
    with pytest.raises(EngineError, match="say which one to classify by"):
        NumpyEngine(siamese()).classify(*inputs.random(siamese(), 1))
    graph = one_input(Storage.I8)
    with pytest.raises(EngineError, match=r"output 'map' has shape \(6, 5, 4\) and is no list of classes"):
        NumpyEngine(graph).classify(*inputs.random(graph, 1))


def test_the_fingerprint_is_that_of_the_integers_alone():
    graph = siamese()
    other = Graph(nodes=graph.nodes, metadata=Metadata(licence="another"))
    assert container.fingerprint(graph) == container.fingerprint(other)
    assert container.to_bytes(graph) != container.to_bytes(other)
    assert container.fingerprint(graph) != container.fingerprint(one_input(Storage.I8))
