"""How the weights of a layer become codes of a few states: a frozen value that a quantized layer holds.

A layer asks its quantizer for three things: the scale of its codes when it is built, values with a gradient in
training, and exact codes in evaluation. `RoundClip` is MaQD's. Another method is another subclass; docs and tests of
the layers hold for all of them. What a method learns beside the weights (a step, say) are parameters of the layer.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from maqd.errors import ConfigError
from maqd.nn.functional import quantize_weight, weight_codes, weight_standardize
from maqd.numerics.states import States, gaussian_step


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

    def codes(self, weight: Tensor, learned: tuple[Tensor, ...]) -> Tensor:
        return weight_codes(weight, self.states, self.distance)

    def describe(self) -> str:
        return f"states={self.states.count}, step={self.distance:.4g}"
