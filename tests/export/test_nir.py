"""Graphs of two states as spiking networks of one step: the integers of every tensor, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from effort import examples
from graphs import thresholds, weight
from spiking_networks import simulate, spiking_network

from maqd.cli import main
from maqd.errors import ExportError, MissingDependencyError
from maqd.export.nir import Importer, nir_model, save_nir
from maqd.export.nir.dense import Dense, convolution
from maqd.graph import (
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    Gather,
    Geometry,
    Graph,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Node,
    Output,
    Permute,
    Reshape,
    container,
    interpreter,
)
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.runtime import inputs
from maqd.runtime.simulators import in_order

WINDOW = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}


def conv(name: str, source: str, outputs: int, fan_in: int, kernel: int, *, groups: int = 1, padding: int = 0) -> Conv:
    return Conv(
        name=name,
        inputs=(source,),
        weight=weight(np.random.default_rng(outputs), 3, outputs, fan_in, kernel, kernel),
        exponent=0,
        stride=(1, 1),
        padding=(padding, padding),
        dilation=(1, 1),
        groups=groups,
    )


def chain(*nodes: Node, shape: tuple[int, ...] = (3, 4, 4)) -> Graph:
    x = Input(name="x", inputs=(), shape=shape)
    return Graph(nodes=(x, *nodes, Output(name="y", inputs=(nodes[-1].name,))))


def act(name: str, source: str, channels: int, count: int = 2, *, axis: int = 0) -> Node:
    return replace(thresholds(np.random.default_rng(channels), name, source, channels, count, 9), axis=axis)


def assert_equal(graph: Graph) -> set[str]:
    """Every tensor that the network has; which ones that is."""
    model = nir_model(graph)
    (codes,) = inputs.prepare(graph, *inputs.random(graph, 3, seed=1)).codes
    sent = simulate(model, codes)
    for name, wanted in interpreter.layers(graph, codes):
        if name in model.network.readings:
            np.testing.assert_array_equal(model.codes(name, sent), wanted, err_msg=name)
    return set(model.network.readings)


def test_neurons_that_fire_once_have_the_codes_of_random_graphs():
    graphs = [spiking_network(seed, 2) for seed in range(examples(100))]
    for graph in graphs:
        assert {node.name for node in graph.nodes if isinstance(node, FixedPoint)} <= assert_equal(graph)
    assert {node.operation for graph in graphs for node in graph.nodes} >= {
        "conv",
        "max_pool",
        "sum_pool",
        "global_sum",
    }
    assert any(nir_model(graph).merges for graph in graphs)


def test_pools_groups_concatenations_and_uneven_padding_become_convolutions():
    random = np.random.default_rng(0)
    grouped = conv("grouped", "a", 6, 1, 3, groups=3, padding=1)
    uneven = replace(conv("uneven", "p", 4, 6, 2), padding=(1, 0), trailing=(0, 1))
    graph = chain(
        act("a", "x", 3),
        grouped,
        act("b", "grouped", 6),
        MaxPool(name="p", inputs=("b",), **WINDOW),
        uneven,
        act("c", "uneven", 4),
        Gather(name="g", inputs=("p",), axis=0, indices=np.array([5, -1, 0]), fill=1),
        Concat(name="j", inputs=("c", "g"), shifts=(0, 0), axis=0),
        conv("last", "j", 5, 7, 1),
        act("d", "last", 5),
        Flatten(name="f", inputs=("d",)),
        Linear(name="head", inputs=("f",), weight=weight(random, 5, 2, 20), exponent=0),
    )
    assert assert_equal(graph) >= {"a", "grouped", "b", "p", "uneven", "c", "last", "d", "y"}
    synapses = nir_model(graph).network.synapses
    assert all(one.dense.weight.shape[2] == one.dense.weight.shape[3] for one in synapses.values())


def test_sequences_and_maps_that_are_not_square():
    series = Conv(
        name="conv",
        inputs=("x",),
        weight=weight(np.random.default_rng(0), 3, 4, 2, 3),
        exponent=0,
        stride=(1,),
        padding=(1,),
        dilation=(2,),
    )
    assert "act" in assert_equal(chain(series, act("act", "conv", 4), shape=(2, 9)))
    random = np.random.default_rng(1)
    flat = Flatten(name="flat", inputs=("act",))
    head = Linear(name="head", inputs=("flat",), weight=weight(random, 3, 5, 3 * 3 * 6), exponent=0)
    assert "y" in assert_equal(chain(act("act", "x", 3), flat, head, shape=(3, 3, 6)))


def test_fixed_point_maps_with_any_sign_become_one_border():
    gains = np.array([3, -3, 0, 0])
    node = FixedPoint(
        name="act",
        inputs=("x",),
        axis=0,
        states=States(count=2, signed=False),
        step_exponent=0,
        multiplier=gains,
        offset=np.array([5, 5, 64, 63]),
        shift=6,
    )
    assert "act" in assert_equal(chain(node, shape=(4, 3, 3)))


def test_a_convolution_after_another_is_one_where_there_is_one():
    random = np.random.default_rng(0)
    geometry = Geometry(kernel=(3, 3), stride=(1, 1), padding=(1, 1), trailing=(1, 1), dilation=(1, 1))
    wide = convolution(random.integers(-2, 3, (4, 3, 3, 3)), None, geometry)
    point = Dense(weight=random.integers(-2, 3, (3, 3, 1, 1)), bias=np.zeros(3, np.int64))
    assert wide.after(point) is not None
    shifted = replace(point, bias=np.ones(3, np.int64))
    assert wide.after(shifted) is None  # padding is 0, and not the bias
    assert wide.after(wide) is None


def random_weight(count: int, *shape: int) -> PackedCodes:
    return weight(np.random.default_rng(0), count, *shape)


SIGNED = replace(thresholds(np.random.default_rng(0), "a", "x", 3, 2, 9), states=States(count=2, signed=True))
OBLONG = replace(conv("c", "x", 3, 3, 3), weight=random_weight(3, 3, 3, 2, 3))
LAST = Linear(name="l", inputs=("x",), weight=random_weight(3, 3, 4), exponent=0)
WIDE = Linear(name="l", inputs=("x",), weight=random_weight(255, 2, 40_000), exponent=0)
POOL = MaxPool(name="p", inputs=("x",), **WINDOW)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (chain(act("a", "x", 3, 4)), r"thresholds node 'a' has 4 states; NIR .* 0 and 1: train with 2 unsigned"),
        (chain(SIGNED), r"thresholds node 'a' has 2 signed states"),
        (chain(POOL, act("a", "p", 3)), r"max_pool node 'p' .* codes -128 \.\. 127; .*: pool"),
        (chain(Permute(name="t", inputs=("x",), order=(1, 0, 2))), r"permute node 't': NIR has no other order.*; keep"),
        (chain(Multiply(name="m", inputs=("x", "x"))), r"multiply node 'm': a product .*; use"),
        (chain(act("a", "x", 4, axis=1)), r"'a': its channels are dimension 1 of \(3, 4, 4\).*; put"),
        (chain(Gather(name="g", inputs=("x",), axis=1, indices=np.array([0]))), r"gather node 'g' takes places of dim"),
        (
            chain(Reshape(name="r", inputs=("x",), shape=(12, 2, 2)), conv("c", "r", 3, 12, 1)),
            r"conv node 'c': its input of shape \(12, 2, 2\) is a reshaped tensor of 3 x 4 x 4",
        ),
        (chain(OBLONG, act("a", "c", 3)), r"'a': a kernel of 2 x 3 cannot be made square.*; use sides"),
        (chain(LAST), r"linear node 'l' maps the last dimension"),
        (
            chain(WIDE, act("a", "l", 2), shape=(40_000,)),
            r"'a': potentials can be \d+ away .* up to 4194304; use fewer",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(graph: Graph, message: str):
    with pytest.raises(ExportError, match=message):
        nir_model(graph)


def test_several_inputs_or_outputs_are_refused():
    x, y = (Input(name=name, inputs=(), shape=(3,)) for name in "xy")
    both = Concat(name="both", inputs=("x", "y"), shifts=(0, 0), axis=0)
    with pytest.raises(ExportError, match="take one input, and the graph has x, y"):
        nir_model(Graph(nodes=(x, y, both, Output(name="z", inputs=("both",)))))


def test_nodes_are_computed_after_all_that_they_read():
    class Step:
        def __init__(self, name: str) -> None:
            self.name = name

    nodes = [Step(name) for name in ("in", "a", "sum", "out", "b")]
    edges = [("in", "a"), ("in", "b"), ("a", "sum"), ("b", "sum"), ("sum", "out")]
    order = [node.name for node in in_order(nodes, edges)]
    assert all(order.index(source) < order.index(target) for source, target in edges)


def test_without_nir_the_export_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import maqd.optional

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(maqd.optional.importlib, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"an export to NIR needs nir, .*\[spiking\]"):
        save_nir(nir_model(chain(act("a", "x", 3))), tmp_path / "m.nir")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_the_importer_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    nir = pytest.importorskip("nir", reason="needs the extra spiking: make setup-spiking")
    source, target = tmp_path / "m.maqd", tmp_path / "m.nir"
    container.save(chain(conv("c", "x", 3, 3, 3), act("a", "c", 3)), source)
    for importer in (Importer.SINABS, Importer.SNNTORCH):
        arguments = ["export", str(source), "--to", "nir", "-o", str(target), "--importer", importer.value, "--json"]
        assert main(arguments) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["kind"], said["neurons"], said["different"]) == (importer.value, 12, 0)
    graph = nir.read(target)
    assert set(graph.nodes) == {"input", "a_synapses", "a_neurons", "output"}
    assert float(graph.nodes["a_neurons"].tau.max()) == pytest.approx(1e-4)
    assert main(["export", str(source), "--to", "onnx", "-o", str(target)]) == 1
    assert "is an HDF5 file, and an ONNX file would replace it" in capsys.readouterr().err
    assert main(["export", str(source), "--to", "c99", "-o", str(tmp_path / "p"), "--importer", "norse"]) == 2
