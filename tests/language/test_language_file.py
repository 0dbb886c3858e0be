"""Language models in files, and computed without PyTorch: the same scores, bit for bit."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from language_models import OTHER, PLAIN, language_network, some_tokens

from maqd.errors import FormatError, GraphError, LoweringError
from maqd.graph import container
from maqd.graph.envelope import LANGUAGE, canonical, pack_file
from maqd.language import file
from maqd.language.model import LanguageModel
from maqd.language.reference import NumpyLanguage
from maqd.lowering import lower
from maqd.lowering.language import lower_language
from maqd.nn import QuantConfig
from maqd.nn.transformer import TokenLinear
from maqd.settings.language import TransformerConfig
from maqd.settings.tree import to_plain


@pytest.fixture
def model() -> LanguageModel:
    return lower_language(language_network(), provenance="a test")


@pytest.mark.parametrize("config", [PLAIN, OTHER])
@pytest.mark.parametrize("acts", [255, 15])
def test_numpy_gives_the_scores_and_sums_of_pytorch_bit_for_bit(config: TransformerConfig, acts: int):
    network = language_network(config, quant=QuantConfig(weight_states=3, act_states=acts))
    tokens = some_tokens((1, 12))
    sums: dict[str, np.ndarray] = {}
    taken: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, TokenLinear):
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: taken.update(
                    {name.replace(".attention", "").replace(".feed", ""): output}
                )
            )
    with torch.no_grad():
        wanted = network(tokens)[0].T.numpy()
    model = file.from_bytes(file.to_bytes(lower_language(network)))
    reference = NumpyLanguage(
        model=model,
        watch=lambda name, codes, found: sums.update(
            {name: np.ldexp(found.astype(np.float32), codes.exponent + maps[name].exponent)}
        ),
    )
    maps = {name: found for name, found, _ in model.maps()}
    found = reference.feed(tokens[0].numpy())
    assert np.array_equal(found, wanted)
    assert set(taken) == set(sums)
    assert all(np.array_equal(taken[name][0].numpy(), sums[name]) for name in sums)
    reference.reset()
    assert np.array_equal(np.concatenate([reference.feed([token]) for token in tokens[0].tolist()]), wanted)


def test_the_ring_forgets_the_oldest_tokens(model: LanguageModel):
    tokens = some_tokens((30,)).numpy()
    long, short = NumpyLanguage(model=model), NumpyLanguage(model=model)
    whole = np.concatenate([long.feed([token]) for token in tokens])
    assert np.isfinite(whole).all()
    assert np.array_equal(short.feed(tokens[:12]), whole[:12])
    with pytest.raises(GraphError, match="at most 12 tokens at once"):
        short.feed(tokens[:13])


def test_a_file_is_the_model_and_the_same_bytes_again(model: LanguageModel, tmp_path: Path):
    path = tmp_path / "m.maqd"
    file.save(model, path)
    read = file.load(path)
    assert file.to_bytes(read) == path.read_bytes()
    assert (read.config, read.context, read.act_states, read.provenance) == (model.config, 12, 255, "a test")
    assert path.stat().st_size < model.weight_bytes + 4 * sum(norm.size for _, norm, _ in model.norms()) + 6000


def test_every_damaged_byte_is_refused(model: LanguageModel):
    data = file.to_bytes(model)
    (length,) = struct.unpack("<Q", data[:8])
    for place in (*range(0, length, 97), *range(length, len(data), 501)):
        wrong = bytearray(data)
        wrong[place] ^= 4
        with pytest.raises(FormatError):
            file.from_bytes(bytes(wrong))
    for size in (0, 7, 100, len(data) - 1):
        with pytest.raises(FormatError):
            file.from_bytes(data[:size])


def changed(model: LanguageModel, **described: object) -> bytes:
    """A file whose document says something else, with a digest that fits."""
    data = file.to_bytes(model)
    (length,) = struct.unpack("<Q", data[:8])
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["maqd"])
    tensors: dict[str, np.ndarray] = {name: norm for name, norm, _ in model.norms()}
    tensors |= {name: found.weight.data for name, found, _ in model.maps()}
    return pack_file(LANGUAGE, {**document[LANGUAGE], **described}, {}, tensors)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"act_states": 256}, "act_states must be odd, 3 .. 255"),
        ({"context": 0}, "the context positive"),
        ({"vocabulary": 255}, "embedding must have signed codes of shape"),
        ({"maps": {}}, "map 'blocks.0.query' must have states, shape and exponent"),
        ({"maps": []}, "must be an object with"),
        ({"transformer": {**to_plain(PLAIN), "layers": 10**9}}, "a block must have tensors"),
        ({"transformer": {**to_plain(PLAIN), "layers": 1}}, "belongs to no part of the model"),
        ({"transformer": {"layers": 2}}, "must hold every option"),
        ({"transformer": {**to_plain(PLAIN), "heads": 5}}, "heads must divide the width"),
        ({"transformer": {**to_plain(PLAIN), "hidden": 41}}, "must have signed codes of shape"),
    ],
)
def test_an_inconsistent_description_is_named(model: LanguageModel, described: dict[str, object], message: str):
    with pytest.raises(FormatError, match=message):
        file.from_bytes(changed(model, **described))


def test_files_of_the_other_kind_are_told_apart(model: LanguageModel, tmp_path: Path):
    file.save(model, tmp_path / "m.maqd")
    with pytest.raises(
        FormatError, match="it holds a language model, and an integer graph is wanted; use maqd generate"
    ):
        container.load(tmp_path / "m.maqd")
    assert canonical({"b": 1, "a": 2}) == '{"a":2,"b":1}'


def test_float_parts_do_not_lower(model: LanguageModel):
    with pytest.raises(LoweringError, match="activations of the language model are in float"):
        lower_language(language_network(quant=QuantConfig(weight_states=3, act_states=None)))
    with pytest.raises(LoweringError, match="embedding has float weights"):
        lower_language(language_network(replace(PLAIN, embedding_states=None)))
    with pytest.raises(
        LoweringError, match=r"no integer graph; maqd lower RUN or maqd\.lowering\.language\.lower_language"
    ):
        lower(language_network(), some_tokens((1, 4)))
    with pytest.raises(LoweringError, match="lowered from a LanguageNetwork, got Linear"):
        lower_language(torch.nn.Linear(2, 2))
    with pytest.raises(GraphError, match="must have a head of its own unless its embedding is tied"):
        replace(model, head=None).validate()
