"""`maqd mix`: the states of each layer for a budget, and the training that follows."""

import json
from pathlib import Path

import pytest
import torch

from maqd.cli import main
from maqd.graph.mixture import Kind
from maqd.graph.summary import summarize
from maqd.models import Architecture, ModelConfig
from maqd.nn import Norm, Override, QuantConfig
from maqd.settings.training import ComputeConfig, TrainConfig
from maqd.training.networks import network_of
from maqd.training.progress import Output
from maqd.training.runs import open_run
from maqd.training.sensitivity import losses
from maqd.training.train import train


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without rounding."""
    directory = tmp_path_factory.mktemp("runs") / "free"
    quant = QuantConfig(norm=Norm.BN, rounding=False, overrides=[Override(pattern="head", weight_states=15)])
    config = TrainConfig(
        run=str(directory),
        epochs=1,
        model=ModelConfig(architecture=Architecture.DIGITS, width=0.5, quant=quant),
        compute=ComputeConfig(threads=1),
    )
    train(config, output=Output(silent=True))
    return directory


def test_the_network_that_follows_keeps_the_budget(
    free: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, picture = tmp_path / "mixed.yaml", tmp_path / "mix.png"
    budget = 2000
    given = ["mix", str(free), "--bytes", str(budget), "--act-states", "2,4", "--batches", "1", "-o", str(options)]
    assert main([*given, "--picture", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["budget"] == "bytes"
    assert len(found["uniform"]) == 8
    assert len({choice["states"] for choice in found["chosen"]["choices"]}) > 1  # not the same everywhere
    assert found["chosen"]["cost"] <= budget
    assert picture.read_bytes()[:4] == b"\x89PNG"

    followed = tmp_path / "run"
    assert main(["train", "--config", str(options), "--run", str(followed), "--epochs", "1"]) == 0
    graph = open_run(followed).graph
    summary = summarize(graph)
    assert summary.weight_bound == pytest.approx(found["chosen"]["cost"])
    states = {choice["name"]: choice["states"] for choice in found["chosen"]["choices"] if choice["kind"] == "weights"}
    assert {layer.name: layer.weight_states for layer in summary.layers if layer.weight_states} == states

    # Written again over its own kind; not over anything else.
    assert main([*given, "--json"]) == 0
    options.write_text("epochs: 3\n")
    capsys.readouterr()
    assert main([*given, "--json"]) == 1
    assert "another kind of file" in capsys.readouterr().err
    assert options.read_text() == "epochs: 3\n"


def test_losses_are_of_one_layer_at_a_time(free: Path) -> None:
    run = open_run(free)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    images = torch.randint(0, 17, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    answers = torch.arange(64) % 10
    found = list(
        losses(
            lambda quant: network_of(
                ModelConfig(architecture=Architecture.DIGITS, width=0.5, quant=quant), run.header.data
            ),
            run.config.model.quant,
            run.network.state_dict(),
            weight_states=(3, 255),
            act_states=(2, 256),
            batches=[(images, answers)],
            objective=torch.nn.functional.cross_entropy,
        )
    )
    names = {(loss.choice.name, loss.choice.kind) for loss in found}
    assert len(found) == 2 * len(names)
    assert {kind for _, kind in names} == {Kind.WEIGHTS, Kind.ACTIVATION}
    rises = {(loss.choice.name, loss.choice.states): loss.increase for loss in found}
    for name, kind in names:
        few, many = (3, 255) if kind is Kind.WEIGHTS else (2, 256)
        assert abs(rises[name, many]) < 0.02
        assert abs(rises[name, few]) > abs(rises[name, many])
    assert all(torch.equal(before[name], value) for name, value in run.network.state_dict().items())


def test_a_budget_that_cannot_be_kept(free: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["mix", str(free), "--bytes", "3", "--weight-states", "3,15", "--act-states", "4", "--batches", "1"]) == 1
    )
    assert "the cheapest mixture takes" in capsys.readouterr().err
