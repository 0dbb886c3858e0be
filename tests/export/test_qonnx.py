"""QONNX in the executor of the qonnx package: the interpreter's integers."""

import warnings
from dataclasses import replace
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
import torch

from maqd.errors import ExportError
from maqd.export.onnx.qonnx import Flavour, qonnx_model, save_qonnx
from maqd.graph import Graph, Input, Output, Thresholds
from maqd.lowering import lower
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import QuantConfig
from maqd.numerics.fixedpoint import AffineForm
from maqd.numerics.states import States
from maqd.runtime.numpy import NumpyEngine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx


def execute(graph: Graph, flavour: Flavour, images: np.ndarray) -> np.ndarray:
    wrapper = ModelWrapper(qonnx_model(graph, flavour))
    given, found = graph.input.key, graph.output.key
    return np.concatenate(
        [execute_onnx(wrapper, {given: images[i : i + 1].astype(np.float32)})[found] for i in range(len(images))]
    )


def network(act_states: int, weight_states: int, architecture: Architecture = Architecture.DIGITS) -> torch.nn.Module:
    torch.manual_seed(act_states)
    quant = QuantConfig(weight_states=weight_states, act_states=act_states)
    config = ModelConfig(architecture=architecture, width=0.25, quant=quant)
    found = build_model(config, in_channels=1, num_classes=10, image_size=8)
    for _ in range(5):
        found(torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8))
    return found.eval()


def test_every_node_as_multithreshold():
    for seed in range(2):
        graph = graphs.every_node(seed)
        images = graphs.images(graph, 2, seed)
        np.testing.assert_array_equal(execute(graph, Flavour.MULTITHRESHOLD, images), NumpyEngine(graph).run(images))


@pytest.mark.parametrize("flavour", list(Flavour))
@pytest.mark.parametrize("form", [AffineForm.THRESHOLDS, AffineForm.FIXED_POINT])
@pytest.mark.parametrize(("act_states", "weight_states"), [(2, 2), (3, 3), (4, 5), (16, 4)])
def test_networks(act_states: int, weight_states: int, form: AffineForm, flavour: Flavour):
    model = network(act_states, weight_states)
    graph = lower(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), affine=form).graph
    images = graphs.images(graph, 2)
    np.testing.assert_array_equal(execute(graph, flavour, images), NumpyEngine(graph).run(images))


@pytest.mark.parametrize("flavour", list(Flavour))
def test_a_residual_network(flavour: Flavour):
    model = network(3, 3, Architecture.PREACT_RESNET_NARROW)
    graph = lower(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).graph
    images = graphs.images(graph, 2)
    np.testing.assert_array_equal(execute(graph, flavour, images), NumpyEngine(graph).run(images))


def single(cuts: list[list[int]], shape: tuple[int, ...] = (1,)) -> Graph:
    act = Thresholds(
        name="act",
        inputs=("input",),
        axis=0,
        states=States(count=len(cuts) + 1, signed=False),
        step_exponent=0,
        thresholds=np.array(cuts, np.int16),
        signs=np.ones(shape[0], np.int8),
    )
    return Graph(nodes=(Input(name="input", inputs=(), shape=shape), act, Output(name="logits", inputs=("act",))))


@pytest.mark.parametrize("flavour", list(Flavour))
def test_ties_go_up(flavour: Flavour):
    """Every pixel, thresholds that pixels hit exactly."""
    graph = single([[-60], [0], [60]])
    images = np.arange(256, dtype=np.uint8)[:, None]
    found = execute(graph, flavour, images[[67, 68, 127, 128, 187, 188, 0, 255]])
    assert found[:, 0].tolist() == [0, 1, 1, 2, 2, 3, 0, 3]


def test_steps_that_no_line_has_need_multithreshold():
    graph = single([[-60], [-59], [60]])
    with pytest.raises(ExportError, match=r"thresholds node 'act': float32 has too few bits .*multithreshold"):
        qonnx_model(graph, Flavour.QUANT)
    images = graphs.images(graph, 8)
    np.testing.assert_array_equal(execute(graph, Flavour.MULTITHRESHOLD, images), NumpyEngine(graph).run(images))


def test_a_failed_export_leaves_no_file(tmp_path: Any):
    with pytest.raises(ExportError):
        save_qonnx(single([[-60], [-59], [60]]), tmp_path / "m.onnx", Flavour.QUANT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flavour", list(Flavour))
def test_weights_are_narrow_and_no_rounding_mode_of_halves_matters(flavour: Flavour):
    graph = lower(network(4, 3), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).graph
    model = qonnx_model(graph, flavour)
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight")]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}
    quants = [node for node in model.graph.node if node.op_type == "Quant"]
    attributes = [{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in quants]
    assert {entry["rounding_mode"] for entry in attributes} == {b"ROUND"}
    assert len(quants) == 5 + (3 if flavour is Flavour.QUANT else 0)
    assert sum(node.op_type == "MultiThreshold" for node in model.graph.node) == (0 if flavour is Flavour.QUANT else 3)


def test_values_beyond_float32_are_refused():
    graph = graphs.every_node()
    nodes = [*graph.nodes]
    wide = replace(graph["add"], inputs=("stem", "stem"), shifts=(14, 14))
    short = Graph(nodes=(*nodes[:2], wide, Output(name="logits", inputs=("add",))))
    short.validate()
    with pytest.raises(ExportError, match=r"add node 'add' can reach .* exact below 2\^24"):
        qonnx_model(short, Flavour.MULTITHRESHOLD)
