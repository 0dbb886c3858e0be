"""More ordinary float networks, small: the shapes of published ones, written out by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int = 1, groups: int = 1, act=nn.ReLU
):
    """Convolution, normalization and perhaps an activation, as a Sequential."""
    padding = kernel // 2 if isinstance(kernel, int) else tuple(size // 2 for size in kernel)
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if act is None else [act(inplace=True)]))


class VGG11BN(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for size in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M"):
            if isinstance(size, str):
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(inputs, size * width, 3, padding=1), nn.BatchNorm2d(size * width), nn.ReLU(True)]
            inputs = size * width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(
            nn.Linear(inputs, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 24), nn.ReLU(True), nn.Dropout(),
            nn.Linear(24, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int):
        super().__init__()
        hidden = inputs * expand
        self.use_res_connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv_bn(inputs, hidden, 1, act=nn.ReLU6),
            conv_bn(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6),
            conv_bn(hidden, outputs, 1, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 8, 3, 2, act=nn.ReLU6),
            InvertedResidual(8, 8, 1, 2),
            InvertedResidual(8, 12, 2, 2),
            InvertedResidual(12, 12, 1, 2),
            conv_bn(12, 24, 1, act=nn.ReLU6),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """No normalization at all; the classifier is a convolution before the pooling."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2), nn.ReLU(True), nn.MaxPool2d(3, 2), Fire(12, 4, 8), Fire(16, 4, 8)
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(16, 10, 1), nn.ReLU(True), nn.AdaptiveAvgPool2d((1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv1(F.relu(self.norm1(x)))], 1)


class DenseNet(nn.Module):
    def __init__(self, growth: int = 4, layers: int = 3):
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1, bias=False)]
        channels = 8
        for block in range(2):
            for _ in range(layers):
                steps.append(DenseLayer(channels, growth))
                channels += growth
            if block == 0:
                steps += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 10, 1, bias=False), nn.AvgPool2d(2)]
                channels = 10
        self.features = nn.Sequential(*steps)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.features(x)), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


class Inception(nn.Module):
    """Four branches, one with a factorized 7x7, one with an average over 3x3."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.branch1 = conv_bn(8, 4, 1)
        self.branch7 = nn.Sequential(conv_bn(8, 4, 1), conv_bn(4, 4, (1, 7)), conv_bn(4, 6, (7, 1)))
        self.branch3 = nn.Sequential(conv_bn(8, 4, 1), conv_bn(4, 6, 3))
        self.branch_pool = conv_bn(8, 4, 1)
        self.fc = nn.Linear(28, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        x = torch.cat([self.branch1(x), self.branch7(x), self.branch3(x), pooled, F.max_pool2d(x, 3, 1, 1)], dim=1)
        return self.fc(x.mean(dim=(2, 3)))


class SensorResNet(nn.Module):
    """1-D residual network on windows of three channels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(3, 8, 7, 2, 3)
        self.bn1 = nn.BatchNorm1d(8)
        self.conv2 = nn.Conv1d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm1d(8)
        self.conv3 = nn.Conv1d(8, 8, 3, padding=1)
        self.bn3 = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(x + self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x))))))
        return self.fc(x.mean(-1))


