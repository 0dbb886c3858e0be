"""Comparing engines: right ones, and ones that are wrong in one value."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import graphs
import numpy as np
import pytest
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.graph import interpreter
from maqd.runtime import NumpyEngine
from maqd.runtime.inputs import prepare
from maqd.runtime.verify import Difference, verify

GRAPH = graphs.every_node()


@dataclass
class Wrong:
    """The interpreter, but for some values: call, tensor, index, error."""

    errors: list[tuple[int, str, tuple[int, ...], int]] = field(default_factory=list)
    left_out: frozenset[str] = frozenset()
    name: str = "wrong"
    calls: int = 0

    def layers(self, images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        for name, codes in interpreter.layers(GRAPH, *prepare(GRAPH, images).codes):
            changed = codes.copy()
            for call, tensor, index, error in self.errors:
                if (call, tensor) == (self.calls, name):
                    changed[index] += error
            if name not in self.left_out:
                yield name, changed
        self.calls += 1


def batches() -> list[NDArray[np.uint8]]:
    return [graphs.images(GRAPH, 3, seed) for seed in range(3)]


def test_right_engines_are_right():
    done = []
    result = verify(GRAPH, [NumpyEngine(GRAPH), Wrong()], batches(), done.append)
    assert result.ok
    assert result.samples == 9
    assert done == [3, 6, 9]
    values = 9 * sum(kind.size for kind in GRAPH.types.values())
    for engine, name in zip(result.engines, ["numpy", "wrong"], strict=True):
        assert (engine.name, engine.tensors, engine.values) == (name, len(GRAPH.nodes), values)
        assert (engine.different, engine.first) == (0, None)


@pytest.mark.parametrize("tensor", ["input", "stem", "logits"])
def test_one_wrong_value_is_found_and_named(tensor: str):
    shape = GRAPH.types[tensor].shape
    index = tuple(size - 1 for size in shape)
    result = verify(GRAPH, [Wrong([(1, tensor, (2, *index), -7)])], batches())
    assert not result.ok
    (engine,) = result.engines
    assert engine.different == 1
    assert isinstance(engine.first, Difference)
    assert (engine.first.tensor, engine.first.sample, engine.first.index) == (tensor, 5, index)
    assert engine.first.got == engine.first.expected - 7
    assert str(engine.first).startswith(f"{tensor}, channel {index[0]}")
    assert f"sample 5: {engine.first.got} instead of {engine.first.expected}" in str(engine.first)


def test_the_first_difference_is_that_of_the_earliest_tensor():
    errors = [(0, "head", (0, 1), 1), (0, "pool", (2, 3, 1, 1), 1), (2, "stem", (0, 0, 0, 0), 1)]
    (engine,) = verify(GRAPH, [Wrong(errors)], batches()).engines
    assert engine.different == 3
    assert engine.first is not None
    assert (engine.first.tensor, engine.first.sample, engine.first.index) == ("pool", 2, (3, 1, 1))


def test_engines_may_fuse_tensors():
    (engine,) = verify(GRAPH, [Wrong(left_out=frozenset({"stem", "head"}))], batches()).engines
    assert engine.tensors == len(GRAPH.nodes) - 2
    assert engine.different == 0


def test_engines_without_logits_are_refused():
    with pytest.raises(EngineError, match="wrong must compute tensors of the graph up to \\['logits'\\]"):
        verify(GRAPH, [Wrong(left_out=frozenset({"logits"}))], batches())


def test_tensors_of_another_shape_are_refused():
    class Short(Wrong):
        def layers(self, images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.int64]]]:
            for name, codes in super().layers(images):
                yield name, codes[:, :1]

    with pytest.raises(EngineError, match=r"wrong: input must have shape \(3, 3, 9, 8\), got \(3, 1, 9, 8\)"):
        verify(GRAPH, [Short()], batches())


def test_no_images_prove_nothing():
    with pytest.raises(EngineError, match="at least one sample"):
        verify(GRAPH, [NumpyEngine(GRAPH)], [])
