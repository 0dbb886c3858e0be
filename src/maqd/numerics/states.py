"""The states of a quantizer and the grid its values lie on. Pure Python: the one definition everything shares.

A quantizer has `count` M >= 2 uniform states. A state is an integer *code*; a quantized tensor is a code times a
power of two. Unsigned codes are 0 .. M-1. Signed codes are symmetric around zero: for odd M the integers
-(M-1)/2 .. (M-1)/2 (spacing 1), for even M the odd integers -(M-1), -(M-3), .., M-1 (spacing 2), so that M = 2 is
+-1 and no state count wastes a code or breaks the symmetry.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from maqd.errors import ConfigError

MAX_STATES = 65536
"""The largest number of states: 16 bits of information."""

FEW_STATES = 256
"""Up to this many states, codes are exact in bfloat16 (8 significant bits) and fit a byte. Weights have no more;
activations with more are fixed-point maps (`maqd.numerics.shared_scale`)."""


@dataclass(frozen=True, kw_only=True)
class States:
    """The codes of a quantizer.

    Args:
        count: M, the number of states, 2 .. 65,536.
        signed: Whether the codes are symmetric around zero (weights) or start at zero (activations).

    Raises:
        ConfigError: `count` is not an integer in 2 .. 65,536.
    """

    count: int
    signed: bool

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 2 <= self.count <= MAX_STATES:
            raise ConfigError(f"a quantizer needs 2 .. {MAX_STATES} states, got {self.count!r}; use None for float")

    @property
    def few(self) -> bool:
        """Whether codes fit a byte and bfloat16."""
        return self.count <= FEW_STATES

    @property
    def spacing(self) -> int:
        """Difference of neighbouring codes: 2 for a signed even count, else 1."""
        return 2 if self.signed and self.count % 2 == 0 else 1

    @property
    def low(self) -> int:
        """Smallest code."""
        return -(self.count - 1) * self.spacing // 2 if self.signed else 0

    @property
    def high(self) -> int:
        """Largest code."""
        return self.low + (self.count - 1) * self.spacing

    @property
    def magnitude(self) -> int:
        """Largest absolute code."""
        return max(-self.low, self.high)

    @property
    def codes(self) -> range:
        """All codes, ascending."""
        return range(self.low, self.high + 1, self.spacing)

    @property
    def origin(self) -> float:
        """Index of the state at zero, (M-1)/2 for signed and 0 for unsigned codes; half-integral if none is at zero.

        The index of the state of a real y is clip(floor(y / step + origin + 1/2), 0, M-1).
        """
        return (self.count - 1) / 2 if self.signed else 0.0

    @property
    def shift(self) -> float:
        """Origin + 1/2: what is added to y / step before rounding down."""
        return self.origin + 0.5

    @property
    def bits(self) -> float:
        """Information per code, log2 M."""
        return math.log2(self.count)

    def grid(self, step_exponent: int) -> "Grid":
        """The grid of the values whose neighbouring states differ by 2**step_exponent."""
        return Grid(low=self.low, high=self.high, exponent=step_exponent - (self.spacing - 1))


def weight_states(count: int) -> States:
    """The states of weights: signed, and few.

    Raises:
        ConfigError: `count` is not an integer in 2 .. 256.
    """
    if not isinstance(count, int) or not 2 <= count <= FEW_STATES:
        raise ConfigError(f"weights have 2 .. {FEW_STATES} states, got {count!r}; use {FEW_STATES}, or None for float")
    return States(count=count, signed=True)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the values of an integer tensor lie: value = code * 2**exponent, low <= code <= high.

    Args:
        low: Smallest possible code.
        high: Largest possible code.
        exponent: Exponent of the unit.
    """

    low: int
    high: int
    exponent: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"a grid needs low <= high, got {self.low} .. {self.high}")

    @property
    def unit(self) -> float:
        """Value of code 1."""
        return math.ldexp(1.0, self.exponent)

    @property
    def magnitude(self) -> int:
        """Largest absolute code."""
        return max(-self.low, self.high)


PIXELS = Grid(low=-128, high=127, exponent=-6)
"""uint8 pixels minus 128, times 2**-6: integers from the first layer on, values in [-2, 2)."""


def power_of_two_exponent(value: float, what: str) -> int:
    """The integer e with value == 2**e.

    Raises:
        ConfigError: `value` is no positive power of two; `what` names it in the message.
    """
    mantissa, exponent = math.frexp(value) if value > 0 and math.isfinite(value) else (0.0, 0)
    if mantissa != 0.5:
        near = f"{math.ldexp(1.0, min(round(math.log2(value)), 1023)):g}" if mantissa else "1"
        raise ConfigError(f"{what} must be a positive power of two, got {value!r}; the nearest one is {near}")
    return exponent - 1


@cache
def gaussian_step(count: int) -> float:
    """The uniform step that quantizes a unit Gaussian to `count` symmetric states with the least mean square error.

    Used as the default step of standardized weights, in standard deviations. Found by golden-section search on the
    closed form of the error (Max, "Quantizing for minimum distortion", 1960, table II: 1.596, 1.224, 0.9957, ...).
    """
    weight_states(count)

    def error(step: float) -> float:
        # E[(x - q(x))^2] = 1 - 2 E[x q] + E[q^2] with levels l_j = (j - (M-1)/2) step and cuts halfway between them.
        levels = [(j - (count - 1) / 2) * step for j in range(count)]
        cuts = [-math.inf, *((a + b) / 2 for a, b in pairwise(levels)), math.inf]
        density = [math.exp(-c * c / 2) / math.sqrt(2 * math.pi) for c in cuts]
        mass = [math.erf(c / math.sqrt(2)) / 2 for c in cuts]
        return 1 + sum(
            level * level * (mass[j + 1] - mass[j]) - 2 * level * (density[j] - density[j + 1])
            for j, level in enumerate(levels)
        )

    # Wide enough for every count: the optimum falls from 3.2 / M (M = 2) towards 4 sqrt(ln M) / M.
    low, high = 2.0 / count, 16.0 / count
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-9:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if error(a) < error(b):
            high = b
        else:
            low = a
    return (low + high) / 2
