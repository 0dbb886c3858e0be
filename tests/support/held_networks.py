"""Networks that people build, by hand of our layers, small enough to train in a test."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.export.onnx.float_emitter import Flavour
from maqd.graph import Storage
from maqd.nn import (
    IntegerInput,
    LayerBatchNorm,
    NormActivation,
    QuantConv1d,
    QuantConv2d,
    QuantConvTranspose2d,
    Quantizer,
    QuantLinear,
)
from maqd.numerics.states import Grid, States

FOUR = Quantizer(states=States(count=4, signed=False))
LINEAR = Quantizer(states=States(count=255, signed=True), step=2.0**-5)
"""A normalization without an activation: a bottleneck that is linear up to 255 states."""
GATE = Quantizer(states=States(count=9, signed=False), step=2.0**-3)
FINE = Grid(low=-127, high=127, exponent=-6)


def activation(channels: int, quantizer: Quantizer = FOUR) -> NormActivation:
    return NormActivation(LayerBatchNorm(channels), quantizer)


def block(i: int, o: int, k: int = 3, *, stride: int = 1, groups: int = 1, act: Quantizer = FOUR) -> nn.Sequential:
    conv = QuantConv2d(i, o, k, stride, padding=k // 2, groups=groups, states=15 if groups > 1 else 3)
    return nn.Sequential(conv, activation(o, act))


class UNet(nn.Module):
    """Down twice, up by nearest neighbours and by a transposed convolution, skips; a map of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.input = IntegerInput()
        self.first, self.second, self.third = block(3, 8), block(8, 16), block(16, 16)
        self.up = QuantConvTranspose2d(16, 8, 2, stride=2)
        self.up_act = activation(8)
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
        self.acts = nn.ModuleList(activation(8 + 4 * n) for n in range(3))
        self.convs = nn.ModuleList(QuantConv2d(8 + 4 * n, 4, 3, padding=1) for n in range(3))
        self.last, self.pool, self.head = activation(20), nn.AvgPool2d(2), QuantLinear(20, 4)

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
        self.down, self.down_act = QuantLinear(8, 4), activation(4)
        self.up, self.gate = QuantLinear(4, 8), activation(8, GATE)
        self.last, self.head = activation(8), QuantLinear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        gate = self.gate(self.up(self.down_act(self.down(y.mean((2, 3))))))
        return self.head(self.last(x + y * gate.unsqueeze(-1).unsqueeze(-1)).view(x.size(0), -1))


class Residual(nn.Module):
    """Activations before convolutions; where the shape changes, a convolution of one position is the shortcut."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.act1, self.conv1 = activation(i), QuantConv2d(i, o, 3, stride, padding=1)
        self.act2, self.conv2 = activation(o), QuantConv2d(o, o, 3, padding=1)
        self.shortcut = QuantConv2d(i, o, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(x)
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.conv2(self.act2(self.conv1(y)))


class ResNet8(nn.Module):
    """Three residual blocks, the average over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(IntegerInput(), QuantConv2d(3, 8, 3, padding=1, states=15))
        self.blocks = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 24, 2))
        self.last, self.pool, self.head = activation(24), nn.AdaptiveAvgPool2d(1), QuantLinear(24, 10, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.last(self.blocks(self.stem(x)))), 1))


class DsCnn(nn.Module):
    """Keywords in 49 frames of 10 coefficients: uneven padding, depthwise layers, an average over 125 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.input, self.stem = IntegerInput(), QuantConv2d(1, 12, (10, 4), 2, states=15)
        self.stem_act = activation(12)
        self.blocks = nn.Sequential(
            *(nn.Sequential(*block(12, 12, groups=12), *block(12, 12, 1)) for _ in range(4)),
        )
        self.head = QuantConv2d(12, 12, 1, bias=True, states=15)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_act(self.stem(F.pad(self.input(x), (1, 1, 4, 5))))
        return F.avg_pool2d(self.head(self.blocks(x)), (25, 5)).squeeze(3).squeeze(2)


class Autoencoder(nn.Module):
    """A vector through a bottleneck to a vector of the same size."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [IntegerInput()]
        for inputs, outputs in ((80, 24), (24, 8), (8, 24)):
            layers += [QuantLinear(inputs, outputs), activation(outputs)]
        self.layers = nn.Sequential(*layers, QuantLinear(24, 80, bias=True, states=15))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Windows(nn.Module):
    """Windows of float sensor values: convolutions of one dimension, an average over 6 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.input = IntegerInput(FINE, Storage.F32).fit([windows(64, 0)], axis=0)
        self.first, self.first_act = QuantConv1d(3, 8, 5, 2, padding=2, states=15), activation(8)
        self.depthwise, self.depthwise_act = QuantConv1d(8, 8, 3, padding=1, groups=8, states=15), activation(8)
        self.pool, self.head = nn.MaxPool1d(2), QuantConv1d(8, 4, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_act(self.first(self.input(x)))
        x = x + self.depthwise_act(self.depthwise(x))
        return self.head(self.pool(x)).mean(-1)


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


class Siamese(nn.Module):
    """Two images through the same layers; how much their features agree, and what both show."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(IntegerInput(), *block(3, 8, stride=2), nn.MaxPool2d(2), *block(8, 16, stride=2))
        self.features = nn.Sequential(nn.Flatten(), QuantLinear(64, 16), activation(16, LINEAR))
        self.head = QuantLinear(32, 4, bias=True)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.features(self.body(left)), self.features(self.body(right))
        return (a * b).sum(1, keepdim=True), self.head(torch.cat([a, b], 1))


Samples = tuple[Tensor, ...]


def windows(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 24, generator=generator) * torch.tensor([0.1, 5.0, 300.0])[:, None] + 7


@dataclass(frozen=True, kw_only=True)
class Held:
    """A network and what it takes.

    Args:
        make: The network, untrained.
        shapes: Of one uint8 sample for each input; of a float window where empty.
        qonnx: The flavours that express it: none takes floats, and the scales of 255 states are too long for `QUANT`.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = ((3, 16, 16),)
    qonnx: tuple[Flavour, ...] = tuple(Flavour)

    def samples(self, count: int, seed: int) -> Samples:
        """A batch for each input."""
        if not self.shapes:
            return (windows(count, seed),)
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator) for shape in self.shapes
        )


HELD = (
    Held(make=UNet),
    Held(make=MobileNetV2, qonnx=(Flavour.MULTITHRESHOLD,)),
    Held(make=ShuffleNetV2),
    Held(make=SqueezeNet),
    Held(make=DenseNet),
    Held(make=SqueezeExcite),
    Held(make=ResNet8),
    Held(make=DsCnn, shapes=((1, 49, 10),)),
    Held(make=Autoencoder, shapes=((80,),)),
    Held(make=Windows, shapes=(), qonnx=()),
    Held(make=Detector),
    Held(make=Siamese, shapes=((3, 16, 16),) * 2),
)
