"""What a quantized layer is built from: states, steps, normalization, surrogate. Values only, no tensors."""

import enum
from dataclasses import dataclass, field

from maqd.errors import ConfigError
from maqd.numerics.states import Grid, States, power_of_two_exponent, weight_states


class Norm(enum.Enum):
    """Which statistics a normalization takes."""

    LBN = "lbn"
    """Layer-Batch Normalization: one mean and variance over batch, channels and space (MaQD)."""
    LEVELLED_LBN = "levelled_lbn"
    """LBN of channels levelled by running averages: for residual networks."""
    BN = "bn"
    """Batch normalization: one mean and variance per channel, over batch and space."""
    EBN = "ebn"
    """Extended batch normalization: a mean per channel, one variance for the layer."""
    LN = "ln"
    """Layer normalization: one mean and variance per sample, over channels and space. Cannot be folded."""


class Affine(enum.Enum):
    """How many scales and offsets follow a normalization."""

    CHANNEL = "channel"
    LAYER = "layer"
    NONE = "none"


class Profile(enum.Enum):
    """The shape of a surrogate gradient outside the quantizer's range; formulas in `maqd.nn.surrogate`."""

    WINDOW = "window"
    LINEAR_TAILS = "linear_tails"
    EXPONENTIAL_TAILS = "exponential_tails"
    TRIANGLE = "triangle"
    ARCTAN = "arctan"
    SIGMOID = "sigmoid"


class WeightMethod(enum.Enum):
    """How weights are quantized; formulas and sources in `maqd.nn.baselines`."""

    MAQD = "maqd"
    """Standardized per filter, then a scaled round-clip (MaQD)."""
    PLAIN = "plain"
    """The scaled round-clip without the standardization."""
    LSQ = "lsq"
    DOREFA = "dorefa"
    TWN = "twn"
    ABSMEAN = "absmean"
    STD = "std"
    APOT = "apot"
    N2UQ = "n2uq"


class ActMethod(enum.Enum):
    """How activations are quantized; formulas and sources in `maqd.nn.baselines`."""

    MAQD = "maqd"
    """A scaled round-clip with a fixed step (MaQD)."""
    LSQ = "lsq"
    PACT = "pact"
    APOT = "apot"
    N2UQ = "n2uq"


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """The derivative used in place of a quantizer's.

    Args:
        profile: Its shape.
        width: Half-width beyond the outermost thresholds, in steps, > 0. At 1/2 the window reaches exactly from the
            first to the last state.
        scale: Factor on the gradient, > 0.
    """

    profile: Profile = Profile.WINDOW
    width: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.width > 0 or not self.scale > 0:
            raise ConfigError(f"a surrogate needs width > 0 and scale > 0, got {self.width!r} and {self.scale!r}")


def act_step(states: int) -> float:
    """The default activation step of M states (docs/recipes.md): together they cover at most 4 standard deviations.

    Args:
        states: M_a, at least 2.
    """
    return 4.0 / 2 ** (states - 1).bit_length()


UNCHANGED = -1
"""In an override: keep the network's number of states."""


@dataclass(frozen=True, kw_only=True)
class Override:
    """Other states for the layers whose name matches.

    Args:
        pattern: Shell-style pattern of the layer's dotted name in the model, e.g. "stem.*" or "*.shortcut".
        weight_states: M_w of those layers; None keeps them in float, -1 (`UNCHANGED`) leaves the network's value.
        act_states: M_a of those layers' activations; likewise.
        act_step: Their step, a power of two; None leaves the network's.
    """

    pattern: str
    weight_states: int | None = UNCHANGED
    act_states: int | None = UNCHANGED
    act_step: float | None = None

    def __post_init__(self) -> None:
        if self.act_step is not None:
            power_of_two_exponent(self.act_step, "act_step")
        if self.weight_states is not None and self.weight_states != UNCHANGED:
            weight_states(self.weight_states)
        if self.act_states is not None and self.act_states != UNCHANGED:
            States(count=self.act_states, signed=False)


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How the layers of a network are quantized and normalized.

    Args:
        weight_states: M_w; None keeps weights in float, unstandardized.
        act_states: M_a; None uses ReLU.
        weight_step: Distance of neighbouring weight states in standard deviations; None takes the best uniform step
            for a unit Gaussian.
        act_step: Distance of neighbouring activation states in units of the normalization's output, a power of two.
        norm: Statistics of the normalization.
        affine: Scales and offsets after the normalization.
        surrogate: Gradient of the activation's quantizer.
        weight_method: How weights are quantized. Layers whose weight states are overridden take MaQD's, so that first
            layer and head are the same in comparisons.
        act_method: How activations are quantized; likewise.
        overrides: Other states by layer name; the last match wins.
        rounding: Whether weights and activations are rounded to their states. Without, the network is the float network
            that few states start from (`maqd.nn.set_rounding`): a float phase of training. It cannot be lowered.
    """

    weight_states: int | None = 3
    act_states: int | None = 4
    weight_step: float | None = None
    act_step: float = 1.0
    norm: Norm = Norm.LBN
    affine: Affine = Affine.CHANNEL
    surrogate: Surrogate = field(default_factory=Surrogate)
    weight_method: WeightMethod = WeightMethod.MAQD
    act_method: ActMethod = ActMethod.MAQD
    overrides: list[Override] = field(default_factory=list)
    rounding: bool = True

    def __post_init__(self) -> None:
        if self.weight_states is not None:
            weight_states(self.weight_states)
        if self.act_states is not None:
            States(count=self.act_states, signed=False)
        if self.weight_step is not None and not self.weight_step > 0:
            raise ConfigError(f"weight_step must be positive standard deviations, got {self.weight_step!r}")
        power_of_two_exponent(self.act_step, "act_step")
        if self.weight_step is not None and self.weight_method is not WeightMethod.MAQD:
            raise ConfigError(
                f"weight_step is MaQD's, and {self.weight_method.value} finds its own, got {self.weight_step!r}; "
                "leave weight_step out"
            )

    @property
    def most_act_states(self) -> int:
        """The largest number of states of an activation."""
        return max(count or 0 for count in (self.act_states, *(override.act_states for override in self.overrides)))


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Numerics of an activation: codes, their distance, and the gradient used in training.

    Args:
        states: The codes.
        step: Distance of neighbouring states, a power of two.
        surrogate: Gradient.
    """

    states: States
    step: float = 1.0
    surrogate: Surrogate = field(default_factory=Surrogate)

    def __post_init__(self) -> None:
        if not isinstance(self.states, States):
            raise ConfigError(f"a quantizer needs States, got {self.states!r}; use States(count=M, signed=False)")
        power_of_two_exponent(self.step, "the activation step")

    @property
    def grid(self) -> Grid:
        """Where the output lies."""
        return self.states.grid(power_of_two_exponent(self.step, "the activation step"))

    @property
    def offset(self) -> float:
        """Output value of the first state."""
        grid = self.grid
        return grid.low * grid.unit
