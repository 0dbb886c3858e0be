"""Parameterized clipping activation (Choi et al., arXiv 1805.06085, equations 1 to 3).

    codes = round(clip(y, 0, a) * (M-1) / a),   dy: 1 for 0 <= y < a,   da: sum of the gradient over y >= a

with a learned clip a for the layer. The paper's decay of a is the optimizer's weight decay.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maqd.nn.quantizers import ThresholdQuantizer

FIRST_CLIP = 3.0
"""Where a begins, in standard deviations. The paper's 10 is for networks whose activations are not normalized so."""
SMALLEST = 1e-8
"""Least clip."""


@final
@dataclass(frozen=True, kw_only=True)
class PACT(ThresholdQuantizer):
    """A learned clip.

    Args:
        states, step, surrogate: As in `ThresholdQuantizer`.
    """

    def initial(self) -> tuple[Tensor, ...]:
        return (torch.tensor(FIRST_CLIP),)

    def cuts(self, learned: tuple[Tensor, ...]) -> Tensor:
        step = learned[0].clamp_min(SMALLEST) / self.states.high
        return (torch.arange(self.states.high, dtype=step.dtype, device=step.device) + 0.5) * step

    def slope(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        clip = learned[0].clamp_min(SMALLEST)
        # In units of the real output, whose scale a / (M-1) the codes leave out.
        return torch.minimum(torch.relu(y), clip) * (self.states.high / clip.detach())
