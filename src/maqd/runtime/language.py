"""Engines that continue text: `maqd.load` of a language model."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ConfigError, EngineError
from maqd.language.model import LanguageModel
from maqd.language.reference import NumpyLanguage
from maqd.language.sampling import Sampling, draw
from maqd.runtime.language_native import NativeLanguage
from maqd.runtime.native import native_module

START = b"\n"
"""What an empty text begins with."""


class Decoder(Protocol):
    """What computes scores: `NumpyLanguage`, or the compiled engine."""

    def reset(self) -> None:
        """Forget all tokens."""
        ...

    def feed(self, tokens: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
        """Take further tokens; scores of what follows each, tokens x vocabulary."""
        ...


class LanguageEngine:
    """Continues text.

    Args:
        model: A valid model.
        engine: `native` or `numpy`; None takes the native one where it was built.
        threads: Of the native engine.

    Raises:
        EngineError: There is no such engine for language models.
        MissingDependencyError: The native engine is asked for and was not built.
    """

    def __init__(self, model: LanguageModel, *, engine: str | None = None, threads: int = 1) -> None:
        if engine not in (None, "native", "numpy"):
            raise EngineError(
                f"language models run in the engines native and numpy, got {engine!r}; leave the engine out"
            )
        self.model = model
        self.threads = threads
        self.name = engine or ("native" if native_module() is not None else "numpy")
        self._decoder: Decoder = (
            NumpyLanguage(model=model) if self.name == "numpy" else NativeLanguage(model, threads=threads)
        )

    def tokens_of(self, text: str | bytes) -> list[int]:
        """The bytes of a text, UTF-8; an empty one starts with a line break.

        Raises:
            ConfigError: There are more than the context holds, or characters that UTF-8 cannot hold.
        """
        try:
            data = text.encode() if isinstance(text, str) else text
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"the text has a character at {error.start} that UTF-8 cannot hold; remove it: {error.reason}"
            ) from error
        if len(data) > self.model.context:
            raise ConfigError(
                f"the text has {len(data):,} bytes, and the model a context of {self.model.context:,}; pass its end "
                "only, or train with a larger --data.context"
            )
        return list(data or START)

    def scores(self, text: str | bytes) -> NDArray[np.float32]:
        """Scores of the byte that follows each byte of a text, float32, bytes x 256.

        Raises:
            ConfigError: As `tokens_of`.
        """
        tokens = self.tokens_of(text)
        self._decoder.reset()
        return self._decoder.feed(tokens)

    def generate_bytes(self, text: str | bytes, *, count: int = 200, sampling: Sampling | None = None) -> Iterator[int]:
        """Bytes that follow a text, one after the other.

        Each byte sees as many before it as the context holds. The same seed gives the same bytes in every engine.

        Args:
            text: What comes before.
            count: How many bytes.
            sampling: How they are drawn.

        Raises:
            ConfigError: As `tokens_of`, or the count is negative.
        """
        if count < 0:
            raise ConfigError(f"the number of bytes to generate must be 0 or positive, got {count}")
        sampling = sampling or Sampling()
        tokens = self.tokens_of(text)
        return self._generate(tokens, count, sampling)

    def _generate(self, tokens: list[int], count: int, sampling: Sampling) -> Iterator[int]:
        generator = sampling.generator()
        self._decoder.reset()
        following = tokens
        for _ in range(count):
            token = draw(self._decoder.feed(following)[-1], sampling, generator)
            yield token
            following = [token]

    def generate_all(
        self, texts: Sequence[str | bytes], *, count: int = 200, sampling: Sampling | None = None
    ) -> list[str]:
        """What follows each of several texts: for each what `generate` gives, one token of all of them at a time.

        Args:
            texts: At least one.
            count: How many bytes for each.
            sampling: How they are drawn, for each text from the same seed.

        Raises:
            ConfigError: As `generate_bytes`, or there is no text.
        """
        if count < 0 or not texts:
            raise ConfigError(f"generate_all needs texts and a count of 0 or more, got {len(texts)} and {count}")
        sampling = sampling or Sampling()
        prompts = [self.tokens_of(text) for text in texts]
        scores: Iterable[NDArray[np.float32]]
        if self.name == "numpy":
            single = [NumpyLanguage(model=self.model) for _ in prompts]
            scores = [one.feed(tokens)[-1] for one, tokens in zip(single, prompts, strict=True)]

            def feed(tokens: list[int]) -> Iterable[NDArray[np.float32]]:
                return [one.feed([token])[0] for one, token in zip(single, tokens, strict=True)]
        else:
            several = NativeLanguage(self.model, threads=self.threads, sequences=len(prompts))
            scores = [several.feed(tokens, place)[-1] for place, tokens in enumerate(prompts)]
            places, most = np.arange(len(prompts)), self.model.context

            def feed(tokens: list[int]) -> Iterable[NDArray[np.float32]]:
                parts = range(0, len(tokens), most)
                return np.concatenate([several.feed(tokens[i : i + most], places[i : i + most]) for i in parts])

        generators = [sampling.generator() for _ in prompts]
        found: list[list[int]] = [[] for _ in prompts]
        for number in range(count):
            drawn = [draw(one, sampling, generator) for one, generator in zip(scores, generators, strict=True)]
            for tokens, token in zip(found, drawn, strict=True):
                tokens.append(token)
            if number + 1 < count:
                scores = feed(drawn)
        return ["".join(_pieces(iter(tokens))) for tokens in found]

    def generate(self, text: str | bytes, *, count: int = 200, sampling: Sampling | None = None) -> Iterator[str]:
        """Text that follows, in pieces as they come; what is no UTF-8 becomes U+FFFD.

        Args:
            text, count, sampling: As in `generate_bytes`.

        Raises:
            ConfigError: As `generate_bytes`.
        """
        found = self.generate_bytes(text, count=count, sampling=sampling)
        return _pieces(found)


def _pieces(found: Iterator[int]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for byte in found:
        if piece := decoder.decode(bytes([byte])):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece
