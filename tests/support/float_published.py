"""Published float networks, written out from their tables, narrow enough for tests; nothing of maqd is in them."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def divisible(value: float, by: int = 4) -> int:
    """The nearest multiple, at least `by`, and not less than nine tenths of the value (MobileNetV3's rounding)."""
    found = max(by, int(value + by / 2) // by * by)
    return found + by if found < 0.9 * value else found


class SqueezeExcite(nn.Module):
    """Gates from averages: MobileNetV3 (hard sigmoid) and RegNetY (sigmoid)."""

    def __init__(self, channels: int, squeezed: int, gate: type[nn.Module]):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = gate()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(scale) * x


class Bneck(nn.Module):
    """A row of MobileNetV3's table: expansion, depthwise, squeeze and excitation, projection."""

    def __init__(
        self, kernel: int, inputs: int, hidden: int, outputs: int, se: bool, act: type[nn.Module], stride: int
    ):
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden, 0.001, 0.01), act(inplace=True)]
        layers += [
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden, 0.001, 0.01),
            act(inplace=True),
        ]
        if se:
            layers.append(SqueezeExcite(hidden, divisible(hidden / 4), nn.Hardsigmoid))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs, 0.001, 0.01)]
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        result = self.block(x)
        if self.shortcut:
            result += x
        return result


SMALL = (
    (3, 16, 16, True, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 2),
    (3, 88, 24, False, nn.ReLU, 1),
    (5, 96, 40, True, nn.Hardswish, 2),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 120, 48, True, nn.Hardswish, 1),
    (5, 144, 48, True, nn.Hardswish, 1),
    (5, 288, 96, True, nn.Hardswish, 2),
    (5, 576, 96, True, nn.Hardswish, 1),
    (5, 576, 96, True, nn.Hardswish, 1),
)
"""MobileNetV3-small (arXiv 1905.02244, table 2): kernel, expansion, outputs, squeeze and excitation, act, stride."""


class MobileNetV3(nn.Module):
    """MobileNetV3-small; `rows` and `width` make it smaller."""

    def __init__(self, width: float = 1.0, rows: tuple = SMALL, classes: int = 10):
        super().__init__()
        inputs = divisible(16 * width)
        layers: list[nn.Module] = [
            nn.Conv2d(3, inputs, 3, 2, 1, bias=False), nn.BatchNorm2d(inputs, 0.001, 0.01), nn.Hardswish(inplace=True),
        ]  # fmt: skip
        for kernel, hidden, outputs, se, act, stride in rows:
            sizes = (inputs, divisible(hidden * width), divisible(outputs * width))
            layers.append(Bneck(kernel, *sizes, se, act, stride))
            inputs = sizes[2]
        last = 6 * inputs
        layers += [
            nn.Conv2d(inputs, last, 1, bias=False),
            nn.BatchNorm2d(last, 0.001, 0.01),
            nn.Hardswish(inplace=True),
        ]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        hidden = divisible(1024 * width)
        self.classifier = nn.Sequential(
            nn.Linear(last, hidden),
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2, inplace=True),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class YBlock(nn.Module):
    """RegNetY's: bottleneck of ratio 1, groups of a fixed width, squeeze and excitation of the block's input width."""

    def __init__(self, inputs: int, width: int, stride: int, group_width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width // group_width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcite(width, max(1, inputs // 4), nn.Sigmoid)
        self.conv3 = nn.Conv2d(width, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.proj = None
        if inputs != width or stride > 1:
            self.proj = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.se(F.relu(self.bn2(self.conv2(out))))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.proj is None else self.proj(x)))


class RegNetY(nn.Module):
    """RegNetY-200MF (arXiv 2003.13678): depths 1, 1, 4, 7, widths 24, 56, 152, 368, groups of 8."""

    def __init__(
        self,
        depths: tuple[int, ...] = (1, 1, 4, 7),
        widths: tuple[int, ...] = (24, 56, 152, 368),
        group_width: int = 8,
        stem: int = 32,
        classes: int = 10,
    ):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        blocks = []
        for depth, (inputs, width) in zip(depths, pairwise((stem, *widths)), strict=True):
            blocks += [
                YBlock(width if place else inputs, width, 1 if place else 2, group_width) for place in range(depth)
            ]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class LayerNorm2d(nn.LayerNorm):
    """Over channels of N x C x H x W."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class NextBlock(nn.Module):
    """ConvNeXt's: depthwise 7x7, layer normalization, two linear layers with GELU, a scale per channel, a shortcut."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.linspace(0.3, 0.7, dim))

    def forward(self, x: Tensor) -> Tensor:
        out = self.dwconv(x).permute(0, 2, 3, 1)
        out = self.pwconv2(self.act(self.pwconv1(self.norm(out))))
        return x + (self.gamma * out).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """ConvNeXt-atto (arXiv 2201.03545, and timm's sizes): depths 2, 2, 6, 2, widths 40, 80, 160, 320."""

    def __init__(
        self, depths: tuple[int, ...] = (2, 2, 6, 2), dims: tuple[int, ...] = (40, 80, 160, 320), patch: int = 4
    ):
        super().__init__()
        stages: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, dims[0], patch, patch), LayerNorm2d(dims[0], eps=1e-6))]
        for place, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            if place:
                before = dims[place - 1]
                stages.append(nn.Sequential(LayerNorm2d(before, eps=1e-6), nn.Conv2d(before, dim, 2, 2)))
            stages.append(nn.Sequential(*(NextBlock(dim) for _ in range(depth))))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x).mean([-2, -1])))


class TransposedUNet(nn.Module):
    """U-Net (arXiv 1505.04597) with padding, batch normalization and transposed convolutions."""

    def __init__(self, width: int = 4, classes: int = 2):
        super().__init__()
        w = width

        def double(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True),
                nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True),
            )  # fmt: skip

        self.down1, self.down2, self.bottom = double(3, w), double(w, 2 * w), double(2 * w, 4 * w)
        self.pool = nn.MaxPool2d(2)
        self.up2, self.dec2 = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2), double(4 * w, 2 * w)
        self.up1, self.dec1 = nn.ConvTranspose2d(2 * w, w, 2, 2), double(2 * w, w)
        self.out = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(self.pool(one))
        x = self.up2(self.bottom(self.pool(two)))
        x = self.up1(self.dec2(torch.cat([two, x], 1)))
        return self.out(self.dec1(torch.cat([one, x], 1)))


class ECGBlock(nn.Module):
    """A residual unit on signals: even kernels with uneven padding, and a shortcut of maxima and a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 16):
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, kernel, padding="same", bias=False)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, kernel - 1, stride=4, padding=kernel // 2 - 1, bias=False)
        self.bn2 = nn.BatchNorm1d(outputs)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.2)
        self.skip = nn.Sequential(nn.MaxPool1d(4), nn.Conv1d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(self.relu(self.bn1(self.conv1(x))))
        return self.dropout(self.relu(self.bn2(self.conv2(out) + self.skip(x))))


class ECGNet(nn.Module):
    """A residual network for 12-lead electrocardiograms (after Ribeiro et al., 2020), six labels."""

    def __init__(self, leads: int = 12, widths: tuple[int, ...] = (8, 12, 16)):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(leads, widths[0], 16, padding="same", bias=False), nn.BatchNorm1d(widths[0]), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(ECGBlock(a, b) for a, b in pairwise(widths)))
        self.head = nn.Linear(widths[-1] * 4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.blocks(self.stem(x)).flatten(1)))
