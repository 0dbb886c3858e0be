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
        zero: What becomes code 0, which the padding of the first layer is; 1 or C values in units of the data, of
            which integers take the mean.
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

    def read(self, channel_dim: int) -> None:
        """A layer reads the tensor: where it is zero, padding is."""
        if self.entry.zero is None:
            zero = -self.t / self.k
            self.entry.zero = zero if channel_dim == 1 else zero.mean().reshape(1)


def make_entry(entry: Entry, batches: Sequence[Tensor]) -> None:
    """Makes an input: uint8 stays as it is, other integers too, floats get the range of the data with 256 states.

    Code 0 is what the first layer reads as zero, so that its padding is exact, unless that lies far outside of the
    data.

    Raises:
        DataError: The data are of a type that no input takes.
    """
    data = batches[0]
    zeros = torch.zeros(1, dtype=torch.float64) if entry.zero is None else entry.zero.double()
    one = torch.ones(1, dtype=torch.float64)
    stored = {torch.uint8: Storage.U8, torch.int8: Storage.I8, torch.int16: Storage.I16}.get(data.dtype)
    if stored is not None:
        limits = np.iinfo(stored.value)
        code_zero = int(min(max(round(float(zeros.mean())), limits.min), limits.max))
        grid = Grid(low=int(limits.min) - code_zero, high=int(limits.max) - code_zero, exponent=EXPONENT)
        entry.made = IntegerInput(grid, stored, zero=code_zero)
        entry.numbers = Numbers(a=one / grid.unit, b=one * code_zero, grid=grid)
        return
    if data.dtype != torch.float32:
        raise DataError(f"an input of a network is float32, uint8, int8 or int16, got {data.dtype}; convert the data")
    low, high = (torch.stack([side(batch, zeros.numel()) for batch in batches]) for side in (lowest, highest))
    low, high = low.amin(0), high.amax(0)
    if not bool(torch.cat((low, high)).isfinite().all()):
        raise DataError("the example holds infinity or not-a-number; clean the data")
    width = float((high - low).max()) or float(high.abs().max()) or 1.0
    zeros = torch.where((low - width <= zeros) & (zeros <= high + width), zeros, (low + high) / 2)
    low, high = (torch.minimum(low, zeros) - zeros).min(), (torch.maximum(high, zeros) - zeros).max()
    scale = (STATES - 1) / (float(high - low) or 1.0)
    shift = int(np.clip(28 - np.ceil(np.log2(scale)), 0, 62))
    multiplier = round(scale * 2.0**shift)
    exact = multiplier * 2.0**-shift
    offset = -(zeros * exact).round().long()
    first = round(float(low) * exact)
    grid = Grid(low=first, high=first + STATES - 1, exponent=EXPONENT)
    border = Border(multiplier=np.full(len(offset), multiplier), offset=offset.numpy(), shift=shift)
    entry.made = IntegerInput(grid, Storage.F32, border=border)
    entry.numbers = Numbers(a=one / (grid.unit * exact), b=-offset.double() / exact, grid=grid)


def lowest(batch: Tensor, channels: int) -> Tensor:
    """The least value of each channel, or of all, float64."""
    return -highest(-batch, channels)


def highest(batch: Tensor, channels: int) -> Tensor:
    """The largest value of each channel, or of all, float64."""
    if channels == 1:
        return batch.max().reshape(1).double()
    return batch.movedim(1, 0).flatten(1).amax(1).double()
