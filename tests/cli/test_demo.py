"""The demo's table and picture on a short schedule, and the figures in it."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from maqd.cli import main
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import NormActivation, QuantConfig, QuantConv2d
from maqd.numerics.states import States
from maqd.report.sparsity import activations, nonzero_ratio, total_bytes, weights


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--epochs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (tmp_path / found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert found["pages"] == [str(Path("demo") / name) for name in ("w3a4.html", "compared.html")]
    assert all("M_w=3 M_a=4" in (tmp_path / name).read_text() for name in found["pages"])
    full, four, two = found["networks"]
    assert [row["act_states"] for row in found["networks"]] == [None, 4, 2]
    count = full["weight_bytes"] / 4
    assert count == 9 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 4 * 64 * 10
    assert four["weight_bytes"] == two["weight_bytes"] == pytest.approx(count * math.log2(3) / 8)
    assert full["nonzero_weights"] > 0.999
    assert 0.4 < four["nonzero_weights"] < 0.7
    assert 0.05 < two["nonzero_activations"] < four["nonzero_activations"] < full["nonzero_activations"]
    assert all(row["test_accuracy"] > 0.5 for row in found["networks"])
    assert main(["eval", four["run"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] == four["correct"]
    assert "graph" not in full
    for row in (four, two):
        assert row["graph_bytes"] == (tmp_path / row["graph"]).stat().st_size < full["weight_bytes"] / 8
        assert row["verification"]["samples"] == row["total"]
        assert [engine["name"] for engine in row["verification"]["engines"]] == ["pytorch", "native", "onnxruntime"]
        assert all(engine["different"] == 0 for engine in row["verification"]["engines"])
        assert row["onnx_correct"] == row["correct"]
        assert (tmp_path / row["onnx"]).exists()


def test_sparsity_counts_by_hand() -> None:
    torch.manual_seed(0)
    config = ModelConfig(architecture=Architecture.DIGITS, width=0.25, quant=QuantConfig(weight_states=4, act_states=2))
    network = build_model(config, in_channels=1, num_classes=10, image_size=8).eval()
    found = weights(network)
    assert [layer.name for layer in found] == ["stem.conv", "features.0.conv", "features.1.conv", "head"]
    # The codes of an even number of states are odd: none is zero.
    assert nonzero_ratio(found) == 1
    assert total_bytes(found) == sum(layer.count for layer in found) / 4
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    first, second = activations(network, [images]), activations(network, [images[:2], images[2:]])
    assert first == second
    stem = network.get_submodule("stem.act")
    assert isinstance(stem, NormActivation)
    with torch.no_grad():
        output = stem(network.get_submodule("stem.conv")(network.get_submodule("input")(images)))
    assert (first[0].count, first[0].nonzero) == (output.numel(), int((output != 0).sum()))
    assert first[0].states == States(count=2, signed=False)


def test_float_layers_count_four_bytes() -> None:
    network = nn.Sequential(QuantConv2d(1, 2, 3, states=None), nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(3, 5))
    with torch.no_grad():
        network[1].weight[0] = 0
    found = weights(network)
    assert [layer.count for layer in found] == [18, 6, 15]
    assert total_bytes(found) == 4 * 39
    assert nonzero_ratio(found) == 37 / 39
