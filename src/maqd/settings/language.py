"""What a language model is built from. Values only: no tensors."""

import enum
from dataclasses import dataclass

from maqd.errors import ConfigError
from maqd.numerics.states import States

MAX_HEAD_SIZE = 1024
"""Products of codes up to 127 over a head stay below 2^24 with as many channels: float32 sums them exactly."""


class FeedForward(enum.Enum):
    """What stands between the two maps of a block's second half."""

    SWIGLU = "swiglu"
    """silu(gate) * up, as in Llama."""
    SQUARED_RELU = "squared_relu"
    """max(up, 0)^2, as in BitNet b1.58 2B4T; there is no gate."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A decoder in the manner of Llama: RMS norms in front of attention and feed-forward maps, rotary positions.

    Args:
        layers: Blocks.
        width: Channels of the residual stream.
        heads: Heads of the queries; they divide the width into an even number of channels each.
        kv_heads: Heads of keys and values, which groups of query heads share; they divide `heads`.
        hidden: Channels of the feed-forward maps.
        feed_forward: What stands between them.
        tied: Whether the head that scores the next token is the embedding.
        embedding_states: States of embedding and head, standardized per token; null keeps them in float, which trains
            and does not lower. `model.quant.weight_states: null` makes them float as well.
        sub_norm: Whether a further RMS norm stands in front of the last map of attention and of feed-forward
            (BitNet b1.58).
        rope_base: Base of the rotary angles.
        norm_eps: Added to the mean square.
    """

    layers: int = 4
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 768
    feed_forward: FeedForward = FeedForward.SWIGLU
    tied: bool = False
    embedding_states: int | None = 255
    sub_norm: bool = False
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "kv_heads", "hidden"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"transformer.{name} must be an integer of at least 1, got {value!r}")
        if self.width % self.heads or self.width // self.heads % 2 or self.head_size > MAX_HEAD_SIZE:
            raise ConfigError(
                f"transformer.heads must divide the width into an even number of channels up to {MAX_HEAD_SIZE}, got "
                f"{self.width} channels and {self.heads} heads; choose heads so that width / heads is even"
            )
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"transformer.kv_heads must divide the heads, got {self.kv_heads} and {self.heads}; choose a divisor"
            )
        if self.embedding_states is not None:
            States(count=self.embedding_states, signed=True)
        for name in ("rope_base", "norm_eps"):
            if not 0 < getattr(self, name) < 1e12:
                raise ConfigError(f"transformer.{name} must be positive and finite, got {getattr(self, name)!r}")

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.width // self.heads
