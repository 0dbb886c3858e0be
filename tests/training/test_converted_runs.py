"""A float network of one's own in `maqd train`: converted, trained, opened again, resumed, and the same integers."""

import signal
from pathlib import Path
from typing import Any

import own_code
import pytest
import torch
from effort import long

import maqd
from maqd.cli import main
from maqd.errors import CheckpointError, ConfigError, MaqdError
from maqd.lowering import TorchEngine
from maqd.nn import QuantConv2d
from maqd.runtime.verify import verify
from maqd.settings.model import ConvertConfig, ModelConfig
from maqd.settings.quantization import Affine, QuantConfig
from maqd.training.converted import ConvertedNetwork, conversion_of
from maqd.training.module import TrainingModule
from maqd.training.runs import open_run

SMALL = [
    *["--model", "own_code:float_digits", "--model.convert.enabled", "true", "--data.samples_per_epoch", "128"],
    *["--compute.threads", "1", "--compute.device", "cpu", "--data.batch_size", "32", "--init.batches", "2"],
    *["--model.quant.norm", "bn", "--epochs", "1"],
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float run, and a converted one that starts from it."""
    path = tmp_path_factory.mktemp("converted")
    assert main(["train", "--run", str(path / "float"), *SMALL, "--model.quant.rounding", "false"]) == 0
    few = ["--init.run", str(path / "float"), "--ema_decay", "0.9", "--epochs", "2"]
    assert main(["train", "--run", str(path / "few"), *SMALL, *few]) == 0
    return path


def test_a_converted_run_opens_as_it_was_trained_and_lowers(runs: Path):
    float_run, run = (open_run(runs / name, allow_import=True) for name in ("float", "few"))
    assert not any(isinstance(module, QuantConv2d) for module in float_run.network.modules())
    network = run.network
    assert isinstance(network, ConvertedNetwork)
    x = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(open_run(runs / "few", allow_import=True).network(x), network(x))
    assert verify(run.graph, [TorchEngine(network, run.graph)], [x.numpy()]).ok
    original = network.original.state_dict()
    assert all(torch.equal(value, original[name]) for name, value in float_run.network.state_dict().items())
    assert run.header.evaluation is not None
    assert run.header.evaluation.total == 360


@long
def test_it_resumes(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few = ["--init.run", str(runs / "float"), "--ema_decay", "0.9", "--epochs", "2"]
    place = ["--run", str(tmp_path / "begun"), *SMALL, *few]
    original, seen = TrainingModule.training_step, [0]

    def step(self: TrainingModule, batch: Any, batch_idx: int) -> torch.Tensor:
        seen[0] += 1
        if seen[0] == 6:  # in the second epoch
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", step)
        assert main(["train", *place]) != 0
    assert main(["train", *place, "--resume"]) == 0
    whole, again = (
        open_run(path, allow_import=True).network.state_dict() for path in (runs / "few", tmp_path / "begun")
    )
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_state_in_a_file_is_where_it_starts(tmp_path: Path):
    torch.manual_seed(5)
    state = own_code.float_digits().state_dict()
    torch.save(state, tmp_path / "net.pt")
    place = ["--run", str(tmp_path / "run"), "--model.convert.state", str(tmp_path / "net.pt")]
    assert main(["train", *SMALL, *place]) == 0
    (tmp_path / "net.pt").unlink()  # the run does not need it any more
    network = open_run(tmp_path / "run", allow_import=True).network
    assert isinstance(network, ConvertedNetwork)
    assert torch.equal(network.original.network.first.weight, state["first.weight"])


def test_steps_that_are_others_on_this_machine_are_noticed(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("maqd.training.converted.steps", lambda _: "[]")
    with pytest.raises(CheckpointError, match="other steps"):
        _ = open_run(runs / "few", allow_import=True).network


@pytest.mark.parametrize(
    ("quant", "message"),
    [
        (QuantConfig(weight_states=None), "has states"),
        (QuantConfig(affine=Affine.LAYER), "affine is fitted"),
    ],
)
def test_options_without_a_meaning_are_refused(quant: QuantConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        conversion_of(quant)


def test_settings_say_what_belongs_together():
    with pytest.raises(MaqdError, match="not enabled"):
        ConvertConfig(state="net.pt")
    with pytest.raises(MaqdError, match="a network of your own"):
        ModelConfig(convert=ConvertConfig(enabled=True))
    assert callable(maqd.convert)
