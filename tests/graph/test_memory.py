"""Neurons with memory: what they do from frame to frame, and what a graph and its file say of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from effort import LONG
from stateful import Stack, advance, stateful_network

from maqd.errors import ConfigError, EngineError, ExportError, FormatError, GraphError, SpikingError
from maqd.export.nir import nir_model
from maqd.graph import Graph, Input, Memory, Metadata, Output, container
from maqd.graph.memory import cell
from maqd.numerics.neuron import LIMIT, Neuron, Reset
from maqd.runtime import ENGINES, Session
from maqd.runtime.native import native_module
from maqd.runtime.numpy import NumpyEngine
from maqd.spiking import SpikingNetwork

FRAMES = 100
GRAPHS = 50 if LONG else 2


def frames(graph: Graph, seed: int, count: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    shape = graph.inputs[0].shape
    return [random.integers(0, 256, (count, *shape)).astype(np.uint8) for _ in range(FRAMES)]


def test_potentials_follow_the_definition_for_100_frames():
    for seed in range(GRAPHS):
        stack = stateful_network(seed)
        graph = stack.graph()
        engine = NumpyEngine(graph)
        session = Session(engine, 2)
        potentials = {
            name: np.full((2, *graph.types[name].shape), one.initial) for name, (_, one) in stack.neurons.items()
        }
        fired = 0
        for frame in frames(graph, seed):
            tensors = dict(engine.layers({"x": frame, **session.state}))
            session.step(frame)
            for name, (source, one) in stack.neurons.items():
                spikes, potentials[name] = advance(potentials[name], tensors[source], one)
                np.testing.assert_array_equal(tensors[name], spikes)
                np.testing.assert_array_equal(session.state[f"{name}.before"], potentials[name])
                fired += int(spikes.sum())
        assert fired > 0


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_engines_remember_the_same(engine: str):
    if engine == "native" and native_module() is None:
        pytest.skip("the native engine is not built")
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    for seed in range(GRAPHS if engine == "native" or LONG else 1):
        graph = stateful_network(seed).graph()
        sessions = [Session(one, 2) for one in (NumpyEngine(graph), ENGINES[engine].make(graph))]
        for frame in frames(graph, seed):
            wanted, got = (session.step(frame) for session in sessions)
            for key, codes in wanted.items():
                np.testing.assert_array_equal(got[key], codes)


def chain(neuron: Neuron) -> Stack:
    """Neurons on the input itself."""
    stack = Stack(inputs=[Input(name="x", inputs=(), shape=(1,))])
    stack.fire("n", "x", neuron)
    stack.outputs.insert(0, Output(name="spikes", inputs=("n",)))
    return stack


def run(neuron: Neuron, *codes: int) -> list[tuple[int, int]]:
    """Spike and potential after each frame."""
    session = Session(NumpyEngine(chain(neuron).graph()))
    given = (np.array([[code + 128]], np.uint8) for code in codes)
    return [(int(found["spikes"][0, 0]), int(found["n.after"][0, 0])) for found in map(session.step, given)]


def test_resets_leaks_limits_and_first_potentials_by_hand():
    assert run(Neuron(threshold=5), 3, 4, -10, 9) == [(0, 3), (1, 2), (0, -8), (0, 1)]
    assert run(Neuron(threshold=5, reset=Reset.HARD), 3, 4, -10, 99) == [(0, 3), (1, 0), (0, -10), (1, 0)]
    assert run(Neuron(threshold=50, leak=1), 7, 0, 0, -9, 0) == [(0, 7), (0, 4), (0, 2), (0, -8), (0, -4)]
    assert run(Neuron(threshold=50, leak=2), -7, 0) == [(0, -7), (0, -5)]  # -7 >> 2 is -2
    assert run(Neuron(threshold=3, initial=2), 1, 0) == [(1, 0), (0, 0)]
    assert run(Neuron(threshold=LIMIT, initial=LIMIT), 127) == [(1, 0)]  # clipped before it fires
    assert run(Neuron(threshold=1, initial=-LIMIT), -128) == [(0, -LIMIT)]


def test_sessions_start_anew_and_keep_streams_apart():
    session = Session(NumpyEngine(chain(Neuron(threshold=100)).graph()), 2)
    frame = np.array([[128 + 60], [128 + 10]], np.uint8)
    assert [session.step(frame)["spikes"].ravel().tolist() for _ in range(2)] == [[0, 0], [1, 0]]
    assert session.state["n.before"].ravel().tolist() == [20, 20]
    session.reset()
    assert session.step({"x": frame})["n.after"].ravel().tolist() == [60, 10]
    with pytest.raises(EngineError, match="all inputs must have the same number of samples"):
        session.step(frame[:1])
    with pytest.raises(EngineError, match="a frame has the inputs x, got 2"):
        session.step(frame, frame)
    with pytest.raises(EngineError, match="a frame has the inputs x, got y"):
        session.step({"y": frame})
    x = Input(name="x", inputs=(), shape=(1,))
    plain = Graph(nodes=(x, Output(name="y", inputs=("x",))))
    with pytest.raises(EngineError, match="has no memories; call the engine's run"):
        Session(NumpyEngine(plain))
    with pytest.raises(EngineError, match="at least 1 stream, got 0"):
        Session(session.engine, 0)


def test_files_keep_memories(tmp_path: Path):
    graph = stateful_network(3).graph()
    container.save(graph, tmp_path / "m.maqd")
    assert container.load(tmp_path / "m.maqd").metadata.memories == graph.metadata.memories
    data = container.to_bytes(graph)
    changed = data.replace(b'[[\\"neurons0.before', b'[[\\"neurons0.befory')
    assert changed != data
    with pytest.raises(FormatError):
        container.from_bytes(changed)


def test_memories_that_do_not_fit_are_refused_with_their_ends():
    graph = chain(Neuron(threshold=5)).graph()

    def check(*memories: Memory) -> None:
        Graph(nodes=graph.nodes, metadata=Metadata(memories=memories)).validate()

    check(*graph.metadata.memories)
    (memory,) = graph.metadata.memories
    with pytest.raises(GraphError, match=r"from output 'z' to input 'n.before': the graph has the inputs \['n.before'"):
        check(replace(memory, output="z"))
    with pytest.raises(GraphError, match=r"memory from output 'n.after' to input 'x': .* does not fit uint8 \[1\]"):
        check(replace(memory, input="x"))
    with pytest.raises(GraphError, match=r"begins with 40000, which is not in -32767 \.\. 32767"):
        check(replace(memory, initial=40_000))
    with pytest.raises(GraphError, match="an input has several memories; each"):
        check(memory, memory)


def test_neurons_out_of_range_are_refused():
    for wrong, message in (
        ({"threshold": 0}, r"threshold must be in 1 \.\. 32767, got 0; scale"),
        ({"threshold": 1, "leak": 16}, r"leak is a shift in 1 \.\. 15, got 16; use None"),
        ({"threshold": 1, "initial": -(2**15)}, r"first potential must be within \+-32767, got -32768"),
    ):
        with pytest.raises(ConfigError, match=message):
            Neuron(**wrong)
    kind = chain(Neuron(threshold=5)).graph().types["x"]
    assert cell("n", "x", kind, Neuron(threshold=5)).before.grid.exponent == kind.exponent


def test_spikes_and_nir_refuse_graphs_that_remember():
    graph = chain(Neuron(threshold=5)).graph()
    with pytest.raises(SpikingError, match=r"remembers n.before from frame to frame.*; run it frame by frame"):
        SpikingNetwork(graph)
    with pytest.raises(ExportError, match=r"remembers n.before from frame to frame.*; export it to C99 or ONNX"):
        nir_model(graph)
