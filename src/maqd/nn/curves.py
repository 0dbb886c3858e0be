"""Activation functions that are no straight line, as steps at places of their own.

After a normalization any function that rises is a row of integer thresholds, so that a sigmoid costs a network what a
rectifier of as many states costs.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from maqd.nn.functional import with_gradient_of
from maqd.nn.quantizers import ThresholdQuantizer
from maqd.numerics.fixedpoint import activation_cuts
from maqd.settings.quantization import Quantizer


class Shape(enum.Enum):
    """Which function; formulas as in `torch.nn.functional`."""

    SIGMOID = "sigmoid"
    TANH = "tanh"
    SOFTPLUS = "softplus"
    LEAKY_RELU = "leaky_relu"
    ELU = "elu"
    SELU = "selu"
    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    HARDSWISH = "hardswish"
    MISH = "mish"
    NORMAL = "normal"
    """The distribution function of the standard normal: the gate of GELU."""
    TANH_OF_SOFTPLUS = "tanh_of_softplus"
    """The gate of Mish."""


def _normal(y: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-y / 2**0.5)


def _tanh_of_softplus(y: Tensor) -> Tensor:
    return torch.tanh(F.softplus(y))


_FUNCTIONS: dict[Shape, Callable[..., Tensor]] = {
    Shape.SIGMOID: torch.sigmoid,
    Shape.TANH: torch.tanh,
    Shape.SOFTPLUS: F.softplus,
    Shape.LEAKY_RELU: F.leaky_relu,
    Shape.ELU: F.elu,
    Shape.SELU: F.selu,
    Shape.SILU: F.silu,
    Shape.GELU: F.gelu,
    Shape.GELU_TANH: partial(F.gelu, approximate="tanh"),
    Shape.HARDSWISH: F.hardswish,
    Shape.MISH: F.mish,
    Shape.NORMAL: _normal,
    Shape.TANH_OF_SOFTPLUS: _tanh_of_softplus,
}

_TURNS = {
    Shape.SILU: -1.2784645427610738,
    Shape.GELU: -0.7517915641,
    Shape.GELU_TANH: -0.7524613,
    Shape.HARDSWISH: -1.5,
    Shape.MISH: -1.1924055,
}
"""From where on a function rises, if not everywhere."""

FAR = 2.0**40
"""Stands for a place that no activation reaches."""

PLACES = 2.0**20
"""Cuts are multiples of its reciprocal, so that the last bits of a machine's functions do not show."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An activation function that rises, at least to the right of its lowest point.

    Args:
        shape: Which.
        slope: Of `LEAKY_RELU` below zero, > 0; the alpha of `ELU`, > 0.
    """

    shape: Shape
    slope: float = 1.0

    @property
    def rises(self) -> bool:
        """Whether it rises everywhere."""
        return self.shape not in _TURNS

    def __call__(self, y: Tensor) -> Tensor:
        """The function, element by element, in y's dtype."""
        function = _FUNCTIONS[self.shape]
        return function(y, self.slope) if self.shape in (Shape.LEAKY_RELU, Shape.ELU) else function(y)

    def inverse(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The smallest y to the right of the lowest point with f(y) >= value; -`FAR` and `FAR` for always and never."""
        wanted = torch.from_numpy(np.asarray(values, np.float64))
        low = torch.full_like(wanted, max(_TURNS.get(self.shape, -FAR), -FAR))
        high = torch.full_like(wanted, FAR)
        always, never = self(low) >= wanted, self(high) < wanted
        for _ in range(128):
            middle = (low + high) / 2
            reached = self(middle) >= wanted
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        found = (high * PLACES).round() / PLACES
        return torch.where(always, -FAR, torch.where(never, FAR, found)).numpy()


@final
@dataclass(frozen=True, kw_only=True)
class CurveQuantizer(ThresholdQuantizer):
    """The codes of a curve: code = the state nearest to scale * f(y / scale), ties up.

    Backward: the derivative of scale * f(y / scale), to half a step beyond the first and the last state.

    Args:
        states: The codes.
        step: Distance of neighbouring states, a power of two.
        surrogate: Not used.
        curve: f.
        scale: Of y and of the result, > 0: converted networks choose it so that the step fits.
    """

    curve: Curve
    scale: float = 1.0
    places: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Quantizer.__post_init__(self)  # signed states may be
        ends = activation_cuts(self.states, self.step) / self.scale
        places = np.maximum.accumulate(self.curve.inverse(ends) * self.scale)
        object.__setattr__(self, "places", tuple(places.tolist()))

    def initial(self) -> tuple[Tensor, ...]:
        return ()

    def cuts(self, learned: tuple[Tensor, ...]) -> Tensor:
        return torch.tensor(self.places, dtype=torch.float64)

    def slope(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        margin, grid = self.step / 2, self.grid
        return torch.clamp(
            self.curve(y / self.scale) * self.scale, grid.low * grid.unit - margin, grid.high * grid.unit + margin
        )

    def values(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        wide = y.to(torch.promote_types(y.dtype, torch.float32))
        with torch.no_grad():
            cuts = torch.tensor(self.places, dtype=wide.dtype, device=wide.device)
            codes = torch.bucketize(wide, cuts, right=True).to(y.dtype) * self.step + self.offset
        return with_gradient_of(codes, self.slope(wide, learned).to(y.dtype))
