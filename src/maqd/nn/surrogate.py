"""Surrogate gradients: what stands in for the derivative of a quantizer's staircase.

A quantizer with M states has thresholds at v = 1, 2, .., M-1, where v counts steps from half a step below the first
state (v = y / step + origin + 1/2). Its true derivative is zero almost everywhere. The surrogate is

    d output / d y = scale * phi(d / width),      d = max(1 - v, v - (M - 1), 0),

so it is `scale` between the outermost thresholds, whatever M is, and falls off outside of them with d, the distance
beyond them in steps. With t = d / width:

| profile           | phi(t)                                            | for M = 2                             |
|-------------------|---------------------------------------------------|---------------------------------------|
| window            | 1 if t <= 1 else 0                                | straight-through estimator (clipped)  |
| linear_tails      | clip(2 - t, 0, 1)                                 | trapezoid                             |
| exponential_tails | exp(-max(t - 1, 0))                               | window with exponential tails         |
| triangle          | max(1 - t, 0)                                     | Esser et al. 2016                     |
| arctan            | 1 / (1 + (pi t / 2)^2)                            | derivative of arctan, Fang et al. 2021|
| sigmoid           | 4 s (1 - s), s = 1 / (1 + exp(-t))                | derivative of the logistic function   |

The edges belong to the window: phi is 1 at t = 1. `maqd.nn.kernels` holds the same formulas as vector loops in C.
"""

import math

import torch
from torch import Tensor

from maqd.settings.quantization import Profile, Surrogate


def distance(v: Tensor, states: int) -> Tensor:
    """Distance of v beyond the outermost thresholds 1 and states - 1, in steps; zero between them."""
    return torch.clamp_min(1 - v, 0) + torch.clamp_min(v - (states - 1), 0)


def surrogate_gradient(v: Tensor, states: int, surrogate: Surrogate) -> Tensor:
    """Phi at v, without the factor `surrogate.scale`.

    Args:
        v: Position in steps; thresholds at 1 .. states-1. Any float dtype and shape.
        states: M >= 2.
        surrogate: Profile and width.

    Returns:
        phi in [0, 1], like v.
    """
    width = surrogate.width
    if surrogate.profile is Profile.WINDOW:
        return ((v >= 1 - width) & (v <= states - 1 + width)).to(v.dtype)
    t = distance(v, states) / width
    match surrogate.profile:
        case Profile.LINEAR_TAILS:
            return torch.clamp_min(1 - torch.clamp_min(t - 1, 0), 0)
        case Profile.EXPONENTIAL_TAILS:
            return torch.exp(-torch.clamp_min(t - 1, 0))
        case Profile.TRIANGLE:
            return torch.clamp_min(1 - t, 0)
        case Profile.ARCTAN:
            return 1 / (1 + (math.pi / 2 * t) ** 2)
        case Profile.SIGMOID:
            e = torch.exp(-t)
            return 4 * e / (1 + e) ** 2
