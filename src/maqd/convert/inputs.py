"""Where data enters a converted network: the grid of an input, from examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from maqd.convert.values import Numbers
from maqd.errors import DataError
from maqd.nn import IntegerInput
from maqd.numerics.border import Border, Storage
from maqd.numerics.states import Grid

STATES = 256
"""Of an input in float."""

EXPONENT = -7
"""Of an input's unit: codes of a byte lie in -1 .. 2."""


@dataclass(kw_only=True, eq=False)
class Entry:
    """Description of an input, before it is built.

    Args:
        name: Of the module.
        call: The float network's placeholder.
        zero: What becomes code 0, which the padding of the first layer is; 1 or C values in units of the data.
        like: Another input that the same weights read, whose grid it shares.
        made: The module, once it is made.
        numbers: Data = a * converted value + b, likewise.
    """

    name: str
    call: fx.Node
    zero: Tensor | None = None
    like: "Entry | None" = None
    made: IntegerInput | None = None
    numbers: Numbers | None = None


@dataclass(frozen=True, kw_only=True)
class EntryNumbers:
    """A tensor that is k * data + t."""

    entry: Entry
    k: Tensor
    t: Tensor

    def __call__(self) -> Numbers:
        if self.entry.numbers is None:
            raise RuntimeError("an input is read before it is fitted")
        found = self.entry.numbers
        return Numbers(a=self.k * found.a, b=self.k * found.b + self.t, grid=found.grid)

    def read(self) -> None:
        """A layer reads the tensor: where it is zero, padding is."""
        if self.entry.zero is None:
            self.entry.zero = -self.t / self.k


def make_entry(entry: Entry, batches: Sequence[Tensor]) -> None:
    """Makes an input: uint8 stays as it is, other integers too, floats get the range of the data with 256 states.

    Code 0 is what the first layer reads as zero, so that its padding is exact, unless that lies far outside of the
    data.

    Raises:
        DataError: The data are of a type that no input takes.
    """
    data = batches[0]
    zero = 0.0 if entry.zero is None else float(entry.zero.mean())
    one = torch.ones(1, dtype=torch.float64)
    stored = {torch.uint8: Storage.U8, torch.int8: Storage.I8, torch.int16: Storage.I16}.get(data.dtype)
    if stored is not None:
        limits = np.iinfo(stored.value)
        code_zero = int(min(max(round(zero), limits.min), limits.max))
        grid = Grid(low=int(limits.min) - code_zero, high=int(limits.max) - code_zero, exponent=EXPONENT)
        entry.made = IntegerInput(grid, stored, zero=code_zero)
        entry.numbers = Numbers(a=one / grid.unit, b=one * code_zero, grid=grid)
        return
    if data.dtype != torch.float32:
        raise DataError(f"an input of a network is float32, uint8, int8 or int16, got {data.dtype}; convert the data")
    low = min(float(batch.min()) for batch in batches)
    high = max(float(batch.max()) for batch in batches)
    if not np.isfinite([low, high]).all():
        raise DataError("the example holds infinity or not-a-number; clean the data")
    width = high - low or abs(high) or 1.0
    if not low - width <= zero <= high + width:
        zero = (low + high) / 2
    low, high = min(low, zero), max(high, zero)
    scale = (STATES - 1) / (high - low or 1.0)
    shift = int(np.clip(28 - np.ceil(np.log2(scale)), 0, 62))
    multiplier = round(scale * 2.0**shift)
    exact = multiplier * 2.0**-shift
    offset = -round(zero * exact)
    first = round(low * exact) + offset
    grid = Grid(low=first, high=first + STATES - 1, exponent=EXPONENT)
    border = Border(multiplier=np.array([multiplier]), offset=np.array([offset]), shift=shift)
    entry.made = IntegerInput(grid, Storage.F32, border=border)
    entry.numbers = Numbers(a=one / (grid.unit * exact), b=one * (-offset / exact), grid=grid)
