"""Normalization and activation as comparisons: exact thresholds of a quantized affine map.

A folded normalization maps an accumulator x to y = gain * (x - mean) + bias; the activation takes state k or higher
where y >= cut[k]. Both are monotone in x, so the code is a count of comparisons of x with thresholds. They are
computed here in exact rational arithmetic, once, from the float64 values of the parameters.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from maqd.errors import NonFiniteError
from maqd.states import States


def activation_cuts(states: States, step: float) -> NDArray[np.float64]:
    """Where an activation's input passes from one state to the next: ties round up.

    Args:
        states: The activation's states.
        step: Distance of neighbouring states, a power of two, so that the cuts are exact.

    Returns:
        The M-1 cuts, ascending: the code is states.low + spacing * #{k: y >= cut[k]}.
    """
    return ((np.arange(1, states.count) - 0.5 - states.origin) * step).astype(np.float64)


@np.errstate(over="ignore")
def float32_at_least(value: Fraction) -> np.float32:
    """The smallest float32 that is not below `value`; infinity beyond the largest one."""
    try:
        near = np.float32(float(value))
    except OverflowError:
        return np.float32(np.inf if value > 0 else np.finfo(np.float32).min)
    if near == np.inf:
        largest = np.finfo(np.float32).max
        return largest if value <= Fraction(float(largest)) else near
    if near == -np.inf:
        return np.finfo(np.float32).min
    while Fraction(float(near)) < value:
        near = np.nextafter(near, np.float32(np.inf))
        if near == np.inf:
            return near
    while (below := np.nextafter(near, np.float32(-np.inf))) != -np.inf and Fraction(float(below)) >= value:
        near = below
    return near


def input_thresholds(
    gain: NDArray[np.float64], mean: NDArray[np.float64], bias: NDArray[np.float64], cuts: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Thresholds on the input of y = gain * (x - mean) + bias, for every float32 x.

    Args:
        gain: C; zero and negative gains are allowed.
        mean: C.
        bias: C.
        cuts: K ascending cuts of y.

    Returns:
        The thresholds, K x C ascending along K, and the signs, C: for every finite float32 x,
        y >= cuts[k] exactly (as rational numbers) if and only if signs[c] * x >= thresholds[k, c].
        Infinite thresholds stand for "always" and "never".

    Raises:
        NonFiniteError: A parameter is not finite.
    """
    for name, values in (("gain", gain), ("mean", mean), ("bias", bias)):
        if not np.isfinite(values).all():
            channel = int(np.flatnonzero(~np.isfinite(values))[0])
            raise NonFiniteError(
                f"a normalization's {name} must be finite, got {values[channel]} in channel {channel}; "
                "train again from an earlier checkpoint"
            )
    signs = np.where(gain < 0, -1.0, 1.0)
    dead = gain == 0
    with np.errstate(all="ignore"):  # a dead channel divides by zero, and thresholds may lie beyond float32
        quotient = (cuts[:, None] - bias) / np.where(dead, 1.0, np.abs(gain))
        approximate = signs * mean + quotient
        near = approximate.astype(np.float32)
        thresholds = np.where(near >= approximate, near, np.nextafter(near, np.float32(np.inf)))
        # The float64 value is within a few units in its last place of the exact one, so it decides unless a
        # float32 lies that close (or the float32 neighbours themselves do, where mean and quotient cancel).
        # The factor covers the roundings of the difference, the quotient and the sum.
        slack = 2.0**-50 * (np.abs(mean) + np.abs(quotient) + (np.abs(cuts[:, None]) + np.abs(bias)) / np.abs(gain))
        spacing = np.abs(np.spacing(near)).astype(np.float64)
        clear = (np.abs(near - approximate) > slack) & (slack < spacing / 8) & np.isfinite(near)
    thresholds[:, dead] = np.where(bias[dead] >= cuts[:, None], -np.inf, np.inf)
    for k, c in np.argwhere(~clear & ~dead).tolist():
        distance = Fraction(float(cuts[k])) - Fraction(float(bias[c]))
        exact = Fraction(float(signs[c] * mean[c])) + distance / Fraction(abs(float(gain[c])))
        thresholds[k, c] = float32_at_least(exact)
    return thresholds.astype(np.float32), signs.astype(np.float32)
