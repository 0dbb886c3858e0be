"""Additive powers of two (Li et al., arXiv 1909.13144).

    codes = the level nearest to clip(v / a, -1, 1), levels being sums of powers of two, divided by the largest one

with a learned clip a for the layer. The gradient is straight through within the clip; that of a is level - v / a
within the clip and the sign outside, which before a normalization is the same as with the scale left out. Weights are
normalized over the layer first. In integers the magnitudes are

| magnitudes | codes                      | as weights | as activations |
|------------|----------------------------|------------|----------------|
| 2          | 0 1                        | M_w = 3    | M_a = 2        |
| 4          | 0 1 2 4                    | M_w = 7    | M_a = 4        |
| 8          | 0 1 2 3 4 6 8 10           | M_w = 15   | M_a = 8        |

A code has more bits than the number of levels needs: four activations take the codes 0 .. 4 without 3.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from maqd.errors import ConfigError
from maqd.nn.functional import with_gradient_of
from maqd.nn.quantizers import ThresholdQuantizer, WeightQuantizer
from maqd.numerics.states import States, gaussian_step

LEVELS = {2: (0, 1), 4: (0, 1, 2, 4), 8: (0, 1, 2, 3, 4, 6, 8, 10)}
"""Magnitudes by their number."""
FIRST_CLIP = 3.0
"""Where a begins, in standard deviations."""
FIRST_CLIP_OF_THREE = gaussian_step(3)
"""Where a begins for three weight states, of which 87% would be zero otherwise."""
SMALLEST = 1e-8
"""Least clip."""


def magnitudes(count: int, what: str) -> tuple[int, ...]:
    """The levels in integers.

    Raises:
        ConfigError: No set of levels has this number.
    """
    if count not in LEVELS:
        raise ConfigError(f"APoT has 3, 7 or 15 weight states and 2, 4 or 8 activation states, got {what}")
    return LEVELS[count]


def middles(levels: tuple[int, ...]) -> tuple[float, ...]:
    """Where the nearest level changes, one entry for each code above the lowest: levels further apart repeat it."""
    return tuple((a + b) / 2 for a, b in pairwise(levels) for _ in range(b - a))


def nearest(positions: Tensor, levels: tuple[int, ...]) -> Tensor:
    """The code nearest to each magnitude.

    Args:
        positions: Any shape, in units of code 1.
        levels: As in `magnitudes`.
    """
    codes = torch.zeros_like(positions)
    for middle in middles(levels):
        codes += positions >= middle
    return codes


@final
@dataclass(frozen=True, kw_only=True)
class APoTWeights(WeightQuantizer):
    """Symmetric levels, normalized weights, a learned clip.

    Args:
        states: The codes up to the largest level; `of` makes them from M_w.
        levels: Magnitudes.
    """

    levels: tuple[int, ...]

    @classmethod
    def of(cls, count: int) -> "APoTWeights":
        """The quantizer of M_w = `count` levels."""
        levels = magnitudes((count + 1) // 2 if count % 2 else 0, f"{count} weight states")
        return cls(states=States(count=2 * levels[-1] + 1, signed=True), levels=levels)

    @property
    def code_scale(self) -> float:
        return self._first_clip / self.states.high

    @property
    def _first_clip(self) -> float:
        return FIRST_CLIP_OF_THREE if self.states.count == 3 else FIRST_CLIP

    def initial(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (torch.tensor(self._first_clip),)

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        """The normalized weights in units of code 1, clipped."""
        variance, mean = torch.var_mean(weight, correction=0)
        normalized = (weight - mean) * torch.rsqrt(variance + SMALLEST**2)
        high = self.states.high
        return torch.clamp(normalized * (high / learned[0].clamp_min(SMALLEST)), -high, high)

    def values(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        positions = self.positions(weight, learned)
        return with_gradient_of(self._round(positions.detach()) * unit, positions * unit)

    def codes(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        exact = weight.detach().to(device="cpu", dtype=torch.float64).contiguous()
        clip = learned[0].detach().to(device="cpu", dtype=torch.float64)
        return self._round(self.positions(exact, (clip,))).to(torch.int16)

    def _round(self, positions: Tensor) -> Tensor:
        return nearest(positions.abs(), self.levels) * positions.sign()

    def describe(self) -> str:
        return f"levels={self.levels}, {type(self).__name__}"


@final
@dataclass(frozen=True, kw_only=True)
class APoTActivations(ThresholdQuantizer):
    """Levels that grow with the value, a learned clip.

    Args:
        states: The codes up to the largest level; `of` makes them from M_a.
        step, surrogate: As in `ThresholdQuantizer`.
        levels: The codes that occur.
    """

    levels: tuple[int, ...]

    @classmethod
    def of(cls, count: int, step: float) -> "APoTActivations":
        """The quantizer of M_a = `count` levels."""
        levels = magnitudes(count, f"{count} activation states")
        return cls(states=States(count=levels[-1] + 1, signed=False), step=step, levels=levels)

    def initial(self) -> tuple[Tensor, ...]:
        return (torch.tensor(FIRST_CLIP),)

    def cuts(self, learned: tuple[Tensor, ...]) -> Tensor:
        clip = learned[0].clamp_min(SMALLEST)
        return torch.tensor(middles(self.levels), dtype=clip.dtype, device=clip.device) * (clip / self.states.high)

    def slope(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        clip = learned[0].clamp_min(SMALLEST)
        return torch.clamp(y * (self.states.high / clip), 0, self.states.high)
