"""The compiled engine for language models: the sums of every map and the scores of NumPy, on every instruction set."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from language_models import OTHER, PLAIN, language_network, some_tokens

from maqd.errors import EngineError, GraphError
from maqd.language.model import LanguageModel, WeightMap
from maqd.language.reference import NumpyLanguage, TokenCodes
from maqd.lowering.language import lower_language
from maqd.nn import QuantConfig
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.runtime.language_native import NativeLanguage, map_sums
from maqd.runtime.native import isas, native_module
from maqd.settings.language import TransformerConfig

pytestmark = pytest.mark.skipif(native_module() is None, reason="the native engine was not built")

ISAS = isas() or ("scalar",)
TOKENS = some_tokens((40,)).numpy()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("states", [2, 3, 4, 5, 15, 255])
def test_sums_are_those_of_integers_at_every_size(isa: str, states: int):
    rng = np.random.default_rng(states)
    codes_of = np.array(States(count=states, signed=True).codes)
    for outputs, inputs in ((1, 1), (17, 5), (3, 64), (16, 319), (33, 320), (5, 321), (20, 700)):
        weights = codes_of[rng.integers(0, states, (outputs, inputs))]
        weights[0] = codes_of[-1]
        packed = PackedCodes.pack(weights, States(count=states, signed=True))
        for tokens in (1, 2, 3, 9, 37):
            codes = rng.integers(-127, 128, (tokens, inputs)).astype(np.int8)
            codes[0] = 127
            found = map_sums(WeightMap(weight=packed, exponent=0), codes, isa)
            assert np.array_equal(found, codes.astype(np.int64) @ weights.T), (outputs, inputs, tokens)


@cache
def models() -> list[tuple[LanguageModel, np.ndarray]]:
    """Models, and the scores that NumPy finds for `TOKENS`."""
    others = [
        language_network(PLAIN, quant=QuantConfig(weight_states=weights, act_states=acts))
        for weights, acts in ((3, 15), (5, 255), (2, 3))
    ]
    wide = TransformerConfig(layers=2, width=96, heads=6, kv_heads=3, hidden=130)
    tied = replace(PLAIN, tied=True, embedding_states=3)
    networks = [
        language_network(PLAIN),
        language_network(OTHER),
        language_network(wide),
        language_network(tied),
        *others,
    ]
    found = []
    for network in networks:
        reference = NumpyLanguage(model=lower_language(network))
        parts = (TOKENS[:7], TOKENS[7:9], *TOKENS[9:, None])
        found.append((reference.model, np.concatenate([reference.feed(part) for part in parts])))
    return found


@pytest.mark.parametrize("isa", ISAS)
def test_scores_are_those_of_numpy_bit_for_bit(isa: str):
    tokens = TOKENS
    for model, wanted in models():
        engine = NativeLanguage(model, isa=isa)
        for _ in range(2):
            parts = (tokens[:7], tokens[7:9], tokens[9:19], tokens[19:20], tokens[20:28], *tokens[28:, None])
            found = np.concatenate([engine.feed(part) for part in parts])
            assert np.array_equal(found, wanted), model.config
            engine.reset()


def test_several_threads_give_the_same_scores():
    model, tokens = lower_language(language_network()), some_tokens((4,)).numpy()
    wanted = NumpyLanguage(model=model).feed(tokens)
    for threads in (2, 3):
        assert np.array_equal(NativeLanguage(model, threads=threads).feed(tokens), wanted)


def test_sequences_beside_each_other_have_the_scores_of_each_alone():
    model, texts = lower_language(language_network()), some_tokens((3, 30)).numpy()
    for isa in ISAS:
        engine = NativeLanguage(model, sequences=3, isa=isa)
        found = [list(engine.feed(text[: 4 + place], place)) for place, text in enumerate(texts)]
        order = np.random.default_rng(0).permutation(np.repeat(np.arange(3), 20))
        for part in np.split(order, (3, 4, 9, 20, 30, 40, 50)):  # also where the rings of 12 tokens are full
            tokens, ahead = [], [len(some) for some in found]
            for place in part:
                tokens.append(texts[place][ahead[place]])
                ahead[place] += 1
            for place, scores in zip(part, engine.feed(tokens, part), strict=True):
                found[place].append(scores)
        for text, some in zip(texts, found, strict=True):
            alone = NativeLanguage(model, isa=isa)
            assert np.array_equal(some, [alone.feed([token])[0] for token in text[: len(some)]])
    with pytest.raises(GraphError, match=r"a sequence of 0 \.\. 2 belongs to each of 2 tokens"):
        engine.feed([1, 2], [0, 3])
    with pytest.raises(EngineError, match="sequences must be 1"):
        NativeLanguage(model, sequences=0)


def test_every_map_has_equal_sums_for_equal_codes():
    model = lower_language(language_network(TransformerConfig(layers=2, width=64, heads=4, kv_heads=2, hidden=90)))
    maps = {name: found for name, found, _ in model.maps()}
    different = compared = 0

    def watch(name: str, codes: TokenCodes, sums: np.ndarray) -> None:
        nonlocal different, compared
        compared += sums.size
        different += int(np.count_nonzero(map_sums(maps[name], codes.codes, ISAS[0]) != sums))

    reference = NumpyLanguage(model=model, watch=watch)
    for token in some_tokens((60,)).tolist():
        reference.feed([token])
    assert compared == 60 * (2 * (64 + 32 + 32 + 64 + 90 + 90 + 64) + 256)
    assert different == 0


def test_weights_are_not_copied_and_memory_is_told():
    model = lower_language(language_network())
    engine = NativeLanguage(model)
    norms, angles = sum(norm.nbytes for _, norm, _ in model.norms()), 2 * 12 * 3 * 4
    assert engine.constant_bytes == model.weight_bytes + norms + angles
    assert engine.cache_bytes == 2 * 2 * 12 * 2 * (6 + 4)
    assert engine.working_bytes > 0


def test_what_it_cannot_take_is_refused():
    engine = NativeLanguage(lower_language(language_network()))
    for tokens in ([], [256], [-1], [0] * 13):
        with pytest.raises(GraphError, match="takes 1 and at most 12 tokens at once, each below 256"):
            engine.feed(tokens)
    wide = PackedCodes.pack(np.zeros((1, 70_000), np.int8), States(count=255, signed=True))
    with pytest.raises(EngineError, match="sums up indices of 255 states over 70,000 inputs"):
        map_sums(WeightMap(weight=wide, exponent=0), np.zeros((1, 70_000), np.int8), ISAS[0])
    with pytest.raises(EngineError, match="must be one of"):
        NativeLanguage(engine.model, isa="none")
