"""Activations that no convolution computes: few and many channels, positions and states, thresholds and maps."""

import numpy as np
import pytest
from graphs import thresholds

from maqd.graph import Activation, FixedPoint, Graph, Input, Output
from maqd.numerics.states import States
from maqd.runtime.native import NativeEngine, isas
from maqd.runtime.numpy import NumpyEngine


def activation(random: np.random.Generator, channels: int, count: int, *, mapped: bool) -> Activation:
    if not mapped:
        return thresholds(random, "act", "input", channels, count, reach=200)
    return FixedPoint(
        name="act",
        inputs=("input",),
        axis=0,
        states=States(count=count, signed=True) if count % 2 else States(count=count, signed=False),
        step_exponent=-2,
        multiplier=random.integers(-(2**20), 2**20, channels),
        offset=random.integers(-(2**22), 2**26, channels),
        shift=18,
    )


@pytest.mark.parametrize("mapped", [False, True], ids=["thresholds", "map"])
@pytest.mark.parametrize("count", [2, 4, 15, 31, 32, 255, 256])
def test_they_equal_the_interpreter(count: int, mapped: bool) -> None:
    random = np.random.default_rng(count)
    seen: set[int] = set()
    for channels, rows, columns in ((1, 1, 1), (3, 5, 7), (16, 8, 8), (16, 6, 10), (40, 4, 3), (130, 2, 2)):
        act = activation(random, channels, count, mapped=mapped)
        graph = Graph(
            nodes=(
                Input(name="input", inputs=(), shape=(channels, rows, columns)),
                act,
                Output(name="out", inputs=("act",)),
            )
        )
        graph.validate()
        images = random.integers(0, 256, (3, channels, rows, columns), dtype=np.uint8)
        expected = NumpyEngine(graph).run(images)
        seen |= set(np.unique(np.asarray(expected)).tolist())
        for isa in isas():
            np.testing.assert_array_equal(NativeEngine(graph, isa=isa).run(images), expected, isa)
    assert len(seen) > min(count, 8) - 1
