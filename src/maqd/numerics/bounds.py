"""How far the integers of a network can reach, from the codes that it really has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.numerics.packing import PackedCodes

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Interval:
    """Bounds of integers: low <= x <= high, for each entry of two int64 arrays of one shape."""

    low: Integers
    high: Integers

    def __post_init__(self) -> None:
        self.low.flags.writeable = False
        self.high.flags.writeable = False

    @classmethod
    def of(cls, low: int, high: int, rank: int) -> "Interval":
        """The same bounds everywhere, in arrays of one element and `rank` dimensions."""
        return cls(np.full((1,) * rank, low, np.int64), np.full((1,) * rank, high, np.int64))

    @property
    def whole(self) -> "Interval":
        """One pair that holds for all entries, of the same rank."""
        return Interval.of(self.lowest, self.highest, self.low.ndim)

    @property
    def lowest(self) -> int:
        """The smallest of all bounds."""
        return int(self.low.min())

    @property
    def highest(self) -> int:
        """The largest of all bounds."""
        return int(self.high.max())

    @property
    def magnitude(self) -> int:
        """The largest absolute value that is possible."""
        return max(-self.lowest, self.highest)


def product_sums(weight: PackedCodes, low: int, high: int, bias: NDArray[np.integer] | None = None) -> Interval:
    """Bounds of sum_i w_i x_i + bias for low <= x_i <= high, for each row of the weight.

    The bounds hold for partial sums in any order as well if the bias comes first: x_i = 0 (a padded position, or a
    term not added yet) counts as possible. They are attained wherever low <= 0 <= high.

    Args:
        weight: Codes, outputs first.
        low, high: Bounds of every input.
        bias: One integer a row.

    Returns:
        int64, one entry a row.
    """
    positive, negative = weight.row_sums()
    low, high = min(low, 0), max(high, 0)
    offset = np.zeros(len(positive), np.int64) if bias is None else bias.astype(np.int64)
    return Interval(positive * low - negative * high + offset, positive * high - negative * low + offset)


def compact(low: Integers, high: Integers) -> Interval:
    """The same bounds with one entry for every dimension along which they do not change."""
    for axis in range(low.ndim):
        first = (low[(slice(None),) * axis + (slice(1),)], high[(slice(None),) * axis + (slice(1),)])
        if (low == first[0]).all() and (high == first[1]).all():
            low, high = first
    return Interval(low.copy(), high.copy())


def magnitude(values: NDArray[np.integer]) -> int:
    """The largest absolute value, as a Python integer."""
    return max(-int(values.min()), int(values.max()))


def byte_zero(low: int, high: int) -> int | None:
    """The integer that stands for 0 where bytes 0 .. 255 stand for low .. high; None where they cannot."""
    zero = -min(low, 0)
    return zero if zero + high <= 255 and zero <= 255 else None


def narrowest(low: int, high: int) -> np.dtype[np.signedinteger]:
    """The narrowest of int8, int16, int32 and int64 that holds both.

    Raises:
        OverflowError: None does.
    """
    for kind in (np.int8, np.int16, np.int32, np.int64):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return np.dtype(kind)
    raise OverflowError(f"{low} .. {high} does not fit 64 bits")


def narrow(values: NDArray[np.integer]) -> NDArray[np.signedinteger]:
    """The same integers in the narrowest signed type that holds all of them."""
    return values.astype(narrowest(int(values.min(initial=0)), int(values.max(initial=0))))