class CRNNFront(nn.Module):
    """The convolutional part of a text reader: maps of one row, with their columns as a sequence."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2),
            nn.Conv2d(8, 12, 3, 1, 1), nn.BatchNorm2d(12), nn.ReLU(True), nn.MaxPool2d((2, 1), (2, 1)),
            nn.Conv2d(12, 16, 4, 1, 0), nn.BatchNorm2d(16), nn.ReLU(True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.cnn(x)


class Siamese(nn.Module):
    """Two inputs through the same layers, then a comparison."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(conv_bn(1, 6, 3, 2), conv_bn(6, 8, 3, 2))
        self.head = nn.Linear(16, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = (self.encoder(x).mean((2, 3)) for x in (left, right))
        return self.head(torch.cat((a, b), 1))


class TwoHeads(nn.Module):
    """A map of boxes and class scores, in a dict; the input is normalized inside."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]).reshape(1, 3, 1, 1))
        self.body = nn.Sequential(conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3))
        self.boxes = nn.Conv2d(8, 4, 1)
        self.scores = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body((x - self.mean) / self.std)
        return {"boxes": self.boxes(x), "scores": torch.softmax(self.scores(x.mean((2, 3))), 1)}


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, gate: type[nn.Module] = nn.Sigmoid):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(width, width // 2, 1)
        self.fc2 = nn.Conv2d(width // 2, width, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(F.relu(self.fc1(self.pool(x)))))


class EfficientNet(nn.Module):
    """MBConv blocks with squeeze and excitation."""

    def __init__(self, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Hardsigmoid):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2, act=act)
        self.expand = conv_bn(8, 16, 1, act=act)
        self.depthwise = conv_bn(16, 16, 5, groups=16, act=act)
        self.se = SqueezeExcite(16, gate)
        self.project = conv_bn(16, 8, 1, act=None)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.se(self.depthwise(self.expand(x))))
        return self.head(x.mean((2, 3)))


class ShuffleBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(
            conv_bn(width // 2, width // 2, 1),
            conv_bn(width // 2, width // 2, 3, groups=width // 2, act=None),
            conv_bn(width // 2, width // 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        out = torch.cat((kept, self.branch(changed)), dim=1)
        batch, channels, height, width = out.size()
        out = out.view(batch, 2, channels // 2, height, width)
        return torch.transpose(out, 1, 2).contiguous().view(batch, channels, height, width)


class ShuffleNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = conv_bn(3, 8, 3, 2)
        self.stage = nn.Sequential(ShuffleBlock(8), ShuffleBlock(8))
        self.conv5 = conv_bn(8, 12, 1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv5(self.stage(self.conv1(x))).mean([2, 3]))


class UNet(nn.Module):
    """One level down and up again, with nearest-neighbour upsampling; scores for every pixel."""

    def __init__(self):
        super().__init__()
        self.down1 = conv_bn(3, 6)
        self.down2 = conv_bn(6, 8)
        self.up = nn.Upsample(scale_factor=2)
        self.up1 = conv_bn(14, 6)
        self.out = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        return self.out(self.up1(torch.cat([a, self.up(b)], 1)))


class FPN(nn.Module):
    """Three scales, joined from the top down, with one head for all of them."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([conv_bn(3, 6, 3, 2), conv_bn(6, 8, 3, 2), conv_bn(8, 8, 3, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(size, 6, 1) for size in (6, 8, 8)])
        self.outputs = nn.ModuleList([nn.Conv2d(6, 4, 3, padding=1) for _ in range(3)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = self.lateral[2](maps[2])
        found = {"p2": self.outputs[2](merged)}
        for level in (1, 0):
            merged = self.lateral[level](maps[level]) + F.interpolate(merged, scale_factor=2, mode="nearest")
            found[f"p{level}"] = self.outputs[level](merged)
        return found


class WaveNet(nn.Module):
    """Dilated causal convolutions in one dimension."""

    def __init__(self):
        super().__init__()
        self.input = nn.Conv1d(1, 8, 1)
        self.layers = nn.ModuleList([nn.Conv1d(8, 8, 2, dilation=dilation) for dilation in (1, 2, 4)])
        self.output = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        for layer in self.layers:
            x = x + F.relu(layer(F.pad(x, (layer.dilation[0], 0))))
        return self.output(F.relu(x))


class ConvNeXtBlock(nn.Module):
    """A 7x7 depthwise convolution, normalization, and a wide pair of 1x1 convolutions, beside a shortcut."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.pwconv1 = nn.Conv2d(width, 4 * width, 1)
        self.act = nn.GELU()
        self.pwconv2 = nn.Conv2d(4 * width, width, 1)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.pwconv2(self.act(self.pwconv1(self.norm(self.dwconv(x)))))
        return self.head(x.mean((-2, -1)))
