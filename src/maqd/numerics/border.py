"""Where data becomes codes: how arrays are stored outside, and how floats are quantized."""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        multiplier: Integers below 2**29 in magnitude, one a channel or one for all.
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
        low, high: Smallest and largest value of each channel, or of all (one element); they may be equal.
        grid: Lowest and highest code; their magnitudes set the scale.
    """
    low64, high64 = low.astype(np.float64), high.astype(np.float64)
    middle, half = (low64 + high64) / 2, np.maximum((high64 - low64) / 2, 1e-30)
    scale = (min(-grid.low, grid.high) if grid.low < 0 else grid.high / 2) / half
    # One shift for all channels: the largest that keeps every multiplier and offset below 2**29.
    reach = max(float(scale.max()), float(np.abs(middle * scale).max()), 2.0**-33)
    shift = int(np.clip(28 - np.ceil(np.log2(float(scale.max()))), 0, 62)) if reach < 2**28 else 0
    multiplier = np.clip(np.rint(scale * 2.0**shift), 1, 2**29 - 1).astype(np.int64)
    zero = 0 if grid.low < 0 else (grid.low + grid.high + 1) // 2
    offset = np.clip(np.rint(-middle * multiplier * 2.0**-shift) + zero, -(2**29) + 1, 2**29 - 1).astype(np.int64)
    return Border(multiplier=multiplier, offset=offset, shift=shift)
