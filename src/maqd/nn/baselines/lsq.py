"""Learned step size quantization (Esser et al., arXiv 1902.08153).

    codes = round(clip(v / s, -Q, Q)),   ds = g * (sum over the layer of the straight-through gradient)
    first s = 2 mean|v| / sqrt(Q),       g = 1 / sqrt(number of values * Q)

with Q the largest code; activations are clipped from 0 to Q. A step may become negative in training, which would
mirror the codes: its magnitude counts.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maqd.nn.quantizers import ScaledRounding, ThresholdQuantizer

SMALLEST = 1e-8
"""Least step."""


def scaled_gradient(value: Tensor, factor: float) -> Tensor:
    """The value with its gradient multiplied by a factor."""
    return value.detach() + (value - value.detach()) * factor


@final
@dataclass(frozen=True, kw_only=True)
class LSQWeights(ScaledRounding):
    """One learned step a layer.

    Args:
        states: M_w, signed.
    """

    @property
    def _reach(self) -> float:
        """Q in steps."""
        return (self.states.count - 1) / 2

    @property
    def code_scale(self) -> float:
        # Uniform weights within +-b deviate by b / sqrt(3) and have the first step b / sqrt(Q).
        return math.sqrt(3 / self._reach) / self.states.spacing

    def initial(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (2 * weight.abs().mean() / math.sqrt(self._reach),)

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        step = scaled_gradient(learned[0], 1 / math.sqrt(weight.numel() * self._reach))
        return weight / step.abs().clamp_min(SMALLEST)


@final
@dataclass(frozen=True, kw_only=True)
class LSQActivations(ThresholdQuantizer):
    """One learned step a layer.

    Args:
        states, step, surrogate: As in `ThresholdQuantizer`.
    """

    def initial(self) -> tuple[Tensor, ...]:
        # Of a rectified standard normal variable, whose mean is 1 / sqrt(2 pi).
        return (torch.tensor(2 / math.sqrt(2 * math.pi * self.states.high)),)

    def cuts(self, learned: tuple[Tensor, ...]) -> Tensor:
        step = learned[0].abs().clamp_min(SMALLEST)
        return (torch.arange(self.states.high, dtype=step.dtype, device=step.device) + 0.5) * step

    def slope(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        values = y.numel() / len(y)  # of one sample, as the paper counts features
        step = scaled_gradient(learned[0], 1 / math.sqrt(values * self.states.high))
        return torch.clamp(y / step.abs().clamp_min(SMALLEST), 0, self.states.high)
