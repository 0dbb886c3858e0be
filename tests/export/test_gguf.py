"""GGUF: weights bit for bit, all that llama.cpp asks for, and refusals with the nearest width that fits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from language_models import OTHER, PLAIN, language_network, some_tokens
from small_runs import full_disk

from maqd.bench.llama import LlamaCpp
from maqd.cli import main
from maqd.errors import EngineError, ExportError
from maqd.export.gguf import Packing, check_gguf, float_weights, save_gguf
from maqd.language import file
from maqd.language.model import LanguageModel
from maqd.lowering.language import lower_language
from maqd.nn import QuantConfig
from maqd.nn.transformer import TokenActivation
from maqd.settings.language import FeedForward, TransformerConfig

WIDE = TransformerConfig(layers=1, width=256, heads=4, kv_heads=2, hidden=256)


def lowered(config: TransformerConfig = WIDE, weight_states: int = 3) -> LanguageModel:
    return lower_language(language_network(config, quant=QuantConfig(weight_states=weight_states, act_states=255)))


@pytest.mark.parametrize("packing", Packing)
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_read_back_bit_for_bit(packing: Packing, tied: bool, tmp_path: Path):
    gguf = pytest.importorskip("gguf")
    model = lowered(replace(WIDE, tied=tied))
    save_gguf(model, tmp_path / "m.gguf", packing)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    found = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    kinds = {one.name: one.tensor_type.name for one in reader.tensors}
    block = model.blocks[0]
    assert block.gate is not None
    wanted = {
        "token_embd.weight": float_weights(model.embedding, model.embedding_exponent),
        "output.weight": float_weights(model.embedding if model.head is None else model.head),
        "output_norm.weight": model.norm,
        "blk.0.attn_norm.weight": block.attention_norm,
        "blk.0.ffn_norm.weight": block.feed_norm,
        **{
            f"blk.0.attn_{name}.weight": float_weights(one)
            for name, one in zip(
                ("q", "k", "v", "output"), (block.query, block.key, block.value, block.output), strict=True
            )
        },
        "blk.0.ffn_gate.weight": float_weights(block.gate),
        "blk.0.ffn_up.weight": float_weights(block.up),
        "blk.0.ffn_down.weight": float_weights(block.down),
    }
    assert set(found) == set(wanted)
    assert all(np.array_equal(found[name].reshape(wanted[name].shape), wanted[name]) for name in wanted)
    maps = {kinds[name] for name in kinds if "attn_q" in name or "ffn_down" in name}
    assert maps == {packing.name}
    fields = {name: one.contents() for name, one in reader.fields.items()}
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["llama.rope.freq_base"] == 10000.0
    assert fields["tokenizer.ggml.tokens"][65] == "<0x41>"


def test_llama_cpp_runs_the_file_with_the_scores_of_the_network(tmp_path: Path):
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    network = language_network(replace(WIDE, layers=2), context=32)
    model, tokens = lower_language(network), some_tokens((1, 32))
    for module in network.modules():
        if isinstance(module, TokenActivation):
            module.rounding = False
    with torch.no_grad():
        wanted = network(tokens)[0].T.numpy()
    for packing, bound in ((Packing.F32, 0.01), (Packing.TQ2_0, 0.1), (Packing.TQ1_0, 0.1)):
        save_gguf(model, tmp_path / "m.gguf", packing)
        peer = LlamaCpp(tmp_path / "m.gguf", context=32)
        for parts in ((32,), (10, 11), (1, 2)):
            peer.reset()
            found = np.concatenate([peer.feed(part) for part in np.split(tokens[0].numpy(), parts) if len(part)])
            assert np.abs(found - wanted).max() < bound
        peer.close()
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError, match=r"llama\.cpp cannot load"):
        LlamaCpp(tmp_path / "m.gguf", context=32)


def test_what_gguf_cannot_hold_is_refused():
    with pytest.raises(ExportError, match=r"transformer\.width is 24; train with 256, the nearest that fits"):
        check_gguf(lowered(PLAIN), Packing.TQ2_0)
    with pytest.raises(ExportError, match=r"transformer\.hidden is 700; train with 768"):
        check_gguf(lowered(replace(WIDE, hidden=700)), Packing.TQ2_0)
    with pytest.raises(ExportError, match=r"TQ2_0 holds three weight states, and blk\.0\.attn_q\.weight has 5"):
        check_gguf(lowered(weight_states=5), Packing.TQ2_0)
    with pytest.raises(ExportError, match="has SwiGLU, got squared_relu"):
        check_gguf(lowered(OTHER), Packing.F32)
    with pytest.raises(ExportError, match="no norms in front of the last maps"):
        check_gguf(lowered(replace(OTHER, feed_forward=FeedForward.SWIGLU)), Packing.F32)
    check_gguf(lowered(PLAIN), Packing.F32)


def test_the_command_writes_all_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("gguf")
    file.save(lowered(PLAIN), tmp_path / "m.maqd")
    output = tmp_path / "m.gguf"
    arguments = ["export", str(tmp_path / "m.maqd"), "--to", "gguf", "-o", str(output)]
    assert main(arguments) == 1
    assert "train with 256, the nearest that fits" in capsys.readouterr().err
    with full_disk(1000):
        assert main([*arguments, "--type", "f32"]) == 1
    assert "m.gguf: File too large; free some space" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.maqd"]
    assert main([*arguments, "--type", "f32"]) == 0
    assert f"gguf, f32, {output.stat().st_size:,} bytes" in capsys.readouterr().out
    assert main(["export", str(output), "--to", "onnx", "-o", str(tmp_path / "n.onnx")]) == 1
    assert "it is a GGUF file, not a .maqd file" in capsys.readouterr().err
