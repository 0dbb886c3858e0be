"""Normalization and activation with many states: multipliers of one shared scale, and floor.

Up to 256 states an activation is the count of exact thresholds, and integers are found for it afterwards
(`maqd.numerics.fixedpoint`). With 65,536 states there would be as many thresholds for each channel, and integers that
equal all of them need not fit 64 bits. So the scale is rounded first, to 21 bits, and what it gives is the definition:

    index = clip(floor(multiplier[c] * 2**-shift * x + offset[c] * 2**-16), 0, M-1)

("Optimal Quantization for Batch Normalization in Neural Network Deployments and Beyond", arXiv 2008.13128, with the
roles of rounding and equality exchanged.) A product of 21 bits and the 32 of an accumulator is exact in float64, and so
is its split into a whole number and a fraction: PyTorch, NumPy and integers agree on every device.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.numerics.fixedpoint import FixedAffine, require_finite
from maqd.numerics.states import States

SCALE_BITS = 21
"""Bits of the largest multiplier: with the 32 bits of an accumulator they are those of float64."""

OFFSET_BITS = 16
"""Bits of an offset behind the point."""

MOST_OFFSET = 2**46
"""No offset is further from 0, in states."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedScale:
    """index = clip(floor(multiplier[c] * 2**-shift * x + offset[c] * 2**-16), 0, M-1).

    Args:
        multiplier: int64, C, at most 2**21 in magnitude.
        shift: One for the layer, positive or negative.
        offset: int64, C, in units of 2**-16 states.
        last: M-1.
    """

    multiplier: NDArray[np.int64]
    shift: int
    offset: NDArray[np.int64]
    last: int

    @property
    def slope(self) -> NDArray[np.float64]:
        """Multiplier * 2**-shift, C: what x is multiplied by."""
        return np.ldexp(self.multiplier.astype(np.float64), -self.shift)

    def parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Slope, whole part of the offset, and the fraction of a product from which on the offset adds one; each C."""
        whole, fraction = np.divmod(self.offset, 2**OFFSET_BITS)
        return self.slope, whole.astype(np.float64), 1 - np.ldexp(fraction.astype(np.float64), -OFFSET_BITS)

    def index(self, x: NDArray[np.float64], channel: int) -> NDArray[np.int64]:
        """The index of the state for values of a channel with at most 32 significant bits."""
        slope, whole, rest = (part[channel] for part in self.parts())
        product = x * slope
        floor = np.floor(product)
        return np.clip(floor + whole + (product - floor >= rest), 0, self.last).astype(np.int64)

    def on_integers(self, exponent: int, magnitude: int) -> FixedAffine | None:
        """The same function of integers n, where x = n * 2**exponent.

        Args:
            exponent: Of the unit of x.
            magnitude: No |n| is larger.

        Returns:
            The map with the smallest shift. None if the scale is so small that 62 bits of shift, or 64 bits of the sum,
            do not hold it: then all accumulators together reach only a few of the states.
        """
        down = self.shift - exponent
        shift = max(down, OFFSET_BITS)
        multiplier = [int(value) << (shift - down) for value in self.multiplier]
        # Beyond what products reach, an offset changes nothing: it is clipped, to keep the sum short.
        offset = []
        for a, b in zip(multiplier, self.offset.tolist(), strict=True):
            reach = (abs(a) * magnitude >> shift) + self.last + 2
            limit = reach << OFFSET_BITS
            offset.append(min(max(b, -limit), limit) << (shift - OFFSET_BITS))
        while shift and not any(value & 1 for value in (*multiplier, *offset)):
            shift, multiplier, offset = shift - 1, [a >> 1 for a in multiplier], [b >> 1 for b in offset]
        largest = max(abs(a) * magnitude + abs(b) for a, b in zip(multiplier, offset, strict=True))
        if shift > 62 or largest >= 2**62:
            return None
        return FixedAffine(multiplier=np.array(multiplier, np.int64), offset=np.array(offset, np.int64), shift=shift)


def shared_scale(
    gain: NDArray[np.float64], mean: NDArray[np.float64], bias: NDArray[np.float64], states: States, step: float
) -> SharedScale:
    """The map of an activation of many states on y = gain * (x - mean) + bias.

    Args:
        gain, mean, bias: C.
        states: Of the activation.
        step: Distance of neighbouring states, a power of two.

    Returns:
        index = floor(y / step + origin + 1/2), with gain / step rounded to 21 bits of the largest one, and the offset
        to 2**-16 of a state. Around the mean nothing is lost; the error grows to 2**-22 of the distance from it.

    Raises:
        NonFiniteError: A parameter is not finite.
    """
    require_finite(gain, mean, bias)
    slope = gain / step
    largest = float(np.abs(slope).max())
    shift = SCALE_BITS - int(np.frexp(largest)[1]) if largest > 0 else 0
    multiplier = np.rint(np.ldexp(slope, shift))
    offset = bias / step - np.ldexp(multiplier, -shift) * mean + states.shift
    offset = np.rint(np.ldexp(np.clip(offset, -MOST_OFFSET, MOST_OFFSET), OFFSET_BITS))
    return SharedScale(
        multiplier=multiplier.astype(np.int64), shift=shift, offset=offset.astype(np.int64), last=states.count - 1
    )
