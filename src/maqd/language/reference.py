"""A language model in NumPy, token by token with a cache: the oracle that the native engine is compared with.

Every operation is that of `maqd.nn.transformer` in evaluation, in the same order (docs/language.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maqd.errors import GraphError
from maqd.language.model import BlockWeights, LanguageModel, Norm, WeightMap
from maqd.numerics.limits import EXACT_LIMIT
from maqd.numerics.states import States
from maqd.numerics.tokens import (
    CACHE_STATES,
    EXP2,
    LEAST_EXPONENT,
    LOG2_E,
    LOWEST_POWER,
    MOST_EXPONENT,
    PROBABILITY_BITS,
    code_limit,
    rotations,
    score_factor,
)

Floats = NDArray[np.float32]

ONE = np.float32(1)


@dataclass(frozen=True, kw_only=True)
class TokenCodes:
    """Activations of some tokens.

    Args:
        codes: int8, ... x C.
        exponent: int32, ... x 1: code 1 is worth 2^exponent.
    """

    codes: NDArray[np.int8]
    exponent: NDArray[np.int32]


def token_codes(x: Floats, states: States) -> TokenCodes:
    """The codes of each token: clip(floor(x 2^(bits - b) + 1/2)), see `maqd.nn.transformer.token_codes`."""
    limit, bits = code_limit(states)
    _, exponent = np.frexp(np.abs(x).max(-1, keepdims=True))
    exponent = np.clip(exponent, LEAST_EXPONENT, MOST_EXPONENT).astype(np.int32) - bits
    scaled = np.ldexp(x, -exponent)
    floor = np.floor(scaled)
    rounded = floor + (scaled - floor >= 0.5)
    return TokenCodes(codes=np.clip(rounded, -limit, limit).astype(np.int8), exponent=exponent)


def exp2_fixed(t: Floats) -> Floats:
    """2^t with a fixed order of operations, for -126 <= t <= 126."""
    whole = np.floor(t + np.float32(0.5))
    rest = t - whole
    result = np.full_like(t, EXP2[0])
    for coefficient in EXP2[1:]:
        result = result * rest + np.float32(coefficient)
    return np.ldexp(result, whole.astype(np.int32)).astype(np.float32)


def silu_fixed(x: Floats) -> Floats:
    """The gate x / (1 + 2^(-x log2 e)) with a fixed order of operations."""
    power = np.clip(x * np.float32(-LOG2_E), np.float32(LOWEST_POWER), np.float32(-LOWEST_POWER))
    return np.asarray(x / (exp2_fixed(power) + ONE), np.float32)


def rms_norm(x: Floats, weight: Norm, eps: float) -> Floats:
    """The input times weight over the root mean square, statistics in float64."""
    mean = np.square(x.astype(np.float64)).mean(-1, keepdims=True)
    return np.asarray(x * (1 / np.sqrt(mean + eps)).astype(np.float32) * weight, np.float32)


def rotate(x: Floats, cosine: Floats, sine: Floats) -> Floats:
    """Pairs of channels turned: x tokens x heads x size, angles tokens x size/2."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cosine, sine = cosine[:, None], sine[:, None]
    turned = np.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1)
    return np.asarray(turned.reshape(x.shape), np.float32)


@dataclass(kw_only=True)
class _Cache:
    """Codes and exponents of the keys and values of a block, position p at row p modulo the context."""

    key: NDArray[np.int8]
    key_exponent: NDArray[np.int32]
    value: NDArray[np.int8]
    value_exponent: NDArray[np.int32]


Watch = Callable[[str, TokenCodes, NDArray[np.int32]], None]
"""Called with the name of a map, its input codes and its integer sums, tokens x outputs."""


