"""The steps of a plan: what is computed at once, on which buffers."""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.numerics.fixedpoint import FixedAffine
from maqd.numerics.packing import PackedCodes
from maqd.plan.arena import Arena


class Element(enum.Enum):
    """The integer type of a buffer."""

    U8 = 0
    I16 = 1
    I32 = 2

    @property
    def size(self) -> int:
        """Bytes."""
        return self.dtype.itemsize

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """As NumPy calls it."""
        return np.dtype((np.uint8, np.int16, np.int32)[self.value])


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """A tensor of one sample in memory; its value is the stored integer minus `zero`.

    Args:
        storage: Which storage of the plan it lies in; several buffers may be views of one.
        rows, columns, channels: Its shape; the channels are innermost.
        element: Type of the stored integers.
        zero: The stored integer of value 0; not 0 only for uint8.
        lowest, highest: No stored integer is smaller, none is larger.
    """

    storage: int
    rows: int
    columns: int
    channels: int
    element: Element
    zero: int
    lowest: int
    highest: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.rows * self.columns * self.channels


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantization:
    """Activation as a count of thresholds: stored = base + spacing * #{k: signs[c] * x >= thresholds[k, c]}.

    Args:
        thresholds: int32, (M-1) x C, ascending along the first dimension.
        signs: int8, C, each 1 or -1.
        spacing: Difference of neighbouring codes.
        base: What is stored for the lowest code.
        affine: The fixed-point map that the thresholds come from, if the graph has one.
    """

    thresholds: NDArray[np.int32]
    signs: NDArray[np.int8]
    spacing: int
    base: int
    affine: FixedAffine | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Axis:
    """One dimension of a buffer seen as outer x channels x inner."""

    outer: int
    channels: int
    inner: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Links:
    """What a step has to do with the graph and with memory.

    Args:
        nodes: Names of the graph's nodes that it computes, in their order.
        inputs: What it reads.
        outputs: What it writes.
    """

    nodes: tuple[str, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What is computed at once."""

    links: Links


@dataclass(frozen=True, kw_only=True, eq=False)
class ConvStep(Step):
    """v = (sum w x + bias) << shift [+ (addend << addend_shift)]; stores v, its activation, or both.

    The first input is x; the second, if there is one, the addend.

    Args:
        weight: O x I/groups x kernel rows x kernel columns.
        bias: int32, O, or None.
        stride, padding, dilation: Rows, columns.
        groups: Divides the channels of both sides.
        reach: No |v| is larger.
        shift, addend_shift: How far both terms are shifted left.
        raw: Where v is stored, or None.
        codes: Where its activation is stored, or None.
        quantization: The activation, if `codes` is not None.
    """

    weight: PackedCodes
    bias: NDArray[np.int32] | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    reach: int
    shift: int = 0
    addend_shift: int = 0
    raw: Buffer | None = None
    codes: Buffer | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizeStep(Step):
    """An activation on its own."""

    quantization: Quantization
    axis: Axis


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedPointStep(Step):
    """An activation of many states: value = low + spacing * clip(floor((A[c] x + B[c]) / 2**K), 0, last).

    Args:
        affine: A, B and K.
        last: M-1.
        spacing: Difference of neighbouring codes.
        low: The lowest code.
        axis: The dimension of the channels.
    """

    affine: FixedAffine
    last: int
    spacing: int
    low: int
    axis: Axis


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolStep(Step):
    """Maxima or sums over windows; rows, columns."""

    maximum: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class SumStep(Step):
    """Sums over all rows and columns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AddStep(Step):
    """Sum of shifted tensors."""

    shifts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConcatStep(Step):
    """Shifted tensors side by side: each has its own `Axis`, which agree but for the channels."""

    shifts: tuple[int, ...]
    axes: tuple[Axis, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TransposeStep(Step):
    """A matrix of `height` x `width` elements becomes width x height."""

    height: int
    width: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MoveStep(Step):
    """Elements in another order or place: nested loops, one a table, the last one innermost.

    The element that indices i, j, .. of the loops lead to is the input's at tables[0][i] + tables[1][j] + ..., counted
    as it is stored, or `fill` if any of the entries is -1.

    Args:
        tables: int32; the product of their lengths is the size of the output.
        fill: A code.
    """

    tables: tuple[NDArray[np.int32], ...]
    fill: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiplyStep(Step):
    """Product of two tensors: the second of the first one's shape, or one code a channel."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps that run for the same number of images at a time: few where tensors are large, so that they stay in the
    cache, many where weights are.

    Args:
        end: How many steps there are up to the end of it.
        large: Whether one of its steps moves more bytes of a sample than the last stage's may.
        arena: Places of its storages, for one sample; 0 for those of other stages.
    """

    end: int
    large: bool
    arena: Arena


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The steps of an engine.

    Args:
        inputs: Codes of each input of the graph.
        outputs: Codes of each output of the graph.
        steps: In order.
        stages: Their stages, in order; one at least.
        stage_of: For each storage, the last stage that uses it: there it has its place.
        tensors: The buffer of every tensor of the graph that is stored, and its shape in the graph.
    """

    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    stages: tuple[Stage, ...]
    stage_of: tuple[int, ...]
    tensors: dict[str, tuple[Buffer, tuple[int, ...]]]

    def offset(self, buffer: Buffer) -> int:
        """Where a buffer begins in its arena."""
        return self.stages[self.stage_of[buffer.storage]].arena.offsets[buffer.storage]
