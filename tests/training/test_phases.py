"""Trainings in phases."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import entries

from maqd.errors import ConfigError
from maqd.settings.phases import Phase
from maqd.settings.quantization import Norm, QuantConfig
from maqd.settings.training import InitConfig, TrainConfig
from maqd.training.phases import train_phases
from maqd.training.progress import Output
from maqd.training.runs import load_network

SILENT = Output(silent=True)


def phases(config: TrainConfig) -> list[Phase]:
    quant = QuantConfig(weight_states=None, act_states=None, norm=Norm.BN)
    bare = replace(config, run=None, epochs=1)
    floats = replace(bare, model=replace(bare.model, quant=quant))
    return [Phase(name="floats", config=floats), Phase(name="few", config=bare)]


def test_each_phase_starts_from_the_one_before(config: TrainConfig, tmp_path: Path) -> None:
    results = train_phases(phases(config), tmp_path, output=SILENT)
    assert [result.run for result in results] == [tmp_path / "floats", tmp_path / "few"]
    _, header = load_network(tmp_path / "few")
    assert header.config.init.run == str(tmp_path / "floats")
    train_phases([replace(phases(config)[1], name="cold")], tmp_path, output=SILENT)
    assert entries(tmp_path / "few", "train")[0]["loss"] < entries(tmp_path / "cold", "train")[0]["loss"]


def test_an_interrupted_training_goes_on_and_shares_its_phases(config: TrainConfig, tmp_path: Path) -> None:
    first, second = phases(config)
    whole = train_phases([first, second], tmp_path / "whole", output=SILENT)
    train_phases([first], tmp_path / "parts", output=SILENT)
    parts = train_phases([first, second], tmp_path / "parts", output=SILENT)
    assert parts[0].seconds == 0
    assert parts[-1].evaluation == whole[-1].evaluation
    states = [load_network(results[-1].run)[0].state_dict() for results in (whole, parts)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_phases_are_named_once(config: TrainConfig, tmp_path: Path) -> None:
    first, _ = phases(config)
    with pytest.raises(ConfigError, match=r"different names for all; got \['floats', 'floats'\]"):
        train_phases([first, first], tmp_path)
    with pytest.raises(ConfigError, match="at least one phase"):
        train_phases([], tmp_path)


@pytest.mark.parametrize("change", [{"run": "here"}, {"init": InitConfig(run="there")}])
def test_a_phase_does_not_say_where_it_is(config: TrainConfig, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="phase 'few' sets"):
        Phase(name="few", config=replace(config, **{"run": None, **change}))


def test_a_phase_that_stopped_before_its_first_result_starts_anew(config: TrainConfig, tmp_path: Path) -> None:
    first, second = phases(config)
    whole = train_phases([first], tmp_path, output=SILENT)[0]
    (whole.run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"already holds a run without last\.ckpt"):
        train_phases([first, second], tmp_path, output=SILENT)  # its results would be lost
    metrics = whole.run / "metrics.jsonl"
    kept = [line for line in metrics.read_text().splitlines() if '"event": "test"' not in line]
    metrics.write_text("\n".join(kept))
    assert train_phases([first], tmp_path, output=SILENT)[0].evaluation == whole.evaluation
