"""Networks, data, losses and metrics of one's own for `maqd train`, named package.module:function."""

import numpy as np
import torch
from torch import Tensor, nn

from maqd import States
from maqd.graph import Storage
from maqd.nn import IntegerInput, LayerBatchNorm, LayerFactory, NormActivation, QuantConfig, Quantizer, QuantLinear
from maqd.numerics.states import Grid

FINE = Grid(low=-127, high=127, exponent=-6)
FOUR = Quantizer(states=States(count=4, signed=False), step=1.0)
WORDS = Grid(low=-2000, high=2000, exponent=-10)


class Regression(nn.Module):
    """Float windows and 16-bit vectors to two values: {"sum": N x 1, "largest": N x 1}."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.windows = IntegerInput(FINE, Storage.F32)
        self.vectors = IntegerInput(WORDS, Storage.I16)
        self.left = QuantLinear(12, 16, states=15, input_grid=FINE)
        self.right = QuantLinear(4, 16, states=15, input_grid=WORDS)
        self.acts = nn.ModuleList([NormActivation(LayerBatchNorm(16), FOUR) for _ in range(2)])
        self.sum = QuantLinear(16, 1, bias=True, states=states, input_grid=FOUR.grid)
        self.largest = QuantLinear(16, 1, bias=True, states=states, input_grid=FOUR.grid)

    def forward(self, window: Tensor, vector: Tensor) -> dict[str, Tensor]:
        left = self.acts[0](self.left(self.windows(window)))
        right = self.acts[1](self.right(self.vectors(vector)))
        return {"sum": self.sum(left), "largest": self.largest(right)}


def regression(quant: QuantConfig) -> nn.Module:
    return Regression(quant.weight_states or 15)


def arrays(split: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.default_rng(0 if split == "train" else 1)
    count = 256 if split == "train" else 96
    window = generator.normal(3, 20, (count, 12))
    vector = generator.integers(-2000, 2001, (count, 4)).astype(np.int16)
    targets = {"sum": window.mean(1, keepdims=True) / 4, "largest": vector.max(1, keepdims=True) / 1000}
    return {"window": window, "vector": vector}, targets


def squared(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    return sum(((outputs[key] - targets[key]).square().mean() for key in targets), torch.zeros(()))


def within(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    return (outputs["sum"] - targets["sum"]).abs().squeeze(1) < 1


def rows(quant: QuantConfig, num_classes: int, shapes: tuple[tuple[int, ...], ...]) -> nn.Module:
    """A classifier of rectangles of bytes."""
    layers = LayerFactory(quant=quant)
    size = int(np.prod(shapes[0]))
    return nn.Sequential(IntegerInput(), nn.Flatten(), layers.head("head", size, num_classes or 2, IntegerInput.grid))


def computed() -> nn.Module:
    """A network whose float input is computed."""

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = IntegerInput(FINE, Storage.F32)

        def forward(self, x: Tensor) -> Tensor:
            return self.input(2 * x)

    return Doubled()


def not_a_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square()


def not_a_network() -> int:
    return 3


def wants_more(depth: int) -> nn.Module:
    return nn.Linear(depth, depth)


def curved(quant: QuantConfig) -> nn.Module:
    """A network with a curve that no integers have."""
    head = LayerFactory(quant=quant).head("head", 64, 2, None)
    return nn.Sequential(IntegerInput(), nn.Flatten(), nn.Sigmoid(), head)


def float_digits() -> nn.Module:
    """An ordinary float network of 1 x 8 x 8 pictures, with a residual block."""

    class Digits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm1(self.first(x)))
            x = torch.relu(x + self.norm2(self.second(x)))
            return self.head(x.mean((2, 3)))

    return Digits()
