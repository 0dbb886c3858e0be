"""Exports of random graphs whose modules have hostile names, in every tool that reads ONNX: equal integers.

`make campaigns` takes 200 graphs, the suite a few.
"""

import copy
import math
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxsim
import onnxslim
import pytest
from effort import EXPORTS
from onnx.reference import ReferenceEvaluator
from random_graphs import random_graphs

from maqd.errors import ExportError
from maqd.export.onnx.integer import Profile, onnx_model
from maqd.export.onnx.qonnx import Flavour, qonnx_model
from maqd.graph import Conv, Graph, Input, Output, SumPool, Weighted
from maqd.runtime import inputs
from maqd.runtime.numpy import NumpyEngine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
    from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
    from qonnx.util.cleanup import cleanup_model
    from qonnx.util.inference_cost import inference_cost

NAMES = (
    "images", "one", "zero", "/zero", "bits2", "/bits2", "a/b", "a.b", "a'b", 'a"b', "output", "input", "logits", "ü",
    "a b", "x:1", "N", "scale", "stem/sum/codes", "{0}", "%s", "\\", "\n", "a\tb", "-", "0", "Conv", "None", "x" * 300,
)  # fmt: skip


def hostile(graph: Graph, chance: random.Random) -> Graph:
    """The graph with other names of nodes and other keys."""
    given = [*NAMES, *(f"{chance.choice(NAMES)}/{chance.choice(NAMES)}{n}" for n in range(len(graph.nodes)))]
    names = dict(zip((node.name for node in graph.nodes), chance.sample(given, len(graph.nodes)), strict=True))
    keys = chance.sample(("images", "x/y", "zero", "output", "y.z", "a b", "N", "input"), 8)
    nodes = []
    for node in graph.nodes:
        renamed: dict[str, Any] = {"name": names[node.name], "inputs": tuple(names[name] for name in node.inputs)}
        if isinstance(node, Input | Output):
            renamed["key"] = keys.pop()
        nodes.append(replace(node, **renamed))
    found = Graph(nodes=tuple(nodes))
    found.validate()
    return found


def in_reference(model: Any, given: dict[str, Any]) -> list[Any]:
    """One sample: the evaluator loops over windows in Python."""
    with warnings.catch_warnings():
        # It fills padding of bytes, also of none, with not-a-number, which becomes 0.
        warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
        found = ReferenceEvaluator(model).run(None, {key: values[:1] for key, values in given.items()})
    return list(found)  # pyright: ignore[reportArgumentType]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, wanted)


def results(graph: Graph, samples: tuple[Any, ...]) -> list[Any]:
    """The interpreter's codes of each output."""
    found = NumpyEngine(graph).run(*samples)
    return list(found.values()) if isinstance(found, dict) else [found]


def in_runtime(model: Any, given: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, given))


@pytest.mark.parametrize("number", range(EXPORTS))
def test_every_reader_of_onnx_gives_the_same_integers(number: int):
    graph = hostile(random_graphs(EXPORTS)[number], random.Random(number))
    samples = inputs.random(graph, 4, number)
    expected = results(graph, samples)
    given = {node.key: values for node, values in zip(graph.inputs, samples, strict=True)}
    for profile in Profile:
        try:
            model = onnx_model(graph, profile)
        except ExportError as error:
            assert "do not fit 8 bits" in str(error) or "does not fit 32 bits" in str(error)  # noqa: PT017
            continue
        onnx.checker.check_model(model, full_check=True)
        known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
        assert {name for node in model.graph.node for name in node.output} <= known
        assert_same(in_runtime(model, given), expected)
        if profile is Profile.COMPATIBLE:  # the reference, and what simplifies models, know no integers of 2 bits
            assert_same(in_reference(model, given), [values[:1] for values in expected])
            simple, same = onnxsim.simplify(model)
            assert same
            assert_same(in_runtime(simple, given), expected)
            assert_same(in_runtime(onnxslim.slim(model), given), expected)


