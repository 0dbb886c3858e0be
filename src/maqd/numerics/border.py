"""Where data becomes codes: how arrays are stored outside, and how floats are quantized."""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ConfigError
from maqd.numerics.limits import MAX_MULTIPLIER
from maqd.numerics.states import Grid


class Storage(enum.Enum):
    """The type of an input's array."""

    U8 = "uint8"
    I8 = "int8"
    I16 = "int16"
    U16 = "uint16"
    F32 = "float32"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """As NumPy calls it."""
        return np.dtype(self.value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Border:
    """How a float becomes a code: clip(floor(x * multiplier * 2**-shift + 1/2) + offset), in float64.

    float32 has 24 significant bits and a multiplier 29, so that the product is exact; the offset is added after
    rounding, to an integer. Infinity is clipped. Not-a-number is an error in Python and the lowest code in ONNX and C.

    Args:
        multiplier: Integers other than 0, below 2**29 in magnitude, one a channel or one for all.
        offset: Integers below 2**29 in magnitude, one a channel or one for all.
        shift: 0 .. 62.
        axis: The dimension of the channels in one sample.
    """

    multiplier: NDArray[np.signedinteger]
    offset: NDArray[np.signedinteger]
    shift: int
    axis: int = 0

    def factors(self, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Multiplier * 2**-shift and the offset, of a shape that can be broadcast to samples of that rank."""
        column = (-1, *[1] * (rank - 1 - self.axis))
        scale = self.multiplier.astype(np.float64) * 2.0**-self.shift
        return scale.reshape(column), self.offset.astype(np.float64).reshape(column)

    def codes(self, x: NDArray[np.float32], grid: Grid) -> NDArray[np.int64]:
        """The codes of N samples.

        Args:
            x: float32, N x the input's shape, no not-a-number.
            grid: Lowest and highest code.
        """
        scale, offset = self.factors(x.ndim - 1)
        rounded = np.floor(x.astype(np.float64) * scale + 0.5)
        return np.clip(rounded + offset, grid.low, grid.high).astype(np.int64)


def fit_border(low: NDArray[np.floating], high: NDArray[np.floating], grid: Grid) -> Border:
    """The border that spreads each channel's range over a grid: the middle of the range becomes code 0.

    Args:
        low, high: Smallest and largest value of each channel, or of all (one element). A channel that does not vary
            gets the scale of the widest one.
        grid: Lowest and highest code; their magnitudes set the scale.

    Raises:
        ConfigError: No integers below 2**29 express the ranges: they are too far from 0 or from each other.
    """
    low64, high64 = low.astype(np.float64), high.astype(np.float64)
    middle, half = (low64 + high64) / 2, (high64 - low64) / 2
    half = np.where(half > 0, half, half.max() or 1.0)
    scale = (min(-grid.low, grid.high) if grid.low < 0 else grid.high / 2) / half
    # One shift for all channels: the largest that keeps every multiplier below 2**29.
    shift = int(np.clip(28 - np.ceil(np.log2(scale.max())), 0, 62))
    multiplier = np.rint(scale * 2.0**shift)
    zero = 0 if grid.low < 0 else (grid.low + grid.high + 1) // 2
    offset = np.rint(-middle * multiplier * 2.0**-shift) + zero
    if multiplier.min() < 2**8 or max(multiplier.max(), np.abs(offset).max()) >= MAX_MULTIPLIER:
        raise ConfigError(
            f"ranges from {low64.min():g} to {high64.max():g}, {2 * half.min():g} to {2 * half.max():g} wide, cannot "
            "be quantized together; subtract a constant from the data, or scale the channels"
        )
    return Border(multiplier=multiplier.astype(np.int64), offset=offset.astype(np.int64), shift=shift)
