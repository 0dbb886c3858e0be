"""Layers of language models: maps of few states between activations with a power of two for each token.

In front of every map of few states an activation is an integer code times 2^e, e from the largest magnitude of its
token (`TokenActivation`), so that the sums of a map are integers, and exact in float32. Norm, rotation, softmax and the
gate are in float32 with a fixed order of operations; in evaluation without gradients they are those of
`maqd.numerics.tokens`, bit for bit what the other engines compute (docs/language.md). In training, and where gradients
are recorded, PyTorch's own functions stand in for them: equal up to rounding.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.nn.factory import LayerFactory
from maqd.nn.functional import round_half_up, with_gradient_of
from maqd.nn.input_grid import Values
from maqd.nn.layers import QuantLinear
from maqd.nn.quantizers import RoundClip, WeightQuantizer
from maqd.numerics.states import Grid, States
from maqd.numerics.tokens import (
    CACHE_STATES,
    EXP2,
    LEAST_EXPONENT,
    LOG2_E,
    LOWEST_POWER,
    MOST_EXPONENT,
    PROBABILITY_BITS,
    code_limit,
    embedding_shift,
    score_factor,
)
from maqd.settings.language import FeedForward, TransformerConfig

# ---- functions ------------------------------------------------------------------------------------------------------


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float32, exactly.

    Args:
        exponent: Integers of -126 .. 127, any shape.
    """
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def token_codes(x: Tensor, states: States) -> tuple[Tensor, Tensor]:
    """The codes of each token, and the exponent of their unit.

    With m the largest magnitude of a token and 2^(b-1) <= m < 2^b:

        code = clip(floor(x 2^(bits - b) + 1/2), -limit, limit)        value = code 2^(b - bits)

    Args:
        x: ... x C, float32.
        states: Signed, M odd; limit = (M-1)/2 has `bits` bits.

    Returns:
        Codes in float32, ... x C, and exponents int32, ... x 1.
    """
    limit, bits = code_limit(states)
    exponent = torch.frexp(x.abs().amax(-1, keepdim=True)).exponent.clamp(LEAST_EXPONENT, MOST_EXPONENT) - bits
    return round_half_up(x * power_of_two(-exponent)).clamp(-limit, limit), exponent


def exp2_fixed(t: Tensor) -> Tensor:
    """2^t in float32 with a fixed order of operations, for -126 <= t <= 126."""
    whole = torch.floor(t + 0.5)
    rest = t - whole
    result = torch.full_like(t, EXP2[0])
    for coefficient in EXP2[1:]:
        result = result * rest + coefficient
    return result * power_of_two(whole)


