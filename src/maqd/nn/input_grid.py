"""Where the input of a layer lies: what is known when it is built, and whether a batch keeps to it."""

import enum

import torch
from torch import Tensor

from maqd.numerics.states import Grid

SAMPLES = 64
"""Samples of a batch that are checked."""

VALUES = 4096
"""Different values that are checked where dropout has scaled them."""

LEAST_KEPT = 0.05
"""Dropout that keeps fewer values than this share is not recognized."""


class Values(enum.Enum):
    """Inputs without a grid."""

    FLOAT = "float"
    """Float values of about unit size. The layer trains, and the network cannot be lowered."""


def fits(inner: Grid, outer: Grid) -> bool:
    """Whether every value of a grid is a value of another one."""
    shift = inner.exponent - outer.exponent
    return shift >= 0 and outer.low <= inner.low << shift and inner.high << shift <= outer.high


def describe_grid(grid: Grid) -> str:
    """The codes and the unit, for messages."""
    return f"codes {grid.low} .. {grid.high} times 2^{grid.exponent}"


def misfit(x: Tensor, grid: Grid, *, dropout: bool) -> str | None:
    """A value of a batch that is not on a grid, in words; None if all are.

    Args:
        x: N x ..., any float dtype; the first 64 samples are checked.
        grid: Where it should lie.
        dropout: Whether dropout may have scaled all values by one factor >= 1.
    """
    codes = x.detach()[:SAMPLES].double() / grid.unit
    # Types of fewer bits round sums to a coarser grid, and so up to half a step beyond the last value.
    slack = 1 + torch.finfo(x.dtype).eps if x.dtype in (torch.bfloat16, torch.float16) else 1.0
    if codes.numel() == 0 or _on(codes, grid, slack, 0.0):
        return None
    if dropout:
        some = torch.unique(codes)[:VALUES]
        largest = float(some.abs().max())
        for code in range(max(1, int(largest * LEAST_KEPT)), grid.magnitude + 1):
            if code <= largest and _on(some * (code / largest), grid, slack, 1e-3):
                return None
    off = codes[codes != torch.round(codes)]
    if off.numel():
        return f"{float(off.flatten()[0]) * grid.unit:g}, no multiple of 2^{grid.exponent}"
    return f"codes {int(codes.min())} .. {int(codes.max())}"


def _on(codes: Tensor, grid: Grid, slack: float, tolerance: float) -> bool:
    whole = torch.round(codes)
    inside = (whole >= grid.low * slack) & (whole <= grid.high * slack) | (whole == 0)
    return bool((inside & ((codes - whole).abs() <= tolerance)).all())
