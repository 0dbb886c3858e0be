"""Weights of BitNet b1.58 (Ma et al., arXiv 2402.17764, equations 1 to 3).

    codes = clip(round(w / max(mean|w|, 1e-5)), -1, 1)

with the mean over the layer; the gradient is straight through everywhere.
"""

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from maqd.errors import ConfigError
from maqd.nn.quantizers import ScaledRounding

EPS = 1e-5
"""Least scale."""


@final
@dataclass(frozen=True, kw_only=True)
class AbsmeanWeights(ScaledRounding):
    """The mean magnitude for a step.

    Args:
        states: Three, signed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.states.count != 3:
            raise ConfigError(f"absmean has 3 weight states, got {self.states.count}; use 3, or another method")

    @property
    def code_scale(self) -> float:
        # Uniform weights within +-b deviate by b / sqrt(3), and their mean magnitude is b / 2.
        return math.sqrt(3) / 2

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return weight / weight.detach().abs().mean().clamp_min(EPS)

    def slope(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return self.positions(weight, learned)
