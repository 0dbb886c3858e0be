"""Standard deviation-based quantization (Ardakani et al., arXiv 2202.12422).

    codes = round(clip(w / (a sd(w)), -Q, Q)), and 0 where |w| < p sd(w)

with a learned multiple a of the layer's standard deviation for a step, and a knob p that prunes. This is what the
paper's abstract says; its base-2 logarithmic levels are not here, and its initialization may be another.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maqd.errors import ConfigError
from maqd.nn.baselines.lsq import SMALLEST
from maqd.nn.quantizers import ScaledRounding
from maqd.numerics.states import gaussian_step


@final
@dataclass(frozen=True, kw_only=True)
class DeviationWeights(ScaledRounding):
    """A learned multiple of the standard deviation for a step.

    Args:
        states: M_w, signed; with pruning an odd number, which has a zero.
        prune: p >= 0: weights below p standard deviations become zero.
    """

    prune: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prune < math.inf:
            raise ConfigError(f"pruning takes a finite number of standard deviations >= 0, got {self.prune!r}")
        if self.prune and self.states.count % 2 == 0:
            raise ConfigError(
                f"pruning needs a state at zero, and {self.states.count} states have none; use an odd M_w"
            )

    @property
    def code_scale(self) -> float:
        return gaussian_step(self.states.count) / self.states.spacing

    def initial(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (torch.tensor(gaussian_step(self.states.count)),)

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        deviation = weight.detach().std(correction=0).clamp_min(SMALLEST)
        positions = weight / (learned[0].abs().clamp_min(SMALLEST) * deviation)
        return torch.where(weight.detach().abs() < self.prune * deviation, torch.zeros_like(positions), positions)

    def slope(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        limit = (self.states.count - 1) / 2
        deviation = weight.detach().std(correction=0).clamp_min(SMALLEST)
        # Pruned weights keep a gradient, so that they can come back.
        return torch.clamp(weight / (learned[0].abs().clamp_min(SMALLEST) * deviation), -limit, limit)
