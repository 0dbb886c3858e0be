"""Nonuniform-to-uniform quantization (Liu et al., arXiv 2111.14826).

Activations (equations 4 to 9): codes are uniform, thresholds are learned. With a learned start t and learned lengths
a_1 .. a_{M-1} of the segments between the centres of neighbouring states,

    cut_k = t + a_1 + .. + a_{k-1} + a_k / 2,   backward: sum over k of clip((y - t - a_1 - .. - a_{k-1}) / a_k, 0, 1)

so that a segment's gradient is one over its length. Weights (equation 13): uniform states from -1 to 1 of
w / (2 (M-1) / M mean|w|), the mean over a filter, which uses the states about equally often.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maqd.nn.quantizers import ScaledRounding, ThresholdQuantizer

RANGE = 2.0
"""Sum of the lengths at the start, in standard deviations."""
SHORTEST = 1e-3
"""Least length of a segment."""
TINY = 1e-12
"""Least scale, for filters of zeros."""


@final
@dataclass(frozen=True, kw_only=True)
class N2UQWeights(ScaledRounding):
    """The mean magnitude of a filter for a scale.

    Args:
        states: M_w, signed.
    """

    @property
    def code_scale(self) -> float:
        # Uniform weights within +-b deviate by b / sqrt(3), and their mean magnitude is b / 2.
        return math.sqrt(3) * 2 / self.states.count / self.states.spacing

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        mean = weight.detach().flatten(1).abs().mean(1).reshape(-1, *[1] * (weight.ndim - 1))
        return weight * (self.states.count / 4) / mean.clamp_min(TINY)

    def slope(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return self.positions(weight, learned)


@final
@dataclass(frozen=True, kw_only=True)
class N2UQActivations(ThresholdQuantizer):
    """Learned thresholds.

    Args:
        states, step, surrogate: As in `ThresholdQuantizer`.
    """

    def initial(self) -> tuple[Tensor, ...]:
        count = self.states.high
        return (torch.tensor(0.0), torch.full((count,), RANGE / count))

    def cuts(self, learned: tuple[Tensor, ...]) -> Tensor:
        lengths = learned[1].clamp_min(SHORTEST)
        return learned[0] + torch.cumsum(lengths, 0) - lengths / 2

    def slope(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        lengths = learned[1].clamp_min(SHORTEST)
        starts = learned[0] + torch.cumsum(lengths, 0) - lengths
        return sum(
            (torch.clamp((y - start) / length, 0, 1) for start, length in zip(starts, lengths, strict=True)),
            torch.zeros_like(y),
        )
