"""The compiled engine for language models: csrc/engine/language.cpp on the packed weights of the file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError, GraphError, MissingDependencyError
from maqd.language.model import LanguageModel, WeightMap
from maqd.numerics.limits import INT32_LIMIT
from maqd.numerics.packing import group
from maqd.numerics.states import States
from maqd.numerics.tokens import CACHE_STATES, code_limit, rotations, score_factor
from maqd.runtime.engine import check_threads
from maqd.runtime.native import choose_isa, native_module

TRITS = 5
"""Ternary weights in a byte."""

MOST_SEQUENCES = 4096

MOST_CODE = 127
"""Activations are codes of 8 bits."""


def rows_map(module: Any, found: WeightMap) -> tuple[Any, NDArray[np.uint8]]:
    """A map for the compiled module, and the array that it reads: the packed weights as they are where they are three
    states, or one in a byte; unpacked to a byte each otherwise.

    Raises:
        EngineError: Sums of indices may leave 32 bits.
    """
    weight, states = found.weight, found.weight.states
    inputs, layout = weight.shape[1], group(states.count)
    largest = (states.count - 1) * MOST_CODE * inputs
    if largest > INT32_LIMIT:
        raise EngineError(
            f"the native engine sums up indices of {states.count} states over {inputs:,} inputs, up to {largest}; that "
            'does not fit 32 bits; use engine="numpy"'
        )
    direct = layout.bytes == 1 and (layout.digits == 1 or (states.count == 3 and layout.digits == TRITS))
    if direct:
        data, digits = weight.data, layout.digits
    else:
        codes = weight.unpack().astype(np.int32)
        data, digits = ((codes - states.low) // states.spacing).astype(np.uint8), 1
    data = np.ascontiguousarray(data)
    made = module.RowsMap(
        weights=data,
        inputs=inputs,
        digits=digits,
        low=states.low,
        spacing=states.spacing,
        exponent=found.exponent,
    )
    return made, data


def map_sums(found: WeightMap, codes: NDArray[np.int8], isa: str) -> NDArray[np.int32]:
    """The sums of a map in the compiled engine.

    Args:
        found: The map.
        codes: Tokens x inputs.
        isa: Instruction set, one of `maqd.runtime.native.isas()`.

    Returns:
        int32, tokens x outputs.
    """
    module = _module()
    made, _data = rows_map(module, found)
    sums = np.empty((len(codes), found.weight.shape[0]), np.int32)
    module.language_sums(isa, made, np.ascontiguousarray(codes), sums)
    return sums


class NativeLanguage:
    """Computes scores, token after token; see `maqd.language.reference.NumpyLanguage`, whose results it has.

    Args:
        model: A valid model.
        threads: How many threads a call uses.
        sequences: How many texts are continued beside each other; each has keys and values of its own.
        isa: Instruction set; None takes that of MAQD_ISA, or the best.

    Raises:
        MissingDependencyError: The package was installed without a compiler.
        EngineError: There is no such instruction set.
    """

    def __init__(self, model: LanguageModel, *, threads: int = 1, sequences: int = 1, isa: str | None = None) -> None:
        module = _module()
        if not 1 <= sequences <= MOST_SEQUENCES:
            raise EngineError(f"sequences must be 1 .. {MOST_SEQUENCES}, got {sequences}")
        self.sequences = sequences
        self.model = model
        self.isa = choose_isa(isa)
        config = model.config
        limit, bits = code_limit(model.states)
        cached_limit, cached_bits = code_limit(States(count=CACHE_STATES, signed=True))
        # The compiled module reads these arrays in place.
        self._kept: list[NDArray[np.generic]] = [norm for _, norm, _ in model.norms()]
        embedding = self._map(module, model.embedding)
        try:
            self._language = module.Language(
                isa=self.isa,
                threads=check_threads(threads),
                width=config.width,
                heads=config.heads,
                kv_heads=config.kv_heads,
                hidden=config.hidden,
                vocabulary=model.vocabulary,
                context=model.context,
                sequences=sequences,
                limit=limit,
                bits=bits,
                cached_limit=cached_limit,
                cached_bits=cached_bits,
                embedding_exponent=model.embedding_exponent,
                eps=config.norm_eps,
                factor=score_factor(config.head_size),
                gated=model.blocks[0].gate is not None,
                embedding=embedding,
                head=embedding if model.head is None else self._map(module, model.head),
                norm=model.norm,
            )
        except RuntimeError as error:  # threads that the system does not start
            raise EngineError(str(error)) from error
        for block in model.blocks:
            up = self._map(module, block.up)
            self._language.add(
                attention_norm=block.attention_norm,
                query=self._map(module, block.query),
                key=self._map(module, block.key),
                value=self._map(module, block.value),
                mixed_norm=block.mixed_norm,
                output=self._map(module, block.output),
                feed_norm=block.feed_norm,
                gate=up if block.gate is None else self._map(module, block.gate),
                up=up,
                hidden_norm=block.hidden_norm,
                down=self._map(module, block.down),
            )
        self._angles = rotations(np.arange(model.context), config.head_size, config.rope_base)

    def _map(self, module: Any, found: WeightMap) -> Any:
        made, data = rows_map(module, found)
        self._kept.append(data)
        return made

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights, norms and angles."""
        return sum(array.nbytes for array in (*self._kept, *self._angles))

    @property
    def working_bytes(self) -> int:
        """Bytes of what maps read and write."""
        return self._language.working_bytes

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values."""
        return self._language.cache_bytes

    def reset(self) -> None:
        """Forget all tokens of all sequences."""
        for sequence in range(self.sequences):
            self._language.reset(sequence)

    def feed(
        self, tokens: Sequence[int] | NDArray[np.integer], sequences: int | Sequence[int] | NDArray[np.integer] = 0
    ) -> NDArray[np.float32]:
        """Take further tokens; scores of what follows each, as `NumpyLanguage.feed`.

        Args:
            tokens: As there.
            sequences: The sequence that they belong to, or that of each token: one token each of many sequences takes
                little more time than one of them.

        Raises:
            GraphError: There are none or too many, or one is not in the vocabulary, or there is no such sequence.
        """
        model, ids = self.model, np.asarray(tokens, np.int32)
        if not 1 <= len(ids) <= model.context or ids.min() < 0 or ids.max() >= model.vocabulary:
            raise GraphError(
                f"a language model takes 1 and at most {model.context} tokens at once, each below {model.vocabulary}, "
                f"got {len(ids)}; feed them in parts"
            )
        places = np.asarray(sequences, np.int32)
        places = np.full(len(ids), places, np.int32) if places.ndim == 0 else places
        if places.shape != ids.shape or places.min() < 0 or places.max() >= self.sequences:
            raise GraphError(
                f"a sequence of 0 .. {self.sequences - 1} belongs to each of {len(ids)} tokens, got {sequences}"
            )
        positions = np.empty(len(ids), np.int64)
        for place in np.unique(places):
            mine = places == place
            positions[mine] = self._language.position(int(place)) + np.arange(np.count_nonzero(mine))
        if positions.max() < model.context:
            cosine, sine = (table[positions] for table in self._angles)
        else:
            cosine, sine = rotations(positions, model.config.head_size, model.config.rope_base)
        scores = np.empty((len(ids), model.vocabulary), np.float32)
        self._language.feed(ids, places, cosine, sine, scores)
        return scores


def _module() -> Any:
    module = native_module()
    if module is None:
        raise MissingDependencyError(
            "the native engine was not built; install a C++ compiler and Python's headers and then maqd again, "
            'or use engine="numpy"'
        )
    return module
