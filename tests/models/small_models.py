"""Small instances of every network."""

from typing import Any

import torch
from torch import Tensor, nn

from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import QuantConfig
from maqd.nn.norm import FoldableNorm

VGGS = [a for a in Architecture if "vgg" in a.value]
RESNETS = [a for a in Architecture if "resnet" in a.value]
CLASSES = 7


def size_of(architecture: Architecture) -> int:
    return 8 if architecture is Architecture.DIGITS else 32


def channels_of(architecture: Architecture) -> int:
    return 1 if architecture is Architecture.DIGITS else 3


def small(architecture: Architecture, *, width: float = 1 / 16, size: int | None = None, **quant: Any) -> nn.Module:
    """A narrow network of the architecture."""
    config = ModelConfig(architecture=architecture, width=width, quant=QuantConfig(**quant))
    return build_model(
        config, in_channels=channels_of(architecture), num_classes=CLASSES, image_size=size or size_of(architecture)
    )


def images(architecture: Architecture, count: int, *, size: int | None = None) -> Tensor:
    """Random bytes."""
    side = size or size_of(architecture)
    return torch.randint(0, 256, (count, channels_of(architecture), side, side), dtype=torch.uint8)


def train_a_little(model: nn.Module, x: Tensor, steps: int = 2) -> None:
    """Moves every parameter, and takes the running statistics of the last batch, so that evaluation is alive."""
    for module in model.modules():
        if isinstance(module, FoldableNorm):
            module.momentum = 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(len(x)) % CLASSES).backward()
        optimizer.step()
