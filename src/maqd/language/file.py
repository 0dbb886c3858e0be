"""A language model in a .maqd file: the same envelope as a graph's (docs/format.md, "Language models")."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from maqd.errors import ConfigError, FormatError, GraphError
from maqd.graph.envelope import LANGUAGE, Part, Reader, open_reader, pack_file, short
from maqd.graph.file_codes import FileBytes
from maqd.io.files import write_atomically
from maqd.language.model import BlockWeights, LanguageModel, Norm, WeightMap
from maqd.settings.language import FeedForward, TransformerConfig
from maqd.settings.tree import from_plain, to_plain

BLOCK_MAPS = ("query", "key", "value", "output", "gate", "up", "down")
BLOCK_NORMS = ("attention_norm", "mixed_norm", "feed_norm", "hidden_norm")


def save(model: LanguageModel, path: Path | str) -> None:
    """Write a .maqd file; all of it or nothing.

    Raises:
        GraphError: The model is inconsistent.
        OSError: The file cannot be written; one that was there is untouched.
    """
    write_atomically(Path(path), [to_bytes(model)])


def to_bytes(model: LanguageModel) -> bytes:
    """The bytes of a .maqd file: the same ones for the same model, always and everywhere.

    Raises:
        GraphError: The model is inconsistent.
    """
    model.validate()
    tensors: dict[str, np.ndarray] = {name: norm for name, norm, _ in model.norms()}
    maps = {}
    for name, found, _ in model.maps():
        states = found.weight.states
        maps[name] = {
            "states": {"count": states.count, "signed": states.signed},
            "shape": list(found.weight.shape),
            "exponent": found.exponent,
        }
        tensors[name] = found.weight.data
    described = {
        "transformer": to_plain(model.config),
        "vocabulary": model.vocabulary,
        "context": model.context,
        "act_states": model.act_states,
        "maps": maps,
    }
    known = {"licence": model.licence, "provenance": model.provenance}
    return pack_file(LANGUAGE, described, {key: value for key, value in known.items() if value}, tensors)


def load(path: Path | str) -> LanguageModel:
    """The language model in a .maqd file, read into memory.

    Raises:
        FormatError: The file is missing, damaged, malformed, of another schema or of a graph.
    """
    return model_of(open_reader(path))


def from_bytes(data: bytes) -> LanguageModel:
    """The language model in the bytes of a .maqd file.

    Raises:
        FormatError: As `load`.
    """
    return model_of(Reader("the data", FileBytes(data)))


def model_of(reader: Reader) -> LanguageModel:
    """The language model in an opened file.

    Raises:
        FormatError: As `load`.
    """
    return _LanguageReader(reader.name, reader.file).model()


class _LanguageReader(Reader):
    """Reads the language model of a file."""

    def model(self) -> LanguageModel:
        document, tensors = self.document(LANGUAGE)
        described = document[LANGUAGE]
        keys = {"transformer", "vocabulary", "context", "act_states", "maps"}
        if not isinstance(described, dict) or described.keys() != keys or not isinstance(described["maps"], dict):
            self.fail(f'"{LANGUAGE}" must be an object with {sorted(keys)}, got {short(described)}')
        config = self.config(described["transformer"], len(tensors))
        numbers = [described[key] for key in ("vocabulary", "context", "act_states")]
        vocabulary, context, act_states = self.integers(numbers, "vocabulary, context and act_states")
        if not 3 <= act_states <= 255 or act_states % 2 == 0 or not 1 <= context < 2**31:
            self.fail(f"act_states must be odd, 3 .. 255, and the context positive, got {act_states} and {context}")
        maps, used = described["maps"], set(described["maps"])

        def some_map(name: str) -> WeightMap:
            return self.map(name, maps.get(name), tensors.get(name))

        def some_norm(name: str) -> Norm:
            used.add(name)
            return self.norm(name, tensors.get(name))

        gated = config.feed_forward is FeedForward.SWIGLU
        blocks = []
        for place in range(config.layers):
            prefix = f"blocks.{place}."
            parts: dict[str, Any] = dict.fromkeys((*BLOCK_MAPS, *BLOCK_NORMS))
            for name in BLOCK_MAPS:
                if name != "gate" or gated:
                    parts[name] = some_map(prefix + name)
            for name in BLOCK_NORMS:
                if config.sub_norm or name in ("attention_norm", "feed_norm"):
                    parts[name] = some_norm(prefix + name)
            blocks.append(BlockWeights(**parts))
        known = document["metadata"]
        if not isinstance(known, dict) or not known.keys() <= {"licence", "provenance"}:
            self.fail(f'"metadata" must be an object with "licence" and "provenance", got {short(known)}')
        model = LanguageModel(
            config=config,
            vocabulary=vocabulary,
            context=context,
            act_states=act_states,
            embedding=some_map("embedding"),
            blocks=tuple(blocks),
            norm=some_norm("norm"),
            head=None if config.tied else some_map("head"),
            licence=self.text(known.get("licence", ""), '"licence"'),
            provenance=self.text(known.get("provenance", ""), '"provenance"'),
        )
        wanted = {name for name, _, _ in model.maps()} | {name for name, _, _ in model.norms()}
        if unused := sorted((used | tensors.keys()) - wanted):
            self.fail(f"{unused[0]!r} belongs to no part of the model")
        try:
            model.validate()
        except GraphError as error:
            raise FormatError(f"{self.name} holds an inconsistent model: {error}; export it again") from error
        return model

    def config(self, value: object, tensors: int) -> TransformerConfig:
        try:
            config = from_plain(TransformerConfig, value, where="transformer")
        except ConfigError as error:
            raise FormatError(f"{self.name}: {error}") from error
        if to_plain(config) != value or config.layers > tensors:
            self.fail(f'"transformer" must hold every option, and a block must have tensors, got {short(value)}')
        return config

    def map(self, name: str, value: object, tensor: Part | None) -> WeightMap:
        if not isinstance(value, dict) or value.keys() != {"states", "shape", "exponent"}:
            self.fail(f"map {name!r} must have states, shape and exponent, got {short(value)}")
        weight = self.weight({"states": value["states"], "shape": value["shape"]}, tensor, f"map {name!r}")
        return WeightMap(weight=weight, exponent=self.integers([value["exponent"]], f"exponent of {name!r}")[0])

    def norm(self, name: str, tensor: Part | None) -> Norm:
        if tensor is None or tensor.dtype != "F32" or len(tensor.shape) != 1:
            self.fail(f"norm {name!r} must be a tensor F32 of one dimension")
        norm = np.frombuffer(tensor.data, "<f4").astype(np.float32)
        if math.prod(tensor.shape) != len(norm) or not np.isfinite(norm).all():
            self.fail(f"norm {name!r} must be finite")
        return norm
