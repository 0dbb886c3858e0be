"""The native engine against the interpreter: every tensor, every instruction set, every kernel."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import random_graph

from maqd.graph import interpreter
from maqd.runtime.native import Kernel, NativeEngine, isas
from maqd.runtime.verify import verify

CASES = [(isa, kernel) for isa in isas() for kernel in Kernel if isa != "scalar" or kernel is Kernel.AUTOMATIC]


def hard_images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random images, a black, a white and a grey one, whose codes are 0."""
    images = np.random.default_rng(seed).integers(0, 256, (5, *shape), dtype=np.uint8)
    images[2], images[3], images[4] = 0, 255, 128
    return images


@pytest.mark.parametrize(("isa", "kernel"), CASES)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_tensor_of_random_graphs_is_the_same(isa: str, kernel: Kernel, data: st.DataObject):
    graph = random_graph(data)
    images = hard_images(graph.input.shape)
    engine = NativeEngine(graph, isa=isa, kernel=kernel)
    result = verify(graph, [engine], [images]).engines[0]
    assert result.different == 0, f"{result.first}\n{graph}"
    assert result.tensors >= len(graph.nodes) - 1
    assert np.array_equal(engine.run(images), interpreter.run(graph, images))
