"""ONNX: the interpreter's integers in ONNX Runtime, from integer operators alone."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest

from maqd.errors import EngineError, ExportError
from maqd.export.onnx.integer import VERSIONS, Profile, onnx_model, save_onnx
from maqd.graph import Add, Conv, FixedPoint, Graph, Input, Linear, MaxPool, Node, Output, SumPool, Thresholds
from maqd.numerics.bounds import narrow
from maqd.numerics.states import States
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

PROFILES = pytest.mark.parametrize("profile", list(Profile))


def check(graph: Graph, profile: Profile = Profile.COMPATIBLE) -> None:
    graph.validate()
    onnx.checker.check_model(onnx_model(graph, profile, layers=True), full_check=True)
    images = graphs.images(graph, 5)
    images[-1], images[-2] = 0, 255
    result = verify(graph, [OnnxRuntime(graph, profile=profile)], [images, images[:1]])
    assert result.ok, result
    assert result.engines[0].tensors == len(graph.nodes)


def chain(shape: tuple[int, ...], *nodes: Node) -> Graph:
    """Each node takes the one before it."""
    linked: list[Node] = [Input(name="input", inputs=(), shape=shape)]
    for node in (*nodes, Output(name="logits", inputs=())):
        linked.append(replace(node, inputs=(linked[-1].name,)))
    return Graph(nodes=tuple(linked))


def conv(count: int, shape: tuple[int, ...], name: str = "conv", **options: Any) -> Conv:
    space = len(shape) - 2
    defaults: dict[str, Any] = {"stride": (1,) * space, "padding": (0,) * space, "dilation": (1,) * space}
    weight = graphs.weight(np.random.default_rng(count), count, *shape)
    return Conv(name=name, inputs=(), weight=weight, exponent=-3, **{**defaults, **options})


def activation(channels: int, count: int, reach: int, *, signed: bool = False, axis: int = 0) -> Thresholds:
    random = np.random.default_rng(count)
    return Thresholds(
        name="act",
        inputs=(),
        axis=axis,
        states=States(count=count, signed=signed),
        step_exponent=0,
        thresholds=narrow(np.sort(random.integers(-reach, reach, (count - 1, channels)), axis=0)),
        signs=random.choice(np.array([-1, 1], np.int8), channels),
    )


@PROFILES
@pytest.mark.parametrize("seed", range(4))
def test_every_node(seed: int, profile: Profile):
    check(graphs.every_node(seed), profile)


@PROFILES
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 16, 17, 100, 128, 255])
def test_weight_states(count: int, profile: Profile):
    head = Linear(name="head", inputs=(), weight=graphs.weight(np.random.default_rng(0), count, 3, 6), exponent=0)
    acts = [activation(6, 5, 3000)]
    check(chain((2, 3, 3), conv(count, (6, 2, 3, 3)), *acts), profile)
    check(chain((6,), head), profile)


@pytest.mark.parametrize("count", [130, 256])
def test_weights_that_do_not_fit_8_bits_are_refused(count: int):
    graph = chain((2, 3, 3), conv(count, (6, 2, 3, 3)))
    with pytest.raises(ExportError, match=f"conv node 'conv': codes -{count - 1} .. {count - 1} of {count} weight"):
        onnx_model(graph)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 16, 17, 33, 255, 256])
def test_activation_states(count: int, signed: bool):
    last = conv(3, (2, 6, 1, 1), "last")
    check(chain((2, 5, 4), conv(7, (6, 2, 3, 3)), activation(6, count, 4000, signed=signed), last))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 20, 31, 40, 50])
def test_fixed_point(shift: int, signed: bool):
    random = np.random.default_rng(shift)
    act = FixedPoint(
        name="act",
        inputs=(),
        axis=0,
        states=States(count=6, signed=signed),
        step_exponent=0,
        multiplier=np.array([1, -1, 0, 77, -2, 2]) * (1 << max(0, min(shift, 48) - 8)),
        offset=random.integers(-7, 8, 6) * (1 << max(0, min(shift, 58) - 2)),
        shift=shift,
    )
    check(chain((2, 5, 4), conv(3, (6, 2, 3, 3)), act))


def test_fixed_point_at_the_place_where_int64_comparisons_fail():
    # (A x + B) with its low 32 bits from 2**31 on is negative for ONNX Runtime's int64 Clip, Max and Min.
    act = FixedPoint(
        name="act",
        inputs=(),
        axis=0,
        states=States(count=7, signed=False),
        step_exponent=0,
        multiplier=np.array([2**25 + 1]),
        offset=np.array([2**31]),
        shift=22,
    )
    graph = chain((1,), act)
    images = np.arange(256, dtype=np.uint8)[:, None]
    assert verify(graph, [OnnxRuntime(graph)], [images]).ok


def test_quotients_that_do_not_fit_32_bits_are_refused():
    act = FixedPoint(
        name="act",
        inputs=(),
        axis=0,
        states=States(count=3, signed=False),
        step_exponent=0,
        multiplier=np.array([2**40]),
        offset=np.array([0]),
        shift=2,
    )
    with pytest.raises(ExportError, match=r"'act': \(A x \+ B\) / 2\^2 can reach \d+, which does not fit 32 bits"):
        onnx_model(chain((1,), act))


@pytest.mark.parametrize("doublings", [0, 1, 6, 12])
@pytest.mark.parametrize("sign", [1, -1])
def test_wide_inputs_of_convolutions_and_linear_maps(doublings: int, sign: int):
    """Codes of 8, 9, 14 and 20 bits, taken byte by byte."""
    nodes: list[Node] = [Input(name="input", inputs=(), shape=(3, 4, 5))]
    nodes.append(conv(3, (3, 1, 1, 1), "spread", groups=3))
    nodes[-1] = replace(nodes[-1], inputs=("input",))
    for number in range(doublings):
        nodes.append(Add(name=f"add{number}", inputs=(nodes[-1].name, nodes[-1].name), shifts=(0, 0)))
    wide = nodes[-1].name
    again = conv(5, (4, 3, 3, 3), "conv", padding=(1, 1), bias=np.array([1, -2, 3, 100]) * sign)
    nodes.append(replace(again, inputs=(wide,)))
    weight = graphs.weight(np.random.default_rng(0), 4, 2, 5)
    nodes.append(Linear(name="linear", inputs=("conv",), weight=weight, exponent=0))
    nodes.append(Output(name="logits", inputs=("linear",)))
    check(Graph(nodes=tuple(nodes)))


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((3, 11), (4, 3, 3), {"stride": (2,), "padding": (2,), "dilation": (2,)}),
        ((4, 9), (4, 1, 4), {"groups": 4}),
        ((4, 9, 8), (8, 1, 5, 5), {"groups": 4, "padding": (2, 2)}),
        ((4, 9, 8), (6, 2, 1, 3), {"groups": 2, "stride": (3, 2), "padding": (0, 1), "dilation": (1, 3)}),
        ((1, 1, 1), (1, 1, 1, 1), {}),
    ],
)
def test_geometries_of_convolutions(shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]):
    check(chain(shape, conv(3, weight, **options)))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 1), (1, 1)), ((1, 3), (1, 1), (0, 1)), ((6, 5), (1, 1), (0, 0))],
)
def test_pooling_of_bytes_and_of_words(wide: bool, kernel: Any, stride: Any, padding: Any):
    inside = [conv(7, (3, 3, 1, 1))] if wide else []
    for kind, more in ((MaxPool, {}), (SumPool, {"shift": 2})):
        pool = kind(name="pool", inputs=(), kernel=kernel, stride=stride, padding=padding, **more)
        check(chain((3, 6, 5), *inside, pool))


def test_pooling_in_one_dimension():
    for kind, more in ((MaxPool, {}), (SumPool, {"shift": 0})):
        pool = kind(name="pool", inputs=(), kernel=(3,), stride=(2,), padding=(1,), **more)
        check(chain((3, 8), pool))
        check(chain((3, 8), conv(5, (3, 3, 1)), pool))


def test_channels_last():
    weight = graphs.weight(np.random.default_rng(0), 3, 6, 4)
    last = graphs.weight(np.random.default_rng(1), 3, 2, 6)
    check(
        chain(
            (5, 4),
            Linear(name="first", inputs=(), weight=weight, exponent=-2, bias=np.arange(6)),
            activation(6, 4, 200, axis=1),
            Linear(name="second", inputs=(), weight=last, exponent=-2),
        )
    )


# ---- the file -------------------------------------------------------------------------------------------------------

FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


@PROFILES
def test_integers_and_standard_operators_only(profile: Profile):
    model = onnx.shape_inference.infer_shapes(onnx_model(graphs.every_node(), profile), strict_mode=True)
    body = model.graph
    kinds = {tensor.data_type for tensor in body.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in [*body.value_info, *body.input, *body.output]}
    assert not kinds & FLOATS
    assert len(body.value_info) > len(graphs.every_node().nodes)
    assert {node.domain for node in body.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", VERSIONS[profile].opset)]


@PROFILES
def test_versions_belong_together(profile: Profile):
    versions = VERSIONS[profile]
    opsets = [onnx.helper.make_opsetid("", versions.opset)]
    assert onnx.helper.find_min_ir_version_for(opsets) == versions.ir
    assert onnx_model(graphs.every_node(), profile).ir_version == versions.ir


def test_weights_are_stored_narrow():
    weight = graphs.weight(np.random.default_rng(0), 3, 64, 64, 3, 3)
    graph = chain((64, 3, 3), replace(conv(3, (1, 1, 1, 1)), weight=weight))
    sizes = {profile: len(onnx_model(graph, profile).SerializeToString()) for profile in Profile}
    assert weight.size < sizes[Profile.COMPATIBLE] < weight.size + 1500
    assert weight.size / 4 < sizes[Profile.COMPACT] < weight.size / 4 + 1500
    four = graphs.weight(np.random.default_rng(0), 7, 64, 64, 3, 3)
    graph = chain((64, 3, 3), replace(conv(3, (1, 1, 1, 1)), weight=four))
    assert len(onnx_model(graph, Profile.COMPACT).SerializeToString()) < four.size / 2 + 1500


def test_input_output_and_properties():
    model = onnx_model(graphs.every_node())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("input", "tensor(uint8)", ["N", 3, 9, 8])
    assert (found.name, found.type, found.shape) == ("logits", "tensor(int32)", ["N", 5])
    properties = {entry.key: entry.value for entry in model.metadata_props}
    labels = '["ant", "bee", "cat", "dog", "eel"]'
    assert properties == {"labels.logits": labels, "exponent.logits": "-6", "divisor.logits": "1"}


def test_the_same_bytes_every_time(tmp_path: Path):
    for name in ("a", "b"):
        save_onnx(graphs.every_node(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_export_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError):
        save_onnx(chain((2, 3, 3), conv(256, (6, 2, 3, 3))), path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_onnx(graphs.every_node(), path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_wrong_images_are_refused():
    engine = OnnxRuntime(graphs.every_node())
    with pytest.raises(EngineError, match="uint8 array of shape N x 3 x 9 x 8 for its input 'input', got float32"):
        engine.run(np.zeros((1, 3, 9, 8), np.float32))  # pyright: ignore[reportArgumentType]
    with pytest.raises(EngineError, match=r"got uint8 \(1, 8, 3, 9\)"):
        list(engine.layers(np.zeros((1, 8, 3, 9), np.uint8)))
