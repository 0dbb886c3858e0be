"""Integrate-and-fire neurons with integer potentials."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ConfigError
from maqd.numerics.neuron import Reset

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """How a neuron behaves from step to step.

    Args:
        reset: What a spike does to the potential.
        leak: Before each step, potential v becomes v - (v >> leak), 1 .. 62; None for no leak.

    Raises:
        ConfigError: The leak is out of its range.
    """

    reset: Reset = Reset.SOFT
    leak: int | None = None

    def __post_init__(self) -> None:
        if self.leak is not None and not 1 <= self.leak <= 62:
            raise ConfigError(f"a leak is a shift in 1 .. 62, got {self.leak}; use None for neurons without a leak")

    def leaked(self, potential: Integers) -> Integers:
        """The potential at the beginning of the next step."""
        return potential if self.leak is None else potential - (potential >> self.leak)

    def fire(self, potential: Integers, threshold: int) -> tuple[NDArray[np.bool_], Integers]:
        """Spikes where the potential is at the threshold or above, and the potential after them."""
        spikes = potential >= threshold
        after = np.where(spikes, 0 if self.reset is Reset.HARD else potential - threshold, potential)
        return spikes, after


LOSSLESS = Dynamics()
"""Soft reset and no leak: no charge is lost."""


def integrate_and_fire(
    currents: Integers, threshold: int, dynamics: Dynamics = LOSSLESS
) -> tuple[NDArray[np.bool_], Integers]:
    """Free-running neurons: in each step a current, then at most one spike. They start at potential 0.

    Args:
        currents: int64, T x any shape.
        threshold: V >= 1; sums of currents and T * V are below 2**63.
        dynamics: How they behave from step to step.

    Returns:
        Spikes, T x the shape, and the potentials after the last step.
    """
    potential = np.zeros(currents.shape[1:], np.int64)
    spikes = np.zeros(currents.shape, np.bool_)
    for step, current in enumerate(currents):
        spikes[step], potential = dynamics.fire(dynamics.leaked(potential) + current, threshold)
    return spikes, potential


def settled(counts: Integers, potential: Integers, threshold: int, steps: int) -> NDArray[np.bool_]:
    """Which free-running neurons without a leak and with soft reset have fired as often as their charge says.

    With S the sum of a neuron's currents, that is clip(floor(S / V), 0, T) times. After T steps its potential is
    v = S - count * V, so the count is right if and only if 0 <= v < V, or it fired in every step and v >= V still, or
    it never fired and v < 0.

    Args:
        counts: Spikes of each neuron.
        potential: After the last step.
        threshold: V.
        steps: T.
    """
    inside = (potential >= 0) & (potential < threshold)
    saturated = (counts == steps) & (potential >= threshold)
    silent = (counts == 0) & (potential < 0)
    return inside | saturated | silent
