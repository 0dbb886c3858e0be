"""Proof by enumeration that an activation of the graph is the one the network evaluates.

No sampling: every integer that the accumulator of every channel can be is tried. In channels with more than 2^20 of
them only the ends and both sides of every step are: between two integers at which two monotone functions agree and the
network's has one code, the other has that code, too.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Activation, FixedPoint, Thresholds
from maqd.numerics.bounds import Interval, narrow
from maqd.numerics.fixedpoint import (
    AFFINE_OPERATIONS,
    AffineForm,
    FixedAffine,
    affine_thresholds,
    fixed_point_affine,
    integer_thresholds,
    signed_range,
)
from maqd.numerics.shared_scale import SharedScale
from maqd.numerics.states import States

MOST_TRIED = 2**20
"""Channels with more integers are proved from the steps of the network's function."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """An activation as the network evaluates it, on the integers of its input.

    index = #{k: fl32(signs[c] * x * 2**exponent / divisor) >= thresholds[k, c]} for low[c] <= x <= high[c]

    Args:
        states: Of the output.
        step_exponent: Neighbouring states differ by 2**step_exponent.
        thresholds: float32, or float64 where the input is, (M-1) x C, ascending.
        signs: float32, C, +-1.
        exponent: Of the input's unit.
        interval: Bounds of the input, one entry a channel; magnitudes below 2**24, or 2**31 in float64.
        divisor: Of averages: one division in the type of the thresholds; 1 for none.
        scale, offset: float64, C: the index is clip(floor(scale * x + offset), 0, M-1) up to rounding.
    """

    states: States
    step_exponent: int
    thresholds: NDArray[np.floating]
    signs: NDArray[np.float32]
    exponent: int
    interval: Interval
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    divisor: int = 1

    def index(self, x: NDArray[np.int64], channel: int) -> NDArray[np.integer]:
        """The state of each x, in ascending order, of a channel, by the comparisons that PyTorch does."""
        value = self._values(x) * self.signs[channel]
        cuts = self.thresholds[:, channel]
        if len(cuts) > 16:
            return np.searchsorted(cuts, value, side="right")
        count = np.zeros(x.shape, np.int16)
        for cut in cuts:
            count += value >= cut
        return count

    def _values(self, x: NDArray[np.int64]) -> NDArray[np.floating]:
        """What the network has for codes."""
        values = np.ldexp(x.astype(self.thresholds.dtype), self.exponent)
        return values if self.divisor == 1 else values / self.thresholds.dtype.type(self.divisor)

    @cached_property
    def cuts(self) -> NDArray[np.int64]:
        """Thresholds on signs * x, (M-1) x C, each between its smallest value and one more than the largest."""
        low, high = self.interval.low, self.interval.high
        if self.divisor == 1:
            return integer_thresholds(self.thresholds, self.signs, self.exponent, low, high)
        # A quotient is rounded, and so are its steps: they are searched, the values of rising codes being rising.
        first, last = signed_range(self.signs, low, high)
        below = np.broadcast_to(first, self.thresholds.shape).copy()
        above = np.broadcast_to(last + 1, self.thresholds.shape).copy()
        while (open_ := below < above).any():
            middle = (below + above) // 2
            reached = self._values(middle) >= self.thresholds
            above = np.where(open_ & reached, middle, above)
            below = np.where(open_ & ~reached, middle + 1, below)
        return above

    def witnesses(self, channel: int) -> NDArray[np.int64]:
        """Integers of a channel, ascending, that decide whether a monotone function equals this one."""
        low, high = int(self.interval.low[channel]), int(self.interval.high[channel])
        if high - low < MOST_TRIED:
            return np.arange(low, high + 1)
        return _beside(self.cuts[:, channel] * int(self.signs[channel]), low, high)


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedScale:
    """An activation of many states as the network evaluates it: by a shared scale, on the values of integers.

    Args:
        states: Of the output.
        step_exponent: Neighbouring states differ by 2**step_exponent.
        scale: What is evaluated, for x * 2**exponent.
        exponent: Of the input's unit.
        interval: Bounds of the input, one entry a channel.
    """

    states: States
    step_exponent: int
    scale: SharedScale
    exponent: int
    interval: Interval

    def index(self, x: NDArray[np.int64], channel: int) -> NDArray[np.integer]:
        """The state of each x of a channel, by the operations of PyTorch."""
        return self.scale.index(np.ldexp(x.astype(np.float64), self.exponent), channel)

    @cached_property
    def affine(self) -> FixedAffine | None:
        """The same in integers; None where they do not fit."""
        return self.scale.on_integers(self.exponent, self.interval.magnitude)

    def witnesses(self, channel: int) -> NDArray[np.int64]:
        """As `Evaluated.witnesses`."""
        low, high = self.interval.low[channel : channel + 1], self.interval.high[channel : channel + 1]
        if self.affine is None or high[0] - low[0] < MOST_TRIED:
            return np.arange(low[0], high[0] + 1)
        one = FixedAffine(
            multiplier=self.affine.multiplier[channel : channel + 1],
            offset=self.affine.offset[channel : channel + 1],
            shift=self.affine.shift,
        )
        cuts, signs = affine_thresholds(one, self.states.count, low, high)
        return _beside(cuts[:, 0] * signs[0], int(low[0]), int(high[0]))


def _beside(cuts: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """The ends of a range and the integers on both sides of steps, ascending."""
    sides = np.concatenate([cuts - 1, cuts, cuts + 1])
    return np.unique(np.concatenate([[low, high], np.clip(sides, low, high)]))


@dataclass(frozen=True, kw_only=True)
class ActivationReport:
    """What is known of a lowered activation.

    Args:
        name: Its node.
        operation: "thresholds" or "fixed_point": the form that was chosen.
        shift: K of the fixed-point map, None if it was not asked for or there is none.
        multiplier_bits: Bits of the widest A, its sign included.
        offset_bits: Bits of the widest B, its sign included.
        checked: Pairs of channel and integer that are proved: all there are.
        mismatches: In how many of them the chosen form differs from the network.
        rounded_mismatches: In how many float32 scale and offset, rounded to multiples of 2**-K as usual, would; None
            without K, or where a channel has too many integers to count them.
    """

    name: str
    operation: str
    shift: int | None
    multiplier_bits: int | None
    offset_bits: int | None
    checked: int
    mismatches: int
    rounded_mismatches: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """An activation's integer form, not proved yet.

    Args:
        node: The chosen form.
        evaluated: What it must equal.
        fixed: The fixed-point map, whether it was chosen or not; None if it was not asked for or there is none.
    """

    node: Activation
    evaluated: Evaluated | EvaluatedScale
    fixed: FixedAffine | None

    def prove(self) -> ActivationReport:
        """Compares the node with what the network evaluates, for every channel and every integer."""
        low, high = self.evaluated.interval.low.tolist(), self.evaluated.interval.high.tolist()
        counted = int((self.evaluated.interval.high - self.evaluated.interval.low).max()) < MOST_TRIED
        rounded = None
        if isinstance(self.evaluated, Evaluated) and self.fixed is not None and counted:
            rounded = rounded_affine(self.evaluated, self.fixed.shift)
        last = self.evaluated.states.count - 1
        checked = mismatches = rounded_mismatches = 0
        for channel in range(len(low)):
            x = self.evaluated.witnesses(channel)
            wanted = self.evaluated.index(x, channel)
            found = self.node.index(x[None], slice(channel, channel + 1))[0]
            checked += high[channel] - low[channel] + 1
            mismatches += int(np.count_nonzero(found != wanted))
            # What lies between two witnesses is proved only if the network's code is the same at both.
            mismatches += int(np.count_nonzero((np.diff(x) > 1) & (np.diff(wanted) != 0)))
            if rounded is not None:
                usual = (rounded.multiplier[channel] * x + rounded.offset[channel]) >> rounded.shift
                rounded_mismatches += int(np.count_nonzero(np.clip(usual, 0, last) != wanted))
        fixed = self.fixed
        return ActivationReport(
            name=self.node.name,
            operation=self.node.operation,
            shift=None if fixed is None else fixed.shift,
            multiplier_bits=None if fixed is None else signed_bits(fixed.multiplier),
            offset_bits=None if fixed is None else signed_bits(fixed.offset),
            checked=checked,
            mismatches=mismatches,
            rounded_mismatches=None if rounded is None else rounded_mismatches,
        )


def candidate(name: str, source: str, axis: int, evaluated: Evaluated, form: AffineForm) -> Candidate | None:
    """An activation's integer form.

    Args:
        name: Of the node.
        source: Name of its input.
        axis: Dimension of the channels in one sample.
        evaluated: What it must equal.
        form: Which form is wanted.

    Returns:
        The candidate, or None if the fixed-point form was asked for and there is none (`fixed_point_affine`).
    """
    low, high, signs = evaluated.interval.low, evaluated.interval.high, evaluated.signs
    cuts = evaluated.cuts
    common = {
        "name": name,
        "inputs": (source,),
        "axis": axis,
        "states": evaluated.states,
        "step_exponent": evaluated.step_exponent,
    }
    thresholds = Thresholds(**common, thresholds=narrow(cuts), signs=signs.astype(np.int8))
    if form is AffineForm.THRESHOLDS:
        return Candidate(node=thresholds, evaluated=evaluated, fixed=None)
    fixed = fixed_point_affine(cuts, signs, low, high)
    # A threshold costs a comparison and an addition.
    compare = form is AffineForm.AUTO and (fixed is None or 2 * len(cuts) <= AFFINE_OPERATIONS)
    if compare:
        return Candidate(node=thresholds, evaluated=evaluated, fixed=fixed)
    if fixed is None:
        return None
    multiply = FixedPoint(**common, multiplier=narrow(fixed.multiplier), offset=narrow(fixed.offset), shift=fixed.shift)
    return Candidate(node=multiply, evaluated=evaluated, fixed=fixed)


def scaled_candidate(name: str, source: str, axis: int, evaluated: EvaluatedScale) -> Candidate | None:
    """The integer form of an activation of many states; arguments as in `candidate`.

    Returns:
        The candidate; None if its integers do not fit 64 bits.
    """
    fixed = evaluated.affine
    if fixed is None:
        return None
    node = FixedPoint(
        name=name,
        inputs=(source,),
        axis=axis,
        states=evaluated.states,
        step_exponent=evaluated.step_exponent,
        multiplier=narrow(fixed.multiplier),
        offset=narrow(fixed.offset),
        shift=fixed.shift,
    )
    return Candidate(node=node, evaluated=evaluated, fixed=fixed)


def rounded_affine(evaluated: Evaluated, shift: int) -> FixedAffine:
    """What is usually deployed: the float32 scale and offset, rounded to the nearest multiples of 2**-shift.

    A and B saturate where A * x + B would not fit 64 bits.
    """
    x = max(evaluated.interval.magnitude, 1)
    a, b = (
        np.clip(np.rint(np.ldexp(np.float32(values).astype(np.float64), shift)), -limit, limit).astype(np.int64)
        for values, limit in ((evaluated.scale, 2.0**61 // x), (evaluated.offset, 2.0**61))
    )
    return FixedAffine(multiplier=a, offset=b, shift=shift)


def signed_bits(values: NDArray[np.integer]) -> int:
    """Bits of the narrowest two's complement type that holds all values."""
    return max((value if value >= 0 else ~value).bit_length() for value in (int(values.min()), int(values.max()))) + 1
