"""What other tools do with QONNX files: qonnx's own passes, and hls4ml's conversion and C simulation."""

import contextlib
import io
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
import torch
from effort import long
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from maqd.export.onnx.qonnx import Flavour, qonnx_model, save_qonnx
from maqd.graph import Add, Conv, FixedPoint, Graph, Input, Linear, Node, Output, Storage
from maqd.lowering import lower
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import QuantConfig
from maqd.numerics.states import Grid, States
from maqd.runtime import inputs
from maqd.runtime.numpy import NumpyEngine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
    from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
    from qonnx.util.cleanup import cleanup_model
    from qonnx.util.inference_cost import inference_cost

FLAVOURS = pytest.mark.parametrize("flavour", list(Flavour))


@pytest.fixture(scope="module")
def digits() -> Graph:
    """A chain of convolutions."""
    torch.manual_seed(3)
    config = ModelConfig(architecture=Architecture.DIGITS, width=0.25, quant=QuantConfig(weight_states=3, act_states=4))
    network = build_model(config, in_channels=1, num_classes=10, image_size=8)
    for _ in range(5):
        network(torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8))
    return lower(network.eval(), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).graph


@pytest.fixture(scope="module")
def dense() -> Graph:
    """A chain of linear maps."""
    random = np.random.default_rng(0)

    def linear(name: str, source: str, outputs: int, inputs: int, bias: Any = None) -> Linear:
        weight = graphs.weight(random, 3, outputs, inputs)
        return Linear(name=name, inputs=(source,), weight=weight, exponent=-2, bias=bias)

    def act(name: str, source: str, count: int, channels: int) -> FixedPoint:
        states = States(count=count, signed=False)
        maps = {"multiplier": random.integers(-8, 9, channels), "offset": random.integers(-20, 60, channels)}
        return FixedPoint(name=name, inputs=(source,), axis=0, states=states, step_exponent=0, shift=5, **maps)

    grid = Grid(low=-8, high=7, exponent=-2)
    return Graph(
        nodes=(
            Input(name="x", inputs=(), shape=(16,), grid=grid, storage=Storage.I8, zero=0),
            linear("first", "x", 24, 16), act("first.act", "first", 4, 24),
            linear("second", "first.act", 12, 24), act("second.act", "second", 8, 12),
            linear("head", "second.act", 5, 12, np.arange(5)), Output(name="y", inputs=("head",)),
        )
    )  # fmt: skip


def execute(model: Any, images: np.ndarray) -> np.ndarray:
    given, found = model.graph.input[0].name, model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {given: image[None].astype(np.float32)})[found] for image in images])


PASSES: dict[str, Callable[[Any], Any]] = {
    "none": lambda model: model,
    "cleanup": cleanup_model,
    "convolutions as products": lambda model: cleanup_model(model).transform(LowerConvsToMatMul()),
    "products": lambda model: cleanup_model(model).transform(GemmToMatMul()),
    "data types": lambda model: cleanup_model(model).transform(InferDataTypes()),
    "channels last": lambda model: cleanup_model(model).transform(
        ConvertToChannelsLastAndClean(make_input_channels_last=False)
    ),
    "QCDQ": lambda model: cleanup_model(model).transform(QuantToQCDQ()).transform(InferShapes()),
}
"""Passes of the qonnx package."""


