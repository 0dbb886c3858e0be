"""MobileNetV1 of width 0.25 for visual wake words."""

from torch import Tensor, nn


def conv(inputs: int, outputs: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """A 3x3 convolution, padded as Keras pads an even image, normalization and activation."""
    pad = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    padding = 0 if stride == 2 else 1
    return [
        *pad,
        nn.Conv2d(inputs, outputs, 3, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class MobileNet(nn.Module):
    """N x 3 x 96 x 96 -> N x classes; `width` is the number of channels of the stem."""

    def __init__(self, width: int = 8, classes: int = 2, positions: int = 3) -> None:
        super().__init__()
        layers, inputs = conv(3, width, 2), width
        for factor, stride in ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *((16, 1),) * 5, (32, 2), (32, 1)):
            layers += conv(inputs, inputs, stride, groups=inputs)
            layers += [nn.Conv2d(inputs, factor * width, 1, bias=False), nn.BatchNorm2d(factor * width), nn.ReLU()]
            inputs = factor * width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AvgPool2d(positions)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


def mobilenet() -> nn.Module:
    """The network of the benchmark."""
    return MobileNet()
