"""Convolutions without groups: the one linear map that every importer of NIR takes in the same way."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Geometry

Integers = NDArray[np.int64]
Layout = tuple[int, int, int]
"""Channels, rows and columns of a tensor in NIR; vectors have one row and one column, sequences one row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """A convolution of C x H x W by integers; padding is 0.

    Args:
        weight: int64, O x C x kernel rows x kernel columns.
        bias: int64, O.
        stride, padding, dilation: Rows and columns.
    """

    weight: Integers
    bias: Integers
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def pointwise(self) -> bool:
        """Whether each position is mapped by itself."""
        return self.weight.shape[2:] == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    def output(self, layout: Layout) -> Layout:
        """Layout of the result."""
        rows, columns = (
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(
                layout[1:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )
        return self.weight.shape[0], rows, columns

    def scaled(self, factors: Integers | int) -> "Dense":
        """The map times a number, or one an output channel."""
        column = np.broadcast_to(np.asarray(factors, np.int64), self.bias.shape)
        return replace(self, weight=self.weight * column[:, None, None, None], bias=self.bias * column)

    def after(self, first: "Dense") -> "Dense | None":
        """This map after another one as a single convolution; None if there is none of that kind."""
        if first.pointwise and not (first.bias.any() and any(self.padding)):
            weight = np.einsum("oikl,ij->ojkl", self.weight, first.weight[:, :, 0, 0])
            return replace(self, weight=weight, bias=self.bias + self.weight.sum((2, 3)) @ first.bias)
        if self.pointwise:
            matrix = self.weight[:, :, 0, 0]
            weight = np.einsum("oi,ijkl->ojkl", matrix, first.weight)
            return replace(first, weight=weight, bias=self.bias + matrix @ first.bias)
        return None

    def squared(self, layout: Layout) -> "Dense | None":
        """The same map with as many rows as columns in its kernel, which NIR's check of shapes assumes.

        Args:
            layout: Of the input.

        Returns:
            None if there is none: an odd and an even side with several windows along the shorter one.
        """
        sides, windows = self.weight.shape[2:], self.output(layout)[1:]
        ends, stride, padding = [(0, 0), (0, 0)], list(self.stride), list(self.padding)
        for axis, (side, count) in enumerate(zip(sides, windows, strict=True)):
            behind, odd = divmod(max(sides) - side, 2)
            ends.append((behind + odd, behind))
            padding[axis] += (behind + odd) * self.dilation[axis]
            if odd and count > 1:
                return None
            if odd:  # the padding leaves room for more than the only window
                stride[axis] = layout[1 + axis] + 2 * padding[axis]
        return replace(
            self, weight=np.pad(self.weight, ends), stride=(stride[0], stride[1]), padding=(padding[0], padding[1])
        )

    def reach(self, largest: int) -> Integers:
        """No sum of some of an output's terms is larger, for inputs up to `largest`; one an output channel."""
        return np.abs(self.weight).sum((1, 2, 3)) * largest + np.abs(self.bias)


def identity(channels: int) -> Dense:
    """Every tensor as it is."""
    return pointwise(np.eye(channels, dtype=np.int64))


def pointwise(matrix: Integers, bias: Integers | None = None) -> Dense:
    """A matrix, outputs x inputs, at each position."""
    return Dense(weight=matrix[:, :, None, None], bias=np.zeros(len(matrix), np.int64) if bias is None else bias)


def whole(weight: Integers, bias: Integers | None) -> Dense:
    """A window over all positions: O x C x H x W."""
    return Dense(weight=weight, bias=np.zeros(len(weight), np.int64) if bias is None else bias)


def windows(channels: int, geometry: Geometry) -> Dense:
    """Sums over windows, channel by channel; of one or two dimensions."""
    kernel = np.ones(geometry.kernel, np.int64)
    return convolution(np.multiply.outer(np.eye(channels, dtype=np.int64), kernel), None, geometry)


def convolution(weight: Integers, bias: Integers | None, geometry: Geometry, groups: int = 1) -> Dense:
    """A convolution of one or two dimensions; groups become zeros.

    NIR pads both ends alike, so a kernel whose paddings differ is filled with zeros up to the larger one.

    Args:
        weight: O x C/groups x kernel.
        bias: O, or None.
        geometry: Stride, padding and dilation.
        groups: Divides O and C.
    """
    outputs, fan_in = weight.shape[:2]
    if len(geometry.kernel) == 1:
        weight = weight[:, :, None]
        geometry = Geometry(
            kernel=(1, *geometry.kernel),
            stride=(1, *geometry.stride),
            padding=(0, *geometry.padding),
            trailing=(0, *geometry.trailing),
            dilation=(1, *geometry.dilation),
        )
    full = np.zeros((outputs, fan_in * groups, *geometry.kernel), np.int64)
    each = outputs // groups
    for group in range(groups):
        full[group * each : (group + 1) * each, group * fan_in : (group + 1) * fan_in] = weight[
            group * each : (group + 1) * each
        ]
    dilation = geometry.dilation
    if geometry.padding != geometry.trailing:
        full, dilation = _spread(full, dilation), (1, 1)
        ends = [(max(p, t) - p, max(p, t) - t) for p, t in zip(geometry.padding, geometry.trailing, strict=True)]
        full = np.pad(full, [(0, 0), (0, 0), *ends])
    padding = tuple(max(p, t) for p, t in zip(geometry.padding, geometry.trailing, strict=True))
    return Dense(
        weight=full,
        bias=np.zeros(outputs, np.int64) if bias is None else bias.astype(np.int64),
        stride=(geometry.stride[0], geometry.stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]),
    )


def _spread(weight: Integers, dilation: tuple[int, ...]) -> Integers:
    """The kernel with zeros between its positions, for a dilation of 1."""
    rows, columns = (d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True))
    spread = np.zeros((*weight.shape[:2], rows, columns), np.int64)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    return spread
