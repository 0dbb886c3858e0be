"""The networks of MLPerf Tiny: the reference's numbers of weights and multiplications, and the way to integers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import maqd
from maqd.lowering import TorchEngine
from maqd.models.tiny import autoencoder, ds_cnn, mobilenet, resnet8
from maqd.nn import Override, QuantConfig
from maqd.nn.layers import QuantLayer
from maqd.runtime.native import NativeEngine
from maqd.runtime.verify import verify

QUANT = QuantConfig(
    overrides=[
        Override(pattern="stem*", weight_states=15),
        Override(pattern="head", weight_states=15),
        Override(pattern="*.depthwise", weight_states=15),
    ]
)

NETWORKS: dict[str, tuple[Callable[[QuantConfig], nn.Module], tuple[int, ...], int, int, tuple[int, ...]]] = {
    "resnet8": (resnet8, (3, 32, 32), 77_360, 12_501_632, (10,)),
    "ds_cnn": (ds_cnn, (1, 49, 10), 22_016, 2_656_768, (12,)),
    "mobilenet": (mobilenet, (3, 96, 96), 208_112, 7_489_664, (2,)),
    "autoencoder": (autoencoder, (640,), 264_192, 264_192, (640,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_tables_of_the_reference_and_the_same_integers(name: str):
    make, shape, weights, macs, outputs = NETWORKS[name]
    torch.manual_seed(0)
    network = make(QUANT)
    layers = [module for module in network.modules() if isinstance(module, QuantLayer)]
    assert sum(layer.weight.numel() for layer in layers) == weights
    images = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    for _ in range(2):  # statistics of its own
        network(images).square().mean().backward()
    graph = maqd.lower(network, images).graph
    assert sum(graph.macs(node.name) for node in graph.nodes) == macs
    assert graph.types[graph.nodes[-1].name].shape == outputs
    result = verify(graph, [TorchEngine(network, graph), NativeEngine(graph)], [np.asarray(images)])
    assert result.ok, result


def test_depthwise_layers_take_their_own_states():
    network = ds_cnn(QUANT)
    states = {name: m.states.count for name, m in network.named_modules() if isinstance(m, QuantLayer) and m.states}
    assert states["stem.conv"] == states["blocks.0.depthwise"] == states["head"] == 15
    assert states["blocks.0.pointwise"] == 3


def test_resnet8_at_twice_the_width():
    layers = [module for module in resnet8(QUANT, width=2.0).modules() if isinstance(module, QuantLayer)]
    assert sum(layer.weight.numel() for layer in layers) == 4 * (77_360 - 432 - 640) + 2 * (432 + 640)
