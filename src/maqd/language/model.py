"""A language model as values: its sizes, packed weights with a power of two, and norms."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import GraphError
from maqd.numerics.limits import INT32_LIMIT, SAFE_EXPONENT
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.numerics.tokens import code_limit, embedding_shift
from maqd.settings.language import FeedForward, TransformerConfig

Norm = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightMap:
    """A map of few states.

    Args:
        weight: Codes, outputs x inputs.
        exponent: Code 1 is worth 2^exponent.
    """

    weight: PackedCodes
    exponent: int


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockWeights:
    """A block, in the order of computation.

    Args:
        attention_norm: width.
        query, key, value: From the normalized stream to heads x head size, kv_heads x head size twice.
        mixed_norm: In front of `output`, width; None without.
        output: To the stream.
        feed_norm: width.
        gate: From the normalized stream to hidden; None with squared ReLU.
        up: Likewise.
        hidden_norm: In front of `down`, hidden; None without.
        down: To the stream.
    """

    attention_norm: Norm
    query: WeightMap
    key: WeightMap
    value: WeightMap
    mixed_norm: Norm | None
    output: WeightMap
    feed_norm: Norm
    gate: WeightMap | None
    up: WeightMap
    hidden_norm: Norm | None
    down: WeightMap


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """A decoder of few states.

    Args:
        config: Its sizes.
        vocabulary: Tokens; 256, the bytes.
        context: Tokens that it was trained on together.
        act_states: States of the activations in front of maps, odd.
        embedding: vocabulary x width.
        blocks: `config.layers` of them.
        norm: In front of the head, width.
        head: vocabulary x width; None where it is the embedding.
        licence, provenance: What is known of it, for people.

    The stream starts with rows of the embedding, times 2^embedding_shift(width) where it is tied.
    """

    config: TransformerConfig
    vocabulary: int
    context: int
    act_states: int
    embedding: WeightMap
    blocks: tuple[BlockWeights, ...]
    norm: Norm
    head: WeightMap | None
    licence: str = ""
    provenance: str = ""

    @property
    def states(self) -> States:
        """Of the activations."""
        return States(count=self.act_states, signed=True)

    @property
    def embedding_exponent(self) -> int:
        """Code 1 of the embedding is worth 2^this in the stream."""
        return self.embedding.exponent + (embedding_shift(self.config.width) if self.head is None else 0)

    def maps(self) -> Iterator[tuple[str, WeightMap, tuple[int, int]]]:
        """Every map with its name and the shape that it must have."""
        config = self.config
        width, kv = config.width, config.kv_heads * config.head_size
        yield "embedding", self.embedding, (self.vocabulary, width)
        for place, block in enumerate(self.blocks):
            wanted = {
                "query": (width, width),
                "key": (kv, width),
                "value": (kv, width),
                "output": (width, width),
                "gate": (config.hidden, width),
                "up": (config.hidden, width),
                "down": (width, config.hidden),
            }
            for name, shape in wanted.items():
                found: WeightMap | None = getattr(block, name)
                if found is not None:
                    yield f"blocks.{place}.{name}", found, shape
        if self.head is not None:
            yield "head", self.head, (self.vocabulary, width)

    def norms(self) -> Iterator[tuple[str, Norm, int]]:
        """Every norm with its name and the channels that it must have."""
        for place, block in enumerate(self.blocks):
            for name in ("attention_norm", "mixed_norm", "feed_norm", "hidden_norm"):
                found: Norm | None = getattr(block, name)
                if found is not None:
                    channels = self.config.hidden if name == "hidden_norm" else self.config.width
                    yield f"blocks.{place}.{name}", found, channels
        yield "norm", self.norm, self.config.width

    @property
    def weight_bytes(self) -> int:
        """Bytes of all packed weights."""
        return sum(found.weight.data.nbytes for _, found, _ in self.maps())

    @property
    def weights(self) -> int:
        """How many weights there are."""
        return sum(found.weight.size for _, found, _ in self.maps())

    def validate(self) -> None:
        """Check that all parts fit, and that every sum fits 32 bits whatever the tokens are.

        Raises:
            GraphError: They do not; the message names the part.
        """
        limit, _ = code_limit(self.states)
        if self.vocabulary < 2 or self.context < 1 or len(self.blocks) != self.config.layers:
            raise GraphError(
                f"the language model must have 2 tokens, a context of 1 and {self.config.layers} blocks or more, got "
                f"{self.vocabulary}, {self.context} and {len(self.blocks)}"
            )
        if (self.head is None) != self.config.tied:
            raise GraphError("the language model must have a head of its own unless its embedding is tied")
        gated, sub_norm = self.config.feed_forward is FeedForward.SWIGLU, self.config.sub_norm
        for place, block in enumerate(self.blocks):
            if (block.gate is not None) != gated or {block.mixed_norm is not None, block.hidden_norm is not None} != {
                sub_norm
            }:
                raise GraphError(f"block {place} must have the gate and the norms that {self.config} says")
        for name, found, shape in self.maps():
            states = found.weight.states
            if found.weight.shape != shape or not states.signed:
                raise GraphError(f"{name} must have signed codes of shape {shape}, got {states}, {found.weight.shape}")
            if abs(found.exponent) > SAFE_EXPONENT:
                raise GraphError(f"{name} must have an exponent within +-{SAFE_EXPONENT}, got {found.exponent}")
            positive, negative = found.weight.row_sums()
            largest = int((positive + negative).max()) * limit
            if largest > INT32_LIMIT:
                raise GraphError(f"{name} can sum up to {largest}, which does not fit 32 bits; use fewer states")
        for name, norm, channels in self.norms():
            if norm.dtype != np.float32 or norm.shape != (channels,) or not np.isfinite(norm).all():
                raise GraphError(f"{name} must be {channels} finite float32, got {norm.dtype} {norm.shape}")
