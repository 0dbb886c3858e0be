"""ResNet-8 for image classification on CIFAR-10."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which a 1x1 convolution reshapes where it must."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # Keras pads a stride-2 convolution of an even image by 0 and 1.
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 0 if stride == 2 else 1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(self.pad(x))))
        y = self.bn2(self.conv2(y))
        return F.relu(self.shortcut(x) + y)


class ResNet8(nn.Module):
    """N x 3 x 32 x 32 -> N x classes; `width` is the number of channels of the first stage."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1)
        self.bn = nn.BatchNorm2d(width)
        self.stack1 = Block(width, width, 1)
        self.stack2 = Block(width, 2 * width, 2)
        self.stack3 = Block(2 * width, 4 * width, 2)
        self.pool = nn.AvgPool2d(8)
        self.dense = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = self.stack3(self.stack2(self.stack1(x)))
        return self.dense(torch.flatten(self.pool(x), 1))


def resnet8() -> nn.Module:
    """The network of the benchmark."""
    return ResNet8()