def silu_fixed(x: Tensor) -> Tensor:
    """The gate x / (1 + 2^(-x log2 e)) in float32 with a fixed order of operations."""
    return x / (exp2_fixed((x * -LOG2_E).clamp(LOWEST_POWER, -LOWEST_POWER)) + 1.0)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The input times weight over its root mean square: statistics in float64, their inverse rounded to float32."""
    inverse = (x.double().square().mean(-1, keepdim=True) + eps).sqrt().reciprocal().float()
    return x * inverse * weight


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Pairs of channels (2i, 2i + 1) turned by their angles.

    Args:
        x: ... x T x size.
        cosine, sine: T x size/2.
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2)


def exact_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention on codes: integer scores, integer weights, one rounding at the end.

    With s = q . k in units of both tokens and c = `score_factor`:

        t = s c - max over keys of s c        w = floor(2^15 2^t + 1/2)        out = (sum w v) / (sum w)

    s and the sums of w are integers; the sums of w v are exact in float64 unless units of values lie further apart
    than 2^20.

    Args:
        query: N x heads x T x size, float32, as rotated.
        key, value: N x kv_heads x T x size.

    Returns:
        N x heads x T x size, float32.
    """
    states = States(count=CACHE_STATES, signed=True)
    groups = query.shape[1] // key.shape[1]
    (q, q_exponent), (k, k_exponent), (v, v_exponent) = (token_codes(x, states) for x in (query, key, value))
    k, k_unit = (x.repeat_interleave(groups, 1) for x in (k, power_of_two(k_exponent)))
    values = (v * power_of_two(v_exponent)).double().repeat_interleave(groups, 1)
    scores = q @ k.transpose(-2, -1) * power_of_two(q_exponent) * k_unit.transpose(-2, -1)
    scores = scores * score_factor(query.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    scores = scores.masked_fill(future, -math.inf)
    t = (scores - scores.amax(-1, keepdim=True)).clamp_min(LOWEST_POWER)
    weights = torch.floor(exp2_fixed(t) * float(2**PROBABILITY_BITS) + 0.5).masked_fill(future, 0).double()
    return (weights @ values / weights.sum(-1, keepdim=True)).float()


# ---- modules --------------------------------------------------------------------------------------------------------


def _exact(module: nn.Module) -> bool:
    """Whether the fixed order of operations is used."""
    return not module.training and not torch.is_grad_enabled()


class TokenActivation(nn.Module):
    """Activations as codes times a power of two for each token; the gradient passes straight.

    ... x C -> ... x C.

    Args:
        states: M, odd; None leaves them in float.

    Attributes:
        rounding: Whether it does anything (`maqd.nn.set_rounding`).
    """

    def __init__(self, states: int | None) -> None:
        super().__init__()
        self.states = None if states is None else States(count=states, signed=True)
        self.rounding = True
        if self.states is not None:
            code_limit(self.states)

    @property
    def grid(self) -> Grid | None:
        """Codes, and their unit where the largest magnitude is 1; None in float."""
        if self.states is None:
            return None
        limit, bits = code_limit(self.states)
        return Grid(low=-limit, high=limit, exponent=-bits)

    def forward(self, x: Tensor) -> Tensor:
        """The values of the codes."""
        if self.states is None or not self.rounding:
            return x
        with torch.no_grad():
            codes, exponent = token_codes(x.float(), self.states)
            values = codes * power_of_two(exponent)
        return with_gradient_of(values, x) if torch.is_grad_enabled() else values

    def extra_repr(self) -> str:
        return f"states={None if self.states is None else self.states.count}"


class RMSNorm(nn.Module):
    """Root mean square normalization over channels (Zhang and Sennrich, arXiv 1910.07467): ... x C -> ... x C.

    Args:
        channels: C.
        eps: Added to the mean square.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """The normalized values."""
        if _exact(self):
            return rms_norm(x.float(), self.weight.float(), self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class TokenLinear(QuantLinear):
    """A linear map of few states of activations with a unit for each token: ... x I -> ... x O.

    Args:
        in_features, out_features: I and O.
        states: How weights are quantized; None for float.
        activation: Where the input comes from.
        gain: Wanted standard deviation of the output for an input of standard deviation 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        states: int | WeightQuantizer | None,
        activation: TokenActivation,
        gain: float = 1.0,
    ) -> None:
        # The grid of each token has an exponent of its own, so that batches cannot be compared with one grid.
        super().__init__(in_features, out_features, states=states, input_grid=Values.FLOAT, gain=gain)
        if self.quantizer is None:
            nn.init.normal_(self.weight, std=gain / math.sqrt(in_features))
        elif activation.grid is not None:
            self.set_input_grid(activation.grid)

    def forward(self, x: Tensor) -> Tensor:
        """Integer sums times a power of two for each token, in evaluation exactly; float32."""
        return super().forward(x).float()


class Vocabulary(TokenLinear):
    """A row of channels for each token: looked up, and as a map to scores: ... x C -> ... x V.

    Args:
        tokens: V.
        channels: C.
        states: Of each row, standardized; None for float.
        activation: Where the input of the map comes from.
        gain: As in `TokenLinear`.
    """

    def __init__(
        self, tokens: int, channels: int, *, states: int | None, activation: TokenActivation, gain: float
    ) -> None:
        quantizer = None if states is None else RoundClip(states=States(count=states, signed=True))
        super().__init__(channels, tokens, states=quantizer, activation=activation, gain=gain)

    def embed(self, tokens: Tensor) -> Tensor:
        """The rows of some tokens.

        Args:
            tokens: Integers, N x T.

        Returns:
            float32, N x T x C.
        """
        return F.embedding(tokens.long(), self._table())

    def _table(self) -> Tensor:
        if self.quantizer is None or self.exponent is None:
            return self.weight
        if not self.rounding:
            return self.quantizer.unrounded(self.weight, math.ldexp(1.0, self.exponent), self._learned)
        if self.training or torch.is_grad_enabled():
            return self._values()[0]
        self.fold()
        return self.eval_weight.float()


