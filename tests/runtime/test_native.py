"""The native engine against the interpreter: every tensor, every instruction set, every kernel."""

from functools import cache

import numpy as np
import pytest
from effort import GRAPHS
from random_graphs import hard_samples, random_graphs

from maqd.plan import make_plan
from maqd.runtime.native import Kernel, NativeEngine, isas
from maqd.runtime.numpy import NumpyEngine
from maqd.runtime.verify import verify

CASES = [(isa, kernel) for isa in isas() for kernel in Kernel if isa != "scalar" or kernel is Kernel.AUTOMATIC]
PARTS = 10
"""Tests that the graphs are spread over."""


@pytest.mark.parametrize("part", range(PARTS))
def test_every_tensor_of_random_graphs_is_the_same(part: int, monkeypatch: pytest.MonkeyPatch):
    # The plan is the same for every instruction set and kernel, and takes longer than all of them.
    monkeypatch.setattr("maqd.runtime.native.make_plan", cache(make_plan))
    for graph in random_graphs(GRAPHS)[part::PARTS]:
        samples = hard_samples(graph)
        engines = [NativeEngine(graph, isa=isa, kernel=kernel) for isa, kernel in CASES]
        expected = NumpyEngine(graph).run(*samples)
        results = verify(graph, engines, [samples]).engines
        for case, engine, result in zip(CASES, engines, results, strict=True):
            assert result.different == 0, f"{case}: {result.first}\n{graph}"
            assert result.tensors >= len(graph.nodes) - 1, case
            np.testing.assert_equal(engine.run(*samples), expected, str(case))
