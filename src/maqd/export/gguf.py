"""A language model as GGUF, for llama.cpp: weights in F32, or three states in TQ2_0 or TQ1_0, bit for bit.

TQ2_0 keeps blocks of 256 weights in 2 bits each with a scale in float16, TQ1_0 five in a byte: powers of two are exact.
The architecture is "llama"; llama.cpp quantizes activations in its own way, so that its scores are those of the network
with the activation quantizers switched off, up to rounding (docs/language.md).
"""

import contextlib
import enum
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd import __version__
from maqd.errors import ExportError
from maqd.io.files import write_atomically
from maqd.io.outputs import GGUF_KEY
from maqd.language.model import LanguageModel, WeightMap
from maqd.optional import require
from maqd.settings.language import FeedForward

BLOCK = 256
"""Weights of a block of TQ2_0 and TQ1_0; rows are whole blocks."""

LEAST_SCALE, MOST_SCALE = -24, 15
"""Powers of two that float16 holds."""

BYTE_TOKEN = 6
"""Type of a token that is a byte, in GGUF."""


class Packing(enum.Enum):
    """How the maps of blocks are kept; embedding, head and norms are always F32."""

    F32 = "f32"
    TQ2_0 = "tq2_0"
    TQ1_0 = "tq1_0"


def save_gguf(model: LanguageModel, path: Path | str, packing: Packing = Packing.TQ2_0) -> None:
    """Write a GGUF file; all of it or nothing.

    Args:
        model: A valid model.
        path: The file.
        packing: How maps are kept.

    Raises:
        ExportError: llama.cpp's "llama" cannot express the model, or its packing the widths or states.
        MissingDependencyError: The package gguf is not installed.
        OSError: The file cannot be written; one that was there is untouched.
    """
    check_gguf(model, packing)
    gguf = require("gguf", "the GGUF export")
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            written = Path(folder) / "model.gguf"
            _write(gguf, model, written, packing)
            write_atomically(path, [written.read_bytes()])
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_gguf(model: LanguageModel, packing: Packing) -> None:
    """Check that a model can be expressed.

    Raises:
        ExportError: It cannot.
    """
    config = model.config
    if config.feed_forward is not FeedForward.SWIGLU:
        raise ExportError(f"GGUF's llama has SwiGLU, got {config.feed_forward.value}; train one with swiglu")
    if config.sub_norm:
        raise ExportError("GGUF's llama has no norms in front of the last maps; train with sub_norm false")
    if packing is Packing.F32:
        return
    for name, width in (("width", config.width), ("hidden", config.hidden)):
        if width % BLOCK:
            near = max(1, math.floor(width / BLOCK + 0.5)) * BLOCK
            raise ExportError(
                f"{packing.name} keeps rows in blocks of {BLOCK} weights, and model.transformer.{name} is {width}; "
                f"train with {near}, the nearest that fits, or export with --type f32"
            )
    for name, found in _block_maps(model):
        count = found.weight.states.count
        if count != 3:
            raise ExportError(
                f"{packing.name} holds three weight states, and {name} has {count}; export with --type f32"
            )
        if not LEAST_SCALE <= found.exponent <= MOST_SCALE:
            raise ExportError(
                f"{name} has the unit 2^{found.exponent}, and float16 holds 2^{LEAST_SCALE} .. 2^{MOST_SCALE}; export "
                "with --type f32"
            )


def _block_maps(model: LanguageModel) -> Iterator[tuple[str, WeightMap]]:
    """Maps of the blocks, by their names in GGUF."""
    for place, block in enumerate(model.blocks):
        prefix = f"blk.{place}."
        yield f"{prefix}attn_q.weight", block.query
        yield f"{prefix}attn_k.weight", block.key
        yield f"{prefix}attn_v.weight", block.value
        yield f"{prefix}attn_output.weight", block.output
        if block.gate is not None:
            yield f"{prefix}ffn_gate.weight", block.gate
        yield f"{prefix}ffn_up.weight", block.up
        yield f"{prefix}ffn_down.weight", block.down


def float_weights(found: WeightMap, exponent: int | None = None) -> NDArray[np.float32]:
    """Codes times a power of two, the map's own by default."""
    codes = found.weight.unpack().astype(np.float32)
    return np.ldexp(codes, found.exponent if exponent is None else exponent).astype(np.float32)


class _Whole(np.ndarray):
    """An array that says when a file does not take it: NumPy's `tofile` loses what a full disk refuses at the end."""

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:
        """Into a file of Python."""
        fid.write(self.tobytes())


def _write(gguf: ModuleType, model: LanguageModel, path: Path, packing: Packing) -> None:
    config, kinds = model.config, gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_string(GGUF_KEY, __version__)
    files = gguf.LlamaFileType
    writer.add_file_type(files.ALL_F32 if packing is Packing.F32 else files[f"MOSTLY_{packing.name}"])
    writer.add_context_length(model.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_vocab_size(model.vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<0x{byte:02X}>" for byte in range(model.vocabulary)])
    writer.add_token_scores([0.0] * model.vocabulary)
    writer.add_token_types([BYTE_TOKEN] * model.vocabulary)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)

    def add(name: str, values: NDArray[Any], kind: Any = None) -> None:
        writer.add_tensor(name, values.view(_Whole), raw_dtype=kind)

    # Where the embedding is tied, its rows have a factor of their own: the head is written beside it.
    add("token_embd.weight", float_weights(model.embedding, model.embedding_exponent))
    add("output.weight", float_weights(model.embedding if model.head is None else model.head))
    add("output_norm.weight", model.norm)
    for place, block in enumerate(model.blocks):
        add(f"blk.{place}.attn_norm.weight", block.attention_norm)
        add(f"blk.{place}.ffn_norm.weight", block.feed_norm)
    for name, found in _block_maps(model):
        values = float_weights(found)
        if packing is Packing.F32:
            add(name, values)
        else:
            kind = kinds[packing.name]
            add(name, gguf.quants.quantize(values, kind), kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError:
        with contextlib.suppress(OSError):  # a full disk is still full when buffers are written
            writer.close()
        raise
    writer.close()
