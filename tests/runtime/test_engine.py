"""The native engine as users meet it: images, threads, errors, files."""

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from graphs import every_node

import maqd.runtime
from maqd.errors import EngineError, MissingDependencyError
from maqd.graph import Conv, Graph, Input, Output, Thresholds, container, interpreter
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.plan import make_plan
from maqd.runtime.inputs import prepare
from maqd.runtime.native import EARLY_IMAGES, ISA_VARIABLE, LATE_IMAGES, Kernel, NativeEngine, isas
from maqd.runtime.numpy import NumpyEngine


def images(graph: Graph, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return every_node()


@pytest.mark.parametrize("threads", [1, 2, 3, EARLY_IMAGES + 3])
@pytest.mark.parametrize("count", [0, 1, 2, EARLY_IMAGES, EARLY_IMAGES + 1, LATE_IMAGES, 2 * LATE_IMAGES + 3])
def test_threads_and_batches_change_nothing(graph: Graph, threads: int, count: int):
    engine = NativeEngine(graph, threads=threads)
    batch = images(graph, count)
    expected = NumpyEngine(graph).run(batch) if count else np.empty((0, 5), np.int32)
    for _ in range(2):
        assert np.array_equal(engine.run(batch), expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 7, 64, 150])
def test_stages_change_nothing(graph: Graph, threads: int, count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("maqd.plan.stages.STAGE_BYTES", (300, 200))
    monkeypatch.setattr("maqd.runtime.native.EARLY_BYTES", 2000)
    stages = make_plan(graph).stages
    assert len(stages) == 3
    batch = images(graph, count)
    assert np.array_equal(NativeEngine(graph, threads=threads).run(batch), NumpyEngine(graph).run(batch))


def test_large_tensors_to_the_end_can_be_profiled(graph: Graph, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("maqd.plan.stages.STAGE_BYTES", (0, 0))
    monkeypatch.setattr("maqd.runtime.native.EARLY_BYTES", 2000)
    engine, batch = NativeEngine(graph), images(graph, LATE_IMAGES)
    assert all(step.seconds > 0 for step in engine.profile(batch, repetitions=1))
    assert np.array_equal(engine.run(batch), NumpyEngine(graph).run(batch))


def test_calls_from_eight_threads_at_once_give_the_same(graph: Graph):
    engine = NativeEngine(graph, threads=2)
    batches = [images(graph, 1 + seed % 11, seed) for seed in range(64)]
    expected = [NumpyEngine(graph).run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert all(map(np.array_equal, pool.map(engine.run, batches), expected))


def test_channels_may_be_last(graph: Graph):
    engine, batch = NativeEngine(graph), images(graph, 4)
    last = np.moveaxis(batch, 1, -1)
    assert np.array_equal(engine.run(last), engine.run(batch))
    assert np.array_equal(engine.run(np.ascontiguousarray(last)), engine.run(batch))
    assert np.array_equal(engine.run(batch[::-2]), engine.run(batch)[::-2])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 9, 8), np.float32),
        np.zeros((2, 3, 9, 8), np.int8),
        np.zeros((9, 8), np.uint8),
        np.zeros((2, 3, 8, 9), np.uint8),
        np.zeros((), np.uint8),
        [[1, 2], [3, 4]],
        None,
    ],
)
def test_malformed_images_get_a_clear_error(graph: Graph, wrong: object):
    engine = NativeEngine(graph)
    for call in (engine.run, engine.scores, engine.classify, engine.layers, engine.profile):
        with pytest.raises(EngineError, match="takes a uint8 array of shape N x 3 x 9 x 8"):
            call(wrong)  # pyright: ignore[reportArgumentType]


def test_no_memory_is_allocated_after_the_first_call(graph: Graph):
    engine = NativeEngine(graph, threads=2)
    engine.run(images(graph, 3))
    before = engine.working_bytes
    for count in (1, 2, 50):
        engine.run(images(graph, count))
    assert engine.working_bytes == before > 0
    assert engine.constant_bytes > 0


def test_profile_names_steps_kernels_and_densities(graph: Graph):
    profile = NativeEngine(graph).profile(images(graph, 2), repetitions=3)
    names = [name for step in profile for name in step.nodes]
    assert set(names) <= {node.name for node in graph.nodes}
    assert {"stem", "stem.act"} <= set(names)
    stem = next(step for step in profile if "stem" in step.nodes)
    assert stem.kernel in ("scalar", "dense", "events")
    assert stem.density is not None
    assert 0.9 < stem.density <= 1
    assert stem.macs == 8 * 27 * 9 * 4
    assert all(step.seconds >= 0 for step in profile)


