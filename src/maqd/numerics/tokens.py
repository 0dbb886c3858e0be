"""Numbers of language models: codes with a power of two for each token, and float functions with a fixed order.

What follows is done in float32, one rounding for each operation and no fused ones, so that PyTorch, NumPy and the
native engine get the same bits (docs/language.md). Constants are float32 exactly.
"""

import math

import numpy as np

from maqd.errors import ConfigError
from maqd.numerics.states import States

LEAST_EXPONENT, MOST_EXPONENT = -60, 60
"""Bounds of the exponent b of a token's largest magnitude m, 2^(b-1) <= m < 2^b; 0 where m = 0."""

CACHE_STATES = 255
"""States of queries, keys and values, a power of two for each token and head."""

PROBABILITY_BITS = 15
"""Attention weighs values with integers: 2^15 times the exponential, rounded, of the distance to the largest score."""

LOWEST_POWER = -126.0
"""Arguments of the power of two are clipped to -126 .. 126."""

EXP2 = tuple(
    float(np.float32(value))
    for value in (
        1.535336188319500e-4,
        1.339887440266574e-3,
        9.618437357674640e-3,
        5.550332471162809e-2,
        2.402264791363012e-1,
        6.931472028550421e-1,
        1.0,
    )
)
"""2^f for |f| <= 1/2 by Horner's scheme, highest power first (Cephes, exp2f): within 2 units of the last place."""

LOG2_E = float(np.float32(math.log2(math.e)))
"""log2(e)."""


def code_limit(states: States) -> tuple[int, int]:
    """The largest code of a token, and the bits that hold it.

    A token whose largest magnitude m has the exponent b gets codes round(x 2^(bits - b)), clipped, with the unit
    2^(b - bits).

    Args:
        states: Signed, M odd.

    Raises:
        ConfigError: They are not.
    """
    if not states.signed or states.count % 2 == 0:
        raise ConfigError(
            f"activations of language models need an odd number of states, got {states.count}; use {states.count - 1}"
        )
    return states.high, states.high.bit_length()


def score_factor(head_size: int) -> float:
    """What turns a product of queries and keys into a power of two: log2(e) / sqrt(head size), in float32."""
    return float(np.float32(math.log2(math.e) / math.sqrt(head_size)))


def embedding_shift(width: int) -> int:
    """Power of two that a tied embedding is multiplied by: the head's weights have a deviation of 1 / sqrt(width)."""
    return round(math.log2(width) / 2)


def rotations(positions: np.ndarray, size: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine for each pair of channels (2i, 2i + 1), computed in float64 and rounded once.

    Args:
        positions: Integers, N.
        size: Channels of a head, even.
        base: Of the angles: position * base^(-2i / size).

    Returns:
        Two arrays float32 N x size/2.
    """
    angles = positions.astype(np.float64)[:, None] * base ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
