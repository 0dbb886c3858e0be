"""Normalization and activation in integers: exact thresholds, and the smallest fixed-point map that equals them.

A folded normalization maps an accumulator x to y = gain * (x - mean) + bias; the activation takes state k or higher
where y >= cut[k]. Both are monotone in x, so the code is a count of comparisons of x with thresholds. They are
computed here in exact rational arithmetic, once, from the float64 values of the parameters. For integers x the same
function is clip(floor((A x + B) / 2^K)) with integers A, B and K, found here too ("Optimal Quantization for Batch
Normalization in Neural Network Deployments and Beyond", arXiv 2008.13128).
"""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from maqd.errors import NonFiniteError
from maqd.numerics.states import States


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


WIDE_BITS = 32
"""Significant bits of the numbers that thresholds in float64 are made for: integers of 32 bits times a unit."""


def wide_at_least(value: Fraction) -> float:
    """The smallest number of `WIDE_BITS` significant bits that is not below `value`; infinity beyond float64."""
    if value == 0:
        return 0.0
    numerator, denominator = abs(value.numerator), value.denominator
    exponent = numerator.bit_length() - denominator.bit_length()  # 2**(exponent - 1) < |value| < 2**(exponent + 1)
    if abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    shift = WIDE_BITS - 1 - exponent
    whole = -(-value * Fraction(2) ** shift // 1)
    try:
        return math.ldexp(float(whole), -shift)
    except OverflowError:
        return math.inf if value > 0 else -float(np.finfo(np.float64).max)


def input_thresholds(
    gain: NDArray[np.float64],
    mean: NDArray[np.float64],
    bias: NDArray[np.float64],
    cuts: NDArray[np.float64],
    *,
    wide: bool = False,
) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    """Thresholds on the input of y = gain * (x - mean) + bias, for every float32 x.

    Args:
        gain: C; zero and negative gains are allowed.
        mean: C.
        bias: C.
        cuts: K ascending cuts of y.
        wide: For every float64 x of at most 32 significant bits instead.

    Returns:
        The thresholds, K x C ascending along K, float32 (float64 if wide), and the signs, C: for every such x that is
        finite, y >= cuts[k] exactly (as rational numbers) if and only if signs[c] * x >= thresholds[k, c].
        Infinite thresholds stand for "always" and "never".

    Raises:
        NonFiniteError: A parameter is not finite.
    """
    require_finite(gain, mean, bias)
    # Channels that are alike, as those of a map for the whole layer, are computed once.
    columns, place = np.unique(np.stack([gain, mean, bias]), axis=1, return_inverse=True)
    thresholds, signs = _distinct_thresholds(columns[0], columns[1], columns[2], cuts, wide=wide)
    return thresholds[:, place.reshape(-1)], signs[place.reshape(-1)]


def require_finite(gain: NDArray[np.float64], mean: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Raises NonFiniteError unless a normalization's parameters, each C, are numbers."""
    for name, values in (("gain", gain), ("mean", mean), ("bias", bias)):
        if not np.isfinite(values).all():
            channel = int(np.flatnonzero(~np.isfinite(values))[0])
            raise NonFiniteError(
                f"a normalization's {name} must be finite, got {values[channel]} in channel {channel}; "
                "train again from an earlier checkpoint"
            )


def _distinct_thresholds(
    gain: NDArray[np.float64],
    mean: NDArray[np.float64],
    bias: NDArray[np.float64],
    cuts: NDArray[np.float64],
    *,
    wide: bool,
) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    signs = np.where(gain < 0, -1.0, 1.0)
    dead = gain == 0
    with np.errstate(all="ignore"):  # a dead channel divides by zero, and thresholds may lie beyond float32
        quotient = (cuts[:, None] - bias) / np.where(dead, 1.0, np.abs(gain))
        approximate = signs * mean + quotient
        if wide:
            fraction, exponent = np.frexp(approximate)
            near = np.ldexp(np.rint(np.ldexp(fraction, WIDE_BITS)), exponent - WIDE_BITS)
            spacing = np.ldexp(1.0, exponent - WIDE_BITS)
            thresholds = np.where(near >= approximate, near, near + spacing)
        else:
            near = approximate.astype(np.float32)
            spacing = np.abs(np.spacing(near)).astype(np.float64)
            thresholds = np.where(near >= approximate, near, np.nextafter(near, np.float32(np.inf)))
        # The float64 value is within a few units in its last place of the exact one, so it decides unless a
        # number of the grid lies that close (or its neighbours themselves do, where mean and quotient cancel).
        # The factor covers the roundings of the difference, the quotient and the sum.
        slack = 2.0**-50 * (np.abs(mean) + np.abs(quotient) + (np.abs(cuts[:, None]) + np.abs(bias)) / np.abs(gain))
        clear = (np.abs(near - approximate) > slack) & (slack < spacing / 8) & np.isfinite(near)
    thresholds[:, dead] = np.where(bias[dead] >= cuts[:, None], -np.inf, np.inf)
    for k, c in np.argwhere(~clear & ~dead).tolist():
        distance = Fraction(float(cuts[k])) - Fraction(float(bias[c]))
        exact = Fraction(float(signs[c] * mean[c])) + distance / Fraction(abs(float(gain[c])))
        thresholds[k, c] = wide_at_least(exact) if wide else float32_at_least(exact)
    return thresholds.astype(np.float64 if wide else np.float32), signs.astype(np.float32)


class AffineForm(enum.Enum):
    """How a normalization with its activation is computed in integers."""

    AUTO = "auto"
    """Layer by layer the one with fewer operations: thresholds up to M = 5, above that the map if there is one."""
    THRESHOLDS = "thresholds"
    """M-1 comparisons a channel."""
    FIXED_POINT = "fixed-point"
    """One multiplication, addition and shift a channel."""


AFFINE_OPERATIONS = 8
"""Cost of a fixed-point map in simple operations: a wide multiplication counts as four, then addition, shift, clip."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedAffine:
    """index = clip(floor((A[c] * x + B[c]) / 2**K), 0, M-1).

    Args:
        multiplier: A, int64, C.
        offset: B, int64, C.
        shift: K.
    """

    multiplier: NDArray[np.int64]
    offset: NDArray[np.int64]
    shift: int


def integer_thresholds(
    thresholds: NDArray[np.floating],
    signs: NDArray[np.floating],
    exponent: int,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Thresholds on the integer that a value stands for, for the integers it can be.

    Args:
        thresholds: (M-1) x C, on values; infinite ones stand for always and never.
        signs: C, +-1.
        exponent: The value of integer n is n * 2**exponent.
        low, high: int64, C, with magnitudes below 2**53: low <= n <= high.

    Returns:
        int64, (M-1) x C: signs * n * 2**exponent >= thresholds if and only if signs * n >= these, for every n of the
        channel. Each is between the smallest value of signs * n (always) and one more than the largest (never).
    """
    with np.errstate(over="ignore"):  # what overflows is beyond every n, and so is infinity
        reached = np.ceil(np.ldexp(thresholds.astype(np.float64), -exponent))
    return clip_thresholds(reached, signs, low, high)


def signed_range(
    signs: NDArray[np.number] | int, low: NDArray[np.int64] | int, high: NDArray[np.int64] | int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest and largest value of signs * n for low <= n <= high; signs are +-1."""
    rising = np.asarray(signs) > 0
    return np.where(rising, low, -high), np.where(rising, high, -low)


def clip_thresholds(
    thresholds: NDArray[np.number],
    signs: NDArray[np.number] | int,
    low: NDArray[np.int64] | int,
    high: NDArray[np.int64] | int,
) -> NDArray[np.int64]:
    """Thresholds with the same results for low <= n <= high, between the smallest value of signs * n and one more than
    the largest: the first is always reached, the last never.

    Args:
        thresholds: (M-1) x C, whole numbers or infinite.
        signs: +-1, C or for all.
        low, high: int64, C or for all.
    """
    first, last = signed_range(signs, low, high)
    return np.clip(thresholds, first, last + 1).astype(np.int64)


def fixed_point_affine(
    thresholds: NDArray[np.integer], signs: NDArray[np.number], low: NDArray[np.int64], high: NDArray[np.int64]
) -> FixedAffine | None:
    """The fixed-point map with the smallest shift that equals a count of thresholds on every integer of an interval.

    With s = signs * x, threshold t_k and A >= 0, the map is right for every x if and only if

        A t_k + B >= k 2^K               where t_k is reached at all,
        A (t_k - 1) + B <= k 2^K - 1     where t_k is not always reached:

    only the steps matter. For fixed A and K these are bounds of B, L(A) <= B <= U(A); L is a maximum and U a minimum of
    linear functions, so U - L is concave in A and bisection on its slope finds its maximum. A solution for K is one
    for K + 1 (twice A and B), so bisection finds the smallest K as well.

    Args:
        thresholds: Integers, (M-1) x C, ascending along the first dimension.
        signs: C, +-1.
        low, high: int64, C: low <= x <= high.

    Returns:
        The map with the smallest K that serves all channels, and for it in each channel the smallest |A| and then the
        smallest |B|. None if there is none whose products fit 64 bits.
    """
    first, last = signed_range(signs, low, high)
    cuts = clip_thresholds(thresholds, signs, low, high)
    largest = int(max(abs(first).max(), abs(last).max())) + 1
    room = 61 - largest.bit_length() - len(cuts).bit_length()  # A is at most (M-1) 2^K

    def feasible(shift: int) -> FixedAffine | None:
        return _affine_with(cuts, first, last, shift)

    lowest, highest = 0, room
    if highest < 0 or (found := feasible(highest)) is None:
        return None
    while lowest < highest:
        middle = (lowest + highest) // 2
        if (better := feasible(middle)) is None:
            lowest = middle + 1
        else:
            found, highest = better, middle
    rising = np.where(signs > 0, 1, -1)
    return FixedAffine(multiplier=found.multiplier * rising, offset=found.offset, shift=found.shift)


def affine_thresholds(
    affine: FixedAffine, count: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The thresholds of a fixed-point map: signs * x >= t_k where it is at least k.

    Args:
        affine: The map.
        count: M, the number of states.
        low, high: int64, C: low <= x <= high.

    Returns:
        Thresholds, (M-1) x C, clipped to the range of signs * x and one more; signs, int8, C.
    """
    signs = np.where(affine.multiplier < 0, -1, 1).astype(np.int8)
    first, last = signed_range(signs, low, high)
    steps = (np.arange(1, count, dtype=np.int64) << affine.shift)[:, None] - affine.offset
    slope = np.abs(affine.multiplier)
    constant = np.where(steps <= 0, first, last + 1)  # a channel that does not depend on x
    cuts = np.where(slope == 0, constant, -(-steps // np.maximum(slope, 1)))
    return clip_thresholds(cuts, signs, low, high), signs


UNBOUNDED = 2**62
"""Stands for a bound that is not there."""


def _affine_with(
    cuts: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64], shift: int
) -> FixedAffine | None:
    """A >= 0 and B for every channel with this shift, for rising s in first .. last; None if a channel has none."""
    steps = (np.arange(1, len(cuts) + 1, dtype=np.int64) << shift)[:, None]
    reached, missed = cuts <= last, cuts > first

    def bounds(a: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        least = np.where(reached, steps - a * cuts, -UNBOUNDED).max(0)
        most = np.where(missed, steps - 1 - a * (cuts - 1), UNBOUNDED).min(0)
        return least, most

    def room(a: NDArray[np.int64]) -> NDArray[np.int64]:
        least, most = bounds(a)
        return most - least

    # One step over all states between two neighbouring integers needs no more than this.
    steepest = np.full(len(first), len(cuts) << shift, np.int64)
    best = _first_where(lambda a: room(a + 1) <= room(a), np.zeros_like(steepest), steepest)
    if (room(best) < 0).any():
        return None
    smallest = _first_where(lambda a: room(a) >= 0, np.zeros_like(best), best)
    least, most = bounds(smallest)
    return FixedAffine(multiplier=smallest, offset=np.clip(0, least, most), shift=shift)


def _first_where(
    holds: Callable[[NDArray[np.int64]], NDArray[np.bool_]], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each entry the smallest a in low .. high from which on the condition holds; high if it never does."""
    while (open_ := low < high).any():
        middle = (low + high) // 2
        yes = holds(middle)
        high = np.where(open_ & yes, middle, high)
        low = np.where(open_ & ~yes, middle + 1, low)
    return high
