"""A scaled round-clip of the weights as they are: MaQD's without weight standardization, to see what that is worth.

    codes = round(clip(w / s, -Q, Q)),    s = gaussian_step(M_w) sd(w at initialization)

The step stays what it was when the layer was built: nothing follows the weights as they grow.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maqd.nn.baselines.lsq import SMALLEST
from maqd.nn.quantizers import ScaledRounding
from maqd.numerics.states import gaussian_step


@final
@dataclass(frozen=True, kw_only=True)
class PlainWeights(ScaledRounding):
    """The step of a fresh layer, kept.

    Args:
        states: M_w, signed.
    """

    @property
    def code_scale(self) -> float:
        return gaussian_step(self.states.count) / self.states.spacing

    def initial(self, weight: Tensor) -> tuple[Tensor, ...]:
        deviation = weight.detach().std(correction=0).clamp_min(SMALLEST)
        return (torch.tensor(gaussian_step(self.states.count)) * deviation,)

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return weight / learned[0].detach()
