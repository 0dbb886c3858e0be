"""Steps fitted to trained weights: how float networks become networks of few states."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from maqd.nn.quantizers import ScaledRounding
from maqd.numerics.states import States, gaussian_step


@final
@dataclass(frozen=True, kw_only=True)
class FittedSteps(ScaledRounding):
    """Scaled round-clip without centring, with steps fitted to the weights of a trained float network.

        code = low + spacing * clip(floor(w / (step_o scale_o) + origin + 1/2), 0, M-1)

    RoundClip subtracts the mean of each filter. That changes the output in a way that no normalization undoes. Here the
    layer is its float original times one factor per filter, which the normalization after it removes.
    Backward: straight-through, unclipped, and exactly through scale_o.

    Args:
        states: M_w, signed.
        per_filter: Whether each filter has its own step, relative to its root mean square, which may change in
            training: scale_o = sqrt(mean(w_o^2)). Otherwise there is one step in units of the weights, as heads need,
            whose outputs are compared with each other: scale_o = 1.

    The steps are the parameter `learned.0` of the layer; they have no gradient.
    """

    per_filter: bool = True

    @property
    def code_scale(self) -> float:
        return gaussian_step(self.states.count) / self.states.spacing

    def initial(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The steps with the least square error: O x 1 ... or 1 x 1 ..."""
        rows = weight.detach().flatten(1).float()
        if not self.per_filter:
            rows = rows.reshape(1, -1)
        steps = fitted_steps(rows, self.states) / (weight_scale(rows) if self.per_filter else 1)
        return (steps.reshape(-1, *[1] * (weight.ndim - 1)).to(weight.dtype),)

    def steps(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        """Distance of neighbouring states in units of the weights, float64, O x 1 ... or 1 x 1 ..."""
        steps = learned[0].detach().double()
        return steps * weight_scale(weight.detach().double()) if self.per_filter else steps

    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        steps = learned[0].detach()
        return weight / (steps * weight_scale(weight) if self.per_filter else steps)

    def slope(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return self.positions(weight, learned)

    def unrounded(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        return self.positions(weight, learned) * (unit * self.states.spacing)

    def describe(self) -> str:
        return f"states={self.states.count}, {'a step per filter' if self.per_filter else 'one step'}"


def weight_scale(weight: Tensor) -> Tensor:
    """Root mean square of each filter, O x 1 ..., 1 for a filter of zeros."""
    square = weight.square().mean(tuple(range(1, weight.ndim)), keepdim=True)
    return torch.where(square > 0, square, 1.0).sqrt()


FIT_COLUMNS = 512
"""Weights of a row that its step is fitted on, evenly spread."""

PAST = 2.0
"""Error over the least one, from which on smaller steps are not tried: they clip more and more."""


def fitted_steps(rows: Tensor, states: States) -> Tensor:
    """The uniform step for each row with the least mean square error, to an eighth of an octave.

    Args:
        rows: R x N, float.
        states: Signed states.

    Returns:
        R x 1, positive; 1 for a row of zeros. On the meta device only the shape.
    """
    if rows.is_meta:  # an outline, whose numbers come later: the search would take most of a conversion's time
        return rows.new_empty(rows.shape[0], 1)
    sample = rows[:, :: -(-rows.shape[1] // FIT_COLUMNS)]
    largest = rows.abs().amax(1, keepdim=True)
    # From the range of the row, which many states cover, down to what two states of it need.
    widest = torch.where(largest > 0, largest, 1.0) * (2 / (states.count - 1))
    best, least = widest, torch.full_like(widest, math.inf)
    for k in range(29):
        step = widest * 1.05 * 2.0 ** (-k / 8)
        codes = sample / step  # to the nearest state, whichever it is of two that are as near
        codes = codes.floor_().mul_(2).add_(1) if states.spacing == 2 else codes.round_()
        codes = codes.clamp_(states.low, states.high)
        error = codes.mul_(step / states.spacing).sub_(sample).square_().mean(1, keepdim=True)
        best = torch.where(error < least, step, best)
        least = torch.minimum(error, least)
        if bool(((error > PAST * least) | (largest == 0)).all()):
            break
    return torch.where(largest > 0, best, 1.0)