def passes(graph: Graph, model: Any) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """The passes of qonnx that are defined for a graph; docs/onnx.md has the list of what it cannot do."""
    yield "none", lambda one: one
    yield "cleanup", lambda one: one
    yield "QCDQ", lambda one: one.transform(InferDataTypes()).transform(QuantToQCDQ()).transform(InferShapes())
    # No export has a Gemm: there is nothing for GemmToMatMul.
    assert "Gemm" not in {node.op_type for node in model.graph.node}
    windows = [node for node in graph.nodes if isinstance(node, Conv | SumPool)]
    if windows and all(lowered(graph, node) for node in windows):
        yield "convolutions as products", lambda one: one.transform(LowerConvsToMatMul())
    read = Counter(name for node in model.graph.node for name in node.input)
    read.update(value.name for value in model.graph.output)
    read.subtract({constant.name: read[constant.name] for constant in model.graph.initializer})
    if windows and max(read.values()) == 1:
        last = ConvertToChannelsLastAndClean(make_input_channels_last=False)
        yield "channels last", lambda one: one.transform(last)


def lowered(graph: Graph, node: Conv | SumPool) -> bool:
    """Whether qonnx turns windows into products.

    Only in two dimensions, not over the only row or column, and of groups only those of one channel with one filter.
    """
    channels, *sizes = graph.types[node.inputs[0]].shape
    g = node.geometry
    ends = zip(sizes, g.kernel, g.padding, g.trailing, strict=True)
    flat = any(size == 1 and (kernel, front, back) != (1, 0, 0) for size, kernel, front, back in ends)
    grouped = isinstance(node, Conv) and node.groups > 1 and not node.groups == channels == node.weight.shape[0]
    return len(sizes) == 2 and not flat and not grouped


def products(graph: Graph) -> int:
    """Multiplications of a sample as qonnx counts them: sums over windows are convolutions with ones."""
    pools = [node for node in graph.nodes if isinstance(node, SumPool)]
    sums = sum(graph.types[node.name].size * math.prod(node.kernel) for node in pools)
    return sums + sum(graph.macs(node.name) for node in graph.nodes)


def factors(graph: Graph) -> int:
    """Weights as qonnx counts them."""
    pools = [node for node in graph.nodes if isinstance(node, SumPool)]
    ones = sum(graph.types[node.name].shape[0] * math.prod(node.kernel) for node in pools)
    return ones + sum(node.weight.size for node in graph.nodes if isinstance(node, Weighted))


@pytest.mark.parametrize("number", range(EXPORTS))
@pytest.mark.parametrize("flavour", list(Flavour))
def test_qonnx_gives_the_same_integers(number: int, flavour: Flavour):
    graph = hostile(random_graphs(EXPORTS)[number], random.Random(number))
    samples = inputs.random(graph, 1, number)
    try:
        model = qonnx_model(graph, flavour)
    except ExportError as error:
        reasons = ("below 2^24", "has too few bits", "takes floats", "a MultiThreshold node would need")
        assert any(part in str(error) for part in reasons)  # noqa: PT017
        return
    onnx.checker.check_model(model)
    expected = results(graph, samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, change in passes(graph, model):
            wrapper = ModelWrapper(copy.deepcopy(model))
            wrapper = change(wrapper if name == "none" else cleanup_model(wrapper))
            assert wrapper.check_all_tensor_shapes_specified(), name
            keys = [value.name for value in wrapper.graph.input]
            given = {key: values[:1].astype(np.float32) for key, values in zip(keys, samples, strict=True)}
            found = execute_onnx(wrapper, given)
            for value, wanted in zip(wrapper.graph.output, expected, strict=True):
                np.testing.assert_array_equal(found[value.name], wanted[:1], name)
        cost = inference_cost(ModelWrapper(model), discount_sparsity=False)["total_cost"]
    assert sum(value for key, value in cost.items() if key.startswith("op_mac")) == products(graph)
    assert cost["total_mem_w_elems"] == factors(graph)