@FLAVOURS
@pytest.mark.parametrize("name", PASSES)
def test_passes_keep_the_integers(digits: Graph, flavour: Flavour, name: str):
    images = graphs.images(digits, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PASSES[name](ModelWrapper(qonnx_model(digits, flavour)))
        np.testing.assert_array_equal(execute(model, images), NumpyEngine(digits).run(images))


def windows(shape: tuple[int, ...], kernel: tuple[int, ...], *, groups: int = 1, shortcut: bool = False) -> Graph:
    """A convolution of four filters with its activation; with a shortcut, another one added to the first's sums."""
    random, dims = np.random.default_rng(0), len(kernel)

    def conv(name: str, source: str, channels: int, groups: int) -> Conv:
        weight = graphs.weight(random, 3, 4, channels // groups, *kernel)
        same: dict[str, Any] = {"stride": (1,) * dims, "dilation": (1,) * dims}
        same["padding"] = tuple(size // 2 for size in kernel)
        return Conv(name=name, inputs=(source,), weight=weight, exponent=0, groups=groups, **same)

    grid, states = Grid(low=-8, high=7, exponent=0), States(count=4, signed=False)
    maps = {"multiplier": random.integers(1, 9, 4), "offset": random.integers(-20, 60, 4), "shift": 5}
    act = FixedPoint(name="act", inputs=("first",), axis=0, states=states, step_exponent=0, **maps)
    nodes: list[Node] = [
        Input(name="x", inputs=(), shape=shape, grid=grid, storage=Storage.I8, zero=0),
        conv("first", "x", shape[0], groups), act,
    ]  # fmt: skip
    if shortcut:
        nodes += [conv("second", "act", 4, 1), Add(name="sum", inputs=("second", "first"), shifts=(0, 0))]
    return Graph(nodes=(*nodes, Output(name="y", inputs=(nodes[-1].name,))))


LAST, LOWER = "channels last", "convolutions as products"


@FLAVOURS
@pytest.mark.parametrize(
    ("graph", "name", "error", "message"),
    [
        (windows((3, 8), (3,)), LOWER, IndexError, "list index out of range"),
        (windows((3, 4, 4, 4), (3, 3, 3)), LOWER, ValueError, "axes don't match array"),
        (windows((4, 6, 6), (3, 3), groups=2), LOWER, ValueError, "cannot reshape"),
        (windows((3, 1, 6), (3, 3)), LOWER, AssertionError, "Unexpected kernel shape and padding"),
        (windows((3, 4, 4, 4), (3, 3, 3)), LAST, AssertionError, "only available for 3D and 4D tensors"),
    ],
)  # fmt: skip
def test_what_passes_cannot_do(graph: Graph, name: str, error: type[Exception], message: str, flavour: Flavour):
    # Limits of qonnx 1.0.0, as docs/onnx.md lists them: where one of these passes, the page has a line too many.
    with pytest.raises(error, match=message):
        passed(graph, name, flavour)


def passed(graph: Graph, name: str, flavour: Flavour) -> np.ndarray:
    """What a file computes after a pass, of one sample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return execute(PASSES[name](ModelWrapper(qonnx_model(graph, flavour))), inputs.random(graph, 1, 0)[0])


def test_channels_last_forgets_other_readers_of_a_tensor():
    graph = windows((3, 6, 6), (3, 3), shortcut=True)
    with pytest.raises(Fail, match="Incompatible dimensions"):
        passed(graph, LAST, Flavour.QUANT)
    np.testing.assert_array_equal(
        passed(graph, LAST, Flavour.MULTITHRESHOLD), NumpyEngine(graph).run(*inputs.random(graph, 1, 0))
    )


def test_channels_last_forgets_that_an_output_is_read():
    nodes = windows((3, 6, 6), (3, 3), shortcut=True).nodes
    kept = [node for node in nodes if node.name in ("x", "first", "act", "second")]
    ends = (Output(name="y", inputs=("second",)), Output(name="more", key="more", inputs=("act",)))
    with pytest.raises(AssertionError, match="Must have >1 consumer"):
        passed(Graph(nodes=(*kept, *ends)), LAST, Flavour.QUANT)


@long
@FLAVOURS
def test_channels_last_does_not_end_where_a_sequence_has_two_readers(flavour: Flavour):
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 5)
        with pytest.raises(TimeoutError):
            passed(windows((3, 6), (3,), shortcut=True), LAST, flavour)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@FLAVOURS
@pytest.mark.parametrize("name", [LOWER, LAST])
def test_passes_keep_shortcuts_and_depthwise_convolutions(name: str, flavour: Flavour):
    for graph in (windows((4, 6, 6), (3, 3), groups=4), windows((3, 6, 6), (3, 3), shortcut=name == LOWER)):
        found = passed(graph, name, flavour)
        np.testing.assert_array_equal(found, NumpyEngine(graph).run(*inputs.random(graph, 1, 0)))


@FLAVOURS
def test_the_cost_is_that_of_the_graph(digits: Graph, flavour: Flavour, tmp_path: Path):
    save_qonnx(digits, tmp_path / "m.onnx", flavour)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = inference_cost(str(tmp_path / "m.onnx"), discount_sparsity=False)
    costs = found.get("total_cost", found)
    macs = sum(digits.macs(node.name) for node in digits.nodes)
    assert sum(value for key, value in costs.items() if key.startswith("op_mac")) == macs
    weights = sum(node.weight.size for node in digits.nodes if hasattr(node, "weight"))
    assert sum(value for key, value in costs.items() if key.startswith("mem_w")) == weights
    assert costs["total_mem_w_bits"] == 2 * weights


@FLAVOURS
def test_files_hold_shapes_kernels_and_no_copies(digits: Graph, flavour: Flavour):
    model = qonnx_model(digits, flavour)
    onnx.checker.check_model(model)
    known = {value.name for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    assert {name for node in model.graph.node for name in node.output} <= known
    assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in model.graph.input)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert all("kernel_shape" in {one.name for one in node.attribute} for node in convolutions)
    assert all(node.op_type not in ("Identity", "Clip") for node in model.graph.node)  # 4 states need no Clip
    assert all(node.doc_string for node in model.graph.node)


@pytest.fixture
def simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Graph, np.ndarray], np.ndarray]:
    """What hls4ml's C program for a graph computes."""
    monkeypatch.chdir(tmp_path)

    def run(graph: Graph, images: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import hls4ml

            model = cleanup_model(ModelWrapper(qonnx_model(graph, Flavour.QUANT)))
            if images.ndim == 4:
                model = model.transform(ConvertToChannelsLastAndClean(make_input_channels_last=True))
                model = cleanup_model(model.transform(GemmToMatMul()))
                for constant in model.graph.initializer:  # hls4ml takes factors and addends without the batch
                    users = {node.op_type for node in model.graph.node if constant.name in node.input}
                    if users & {"Mul", "Add"} and len(constant.dims) == 4:
                        values = onnx.numpy_helper.to_array(constant)[0]
                        constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
                images = np.moveaxis(images, 1, -1)
            options = {"backend": "Vitis", "default_precision": "fixed<32,16>"}
            config = hls4ml.utils.config_from_onnx_model(model, granularity="name", **options)
            program = hls4ml.converters.convert_from_onnx_model(
                model, output_dir=str(tmp_path / "hls"), backend="Vitis", hls_config=config,
                io_type="io_stream" if images.ndim == 4 else "io_parallel",
            )  # fmt: skip
            program.compile()
            return program.predict(np.ascontiguousarray(images, np.float32))

    return run


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="hls4ml's simulation is tried on Linux")


@long
@linux
def test_hls4ml_simulates_the_same_integers(dense: Graph, simulate: Callable[[Graph, np.ndarray], np.ndarray]):
    dense.validate()
    samples = np.random.default_rng(1).integers(-8, 8, (50, 16)).astype(np.int8)
    np.testing.assert_array_equal(simulate(dense, samples), NumpyEngine(dense).run(samples))


@linux
@long
def test_hls4ml_simulates_convolutions(digits: Graph, simulate: Callable[[Graph, np.ndarray], np.ndarray]):
    images = graphs.images(digits, 20)
    found = simulate(digits, images)
    np.testing.assert_array_equal(found.reshape(20, -1), NumpyEngine(digits).run(images))
