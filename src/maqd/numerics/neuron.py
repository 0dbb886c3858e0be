"""Neurons that remember from frame to frame, in integers: the one definition that layers and graphs share."""

import enum
from dataclasses import dataclass

from maqd.errors import ConfigError

LIMIT = 2**15 - 1
"""A potential is clipped to +-LIMIT: 16 bits."""


class Reset(enum.Enum):
    """What a spike does to the potential."""

    SOFT = "soft"
    """It subtracts the threshold."""
    HARD = "hard"
    """It sets the potential to zero."""


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """How a neuron goes from frame to frame.

    In each frame v becomes clip(v - (v >> leak) + x, -LIMIT, LIMIT); it fires if v >= threshold, and then the threshold
    is subtracted or v becomes 0. `>>` rounds down, so that negative potentials leak as well.

    Args:
        threshold: 1 .. LIMIT, in units of the input.
        leak: 1 .. 15, or None for no leak.
        reset: What a spike does.
        initial: The potential before the first frame, within +-LIMIT.

    Raises:
        ConfigError: A value is out of its range.
    """

    threshold: int
    leak: int | None = None
    reset: Reset = Reset.SOFT
    initial: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= LIMIT:
            raise ConfigError(f"a neuron's threshold must be in 1 .. {LIMIT}, got {self.threshold}; scale its input")
        if self.leak is not None and not 1 <= self.leak <= 15:
            raise ConfigError(f"a neuron's leak is a shift in 1 .. 15, got {self.leak}; use None for no leak")
        if abs(self.initial) > LIMIT:
            raise ConfigError(f"a neuron's first potential must be within +-{LIMIT}, got {self.initial}")
