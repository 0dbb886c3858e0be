"""The definitions of docs/numerics.md in exact arithmetic or float64 NumPy, independent of the package's functions."""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from maqd import States
from maqd.nn import Profile

Array = NDArray[np.float64]


def exact_index(y: Fraction, states: States, step: float) -> int:
    """clip(floor(y / step + origin + 1/2), 0, M-1)."""
    origin = Fraction(states.count - 1, 2) if states.signed else Fraction(0)
    return min(max(math.floor(y / Fraction(step) + origin + Fraction(1, 2)), 0), states.count - 1)


def exact_code(y: Fraction, states: States, step: float) -> int:
    """The code of y."""
    return states.low + states.spacing * exact_index(y, states, step)


def quantize(y: Array, states: States, step: float) -> Array:
    """Output values of the activation at y, for y / step that float64 holds exactly."""
    origin = (states.count - 1) / 2 if states.signed else 0.0
    index = np.clip(np.floor(y / step + origin + 0.5), 0, states.count - 1)
    return (index - origin) * step


def phi(u: Array, states: States, profile: Profile, width: float) -> Array:
    """The surrogate in closed form, from u = y / step measured from the middle of the outermost thresholds.

    The thresholds are symmetric around that middle, so the distance beyond them is |u| minus half of their span.
    """
    t = np.maximum(np.abs(u) - (states.count - 2) / 2, 0) / width
    match profile:
        case Profile.WINDOW:
            return np.where(t <= 1, 1.0, 0.0)
        case Profile.LINEAR_TAILS:
            return np.clip(2 - t, 0, 1)
        case Profile.EXPONENTIAL_TAILS:
            return np.where(t <= 1, 1.0, np.exp(1 - t))
        case Profile.TRIANGLE:
            return np.clip(1 - t, 0, None)
        case Profile.ARCTAN:
            return 1 / (1 + (np.pi * t / 2) ** 2)
        case Profile.SIGMOID:
            return 1 / np.cosh(t / 2) ** 2  # 4 s (1 - s) with s the logistic function


def middle(states: States) -> float:
    """Where y / step is in the middle of the outermost thresholds."""
    return 0.0 if states.signed else (states.count - 1) / 2
