"""The commands as a person types them: results repeat, and every wrong turn is one clear line."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from small_runs import SMALL, entries

from maqd.cli import Command, main
from maqd.optional import remedy
from maqd.recipes import RECIPES, recipe
from maqd.settings.training import TrainConfig
from maqd.settings.tree import dotted_keys, from_plain, to_plain


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory with small.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str]:
    """Status and message of a command that fails; it must be one line."""
    status = main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("maqd: error: ")
    assert err.count("\n") == 1
    return status, err


def test_eval_repeats_what_train_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "small.yaml", "--optim.lr", "4e-3", "--model.quant.act_states=2"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("test accuracy ")
    assert said.endswith(" in runs/small")
    assert main(["eval", "runs/small"]) == 0
    assert capsys.readouterr().out.splitlines() == [said]
    assert main(["eval", "--json", "--data.eval_batch_size", "7", "runs/small"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = entries(here / "runs/small", "test")[-1]
    assert (found["correct"], found["total"]) == (expected["correct"], expected["total"])
    assert found["test_accuracy"] == expected["test_accuracy"] == found["correct"] / 360


def test_held_out_images_select_the_best_checkpoint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "small.yaml", "--data.validation", "100", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    results = entries(here / "runs/small", "validation")
    assert entries(here / "runs/small", "test") == []
    assert [entry["total"] for entry in results] == [100, 100]
    assert said["validation_accuracy"] == results[-1]["validation_accuracy"] == results[-1]["correct"] / 100
    assert said["best_correct"] == max(entry["correct"] for entry in results)
    assert main(["eval", "--checkpoint", "best", "--json", "runs/small"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 360


def test_without_held_out_images_nothing_is_selected(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "small.yaml"]) == 0
    assert "validation" not in capsys.readouterr().out
    assert "validation" not in (here / "runs/small/metrics.jsonl").read_text()
    status, line = fails(capsys, ["eval", "--checkpoint", "best", "runs/small"])
    assert status == 1
    assert "without held-out images" in line
    assert "--data.validation N" in line


def test_resolved_configuration_starts_the_same_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--optim.optimizer", "sgd", "--model.quant.norm", "bn", "--epochs", "1", "--ema_decay", "0.5"]
    options += ["--model.quant.overrides", '[{"pattern": "stem.*", "weight_states": 15}]']
    assert main(["train", "--config", "small.yaml", *options]) == 0
    stored = here / "runs/small/config.yaml"
    tree = yaml.safe_load(stored.read_text())
    assert tree["optim"]["optimizer"] == "sgd"
    override = {"pattern": "stem.*", "weight_states": 15, "act_states": -1, "act_step": None}
    assert tree["model"]["quant"]["overrides"] == [override]
    assert main(["train", "--config", str(stored), "--run", "again", "--json"]) == 0
    assert entries(here / "again", "train") == entries(here / "runs/small", "train")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["run"] == "again"
    assert result["steps"] == 7


def test_resume_keeps_the_options_of_the_run(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    options = ["--optim.lr", "0.001", "--optim.schedule", "constant"]
    assert main(["train", "--config", "small.yaml", *options, "--epochs", "1"]) == 0
    assert main(["train", "--config", "small.yaml", "--resume", "--epochs", "2"]) == 0
    assert yaml.safe_load((here / "runs/small/config.yaml").read_text())["optim"]["lr"] == 0.001
    assert main(["train", "--run", "runs/small", "--resume", "--epochs", "3"]) == 0
    assert [entry["epoch"] for entry in entries(here / "runs/small", "test")] == [1, 2, 3]
    capsys.readouterr()
    status, line = fails(capsys, ["train", "--run", "runs/small", "--resume", "--optim.lr", "0.5"])
    assert status == 1
    assert "optim.lr is 0.001 there, 0.5 here" in line


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["trian"], 2, ["unknown command 'trian'", "did you mean 'train'"]),
        (["train", "--optim.lrr", "3"], 2, ["'--optim.lrr'", "did you mean '--optim.lr'"]),
        (["train", "--lr", "3"], 2, ["'--lr'", "did you mean '--optim.lr'"]),
        (["train", "--resum"], 2, ["'--resum'", "did you mean '--resume'"]),
        (["train", "--epochs", "many"], 2, ["epochs", "int", "many"]),
        (["train", "--epochs"], 2, ["--epochs needs a value"]),
        (["train", "--epochs", "0"], 2, ["epochs must be at least 1, got 0"]),
        (["train", "extra"], 2, ["extra"]),
        (["train", "--optim.optimizer", "adam"], 2, ["sgd, adamw, rmsprop", "did you mean 'adamw'"]),
        (["train", "--optim.lr", "0"], 2, ["optim.lr must be positive"]),
        (["train", "--model.quant.act_states", "1"], 2, ["2 .. 65536 states, got 1"]),
        (["train", "--model.quant.act_step", "3"], 2, ["power of two", "3"]),
        (["train", "--config", "none.yaml"], 2, ["none.yaml cannot be read"]),
        (["train", "--config"], 2, ["--config", "expected one argument"]),
        (["train", "--config", "small.yaml", "--resume"], 1, ["runs/small holds no checkpoint"]),
        (["train", "--config", "small.yaml", "--resume", "--overwrite"], 1, ["exclude each other"]),
        (["train", "--config", "small.yaml", "--compute.device", "cuda"], 1, ["no CUDA device"]),
        (["eval"], 2, ["RUN"]),
        (["train", "cifar10-vgg-w3a4"], 2, ["unknown recipe", "did you mean 'cifar10-vgg16-w3a4'"]),
        (["train", "digits-w3a4", "--budget", "full"], 2, ["no budget full", "--budget cpu"]),
        (["train", "--budget", "cpu"], 2, ["belongs to a RECIPE"]),
        (["train", "--run", ""], 2, ["--run", "''"]),
        (["eval", "none"], 1, ["none does not exist"]),
        (["eval", "."], 1, [". holds no last checkpoint"]),
        (["eval", "none", "--checkpoint", "bset"], 2, ["invalid choice: 'bset'", "best"]),
        (["demo", "--epoch"], 2, ["--epoch"]),
    ],
)
def test_wrong_turns(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    parts: list[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found, line = fails(capsys, arguments)
    assert found == status
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("optim: {leraning_rate: 1}", ["wrong.yaml", "'optim.leraning_rate'", "did you mean"]),
        ("model: {quant: {act_state: 1}}", ["'model.quant.act_state'", "'model.quant.act_states'"]),
        ("lr: 1", ["'lr'", "'optim.lr'"]),
        ("epochs: [", ["not valid YAML"]),
        ("- 1", ["must be a mapping"]),
        ("model: 3", ["model must be a mapping"]),
    ],
)
def test_wrong_files(here: Path, capsys: pytest.CaptureFixture[str], text: str, parts: list[str]) -> None:
    (here / "wrong.yaml").write_text(text)
    status, line = fails(capsys, ["train", "--config", "wrong.yaml"])
    assert status == 2
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("module", "arguments"), [("lightning", ["train"]), ("torch", ["train"]), ("yaml", ["train", "--config", "a.yaml"])]
)
def test_missing_dependencies_are_named(module: str, arguments: list[str]) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from maqd.cli import main; sys.exit(main({arguments}))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("maqd: error: ")
    assert module in found.stderr
    assert remedy("torch") in found.stderr


def test_help_needs_no_torch() -> None:
    script = "import sys; from maqd.cli import main; main(['--help']); print([m for m in sys.modules if 'torch' in m])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert found.splitlines()[0].startswith("usage: maqd")
    assert found.splitlines()[-1] == "[]"


def test_help_shows_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    assert "--resume" in text
    assert main(["train", "--help-all"]) == 0
    text = capsys.readouterr().out
    keys = set(dotted_keys(TrainConfig))
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    assert leaves == set(re.findall(r"^  --([a-z_0-9.]+) .*  \(.*\)$", text, re.MULTILINE))
    assert "  --optim.optimizer {sgd,adamw,rmsprop}  (adamw)" in text
    assert "Peak learning rate." in text


@pytest.mark.parametrize("command", [command.value for command in Command if command is not Command.DEMO])
def test_help_takes_less_than_a_second(command: str) -> None:
    script = f"from maqd.cli import main; main([{command!r}, '--help'])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of processor time, which other processes of the machine disturb little.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert found.startswith(f"usage: maqd {command} ")


def test_plain_trees_hold_everything() -> None:
    config = TrainConfig(run="x", ema_decay=0.5)
    assert from_plain(TrainConfig, to_plain(config)) == config
    keys = list(dotted_keys(TrainConfig))
    assert "model.quant.surrogate.width" in keys
    assert len(keys) == len(set(keys))


def test_recipes_are_listed_and_trained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(found.name in text for found in RECIPES)
    assert main(["recipes", "digits-w3a4", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["recipes"]
    assert found["variants"][0]["config"]["model"]["quant"]["act_states"] == 4
    options = ["--data.samples_per_epoch", "224", "--epochs", "1", "--model.width", "0.25"]
    assert main(["train", "digits-w3a4", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "runs/digits-w3a4"
    tree = yaml.safe_load((here / "runs/digits-w3a4/config.yaml").read_text())
    assert (tree["optim"]["lr"], tree["model"]["width"], tree["model"]["quant"]["act_states"]) == (4e-3, 0.25, 4)


def test_printed_configuration_is_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits-w3a2", "--print-config", "--optim.lr=1e-2"]) == 0
    printed = capsys.readouterr().out
    config = recipe("digits-w3a2").variant().config
    wanted = replace(config, run="runs/digits-w3a2", optim=replace(config.optim, lr=1e-2))
    assert from_plain(TrainConfig, yaml.safe_load(printed)) == wanted
    assert not (here / "runs").exists()


SHORT = ["--data.samples_per_epoch", "224", "--epochs", "1", "--model.width", "0.25"]


def test_a_recipe_in_phases_is_shown_trained_and_resumed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "digits-w2a2"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"digits-w2a2 +cpu +12 \+ 12 ", text)
    assert "--budget cpu trains in phases: float (12 epochs), then last (12 epochs)" in text
    assert main(["train", "digits-w2a2", "--print-config", *SHORT]) == 0
    printed = capsys.readouterr().out
    phases = yaml.safe_load(printed)["phases"]
    assert [(phase["name"], phase["epochs"], phase["model"]["quant"]["rounding"]) for phase in phases] == [
        ("float", 1, False),
        ("last", 1, True),
    ]
    (here / "mine.yaml").write_text(printed)
    assert main(["train", "--config", "mine.yaml", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == "runs/mine/last"
    assert yaml.safe_load((here / "runs/mine/last/config.yaml").read_text())["init"]["run"] == "runs/mine/float"
    # Continuing finds nothing to do; starting again is refused, and replacing gives the same result.
    assert main(["train", "--run", "runs/mine", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] == result["correct"]
    assert main(["train", "digits-w2a2", "--run", "runs/mine", *SHORT]) == 1
    assert "holds a training in phases; continue it with --resume" in capsys.readouterr().err
    (here / "mine").mkdir()
    mine = here / "mine" / "phases.yaml"
    mine.write_text("phases: [{name: a, epochs: 1}, {name: b, epochs: 1}]")
    assert main(["train", "--config", str(mine), "--run", str(mine.parent), "--overwrite"]) == 1
    assert f"{mine} was not written by maqd: it is not replaced" in capsys.readouterr().err
    assert mine.read_text() == "phases: [{name: a, epochs: 1}, {name: b, epochs: 1}]"
    assert main(["train", "digits-w2a2", "--run", "runs/mine", *SHORT, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] == result["correct"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("phases: 3", "phases must be a list of mappings"),
        ("phases: [{name: a}]\nepochs: 3", "and nothing beside"),
        ("phases: [{epochs: 3}, {name: b}]", "each of its phases needs a name of its own"),
        ("phases: [{name: a, epoch: 3}]", "'epoch'; did you mean 'epochs'?"),
        ("phases: [{name: a}, {name: ../b}]", "without slashes, got '../b'; rename it"),
        ("phases: [{name: a, run: x}, {name: b, init: {run: y}}]", "phase 'b' sets init.run to 'y'"),
    ],
)
def test_files_with_wrong_phases_are_refused(
    text: str, part: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "wrong.yaml").write_text(text)
    assert main(["train", "--config", "wrong.yaml"]) in (1, 2)
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
    assert not (here / "runs").exists()
