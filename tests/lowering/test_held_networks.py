"""Networks that people build, of our layers: trained a few steps, lowered, the same integers on every engine."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from effort import LONG
from torch import Tensor, nn

import maqd
from maqd.graph import container
from maqd.lowering import TorchEngine, lower
from maqd.nn import (
    IntegerInput,
    LayerBatchNorm,
    NormActivation,
    QuantConv2d,
    QuantConvTranspose2d,
    Quantizer,
    QuantLinear,
)
from maqd.numerics.states import States
from maqd.runtime import NativeEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

STEPS = 30 if LONG else 4
FOUR = Quantizer(states=States(count=4, signed=False))
LINEAR = Quantizer(states=States(count=255, signed=True), step=2.0**-5)
"""A normalization without an activation: a bottleneck that is linear up to 255 states."""
GATE = Quantizer(states=States(count=9, signed=False), step=2.0**-3)


def block(i: int, o: int, k: int = 3, *, stride: int = 1, groups: int = 1, act: Quantizer = FOUR) -> nn.Sequential:
    conv = QuantConv2d(i, o, k, stride, padding=k // 2, groups=groups, states=15 if groups > 1 else 3)
    return nn.Sequential(conv, NormActivation(LayerBatchNorm(o), act))


class UNet(nn.Module):
    """Down twice, up by nearest neighbours and by a transposed convolution, skips; a map of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.input = IntegerInput()
        self.first, self.second, self.third = block(3, 8), block(8, 16), block(16, 16)
        self.up = QuantConvTranspose2d(16, 8, 2, stride=2)
        self.up_act = NormActivation(LayerBatchNorm(8), FOUR)
        self.joined, self.last = block(24, 8), block(16, 8)
        self.head = QuantConv2d(8, 3, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(self.input(x))
        b = self.second(F.max_pool2d(a, 2))
        c = self.third(F.max_pool2d(b, 2))
        y = self.joined(torch.cat([self.up_act(self.up(c)), b], 1))
        y = self.last(torch.cat([F.interpolate(y, scale_factor=2), a], 1))
        return self.head(y)


class MobileNetV2(nn.Module):
    """Inverted residuals with linear bottlenecks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(IntegerInput(), *block(3, 8, stride=2, act=LINEAR))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *block(8, 24, 1), *block(24, 24, groups=24), *block(24, 8, 1, act=LINEAR)
            ) for _ in range(2)
        )  # fmt: skip
        self.last, self.head = block(8, 16, 1), QuantLinear(16, 4, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for inverted in self.blocks:
            x = x + inverted(x)
        return self.head(F.adaptive_avg_pool2d(self.last(x), 1).flatten(1))


class ShuffleNetV2(nn.Module):
    """Half of the channels through a branch, then shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(IntegerInput(), *block(3, 16, stride=2))
        self.branches = nn.ModuleList(nn.Sequential(*block(8, 8, groups=8), *block(8, 8, 1)) for _ in range(2))
        self.head = QuantLinear(16, 4, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            a, b = x.chunk(2, dim=1)
            x = torch.cat((a, branch(b)), dim=1)
            n, c, h, w = x.size()
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.head(x.mean([2, 3]))


class SqueezeNet(nn.Module):
    """A fire module; a convolution as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(IntegerInput(), *block(3, 12, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True))
        self.squeeze, self.narrow, self.wide = block(12, 4, 1), block(4, 8, 1), block(4, 8)
        self.head = QuantConv2d(16, 4, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(self.stem(x))
        return self.head(torch.cat([self.narrow(x), self.wide(x)], 1)).mean((2, 3))


class DenseNet(nn.Module):
    """Every layer sees all before it; a transition that averages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(IntegerInput(), QuantConv2d(3, 8, 3, padding=1))
        self.acts = nn.ModuleList(NormActivation(LayerBatchNorm(8 + 4 * n), FOUR) for n in range(3))
        self.convs = nn.ModuleList(QuantConv2d(8 + 4 * n, 4, 3, padding=1) for n in range(3))
        self.last, self.pool, self.head = NormActivation(LayerBatchNorm(20), FOUR), nn.AvgPool2d(2), QuantLinear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for act, conv in zip(self.acts, self.convs, strict=True):
            features.append(conv(act(torch.cat(features, 1))))
        return self.head(self.pool(self.last(torch.cat(features, 1))).sum((2, 3)))


class SqueezeExcite(nn.Module):
    """A residual block whose channels are gated by what all positions say."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Sequential(IntegerInput(), *block(3, 8, stride=2)), block(8, 8)
        self.down, self.down_act = QuantLinear(8, 4), NormActivation(LayerBatchNorm(4), FOUR)
        self.up, self.gate = QuantLinear(4, 8), NormActivation(LayerBatchNorm(8), GATE)
        self.last, self.head = NormActivation(LayerBatchNorm(8), FOUR), QuantLinear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        gate = self.gate(self.up(self.down_act(self.down(y.mean((2, 3))))))
        return self.head(self.last(x + y * gate.unsqueeze(-1).unsqueeze(-1)).view(x.size(0), -1))


class Detector(nn.Module):
    """Two heads on a map: classes and boxes at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(IntegerInput(), *block(3, 8, stride=2), *block(8, 16, stride=2))
        self.classes, self.boxes = QuantConv2d(16, 6, 1, bias=True), QuantConv2d(16, 8, 1, bias=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        n = x.shape[0]
        return {
            "classes": self.classes(x).permute(0, 2, 3, 1).reshape(n, -1, 3),
            "boxes": self.boxes(x).permute(0, 2, 3, 1).reshape(n, -1, 4),
        }


NETWORKS: tuple[Callable[[], nn.Module], ...] = (
    UNet, MobileNetV2, ShuffleNetV2, SqueezeNet, DenseNet, SqueezeExcite, Detector,
)  # fmt: skip


@pytest.mark.parametrize("make", NETWORKS)
def test_trained_networks_lower_to_the_same_integers(make: Callable[[], nn.Module]):
    torch.manual_seed(0)
    network = make()
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    assert maqd.check(network, images) == ()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(STEPS):
        results = network(images)
        parts = list(results.values()) if isinstance(results, dict) else [results]
        loss = torch.stack([(part - 1).square().mean() for part in parts]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    lowered = lower(network, images)
    graph = container.from_bytes(container.to_bytes(lowered.graph))
    engines = [TorchEngine(network, graph), NativeEngine(graph), OnnxRuntime(graph)]
    result = verify(graph, engines, [np.random.default_rng(1).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)])
    assert result.ok, result
    with torch.no_grad():
        wanted, found = network(images), engines[1].scores(images)
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            np.testing.assert_array_equal(found[key], value.numpy())
    else:
        np.testing.assert_array_equal(found, wanted.numpy())