class Attention(nn.Module):
    """Causal attention with rotary positions and grouped heads: N x T x C -> N x T x C.

    Args:
        config: The decoder.
        layers: Makes weight quantizers, by name.
        name: Of this module in the network.
        act_states: States of the activations; None in float.
    """

    def __init__(self, config: TransformerConfig, layers: LayerFactory, name: str, act_states: int | None) -> None:
        super().__init__()
        self.config = config
        size, width = config.head_size, config.width
        self.input = TokenActivation(act_states)
        self.cached = TokenActivation(None if act_states is None else CACHE_STATES)
        self.mixed = TokenActivation(act_states)
        self.sub_norm = RMSNorm(width, config.norm_eps) if config.sub_norm else None

        def linear(part: str, outputs: int, activation: TokenActivation, gain: float = 1.0) -> TokenLinear:
            states = layers.weight_quantizer(f"{name}.{part}")
            return TokenLinear(width, outputs, states=states, activation=activation, gain=gain)

        self.query = linear("query", width, self.input)
        self.key = linear("key", config.kv_heads * size, self.input)
        self.value = linear("value", config.kv_heads * size, self.input)
        self.output = linear("output", width, self.mixed, 1 / math.sqrt(2 * config.layers))

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """What the block adds to its stream; x is normalized."""
        x = self.input(x)
        query, key, value = (
            linear(x).unflatten(-1, (-1, self.config.head_size)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        if self.cached.states is not None and self.cached.rounding and _exact(self):
            mixed = exact_attention(query, key, value)
        else:
            query, key, value = self.cached(query), self.cached(key), self.cached(value)
            grouped = self.config.heads != self.config.kv_heads
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        mixed = mixed.transpose(1, 2).flatten(-2)
        if self.sub_norm is not None:
            mixed = self.sub_norm(mixed)
        return self.output(self.mixed(mixed))


class FeedForwardMaps(nn.Module):
    """The second half of a block: N x T x C -> N x T x C.

    Args:
        config: The decoder.
        layers: Makes weight quantizers, by name.
        name: Of this module in the network.
        act_states: States of the activations; None in float.
    """

    def __init__(self, config: TransformerConfig, layers: LayerFactory, name: str, act_states: int | None) -> None:
        super().__init__()
        self.gated = config.feed_forward is FeedForward.SWIGLU
        self.input = TokenActivation(act_states)
        self.mixed = TokenActivation(act_states)
        self.sub_norm = RMSNorm(config.hidden, config.norm_eps) if config.sub_norm else None

        def linear(part: str, inputs: int, outputs: int, activation: TokenActivation, gain: float) -> TokenLinear:
            states = layers.weight_quantizer(f"{name}.{part}")
            return TokenLinear(inputs, outputs, states=states, activation=activation, gain=gain)

        self.gate = linear("gate", config.width, config.hidden, self.input, 1.0) if self.gated else None
        self.up = linear("up", config.width, config.hidden, self.input, 1.0)
        self.down = linear("down", config.hidden, config.width, self.mixed, 1 / math.sqrt(2 * config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """What the block adds to its stream; x is normalized."""
        x = self.input(x)
        up = self.up(x)
        if self.gate is None:
            mixed = F.relu(up).square()
        else:
            gate = self.gate(x)
            mixed = (silu_fixed(gate) if _exact(self) else F.silu(gate)) * up
        if self.sub_norm is not None:
            mixed = self.sub_norm(mixed)
        return self.down(self.mixed(mixed))


class Block(nn.Module):
    """Attention and feed-forward maps, each after a norm and added to the stream: N x T x C -> N x T x C.

    Args:
        config: The decoder.
        layers: Makes weight quantizers, by name.
        name: Of this module in the network.
        act_states: States of the activations; None in float.
    """

    def __init__(self, config: TransformerConfig, layers: LayerFactory, name: str, act_states: int | None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config, layers, f"{name}.attention", act_states)
        self.feed_norm = RMSNorm(config.width, config.norm_eps)
        self.feed = FeedForwardMaps(config, layers, f"{name}.feed", act_states)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """The stream after the block."""
        x = x + self.attention(self.attention_norm(x), cosine, sine)
        return x + self.feed(self.feed_norm(x))


def vocabulary_gain(width: int, *, embedding: bool) -> float:
    """Gain of a `Vocabulary`: scores and embeddings of standard deviation 1; a tied one is scaled when looked up."""
    return math.sqrt(width) if embedding else 1.0


__all__ = [
    "Attention",
    "Block",
    "FeedForwardMaps",
    "RMSNorm",
    "TokenActivation",
    "TokenLinear",
    "Vocabulary",
    "embedding_shift",
    "exact_attention",
    "exp2_fixed",
    "power_of_two",
    "rms_norm",
    "rotate",
    "silu_fixed",
    "token_codes",
    "vocabulary_gain",
]
