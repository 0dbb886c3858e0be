"""What the functions of a program compute: the steps of a plan, and the kernels that were chosen for convolutions."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.plan import (
    ConvStep,
    Quantization,
    Step,
)

WORD = 4
"""Bytes: the alignment of everything."""

LANES = {8: 255, 16: 32767}
"""Largest magnitude of the sum in a lane, by its bits; lanes of 16 bits hold signed sums."""

REGISTERS = 8
"""Registers of lanes in a pass."""


TRITS = np.array([sum(n // 3**k % 3 << 2 * k for k in range(5)) for n in range(3**5)], np.uint16)
"""The five fields of each byte of five weights in base 3."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """How a tensor of one sample is stored.

    Args:
        rows, columns, channels: Its shape; the channels are innermost.
        bits: 1, 2 or 4: fields of words; 8, 16 or 32: an integer each.
        zero: The stored integer of value 0.
        offset: Where in the arena, in bytes; None for the caller's arrays.
        caller: Name of the caller's array that it is.
        kept: Rows that are there at once, if not all: row r lies at r modulo this number.
    """

    rows: int
    columns: int
    channels: int
    bits: int
    zero: int
    offset: int | None
    caller: str = ""
    kept: int | None = None

    @property
    def held(self) -> int:
        """Rows that are there at once."""
        return self.rows if self.kept is None else self.kept

    def at(self, row: str) -> str:
        """Which of the rows that are there a row is; both as C."""
        return row if self.held >= self.rows else f"({row}) % {self.held}" if self.held > 1 else "0"

    @property
    def packed(self) -> bool:
        """Whether it is stored in fields."""
        return self.bits < 8

    @property
    def pixel_bytes(self) -> int:
        """Bytes from pixel to pixel."""
        return -(-self.channels * self.bits // 32) * 4 if self.packed else self.channels * self.bits // 8

    @property
    def pixels(self) -> int:
        """Rows x columns."""
        return self.rows * self.columns

    @property
    def size(self) -> int:
        """Bytes."""
        return self.held * self.columns * self.pixel_bytes


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """How rows of weights are stored and computed with (`maqd_rows`).

    Args:
        bits: Of a field.
        lane: Bits of a lane.
        ones: Whether all values are 0 or 1.
        trits: Whether five weights of three states share a byte.
        padded: Whether rows that are a byte short of whole words have it.
        capacity: Sum of |values| that a lane can take.
        largest: No |value| is larger.
    """

    bits: int
    lane: int
    ones: bool
    trits: bool
    padded: bool
    capacity: int
    largest: int

    @property
    def outputs(self) -> int:
        """Outputs of a full pass."""
        return REGISTERS * 32 // self.lane


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """Some outputs of a convolution that are computed together.

    Args:
        outputs: How many.
        data: Rows of weights as fields, count x columns x rows of a column x bytes; a pass for each of count.
    """

    outputs: int
    data: NDArray[np.uint8]

    @property
    def bytes(self) -> int:
        """Of a row."""
        return self.data.shape[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class EventConv:
    """A convolution by events.

    Args:
        step: What it computes.
        whole: Whether the kernel is the whole map: then its columns are taken one after the other.
        rows: Format of the weights.
        passes: All outputs; one or two shapes.
        flips: int8, outputs: 1, or -1 where the weights' signs are turned.
        thresholds: int64, outputs x levels, on the sums as they are computed, or None.
        bias: int32, what is added to the sums, or None.
        signs: int8, outputs, what sums are multiplied by before they are compared, or None.
        list_bytes: Of the events of one column of the kernel.
    """

    step: ConvStep
    whole: bool
    rows: RowFormat
    passes: tuple[Pass, ...]
    flips: NDArray[np.int8]
    thresholds: NDArray[np.int64] | None
    bias: NDArray[np.int32] | None
    signs: NDArray[np.int8] | None
    list_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Of the tables of weights."""
        return sum(part.data.size for part in self.passes)

    @property
    def unit(self) -> int:
        """Bytes that events count rows of weights in: those of the widest pass if the others divide them, or 1."""
        widest = max(part.bytes for part in self.passes)
        rows = self.passes[0].data.shape[2]
        fits = rows * widest <= 2**16 and all(widest % part.bytes == 0 for part in self.passes)
        return widest if fits else 1

    @property
    def lists(self) -> int:
        """How many columns are listed at once."""
        return 1 if self.whole else (self.step.weight.shape[3] - 1) * self.step.dilation[1] + 1

    @property
    def direct(self) -> bool:
        """Whether passes store their sums themselves: those that are the layer's result."""
        return self.step.codes is None and len(self.step.links.inputs) == 1 and not self.whole

    @property
    def held(self) -> int:
        """Sums that are there at once."""
        return 0 if self.direct else self.step.weight.shape[0]

    @property
    def scratch(self) -> int:
        """Bytes: the sums of a pixel, then the lists."""
        return self.held * 4 + self.lists * self.list_bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Unturned:
    """What layers share whose weights stay as the graph has them; arguments as of `EventConv`."""

    step: ConvStep
    thresholds: NDArray[np.int64] | None
    signs: NDArray[np.int8] | None

    @property
    def bias(self) -> NDArray[np.int32] | None:
        """What is added to the sums."""
        return self.step.bias

    @property
    def flips(self) -> NDArray[np.int8]:
        """No weights are turned."""
        return np.ones(self.step.weight.shape[0], np.int8)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainConv(Unturned):
    """A convolution with the kernels of csrc/c99/kernels.h, a byte or two a weight."""

    @property
    def weight_bytes(self) -> int:
        """Of the table of weights."""
        return self.step.weight.unpack().nbytes

    @property
    def scratch(self) -> int:
        """Bytes: the sums of a row."""
        out = self.step.links.outputs[0]
        return out.columns * out.channels * 4


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaneConv:
    """A depthwise convolution on bit planes, of fields to fields.

    Args:
        step: What it computes.
        weights: int64, channels x rows x columns, signs turned as for `thresholds`.
        thresholds: int64, channels x levels, on the sums of `weights`.
    """

    step: ConvStep
    weights: NDArray[np.int64]
    thresholds: NDArray[np.int64]

    @property
    def ring(self) -> int:
        """Rows of planes that are there at once."""
        return (self.step.weight.shape[2] - 1) * self.step.dilation[0] + 1

    @property
    def width(self) -> int:
        """Columns of a row of planes: those that windows look at."""
        out, step = self.step.links.outputs[0], self.step
        return (out.columns - 1) * step.stride[1] + (step.weight.shape[3] - 1) * step.dilation[1] + 1

    def follows(self, x: Codes, y: Codes) -> bool:
        """Whether rows of the output, written where the input lies, only reach rows that are in the ring already."""
        stride, padding = self.step.stride[0], self.step.padding[0]
        return all(
            (row + 1) * y.columns * y.pixel_bytes
            <= min(max(row * stride - padding + self.ring, 0), x.rows) * x.columns * x.pixel_bytes
            for row in range(y.rows)
        )

    @property
    def planes(self) -> int:
        """Of activation codes."""
        return self.step.links.inputs[0].highest.bit_length()

    @property
    def weight_bytes(self) -> int:
        """About: of the table of weights."""
        channels, high, wide = self.weights.shape
        return -(-channels // 32) * 4 * high * wide * (1 + int(self.step.weight.states.high).bit_length())

    @property
    def scratch(self) -> int:
        """Bytes: the ring."""
        return -(-len(self.weights) // 32) * self.ring * self.width * self.planes * 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixels(ABC):
    """A convolution of the image, two outputs in a word.

    Args:
        step: What it computes.
    """

    step: ConvStep

    @property
    @abstractmethod
    def weights(self) -> NDArray[np.int64]:
        """Outputs x window rows x (window columns x channels)."""

    @property
    @abstractmethod
    def scratch(self) -> int:
        """Bytes of memory of its own."""

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return self.step.weight.shape[0]

    @property
    def starts(self) -> NDArray[np.int64]:
        """What sums begin with, so that none is ever negative."""
        return 255 * np.maximum(-self.weights, 0).sum((1, 2))

    @property
    def highest(self) -> int:
        """No sum is larger then."""
        return 255 * int(np.abs(self.weights).sum((1, 2)).max())

    @property
    def ring(self) -> int:
        """Rows of the image that are there at once."""
        return (self.step.weight.shape[2] - 1) * self.step.dilation[0] + 1

    @property
    def width(self) -> int:
        """Pixels of such a row: those that windows look at."""
        return (self.step.links.outputs[0].columns - 1) * self.step.stride[1] + self.step.weight.shape[3]

    @property
    def kept(self) -> int:
        """Bytes of those rows."""
        return -(-self.ring * self.width * self.step.links.inputs[0].channels // WORD) * WORD

    @property
    def weight_bytes(self) -> int:
        """About: of the table of weights."""
        return self.weights.size * 2


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelConv(Pixels):
    """One whose result is fields, compared while sums are pairs.

    Args:
        turned: int64, its weights, signs turned as for `thresholds`.
        thresholds: int64, outputs x levels, on sums of weights and pixels as they are stored.
    """

    turned: NDArray[np.int64]
    thresholds: NDArray[np.int64]

    @property
    def weights(self) -> NDArray[np.int64]:
        """As they are multiplied."""
        return self.turned

    @property
    def paired(self) -> bool:
        """Whether two sums can be compared at once: with few thresholds, below 2^15."""
        return self.highest < 2**15 and self.thresholds.shape[1] <= 3

    def passes(self, bits: int) -> list[tuple[int, list[tuple[int, int]]]]:
        """For fields of that many bits: the word of each pass, and the pairs of outputs of its words of sums.

        An output that there is not is -1.
        """
        each, found = 32 // bits, []
        for word in range(-(-self.outputs // each)):
            first, count = word * each, min(each, self.outputs - word * each)
            half = -(-count // 2)
            pairs = [(first + k, first + half + k if half + k < count else -1) for k in range(half)]
            found += [(word, pairs[start : start + 4]) for start in range(0, half, 4)]
        widest = max(len(pairs) for _, pairs in found)
        return [(word, pairs + [(-1, -1)] * (widest - len(pairs))) for word, pairs in found]

    @property
    def scratch(self) -> int:
        """Bytes: the ring."""
        return self.kept


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelSums(Unturned, Pixels):
    """One whose sums are stored, or compared one by one."""

    @property
    def weights(self) -> NDArray[np.int64]:
        """As they are multiplied."""
        return in_rows(self.step)

    @property
    def added(self) -> NDArray[np.int64]:
        """What has to be added to sums as they are computed."""
        bias = np.zeros(self.outputs, np.int64) if self.step.bias is None else self.step.bias.astype(np.int64)
        return bias - self.starts - self.step.links.inputs[0].zero * self.weights.sum((1, 2))

    @property
    def passes(self) -> int:
        """Of eight outputs each."""
        return -(-self.outputs // 8)

    @property
    def scratch(self) -> int:
        """Bytes: the ring, then the sums of a pixel."""
        return self.kept + self.passes * 8 * 4


def in_rows(step: ConvStep) -> NDArray[np.int64]:
    """Weights as outputs x window rows x (window columns x channels)."""
    weights = step.weight.unpack().astype(np.int64).transpose(0, 2, 3, 1)
    return weights.reshape(*weights.shape[:2], -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldConv(Unturned):
    """A dense layer of few states on the whole image, eight weights in a word."""

    @property
    def passes(self) -> int:
        """Of eight outputs each."""
        return -(-self.step.weight.shape[0] // 8)

    @property
    def weight_bytes(self) -> int:
        """Of the table of weights."""
        return self.passes * 4 * int(np.prod(self.step.weight.shape[1:]))

    @property
    def scratch(self) -> int:
        """Bytes: the sums."""
        return self.passes * 8 * 4


Weighted = EventConv | PlainConv | PlaneConv | Pixels | FieldConv
"""Convolutions."""

Operation = Weighted | Step
"""What a function of the program computes."""


def step_of(operation: Operation) -> Step:
    """The step that an operation computes."""
    return operation.step if isinstance(operation, Weighted) else operation


def channel_thresholds(quantization: Quantization | None) -> NDArray[np.int64] | None:
    """Channels x levels, or None where there are none or a fixed-point map replaces them."""
    if quantization is None or quantization.affine is not None:
        return None
    return np.ascontiguousarray(quantization.thresholds.T, np.int64)


def turned_signs(quantization: Quantization | None) -> NDArray[np.int8] | None:
    """What sums are multiplied by before they are compared; None if that changes nothing."""
    return None if quantization is None or (quantization.signs > 0).all() else quantization.signs
