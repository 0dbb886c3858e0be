"""Where data enters a network: integers from the first layer on."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maqd.errors import ConfigError, DataError
from maqd.numerics.border import Border, Storage, fit_border
from maqd.numerics.states import PIXELS, Grid

_DTYPES = {
    Storage.U8: torch.uint8,
    Storage.I8: torch.int8,
    Storage.I16: torch.int16,
    Storage.U16: torch.uint16,
    Storage.F32: torch.float32,
}


class IntegerInput(nn.Module):
    """Takes data into the network as integers: code * 2**exponent.

    Without arguments it takes uint8 images: code = pixel - 128, times 2**-6; padding of the first convolution is code
    0, the middle grey. Integers give code = stored - zero. Floats are quantized by one exact rule (`Border`), whose
    range `fit` takes from data.

    Args:
        grid: Lowest and highest code, and the unit.
        storage: Type of the data.
        zero: The stored integer of code 0.
        border: How floats become codes; only with float32, where `fit` can set it later.

    Raises:
        ConfigError: Codes plus zero do not fit the storage, or a border goes with integers.
    """

    grid: Grid = PIXELS

    def __init__(
        self,
        grid: Grid = PIXELS,
        storage: Storage = Storage.U8,
        *,
        zero: int | None = None,
        border: Border | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.storage = storage
        self.zero = (-PIXELS.low if storage is Storage.U8 else 0) if zero is None else zero
        if storage is not Storage.F32:
            limits = np.iinfo(storage.value)
            if border is not None:
                raise ConfigError(
                    f"a border quantizes floats, and the input's storage is {storage.value}; leave it out"
                )
            if grid.low + self.zero < limits.min or grid.high + self.zero > limits.max:
                raise ConfigError(
                    f"codes {grid.low} .. {grid.high} plus zero {self.zero} must fit {storage.value}; "
                    "choose another zero or storage"
                )
        else:
            # Numbers of Python, which tracing needs, beside the buffer that saves them.
            self._shift = self._axis = 0
            for name, value in (("multiplier", []), ("offset", []), ("shift_and_axis", [0, 0])):
                self.register_buffer(name, torch.tensor(value, dtype=torch.int64))
            if border is not None:
                self.border = border

    multiplier: Tensor
    offset: Tensor
    shift_and_axis: Tensor

    def fit(self, batches: Iterable[Any], *, axis: int | None = None) -> "IntegerInput":
        """Sets the border so that the range of some data takes all codes.

        Args:
            batches: float32 N x ..., or tuples whose first element is that, as data loaders give.
            axis: Dimension of the channels in one sample, each of which gets its own range; None for one range.

        Raises:
            ConfigError: The input takes integers, or no border expresses the ranges of its channels.
            DataError: There are no data, or they are not finite.
        """
        if self.storage is not Storage.F32:
            raise ConfigError(f"only float32 inputs are fitted, and this one takes {self.storage.value}")
        low = high = None
        for batch in batches:
            x = batch[0] if isinstance(batch, tuple | list) else batch
            if not bool(torch.isfinite(x).all()):
                raise DataError("an input is fitted to finite numbers, got infinity or not-a-number; clean the data")
            others = tuple(d for d in range(x.ndim) if axis is None or d != axis + 1)
            least, most = x.amin(others).reshape(-1), x.amax(others).reshape(-1)
            low = least if low is None else torch.minimum(low, least)
            high = most if high is None else torch.maximum(high, most)
        if low is None or high is None:
            raise DataError("an input is fitted to at least one batch, got none")
        border = fit_border(low.cpu().numpy(), high.cpu().numpy(), self.grid)
        self.border = border if axis is None else replace(border, axis=axis)
        return self

    @property
    def border(self) -> Border | None:
        """How floats become codes; None for integers, and before `fit`."""
        if self.storage is not Storage.F32 or self.multiplier.numel() == 0:
            return None
        a, b = (value.cpu().numpy() for value in (self.multiplier, self.offset))
        return Border(multiplier=a, offset=b, shift=self._shift, axis=self._axis)

    @border.setter
    def border(self, border: Border) -> None:
        device = self.multiplier.device
        self.multiplier = torch.from_numpy(border.multiplier.astype(np.int64)).to(device)
        self.offset = torch.from_numpy(border.offset.astype(np.int64)).to(device)
        self.shift_and_axis = torch.tensor([border.shift, border.axis], device=device)
        self._shift, self._axis = border.shift, border.axis

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **options: Any) -> None:
        # A saved border has as many channels as it was fitted to.
        for name in ("multiplier", "offset"):
            saved = state_dict.get(f"{prefix}{name}")
            if self.storage is Storage.F32 and isinstance(saved, Tensor):
                setattr(self, name, torch.empty_like(saved, device=self.multiplier.device))
        place = state_dict.get(f"{prefix}shift_and_axis")
        if self.storage is Storage.F32 and isinstance(place, Tensor):
            self._shift, self._axis = (int(value) for value in place.tolist())
        super()._load_from_state_dict(state_dict, prefix, *args, **options)

    def forward(self, x: Tensor) -> Tensor:
        """N x ... of the storage type -> float32 of the same shape and memory format.

        Raises:
            DataError: x has another type, or floats come before a border is known.
        """
        if x.dtype != _DTYPES[self.storage]:
            what = "uint8 pixels 0..255" if self.storage is Storage.U8 else self.storage.value
            raise DataError(
                f"the input layer takes {what}, got {x.dtype}; do not scale or normalize images before"
                if self.storage is Storage.U8
                else f"the input layer takes {what}, got {x.dtype}; convert the data"
            )
        if self.storage is not Storage.F32:
            return (x.float() - self.zero) * self.grid.unit
        if self.multiplier.numel() == 0:
            raise DataError("the input layer does not know the range of its floats; call fit(loader) or pass a border")
        # The same operations as in `Border.codes`, in tensors, so that they run on any device.
        column = (-1, *[1] * (x.ndim - 2 - self._axis))
        scale = self.multiplier.double().reshape(column) * 2.0**-self._shift
        offset = self.offset.double().reshape(column)
        codes = torch.floor(x.double() * scale + 0.5) + offset
        return codes.clamp(self.grid.low, self.grid.high).float() * self.grid.unit
