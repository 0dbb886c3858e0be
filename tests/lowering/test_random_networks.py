"""The same integers from PyTorch, the interpreter, the native engine, ONNX Runtime and the file, on random networks."""

import numpy as np
import pytest
import torch
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import random_network

from maqd.errors import LoweringError
from maqd.graph import container
from maqd.lowering import TorchEngine, lower
from maqd.numerics.fixedpoint import AffineForm
from maqd.runtime.native import NativeEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify


def hard_images(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Two random images, a black and a white one."""
    images = np.random.default_rng(seed).integers(0, 256, (4, *shape), dtype=np.uint8)
    images[2], images[3] = 0, 255
    return images


@pytest.mark.parametrize("form", list(AffineForm))
@settings(
    max_examples=examples(100),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_all_engines_agree_on_every_tensor(form: AffineForm, data: st.DataObject) -> None:
    network = random_network(data)
    example = torch.zeros(1, *network.shape, dtype=torch.uint8)
    try:
        lowered = lower(network, example, affine=form)
    except LoweringError as error:
        if form is not AffineForm.FIXED_POINT or "no fixed-point map" not in str(error):
            raise
        lowered = lower(network, example)
    assert all(report.mismatches == 0 for report in lowered.activations)
    graph = container.from_bytes(container.to_bytes(lowered.graph))
    engines = [TorchEngine(network, graph), OnnxRuntime(graph), NativeEngine(graph)]
    result = verify(graph, engines, [hard_images(network.shape, 0)])
    assert result.ok, result
    torch_result, *others = result.engines
    assert all(engine.tensors == len(graph.nodes) for engine in others)
    assert len(graph.nodes) >= torch_result.tensors >= len(graph.nodes) - 1
