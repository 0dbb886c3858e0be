"""How the next token is drawn from scores: temperature, the k best, the smallest set of probability p."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: Divides the scores; 0 takes the best token, the first of equal ones.
        top_k: Only the k best tokens can be drawn, and those that equal the k-th; None for all.
        top_p: Only the most likely tokens, as few as have this probability together; 1 for all.
        seed: Of the random generator.

    Raises:
        ConfigError: A value is out of its range.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be 0 or positive, got {self.temperature!r}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k must be at least 1, got {self.top_k!r}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be in (0, 1], got {self.top_p!r}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or positive, got {self.seed!r}")

    def generator(self) -> np.random.Generator:
        """A new generator."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed)))


def probabilities(scores: NDArray[np.floating], sampling: Sampling) -> NDArray[np.float64]:
    """The probability of each token, float64, V.

    Args:
        scores: V.
        sampling: With a positive temperature.
    """
    logits = scores.astype(np.float64) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < len(logits):
        least = np.partition(logits, -sampling.top_k)[-sampling.top_k]
        logits = np.where(logits >= least, logits, -np.inf)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    if sampling.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        before = np.cumsum(weights[order]) - weights[order]
        weights[order[before >= sampling.top_p]] = 0
        weights /= weights.sum()
    return weights


def draw(scores: NDArray[np.floating], sampling: Sampling, generator: np.random.Generator) -> int:
    """The next token.

    Args:
        scores: V.
        sampling: How.
        generator: Of `Sampling.generator`; it moves on by one number for each token.
    """
    if sampling.temperature == 0:
        return int(scores.argmax())
    cumulated = np.cumsum(probabilities(scores, sampling))
    return int(np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right"))
