"""The native engine against the interpreter: every tensor, every instruction set, every kernel."""

import numpy as np
import pytest
from effort import GRAPHS
from random_graphs import random_graphs

from maqd.runtime.native import Kernel, NativeEngine, isas
from maqd.runtime.numpy import NumpyEngine
from maqd.runtime.verify import verify

CASES = [(isa, kernel) for isa in isas() for kernel in Kernel if isa != "scalar" or kernel is Kernel.AUTOMATIC]
PARTS = 10
"""Tests that the graphs are spread over."""


def hard_images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random images, a black, a white and a grey one, whose codes are 0."""
    images = np.random.default_rng(seed).integers(0, 256, (5, *shape), dtype=np.uint8)
    images[2], images[3], images[4] = 0, 255, 128
    return images


@pytest.mark.parametrize("part", range(PARTS))
def test_every_tensor_of_random_graphs_is_the_same(part: int):
    for graph in random_graphs(GRAPHS)[part::PARTS]:
        images = hard_images(graph.input.shape)
        engines = [NativeEngine(graph, isa=isa, kernel=kernel) for isa, kernel in CASES]
        logits = NumpyEngine(graph).run(images)
        results = verify(graph, engines, [images]).engines
        for case, engine, result in zip(CASES, engines, results, strict=True):
            assert result.different == 0, f"{case}: {result.first}\n{graph}"
            assert result.tensors >= len(graph.nodes) - 1, case
            assert np.array_equal(engine.run(images), logits), case
