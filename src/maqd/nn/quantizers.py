"""How weights and activations become codes of a few states: frozen values that quantized layers hold.

A layer asks the quantizer of its weights for three things: the scale of its codes when it is built, values with a
gradient in training, and exact codes in evaluation. `RoundClip` is MaQD's. Another method is another subclass
(`maqd.nn.baselines`); docs and tests of the layers hold for all of them. What a method learns beside the weights (a
step, say) are parameters of the layer.

`NormActivation` holds MaQD's `Quantizer` (maqd.settings.quantization), or a `ThresholdQuantizer`, which says itself at
which values its codes change.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maqd.errors import ConfigError
from maqd.nn.functional import quantize_weight, state_index, weight_codes, weight_standardize, with_gradient_of
from maqd.numerics.states import States, gaussian_step, weight_states
from maqd.settings.quantization import Quantizer


@dataclass(frozen=True, kw_only=True)
class WeightQuantizer(ABC):
    """Weights to codes.

    Args:
        states: M_w, signed.
    """

    states: States

    def __post_init__(self) -> None:
        if not isinstance(self.states, States) or not self.states.signed:
            raise ConfigError(
                f"{type(self).__name__} needs signed states, got {self.states!r}; use States(count=M, signed=True)"
            )
        weight_states(self.states.count)

    @property
    @abstractmethod
    def code_scale(self) -> float:
        """Standard deviation of a fresh layer's weights in units of code 1 is 1 / code_scale: sets the layer's unit."""

    def initial(self, weight: Tensor) -> tuple[Tensor, ...]:
        """First values of what is learned beside the weights: none, if a method does not say otherwise.

        Args:
            weight: O x ..., as initialized.
        """
        del weight
        return ()

    @abstractmethod
    def values(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        """The weights that training uses.

        Args:
            weight: O x ..., float.
            unit: Value of code 1, a power of two.
            learned: As in `initial`.

        Returns:
            Codes times unit, exact, shaped like the weight, with the method's gradient.
        """

    @abstractmethod
    def codes(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        """The codes that evaluation and lowering use, one answer whatever the device.

        Args:
            weight, learned: As in `values`.

        Returns:
            int16 on the CPU, shaped like the weight, each one of `states.codes`.
        """

    def largest_sum(self, fan_in: int) -> int:
        """No filter's codes have a larger sum of magnitudes, whatever its weights."""
        return fan_in * self.states.high

    def unrounded(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        """What `values` would be with infinitely many states: the weights of a float phase (`maqd.nn.set_rounding`).

        Args:
            weight, unit, learned: As in `values`.

        Raises:
            ConfigError: The method has no such phase.
        """
        raise ConfigError(f"{type(self).__name__} cannot train without rounding; start it from a float network")

    def describe(self) -> str:
        """For a module's representation."""
        return f"states={self.states.count}, {type(self).__name__}"


@final
@dataclass(frozen=True, kw_only=True)
class RoundClip(WeightQuantizer):
    """MaQD's: standardized per filter, then a scaled round-clip (`maqd.nn.functional.quantize_weight`).

    Args:
        states: M_w, signed.
        step: Distance of neighbouring states in standard deviations of a filter, > 0; None takes the best uniform
            step for a unit Gaussian.

    Attributes:
        distance: The step that is used.
    """

    step: float | None = None
    distance: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is not None and not 0 < self.step < math.inf:
            raise ConfigError(f"RoundClip needs a finite step > 0, got {self.step!r}")
        # Once, and not in every call: torch.compile does not see through the cache of gaussian_step.
        object.__setattr__(self, "distance", gaussian_step(self.states.count) if self.step is None else self.step)

    @property
    def code_scale(self) -> float:
        return self.distance / self.states.spacing

    def values(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        return quantize_weight(weight, self.states, self.distance, unit)

    def unrounded(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        return weight_standardize(weight) * (unit / self.code_scale)

    def largest_sum(self, fan_in: int) -> int:
        # Squares of standardized weights have a mean of at most 1, and so have their magnitudes; rounding adds at most
        # half a step to each.
        standardized = math.floor(fan_in * (1 / self.code_scale + self.states.spacing / 2) * (1 + 1e-9)) + 1
        return min(super().largest_sum(fan_in), standardized)

    def codes(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return weight_codes(weight, self.states, self.distance)

    def describe(self) -> str:
        return f"states={self.states.count}, step={self.distance:.4g}"


@dataclass(frozen=True, kw_only=True)
class ScaledRounding(WeightQuantizer):
    """Weights divided by a step of the layer or filter, rounded and clipped. Most methods differ in the step only.

    Values are codes times the layer's power of two; the method's own scale is left out. A normalization of the layer's
    output removes any scale together with its gradient. So networks train as they would with the scale, up to the
    normalization's eps.

    Args:
        states: M_w, signed.
    """

    @abstractmethod
    def positions(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        """The weights in steps, w / s: neighbouring states are 1 apart, zero is zero.

        Args:
            weight, learned: As in `values`; float32 in training, float64 on the CPU in evaluation.

        Returns:
            Shaped like the weight, with a gradient.
        """

    def slope(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        """What stands for the codes in the backward pass: the positions, clipped to the states.

        Args:
            weight, learned: As in `values`.
        """
        limit = (self.states.count - 1) / 2
        return torch.clamp(self.positions(weight, learned), -limit, limit)

    def values(self, weight: Tensor, unit: float, learned: tuple[Tensor, ...]) -> Tensor:
        codes = self._round(self.positions(weight.detach(), tuple(value.detach() for value in learned)))
        return with_gradient_of(codes * unit, self.slope(weight, learned) * (unit * self.states.spacing))

    def codes(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        exact = [value.detach().to(device="cpu", dtype=torch.float64).contiguous() for value in (weight, *learned)]
        return self._round(self.positions(exact[0], tuple(exact[1:]))).to(torch.int16)

    def _round(self, positions: Tensor) -> Tensor:
        return state_index(positions, self.states, 1.0) * self.states.spacing + self.states.low


@dataclass(frozen=True, kw_only=True)
class ThresholdQuantizer(Quantizer, ABC):
    """An activation whose codes rise at values of its own: code = #{k: y >= cut_k}.

    After a normalization any such function folds into integer thresholds. Equal cuts skip a code. As with weights,
    the method's own output scale is left out: codes are multiples of the power of two `step`.

    Args:
        states: The codes, unsigned.
        step: Value of code 1, a power of two.
        surrogate: Not used: the method has its own gradient.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.states.signed:
            raise ConfigError(f"{type(self).__name__} needs unsigned states, got {self.states!r}")

    @abstractmethod
    def initial(self) -> tuple[Tensor, ...]:
        """First values of what is learned, for inputs like a standard normal distribution's."""

    @abstractmethod
    def cuts(self, learned: tuple[Tensor, ...]) -> Tensor:
        """The values at which the code rises.

        Args:
            learned: As in `initial`; float32 in training, float64 on the CPU in evaluation.

        Returns:
            M-1 values, ascending, in the dtype of what is learned.
        """

    @abstractmethod
    def slope(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        """What stands for the codes in the backward pass.

        Args:
            y: Normalized values, any shape, float32.
            learned: As in `cuts`.

        Returns:
            Like y, differentiable in y and in what is learned.
        """

    def exact_cuts(self, learned: tuple[Tensor, ...]) -> NDArray[np.float64]:
        """`cuts` in float64, the same on every device: what evaluation and lowering use."""
        exact = tuple(value.detach().to(device="cpu", dtype=torch.float64) for value in learned)
        return np.maximum.accumulate(self.cuts(exact).numpy())

    def values(self, y: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        """Codes times the step with the method's gradient.

        Args:
            y: Normalized values, any shape and float dtype.
            learned: As in `cuts`.

        Returns:
            Like y.
        """
        with torch.no_grad():
            codes = torch.zeros_like(y)
            for cut in self.cuts(learned):
                codes += y >= cut
        slope = self.slope(y.to(torch.promote_types(y.dtype, torch.float32)), learned)
        return with_gradient_of(codes * self.step, slope * self.step)
