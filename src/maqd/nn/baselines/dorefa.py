"""Weights of DoReFa-Net (Zhou et al., arXiv 1606.06160, equation 9).

    t = tanh(w) / max|tanh(w)|,   codes = the nearest of M levels from -1 to 1

with the maximum over the layer; the gradient is straight through the rounding only.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maqd.nn.quantizers import ScaledRounding


@final
@dataclass(frozen=True, kw_only=True)
class DoReFaWeights(ScaledRounding):
    """Tangent and maximum.

    Args:
        states: M_w, signed.
    """

    @property
    def code_scale(self) -> float:
        # Uniform weights within +-b deviate by b / sqrt(3), and b is the largest state.
        return math.sqrt(3) * 2 / (self.states.count - 1) / self.states.spacing

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        bounded = torch.tanh(weight)
        return bounded / bounded.abs().max() * ((self.states.count - 1) / 2)
