"""The 1-D depthwise network of the streaming wake-word benchmark: kernels 3, 5, 10 and 15 over 30 time steps."""

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A depthwise convolution over time without padding and a pointwise one at once, normalization and activation."""
    return [
        nn.Conv1d(inputs, inputs, kernel, groups=inputs, bias=False),
        nn.Conv1d(inputs, outputs, 1, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
        nn.Dropout(0.2),
    ]


class WakeWord(nn.Module):
    """N x 40 features x 30 steps -> N x classes."""

    def __init__(self, features: int = 40, widths: tuple[int, ...] = (128, 64, 64, 32), classes: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = features
        for outputs, kernel in zip(widths, (3, 5, 10, 15), strict=True):
            layers += block(inputs, outputs, kernel)
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.dense = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(torch.flatten(self.features(x), 1))


def wake_word() -> nn.Module:
    """The network of the benchmark."""
    return WakeWord()
