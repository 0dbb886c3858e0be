"""Exports are right whatever the modules of a network are called."""

from dataclasses import replace

import graphs
import numpy as np
import onnx
import pytest

from maqd.errors import ExportError
from maqd.export.onnx.integer import Profile, onnx_model
from maqd.export.onnx.names import with_unique_names
from maqd.export.onnx.qonnx import Flavour, qonnx_model
from maqd.export.onnx.writer import Writer
from maqd.graph import FixedPoint, Graph, Input, Output
from maqd.numerics.states import States
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

HOSTILE = (
    "images", "one", "/zero", "zero", "bits2", "stem/sum", "a/b", "a.b", "a'b", 'a"b', "output", "scale", "input", "",
    "stem/sum/codes", "logits", "ü", "a b",
)  # fmt: skip


def hostile(shift: int) -> Graph:
    """Every node, under names that an export might want for itself; the keys are `images` and `output`."""
    graph = graphs.every_node()
    given = [HOSTILE[(place + shift) % len(HOSTILE)] or f"n{shift}" for place in range(len(graph.nodes))]
    names = dict(zip((node.name for node in graph.nodes), given, strict=True))
    nodes = []
    for node in graph.nodes:
        renamed = {"name": names[node.name], "inputs": tuple(names[name] for name in node.inputs)}
        if isinstance(node, Input | Output):
            renamed["key"] = "images" if isinstance(node, Input) else "output"
        nodes.append(replace(node, **renamed))
    return Graph(nodes=tuple(nodes))


@pytest.mark.parametrize("shift", range(0, len(HOSTILE), 3))
def test_hostile_names_give_the_same_integers(shift: int):
    graph = hostile(shift)
    assert verify(graph, [OnnxRuntime(graph)], [graphs.images(graph, 3)]).ok
    model = onnx_model(graph)
    onnx.checker.check_model(model, full_check=True)
    assert ([value.name for value in model.graph.input], [value.name for value in model.graph.output]) == (
        ["images"],
        ["output"],
    )
    for found in (model, onnx_model(graph, Profile.COMPACT), qonnx_model(graph, Flavour.MULTITHRESHOLD)):
        written = [name for node in found.graph.node for name in node.output]
        written += [value.name for value in (*found.graph.input, *found.graph.initializer)]
        assert len(set(written)) == len(written)


def test_names_that_clash_with_nothing_are_kept():
    graph = graphs.every_node()
    other = Graph(nodes=(*graph.nodes[:-1], replace(graph.nodes[-1], name="last", key="scores")))
    assert [node.name for node in with_unique_names(other).nodes][1:] == [node.name for node in other.nodes][1:]


@pytest.mark.parametrize("count", [128, 130, 256])
def test_fixed_point_maps_of_many_even_signed_states(count: int):
    random = np.random.default_rng(count)
    act = FixedPoint(
        name="act",
        inputs=("x",),
        axis=0,
        states=States(count=count, signed=True),
        step_exponent=0,
        multiplier=random.integers(-9, 10, 5),
        offset=random.integers(0, 900, 5),
        shift=3,
    )
    graph = Graph(nodes=(Input(name="x", inputs=(), shape=(5, 3)), act, Output(name="y", inputs=("act",))))
    result = verify(graph, [OnnxRuntime(graph)], [graphs.images(graph, 50)])
    assert result.ok, result


def test_a_second_value_for_a_constant_is_refused():
    writer = Writer(onnx)
    assert writer.constant(3, np.int32, "low") == writer.constant(3, np.int32, "low")
    with pytest.raises(ExportError, match="two constants are called 'low'"):
        writer.constant(4, np.int32, "low")
