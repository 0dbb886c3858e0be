"""A scaled round-clip of the weights as they are: MaQD's without weight standardization, to see what that is worth.

    codes = round(clip(w / s, -Q, Q)),    s = gaussian_step(M_w) / sqrt(3 fan_in)

The step is that of a fresh layer, whose weights deviate by 1 / sqrt(3 fan_in): nothing follows them as they grow.
"""

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

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

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return weight * (math.sqrt(3 * weight[0].numel()) / gaussian_step(self.states.count))
