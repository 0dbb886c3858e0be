"""Every kind of node on every backend: computed as the node itself says, or refused."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graphs import thresholds, weight

from maqd.errors import EngineError, MaqdError
from maqd.graph import (
    NODES,
    Add,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    Gather,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Node,
    Output,
    Permute,
    Reshape,
    SumPool,
    Thresholds,
)
from maqd.graph.rules import Refused, Rules
from maqd.numerics.states import States
from maqd.runtime.engine import BaseEngine
from maqd.runtime.numpy import NumpyEngine

PAGE = Path(__file__).parents[2] / "docs" / "operations.py"

RANDOM = np.random.default_rng(0)
WINDOW = {"kernel": (2, 3), "stride": (2, 1), "padding": (1, 1), "trailing": (0, 1), "dilation": (1, 2)}

MAKERS: dict[type[Node], Node] = {
    Input: Flatten(name="y", inputs=("x",)),
    Output: Flatten(name="y", inputs=("x",)),
    Conv: Conv(
        name="y",
        inputs=("x",),
        weight=weight(RANDOM, 5, 6, 2, 3, 3),
        exponent=-1,
        stride=(1, 2),
        padding=(0, 1),
        trailing=(2, 0),
        dilation=(1, 1),
        groups=2,
    ),
    Linear: Linear(name="y", inputs=("x",), weight=weight(RANDOM, 3, 5, 6), exponent=-1),
    Thresholds: thresholds(RANDOM, "y", "x", 4, 4, 100),
    FixedPoint: FixedPoint(
        name="y",
        inputs=("x",),
        axis=1,
        states=States(count=7, signed=True),
        step_exponent=0,
        multiplier=RANDOM.integers(-9, 10, 5),
        offset=RANDOM.integers(-99, 100, 5),
        shift=6,
    ),
    MaxPool: MaxPool(name="y", inputs=("x",), **WINDOW),
    SumPool: SumPool(name="y", inputs=("x",), **WINDOW, shift=2),
    GlobalSum: GlobalSum(name="y", inputs=("x",), shift=1),
    Add: Add(name="y", inputs=("x", "x"), shifts=(0, 0)),
    Concat: Concat(name="y", inputs=("x", "x"), shifts=(0, 0), axis=1),
    Multiply: Multiply(name="y", inputs=("x", "x")),
    Flatten: Flatten(name="y", inputs=("x",)),
    Reshape: Reshape(name="y", inputs=("x",), shape=(8, 3, 5)),
    Permute: Permute(name="y", inputs=("x",), order=(2, 0, 1)),
    Gather: Gather(name="y", inputs=("x",), axis=1, indices=np.array([4, -1, 0, 0]), fill=-3),
}
"""A node of each kind, on an input x of 4 x 5 x 6."""


def graph(kind: type[Node]) -> Graph:
    x = Input(name="x", inputs=(), shape=(4, 5, 6))
    return Graph(nodes=(x, MAKERS[kind], Output(name="out", inputs=("y",))))


def native(given: Graph) -> BaseEngine:
    from maqd.runtime.native import NativeEngine, native_module

    if native_module() is None:
        pytest.skip("the native engine was not built")
    return NativeEngine(given)


def onnxruntime(given: Graph) -> BaseEngine:
    from maqd.runtime.onnxruntime import OnnxRuntime

    return OnnxRuntime(given)


ENGINES: dict[str, Callable[[Graph], BaseEngine]] = {"native engine and C99": native, "ONNX": onnxruntime}
"""Engines of the backends that have one; the C export has random graphs of its own."""


def operations():
    """The script that writes docs/operations.md."""
    spec = importlib.util.spec_from_file_location("operations", PAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = operations()


def test_there_is_a_node_of_every_kind_to_try():
    assert set(MAKERS) == set(NODES)
    assert len({kind.operation for kind in NODES}) == len(NODES)


@pytest.mark.parametrize("backend", SCRIPT.BACKENDS)
@pytest.mark.parametrize("kind", NODES, ids=lambda kind: kind.operation)
def test_every_backend_computes_or_refuses_every_kind(backend: str, kind: type[Node]):
    rules: Rules = SCRIPT.BACKENDS[backend]
    entry = rules.entry(kind)
    assert entry is not None, f"{rules.backend} neither takes nor refuses {kind.__name__}: add a rule"
    if backend not in ENGINES:
        return
    given = graph(kind)
    images = RANDOM.integers(0, 256, (3, 4, 5, 6), dtype=np.uint8)
    if isinstance(entry, Refused):
        with pytest.raises(MaqdError, match="; "):
            ENGINES[backend](given)
        return
    engine, oracle = ENGINES[backend](given), NumpyEngine(given)
    np.testing.assert_array_equal(engine.run(images), oracle.run(images))


def test_the_page_is_what_the_rules_say():
    assert SCRIPT.PAGE.read_text() == SCRIPT.page(), "run python docs/operations.py"


def test_a_kind_without_a_rule_is_named():
    class Strange:
        pass

    class Stranger(Strange):
        pass

    rules = Rules("the backend", EngineError, {Strange: Refused(reason="it is strange", remedy="leave it out")})
    with pytest.raises(EngineError, match=r"^node 'y': it is strange; leave it out$"):
        rules.find(Stranger(), "node 'y'")
    with pytest.raises(EngineError, match=r"^node 'y': the backend has no rule for int"):
        rules.find(3, "node 'y'")