@dataclass(kw_only=True)
class NumpyLanguage:
    """Computes scores, token after token.

    Args:
        model: A valid model.
        watch: Sees every map's codes and sums; None if nothing watches.

    Attributes:
        position: Tokens seen since `reset`.
    """

    model: LanguageModel
    watch: Watch | None = None
    position: int = 0
    _maps: dict[str, NDArray[np.floating]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        limit, _ = code_limit(self.model.states)
        for name, found, _ in self.model.maps():
            codes = found.weight.unpack()
            exact = int(np.abs(codes.astype(np.int64)).sum(1).max()) * limit < EXACT_LIMIT
            self._maps[name] = np.ascontiguousarray(codes.T.astype(np.float32 if exact else np.float64))
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        config, context = self.model.config, self.model.context
        codes, exponents = (context, config.kv_heads, config.head_size), (context, config.kv_heads, 1)
        self.position = 0
        self._caches = [
            _Cache(
                key=np.zeros(codes, np.int8),
                key_exponent=np.zeros(exponents, np.int32),
                value=np.zeros(codes, np.int8),
                value_exponent=np.zeros(exponents, np.int32),
            )
            for _ in range(config.layers)
        ]

    def feed(self, tokens: Sequence[int] | NDArray[np.integer]) -> Floats:
        """Take further tokens; each sees itself and what came before it, at most as many as the context.

        Args:
            tokens: At least one, at most as many as the context.

        Returns:
            Scores of the token that follows each, float32, tokens x vocabulary.

        Raises:
            GraphError: There are none or too many, or one is not in the vocabulary.
        """
        model, config = self.model, self.model.config
        ids = np.asarray(tokens, np.int64)
        if not 1 <= len(ids) <= model.context or ids.min() < 0 or ids.max() >= model.vocabulary:
            raise GraphError(
                f"a language model takes 1 and at most {model.context} tokens at once, each below {model.vocabulary}, "
                f"got {len(ids)}; feed them in parts"
            )
        positions = self.position + np.arange(len(ids))
        angles = rotations(positions, config.head_size, config.rope_base)
        codes = self._maps["embedding"].T[ids]
        x = np.ldexp(codes.astype(np.float32), model.embedding_exponent)
        for place, block in enumerate(model.blocks):
            prefix = f"blocks.{place}."
            normed = rms_norm(x, block.attention_norm, config.norm_eps)
            x = x + self._attention(place, prefix, block, normed, positions, angles)
            x = x + self._feed(prefix, block, rms_norm(x, block.feed_norm, config.norm_eps))
        self.position += len(ids)
        head = ("embedding", model.embedding) if model.head is None else ("head", model.head)
        return self._map(*head, token_codes(rms_norm(x, model.norm, config.norm_eps), model.states))

    def _map(self, name: str, found: WeightMap, x: TokenCodes) -> Floats:
        weight = self._maps[name]
        sums = x.codes.astype(weight.dtype) @ weight
        if self.watch is not None:
            self.watch(name, x, sums.astype(np.int32))
        return np.ldexp(sums.astype(np.float32), x.exponent + found.exponent)

    def _attention(
        self,
        place: int,
        prefix: str,
        block: BlockWeights,
        x: Floats,
        positions: NDArray[np.int64],
        angles: tuple[Floats, Floats],
    ) -> Floats:
        model, config, cache = self.model, self.model.config, self._caches[place]
        cached = States(count=CACHE_STATES, signed=True)
        codes = token_codes(x, model.states)
        shape = (len(x), -1, config.head_size)
        query = self._map(f"{prefix}query", block.query, codes).reshape(shape)
        key = self._map(f"{prefix}key", block.key, codes).reshape(shape)
        value = self._map(f"{prefix}value", block.value, codes).reshape(shape)
        q, k = (token_codes(rotate(part, *angles), cached) for part in (query, key))
        v = token_codes(value, cached)
        mixed = np.empty(query.shape, np.float32)
        for row, position in enumerate(positions):
            place_in_ring = position % model.context
            cache.key[place_in_ring], cache.key_exponent[place_in_ring] = k.codes[row], k.exponent[row]
            cache.value[place_in_ring], cache.value_exponent[place_in_ring] = v.codes[row], v.exponent[row]
            known = min(int(position) + 1, model.context)
            mixed[row] = self._mix(cache, known, q.codes[row], q.exponent[row])
        flat = mixed.reshape(len(x), -1)
        if block.mixed_norm is not None:
            flat = rms_norm(flat, block.mixed_norm, config.norm_eps)
        return self._map(f"{prefix}output", block.output, token_codes(flat, model.states))

    def _mix(self, cache: _Cache, known: int, q: NDArray[np.int8], exponent: NDArray[np.int32]) -> Floats:
        """Attention of one token: heads x size; the order of the keys does not matter."""
        config = self.model.config
        groups = config.heads // config.kv_heads
        query = q.reshape(config.kv_heads, groups, -1).astype(np.int32)
        sums = np.einsum("kgs,tks->kgt", query, cache.key[:known].astype(np.int32))
        units = exponent.reshape(config.kv_heads, groups, 1) + cache.key_exponent[:known, :, 0].T[:, None]
        scores = np.ldexp(sums.astype(np.float32), units) * np.float32(score_factor(config.head_size))
        t = np.maximum(scores - scores.max(-1, keepdims=True), np.float32(LOWEST_POWER))
        weights = np.floor(exp2_fixed(t) * np.float32(2**PROBABILITY_BITS) + np.float32(0.5)).astype(np.float64)
        values = np.ldexp(cache.value[:known].astype(np.float64), cache.value_exponent[:known])
        mixed = np.einsum("kgt,tks->kgs", weights, values) / weights.sum(-1, keepdims=True)
        return mixed.astype(np.float32).reshape(config.heads, -1)

    def _feed(self, prefix: str, block: BlockWeights, x: Floats) -> Floats:
        codes = token_codes(x, self.model.states)
        up = self._map(f"{prefix}up", block.up, codes)
        if block.gate is None:
            mixed = np.square(np.maximum(up, 0))
        else:
            mixed = silu_fixed(self._map(f"{prefix}gate", block.gate, codes)) * up
        if block.hidden_norm is not None:
            mixed = rms_norm(mixed, block.hidden_norm, self.model.config.norm_eps)
        return self._map(f"{prefix}down", block.down, token_codes(mixed, self.model.states))
