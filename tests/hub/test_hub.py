"""Networks on the hub: what is written is what comes back, and the card says what it is. Nothing is uploaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from small_runs import SMALL, Silent

from maqd.errors import CheckpointError, FormatError
from maqd.hub import Pretrained
from maqd.settings.training import TrainConfig
from maqd.settings.tree import from_plain
from maqd.training.runs import open_run

yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = from_plain(TrainConfig, yaml.safe_load(SMALL))
    path = tmp_path_factory.mktemp("hub") / "run"
    Silent()(replace(config, run=str(path), epochs=1, data=replace(config.data, samples_per_epoch=64)))
    return path


def digits(count: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_run_comes_back_as_graph_and_as_network(run: Path, tmp_path: Path):
    model, opened, x = Pretrained.of_run(run), open_run(run), digits()
    model.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "network.maqd",
    }  # fmt: skip
    back = Pretrained.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        expected = opened.network(x)
        assert torch.equal(back.network()(x), expected)
    assert np.array_equal(back.engine().scores(x.numpy()), expected.numpy())
    assert np.array_equal(back.engine(engine="numpy").scores(x.numpy()), expected.numpy())
    assert all(parameter.requires_grad for parameter in back.network().parameters())


def test_the_card_says_states_size_accuracy_and_how_to_run(run: Path, tmp_path: Path):
    model = Pretrained.of_run(run)
    model.save_pretrained(tmp_path)
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    accuracy = json.loads(model.facts)["evaluation"]["accuracy"]
    assert card.data.library_name == "maqd"
    assert "| states of weights | 3 |" in card.text
    assert "| states of activations | 4 |" in card.text
    assert f"| bytes of network.maqd | {(tmp_path / 'network.maqd').stat().st_size:,} |" in card.text
    assert f"| accuracy, test images | {accuracy:.4f} |" in card.text
    assert "uint8 N x 1 x 8 x 8" in card.text
    assert "Pretrained.from_pretrained" in card.text


def test_what_is_pushed_is_what_is_saved(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pushed: dict[str, bytes] = {}

    class Hub:
        def __init__(self, **_: Any) -> None:
            pass

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Made", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path: str, **_: Any) -> str:
            pushed.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
            return "done"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    model = Pretrained.of_run(run)
    assert model.push_to_hub("me/digits") == "done"
    model.save_pretrained(tmp_path)
    assert pushed == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_graph_alone_runs_and_says_that_it_cannot_be_trained(run: Path, tmp_path: Path):
    Pretrained(open_run(run).graph).save_pretrained(tmp_path)
    back, x = Pretrained.from_pretrained(tmp_path), digits()
    assert back.engine().scores(x.numpy()).shape == (5, 10)
    with pytest.raises(CheckpointError, match="a graph alone"):
        back.network()
    (tmp_path / "network.maqd").unlink()
    with pytest.raises(FormatError, match=r"has no network\.maqd"):
        Pretrained.from_pretrained(tmp_path)


def test_code_that_is_named_in_a_file_is_not_imported(run: Path):
    model = Pretrained.of_run(run)
    facts = json.loads(model.facts)
    facts["model"]["function"] = "somewhere:network"
    with pytest.raises(ValueError, match="allow_import=True"):
        Pretrained(model.graph, facts=json.dumps(facts), weights=model.weights).network()
