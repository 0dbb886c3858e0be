"""Where a graph begins and ends."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from maqd.graph.nodes.base import Codes, Node, Stored
from maqd.graph.types import TensorType
from maqd.numerics.border import Border, Storage
from maqd.numerics.bounds import Interval
from maqd.numerics.limits import EXACT_LIMIT, MAX_MULTIPLIER, MAX_RANK
from maqd.numerics.states import PIXELS, Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Input(Node):
    """Samples from outside: code = stored - zero, or floats quantized by `border`.

    Args:
        key: Its name for callers; the node's name by default.
        shape: Of one sample, channels first.
        grid: Lowest and highest code, and the unit.
        storage: Type of the array.
        zero: The stored integer of code 0; not used with float32.
        border: How floats become codes; None unless the storage is float32.
    """

    key: str = ""
    shape: tuple[int, ...]
    grid: Grid = PIXELS
    storage: Storage = Storage.U8
    zero: int = -PIXELS.low
    border: Border | None = None

    operation = "input"
    arity = (0, 0)
    stored: ClassVar[dict[str, Stored]] = {
        "key": Stored.TEXT,
        "shape": Stored.INTEGERS,
        "grid": Stored.GRID,
        "storage": Stored.STORAGE,
        "zero": Stored.INTEGER,
        "border": Stored.BORDER,
    }

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.name)

    # Looked at in every call of an engine, where a microsecond is a share of what a small network takes.

    @cached_property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the array that callers hand in."""
        return self.storage.dtype

    @cached_property
    def last(self) -> tuple[int, ...]:
        """The shape of a sample whose channels are last."""
        return (*self.shape[1:], self.shape[0])

    @cached_property
    def limits(self) -> tuple[int, int] | None:
        """The least and the largest stored integer; None where the storage type holds no others, and for floats."""
        if self.storage is Storage.F32:
            return None
        held = np.iinfo(self.storage.value)
        stored = (self.grid.low + self.zero, self.grid.high + self.zero)
        return None if stored == (held.min, held.max) else stored

    def infer(self, *inputs: TensorType) -> TensorType:
        self.require(
            1 <= len(self.shape) <= MAX_RANK and min(self.shape) >= 1,
            f"needs 1 to {MAX_RANK} positive sizes, got {self.shape[: MAX_RANK + 1]}",
        )
        if self.storage is Storage.F32:
            self._check_border()
        else:
            self.require(self.border is None, f"has a border for floats, and its storage is {self.storage.value}")
            limits = np.iinfo(self.storage.value)
            self.require(
                limits.min <= self.grid.low + self.zero and self.grid.high + self.zero <= limits.max,
                f"its codes {self.grid.low} .. {self.grid.high} plus {self.zero} do not fit {self.storage.value}",
            )
        return TensorType(
            shape=self.shape,
            exponent=self.grid.exponent,
            interval=Interval.of(self.grid.low, self.grid.high, len(self.shape)),
        )

    def compute(self, *inputs: Codes) -> Codes:
        """The codes themselves, as `maqd.runtime.inputs.prepare` makes them."""
        return inputs[0]

    def _check_border(self) -> None:
        border = self.border
        if border is None:
            self.require(False, "takes floats and has no border that quantizes them")
            return
        self.require(0 <= border.axis < len(self.shape), f"axis {border.axis} is none of the dimensions {self.shape}")
        channels = self.shape[border.axis]
        for what, values in (("multipliers", border.multiplier), ("offsets", border.offset)):
            self.require(
                values.shape in ((1,), (channels,))
                and np.issubdtype(values.dtype, np.signedinteger)
                and bool(((values > -MAX_MULTIPLIER) & (values < MAX_MULTIPLIER)).all()),
                f"needs 1 or {channels} signed integer {what} below 2^29, got {values.dtype} of shape {values.shape}",
            )
        # Infinity times 0 is not a number.
        self.require(bool(border.multiplier.all()), "needs multipliers other than 0: it cannot quantize infinities")
        self.require(0 <= border.shift <= 62, f"shift must be in 0 .. 62, got {border.shift}")

    def describe(self) -> str:
        return "" if self.storage is Storage.U8 and self.grid == PIXELS else self.storage.value


@dataclass(frozen=True, kw_only=True, eq=False)
class Output(Node):
    """A result, unchanged: value = code * 2**exponent / divisor.

    Args:
        key: Its name for callers; the node's name by default.
        divisor: 1 .. 2**24: the number of positions of an average.
    """

    key: str = ""
    divisor: int = 1

    operation = "output"
    stored: ClassVar[dict[str, Stored]] = {"key": Stored.TEXT, "divisor": Stored.INTEGER}

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.name)

    def infer(self, *inputs: TensorType) -> TensorType:
        self.require(1 <= self.divisor <= EXACT_LIMIT, f"divisor must be in 1 .. 2^24, got {self.divisor}")
        return inputs[0]

    def compute(self, *inputs: Codes) -> Codes:
        return inputs[0]

    def describe(self) -> str:
        return f"divided by {self.divisor}" if self.divisor > 1 else ""