def dense_graph(act: int) -> Graph:
    """Layers whose activations are all zero or all as large as can be."""
    random = np.random.default_rng(0)
    states = States(count=3, signed=True)
    nodes: list = [Input(name="input", inputs=(), shape=(3, 6, 6))]
    for place, (inputs, outputs) in enumerate([(3, 70), (70, 130), (130, 64)]):
        codes = random.choice(np.array(states.codes), (outputs, inputs, 3, 3))
        nodes.append(
            Conv(
                name=f"conv{place}",
                inputs=(nodes[-1].name,),
                weight=PackedCodes.pack(codes, states),
                exponent=0,
                stride=(1, 1),
                padding=(1, 1),
                dilation=(1, 1),
            )
        )
        cut = -(2**20) if act else 2**20
        nodes.append(
            Thresholds(
                name=f"act{place}",
                inputs=(nodes[-1].name,),
                axis=0,
                states=States(count=16, signed=False),
                step_exponent=0,
                thresholds=np.full((15, outputs), cut, np.int32),
                signs=np.ones(outputs, np.int8),
            )
        )
    return Graph(nodes=(*nodes, Output(name="logits", inputs=(nodes[-1].name,))))


@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("act", [0, 1])
def test_activations_all_zero_or_all_at_their_largest(act: int, isa: str, kernel: Kernel):
    graph = dense_graph(act)
    batch = images(graph, 3)
    found = dict(NativeEngine(graph, isa=isa, kernel=kernel).layers(batch))
    for name, expected in interpreter.layers(graph, *prepare(graph, batch).codes):
        assert np.array_equal(found[name], expected), name
    assert set(np.unique(found["act2"])) == {15 * act}


def test_the_environment_chooses_the_instruction_set(graph: Graph, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ISA_VARIABLE, "scalar")
    assert NativeEngine(graph).isa == "scalar"
    assert NativeEngine(graph, isa=isas()[0]).isa == isas()[0]
    monkeypatch.setenv(ISA_VARIABLE, "mmx")
    with pytest.raises(EngineError, match=f"{ISA_VARIABLE} must be one of .*scalar.*, got 'mmx'"):
        NativeEngine(graph)
    monkeypatch.delenv(ISA_VARIABLE)
    assert NativeEngine(graph).isa == isas()[0]


def test_load_chooses_an_engine(graph: Graph, tmp_path: Path):
    path = tmp_path / "graph.maqd"
    container.save(graph, path)
    batch = images(graph, 2)
    for engine in (maqd.runtime.load(path), maqd.runtime.load(path, threads=2, engine="native")):
        assert isinstance(engine, NativeEngine)
        assert np.array_equal(engine.run(batch), NumpyEngine(graph).run(batch))
    assert isinstance(maqd.runtime.load(path, engine="numpy"), NumpyEngine)
    with pytest.raises(EngineError, match=r"engine must be one of numpy, native, onnxruntime, c99, .*got 'gpu'"):
        maqd.runtime.load(path, engine="gpu")
    for threads in (0, -1, 1.5, None, True, 4097, 10**20):
        with pytest.raises(EngineError, match=r"needs an integer in 1 \.\. 4096 for its threads, got"):
            maqd.runtime.load(path, threads=threads)  # pyright: ignore[reportArgumentType]


def test_without_a_compiler_numpy_takes_over_and_says_so_once(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "graph.maqd"
    container.save(graph, path)
    monkeypatch.setattr("maqd.runtime.native_module", lambda: None)
    monkeypatch.setattr("maqd.runtime.native.native_module", lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            assert isinstance(maqd.runtime.load(path), NumpyEngine)
    assert [str(warning.message).split(":")[0] for warning in caught] == ["maqd was installed without a C++ compiler"]
    with pytest.raises(MissingDependencyError, match="was not built"):
        maqd.runtime.load(path, engine="native")
    assert isas() == ()


LIMITED = """
import resource, sys
import numpy as np
from maqd.errors import EngineError
from maqd.graph import container
from maqd.runtime.native import NativeEngine
graph = container.load(sys.argv[1])
NativeEngine(graph)
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 2**29
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    NativeEngine(graph, threads=400)
except EngineError as error:
    print(error)
engine = NativeEngine(graph, threads=2)
print(engine.run(np.zeros((1, *graph.input.shape), np.uint8)).shape)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads its own size from /proc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer needs more memory than the limit")
def test_threads_that_do_not_start_are_an_error_and_leave_the_process_alive(tmp_path: Path):
    path = tmp_path / "network.maqd"
    graph = every_node()
    container.save(graph, path)
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refusal, shape = done.stdout.splitlines()
    assert "of 400 threads; load the network with fewer" in refusal
    assert shape == str(NumpyEngine(graph).run(np.zeros((1, *graph.input.shape), np.uint8)).shape)


def test_a_call_does_little_in_python(graph: Graph):
    """Small networks take 30 microseconds. What Python does around them was once as much, cold after the kernels."""
    engine, batch = NativeEngine(graph), images(graph, 1)
    engine.run(batch)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        engine.run(batch)
    finally:
        sys.setprofile(None)
    assert 1 <= len(calls) <= 16, calls
