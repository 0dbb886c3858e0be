"""How a float network becomes one of few states."""

import enum
from dataclasses import dataclass, field

from maqd.errors import ConfigError
from maqd.numerics.states import FEW_STATES, States, weight_states
from maqd.settings.quantization import Override, Surrogate


class Kept(enum.Enum):
    """What a float network's batch normalizations become."""

    KEEP = "keep"
    """Batch normalization, with its statistics and parameters."""
    LBN = "lbn"
    """Layer-Batch Normalization, the same function before training."""
    LEVELLED = "levelled"
    """Levelled Layer-Batch Normalization, the same function before training."""


class Rounding(enum.Enum):
    """How the weights of a float network become states."""

    NEAREST = "nearest"
    """Each by itself."""
    FOLLOWING = "following"
    """One after the other along the calibration data, each taking up the errors before it (GPFQ, arXiv 2201.11113)."""


class Centring(enum.Enum):
    """Whether the mean of each filter is taken from its weights (weight standardization), as MaQD trains them."""

    NEVER = "never"
    """The layer is its float original times a factor per filter."""
    ALWAYS = "always"
    """In all layers but heads. No normalization gives back what the mean of a filter added to its sums."""
    CLOSER = "closer"
    """Both are tried, and the network whose results are closer to the float ones is taken."""


EDGE_STATES = 15
"""States that the first layer, the head and depthwise layers have at least, if a configuration does not say."""

COARSE = 64
"""States of activations up to which a byte holds what is added, sign and all."""

FINE = 4095
"""States of what is added beside more: products of two of them are below 2**24, where float32 is exact."""


@dataclass(frozen=True, kw_only=True)
class ConversionConfig:
    """States of a converted network.

    Args:
        weights: M_w of the layers.
        activations: M_a of the activations that layers read.
        edge: Weight states of layers that read the network's input or whose result leaves it; None for the larger of
            `weights` and 15.
        depthwise: Weight states of depthwise layers; None likewise.
        stream: States of what is added, gated or returned, unsigned; where the sign matters, the odd number below. None
            for 256 beside up to 64 states of activations, and 4095 beside more: a sum with a sign would otherwise be
            coarser than what it is made of.
        products: States of activations from which SiLU, GELU, Hardswish and Mish are exact products with a gate; with
            fewer they are rectifiers with steps along the curve.
        norm: What normalizations become. With `Kept.KEEP`, those that take their statistics from each sample are
            refused.
        rounding: How weights become states.
        centring: Whether filters lose their means.
        overrides: Other states by the name of the float network's module; the last match wins.
        surrogate: Gradient of the activations' quantizers.
    """

    weights: int = 3
    activations: int = 4
    edge: int | None = None
    depthwise: int | None = None
    stream: int | None = None
    products: int = 64
    norm: Kept = Kept.KEEP
    rounding: Rounding = Rounding.NEAREST
    centring: Centring = Centring.NEVER
    overrides: list[Override] = field(default_factory=list)
    surrogate: Surrogate = field(default_factory=Surrogate)

    def __post_init__(self) -> None:
        for count in (self.weights, self.edge, self.depthwise):
            if count is not None:
                weight_states(count)
        for count in (self.activations, self.stream_states):
            States(count=count, signed=False)
        if self.stream_states < 3:
            raise ConfigError(f"a stream needs at least 3 states to have a sign, got {self.stream}; use 256")

    @property
    def edge_states(self) -> int:
        """M_w of first layers and heads."""
        return max(self.weights, EDGE_STATES) if self.edge is None else self.edge

    @property
    def stream_states(self) -> int:
        """States of what is added, gated or returned."""
        return (FINE if self.activations > COARSE else FEW_STATES) if self.stream is None else self.stream

    @property
    def depthwise_states(self) -> int:
        """M_w of depthwise layers."""
        return max(self.weights, EDGE_STATES) if self.depthwise is None else self.depthwise
