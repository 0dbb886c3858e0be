"""Runs on text: they learn, say bits per character with a sample, and resume bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from effort import LONG
from small_runs import Silent, elsewhere, entries, last

from maqd.errors import ConfigError
from maqd.models import Architecture, ModelConfig
from maqd.settings.data import DataConfig, Source
from maqd.settings.language import TransformerConfig
from maqd.settings.quantization import QuantConfig
from maqd.settings.training import InitConfig, Schedule, TrainConfig

TEXT = b"the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture
def text(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    (tmp_path / "text.txt").write_bytes(TEXT)
    return replace(
        config,
        label_smoothing=0.0,
        model=ModelConfig(
            architecture=Architecture.LLAMA,
            transformer=TransformerConfig(layers=1, width=16, heads=2, kv_heads=1, hidden=24),
            quant=QuantConfig(weight_states=3, act_states=255),
        ),
        data=DataConfig(
            source=Source.TEXT, path=str(tmp_path / "text.txt"), context=8, batch_size=16, samples_per_epoch=224
        ),
    )


def test_a_run_reports_bits_and_resumes_bit_for_bit(text: TrainConfig, run: Silent):
    straight = replace(text, optim=replace(text.optim, schedule=Schedule.CONSTANT))
    result = run(straight)
    assert result.evaluation.total > 100
    found = entries(straight, "text")
    assert [entry["epoch"] for entry in found] == [1, 2]
    assert found[1]["test_bits_per_character"] < found[0]["test_bits_per_character"] < 8.5
    assert "bits per character" in run.text.getvalue()
    assert "tokens/s" in run.text.getvalue()
    again = elsewhere(straight, "other")
    run(replace(again, epochs=1))
    run(again, resume=True)
    states = [torch.load(last(one), weights_only=True)["state_dict"] for one in (again, straight)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.skipif(not LONG, reason="three runs; set MAQD_LONG=1")
def test_a_decoder_of_few_states_starts_from_its_float_twin(text: TrainConfig, run: Silent):
    straight = replace(text, model=replace(text.model, quant=QuantConfig(weight_states=None, act_states=None)))
    run(straight)
    later = replace(elsewhere(text, "later"), epochs=1, optim=replace(text.optim, lr=1e-6))
    run(later)
    warm = replace(elsewhere(later, "warm"), init=InitConfig(run=straight.run, batches=1))
    run(warm)
    cold, started = (entries(one, "text")[-1]["test_bits_per_character"] for one in (later, warm))
    assert started < cold - 0.3


def test_text_and_networks_of_images_do_not_go_together(text: TrainConfig, run: Silent):
    with pytest.raises(ConfigError, match=r"llama reads text, and the data has image uint8\[1,8,8\]"):
        run(replace(text, data=DataConfig()))
