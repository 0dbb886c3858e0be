"""The same integers from every engine for trained networks, at every layer."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from effort import LONG, long
from numpy.typing import NDArray
from torch import nn

from maqd.data import DataConfig, Source, open_data
from maqd.graph import Activation, Add, Conv, Flatten, Input, container
from maqd.lowering import TorchEngine, lower
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import Norm, QuantConfig
from maqd.runtime.c99 import CEngine
from maqd.runtime.native import NativeEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

STATES = [(3, 4), (2, 2), (7, 16), *(pytest.param(states, marks=long) for states in ((3, 2), (4, 3), (5, 8)))]
STEP = {2: 2.0, 3: 1.0, 4: 1.0, 8: 0.5, 16: 0.25}
IMAGES = 1000 if LONG else 100


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def train(architecture: Architecture, states: tuple[int, int], width: float, norm: Norm, size: int) -> nn.Module:
    """A network after some steps on the digits, magnified to the size it needs."""
    quant = QuantConfig(weight_states=states[0], act_states=states[1], act_step=STEP[states[1]], norm=norm)
    config = ModelConfig(architecture=architecture, width=width, quant=quant)
    network = build_model(config, in_channels=1, num_classes=10, image_size=size)
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3, weight_decay=0)
    data = open_data(DataConfig(source=Source.DIGITS, batch_size=32), seed=0)
    for images, labels in chain(data.train_loader()):
        optimizer.zero_grad()
        F.cross_entropy(network(magnify(images, size)), labels).backward()
        optimizer.step()
    return network.eval()


def magnify(images: torch.Tensor, size: int) -> torch.Tensor:
    times = size // images.shape[-1]
    return images.repeat_interleave(times, -1).repeat_interleave(times, -2)


def digits(count: int, size: int) -> Iterator[NDArray[np.uint8]]:
    data = open_data(DataConfig(source=Source.DIGITS, batch_size=100, eval_batch_size=100), seed=1)
    for images, _ in chain(data.test_loader(), data.train_loader()):
        if count <= 0:
            return
        yield magnify(images[:count], size).contiguous().numpy()
        count -= len(images)


def compare(network: nn.Module, size: int, count: int) -> None:
    lowered = lower(network, torch.zeros(1, 1, size, size, dtype=torch.uint8))
    graph = container.from_bytes(container.to_bytes(lowered.graph))
    runtime, compiled = OnnxRuntime(graph), CEngine(graph, flags=("-O1",))
    engines = [TorchEngine(network, graph), runtime, NativeEngine(graph), compiled]
    result = verify(graph, engines, digits(count, size))
    assert result.samples == count
    assert result.ok, result
    *others, program = result.engines
    assert all(engine.tensors >= len(graph.nodes) - 1 for engine in others)
    compared = dict(compiled.layers(next(digits(1, size))))
    missing = [node for node in graph.nodes if node.name not in compared]
    assert program.tensors == len(compared)
    # It keeps no sums that something is added to, or that turn into codes, at once; and it does not flatten.
    assert all(isinstance(node, Input | Flatten | Conv | Add) for node in missing)
    assert all(
        any(isinstance(reader, Add | Activation) and node.name in reader.inputs for reader in graph.nodes)
        for node in missing
        if isinstance(node, Conv | Add)
    )
    logits = np.concatenate([runtime.run(batch) for batch in digits(count, size)])
    assert len(np.unique(logits.argmax(1))) > 1


@pytest.mark.parametrize("states", STATES, ids=str)
def test_digits(states: tuple[int, int]) -> None:
    compare(train(Architecture.DIGITS, states, 1.0, Norm.LBN, 8), 8, IMAGES)


@pytest.mark.parametrize(
    ("architecture", "norm", "states"),
    [
        pytest.param(Architecture.VGG16, Norm.BN, (3, 4), id="vgg16-(3, 4)"),
        pytest.param(
            Architecture.PREACT_RESNET_NARROW, Norm.LEVELLED_LBN, (7, 16), marks=long, id="narrow resnet-(7, 16)"
        ),
        pytest.param(Architecture.VGG16, Norm.BN, (7, 16), marks=long, id="vgg16-(7, 16)"),
        *(
            pytest.param(architecture, norm, states, marks=long, id=f"{architecture.value}-{states}")
            for architecture, norm in (
                (Architecture.PREACT_RESNET18, Norm.LEVELLED_LBN),
                (Architecture.PREACT_RESNET50, Norm.LBN),
            )
            for states in ((3, 4), (7, 16))
        ),
    ],
)
def test_deep_networks(architecture: Architecture, norm: Norm, states: tuple[int, int]) -> None:
    compare(train(architecture, states, 0.07, norm, 32), 32, 50)
