"""Ternary weight networks (Li et al., arXiv 1605.04711, equations 3 to 6).

    delta = 0.7 mean|w|,   codes = sign(w) where |w| > delta, else 0,   scale = mean of |w| where |w| > delta

over the layer; the gradient is straight through everywhere.
"""

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from maqd.errors import ConfigError
from maqd.nn.quantizers import ScaledRounding

FACTOR = 0.7
"""delta in units of the mean magnitude."""
TINY = 1e-12
"""Least scale, for layers of zeros."""


@final
@dataclass(frozen=True, kw_only=True)
class TernaryWeights(ScaledRounding):
    """The threshold that is nearly best for a Gaussian.

    Args:
        states: Three, signed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.states.count != 3:
            raise ConfigError(f"TWN has 3 weight states, got {self.states.count}; use 3, or another method")

    @property
    def code_scale(self) -> float:
        # Uniform weights within +-b deviate by b / sqrt(3); the mean of |w| above 0.35 b is 0.675 b.
        return math.sqrt(3) * (1 + FACTOR / 2) / 2

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return weight / (2 * FACTOR * weight.detach().abs().mean()).clamp_min(TINY)

    def slope(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        magnitude = weight.detach().abs()
        large = magnitude > FACTOR * magnitude.mean()
        return weight / ((magnitude * large).sum() / large.sum().clamp_min(1)).clamp_min(TINY)

    def describe(self) -> str:
        return f"states=3, {type(self).__name__}"
