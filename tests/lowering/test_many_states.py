"""Activations of more than 256 states: a stream of 16-bit codes, trained, lowered, equal on every engine."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd import States
from maqd.convert import convert
from maqd.errors import ConfigError, ExportError, GraphError
from maqd.export.onnx.float_emitter import Flavour
from maqd.export.onnx.qonnx import qonnx_model
from maqd.graph import FixedPoint, container
from maqd.lowering import TorchEngine, check, lower
from maqd.nn import (
    BatchNorm,
    IntegerInput,
    LayerBatchNorm,
    NormActivation,
    QuantActivation,
    QuantConv2d,
    Quantizer,
    QuantLinear,
)
from maqd.numerics.fixedpoint import AffineForm
from maqd.runtime import NativeEngine, NumpyEngine, inputs
from maqd.runtime.c99 import CEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify
from maqd.settings.conversion import ConversionConfig
from maqd.settings.model import ModelConfig
from maqd.settings.quantization import QuantConfig
from maqd.settings.training import ComputeConfig, TrainConfig


def stream(count: int, step: float, *, signed: bool = True) -> Quantizer:
    return Quantizer(states=States(count=count, signed=signed), step=step)


class Stream(nn.Module):
    """A residual stream of 16-bit codes that convolutions, additions, maxima and a head read."""

    def __init__(self) -> None:
        super().__init__()
        self.input = IntegerInput()
        self.stem = QuantConv2d(1, 3, 3, padding=1, states=15)
        self.start = NormActivation(LayerBatchNorm(3), stream(20001, 2.0**-9))
        self.branch = QuantConv2d(3, 3, 3, padding=1, states=5)
        self.middle = NormActivation(BatchNorm(3), stream(65536, 2.0**-10, signed=False))
        self.last = QuantConv2d(3, 3, 1, states=3)
        self.again = QuantActivation(stream(4000, 2.0**-4))
        self.pool = nn.MaxPool2d(2)
        self.head = QuantLinear(3 * 9, 3, bias=True, states=7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(self.stem(self.input(x)))
        x = self.again(x + self.last(self.middle(self.branch(x))))
        return self.head(self.pool(x).flatten(1))


def images(count: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> Stream:
    torch.manual_seed(0)
    made = Stream()
    assert check(made, images(2, 0)) == ()
    optimizer = torch.optim.AdamW(made.parameters(), 4e-3)
    losses = []
    for step in range(16):
        x = images(32, step)
        x[:16, :, :3] //= 2
        loss = F.cross_entropy(made(x), (torch.arange(32) < 16).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])
    return made.eval()


def test_codes_of_16_bits_are_the_same_integers_everywhere(network: Stream):
    lowered = lower(network, images(2, 0))
    graph = container.from_bytes(container.to_bytes(lowered.graph))
    wide = [node for node in graph.nodes if isinstance(node, FixedPoint)]
    assert [node.states.count for node in wide] == [20001, 65536, 4000]
    assert all(report.mismatches == 0 and report.checked > 0 for report in lowered.activations)
    engines = [TorchEngine(network, graph), NumpyEngine(graph), NativeEngine(graph), OnnxRuntime(graph), CEngine(graph)]
    result = verify(graph, engines, [images(40, 7).numpy(), inputs.random(graph, 5)])
    assert result.ok, result
    codes = dict(NativeEngine(graph).layers(images(40, 7).numpy()))
    assert np.ptp(codes["start"]) > 2**9  # more than a byte is used
    assert np.ptp(codes["middle"]) > 2**9


def test_every_channel_may_be_dead_falling_or_saturated(network: Stream):
    network = copy.deepcopy(network)
    with torch.no_grad():
        weight, bias = network.start.norm.weight, network.middle.norm.bias
        assert weight is not None
        assert bias is not None
        weight[:3] = torch.tensor([0.0, -1.5, 1e-9])
        bias[:2] = torch.tensor([1e6, -1e6])
    network.eval()
    graph = lower(network, images(2, 0)).graph
    result = verify(
        graph, [TorchEngine(network, graph), NativeEngine(graph), OnnxRuntime(graph)], [images(40, 8).numpy()]
    )
    assert result.ok, result


def test_qonnx_takes_a_shift_and_refuses_what_float32_rounds(network: Stream):
    layers = nn.Sequential(IntegerInput(), QuantActivation(stream(301, 2.0**-5)), nn.Flatten())
    graph = lower(layers, images(2, 0)).graph
    assert qonnx_model(graph, Flavour.QUANT).graph.node
    with pytest.raises(ExportError, match="301 states, and a MultiThreshold node would need as many thresholds"):
        qonnx_model(graph, Flavour.MULTITHRESHOLD)
    with pytest.raises(ExportError, match=r"'start': float32 has too few bits .*; use at most 256 states, or Quant"):
        qonnx_model(lower(network, images(2, 0)).graph, Flavour.QUANT)


def test_bfloat16_is_refused_before_codes_are_lost():
    layers = nn.Sequential(NormActivation(LayerBatchNorm(1), stream(257, 0.5)))
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ConfigError, match="NormActivation has 257 states, and autocast holds codes of up to 256"),
    ):
        layers(torch.randn(4, 1, 3, 3))
    with pytest.raises(ConfigError, match=r"QuantActivation has 300 states, and torch.bfloat16 holds"):
        QuantActivation(stream(300, 0.5))(torch.zeros(2, 3, dtype=torch.bfloat16))
    with pytest.raises(ConfigError, match=r"compute.bf16 must be false with 1000 states"):
        TrainConfig(model=ModelConfig(quant=QuantConfig(act_states=1000)), compute=ComputeConfig(bf16=True))


def test_an_average_of_nine_and_a_tiny_scale_are_refused_with_a_remedy():
    layers = nn.Sequential(IntegerInput(), nn.AvgPool2d(3), QuantActivation(stream(999, 0.5)))
    (refusal,) = check(layers, images(2, 0))
    assert "an average over 9 positions" in refusal.reason
    assert refusal.remedy == "use at most 256 states, or average over 2, 4, 8, .. positions"
    norm = LayerBatchNorm(1)
    norm.running_var.fill_(1e30)
    (refusal,) = check(nn.Sequential(IntegerInput(), NormActivation(norm, stream(999, 0.5))).eval(), images(2, 0))
    assert "its scale is so small" in refusal.reason


def test_thresholds_of_more_than_256_states_are_no_node():
    layers = nn.Sequential(IntegerInput(), QuantActivation(stream(256, 0.5)))
    graph = lower(layers, images(2, 0), affine=AffineForm.THRESHOLDS).graph
    node = replace(graph.nodes[1], states=States(count=300, signed=True), thresholds=np.zeros((299, 1), np.int8))
    with pytest.raises(GraphError, match="has at most 256 states, got 300; use a fixed-point map"):
        node.infer(graph.types["0"])


class Float(nn.Module):
    """A residual network of PyTorch's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.branch, self.branch_norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        return self.head((x + self.branch_norm(self.branch(x))).mean((2, 3)))


def test_a_converted_network_has_a_stream_of_16_bits():
    torch.manual_seed(0)
    network, x = Float(), torch.randn(32, 1, 6, 6)
    network(x)
    config = ConversionConfig(weights=15, activations=1000, stream=30001)
    converted = convert(network.eval(), x, config).model.eval()
    graph = lower(converted, x[:2]).graph
    counts = {node.states.count for node in graph.nodes if isinstance(node, FixedPoint)}
    assert {1000, 30001} <= counts
    result = verify(graph, [TorchEngine(converted, graph), NativeEngine(graph), OnnxRuntime(graph)], [x.numpy()])
    assert result.ok, result
