"""`maqd check`: what it prints for networks of a person's own, and its errors."""

import json
import sys
from pathlib import Path

import pytest

from maqd.cli import main

MODULE = """
import torch
from maqd.models.tiny import ds_cnn
from maqd.nn import IntegerInput, QuantConfig

def good():
    return ds_cnn(QuantConfig())

def bad():
    return torch.nn.Sequential(IntegerInput(), torch.nn.Conv2d(3, 4, 1), torch.nn.Softmax(1))

def nothing():
    return 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Networks in a module of the working directory."""
    (tmp_path / "my_networks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    yield
    sys.modules.pop("my_networks", None)


def test_a_network_that_can_be_lowered(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "my_networks:good", "--example", "1x1x49x10"]) == 0
    assert capsys.readouterr().out == "my_networks:good can be lowered\n"


def test_refusals_one_a_line_with_status_1(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "my_networks:bad", "--example", "1x3x8x8"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1", "2"]
    assert lines[0] == "1: Conv2d has float weights; use QuantConv1d, QuantConv2d or QuantLinear"
    assert main(["check", "my_networks:bad", "--example", "1x3x8x8", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["refusals"]
    assert [set(refusal) for refusal in found] == [{"module", "line", "reason", "remedy"}] * 2


@pytest.mark.parametrize("network", ["own_code:regression", "maqd.models.tiny:ds_cnn", "own_code:rows"])
def test_networks_get_what_training_would_give_them(network: str, capsys: pytest.CaptureFixture[str]):
    example = {"own_code:regression": "1x12:float32,1x4:int16"}.get(network, "1x1x49x10")
    assert main(["check", network, "--example", example]) == 0
    assert capsys.readouterr().out == f"{network} can be lowered\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["my_networks:bad"], 2, "--example"),
        (
            ["my_networks:bad", "--example", "1x3xa"],
            2,
            "must be sizes with x between, as 1x3x32x32 or 1x6:float32, got '1x3xa'",
        ),
        (["my_networks:bad", "--example", "0x3"], 2, "must be sizes with x between"),
        (["my_networks", "--example", "1x3"], 2, "a function is named as package.module:function, got 'my_networks'"),
        (["no_such:bad", "--example", "1x3"], 1, "importing 'no_such' fails: ModuleNotFoundError"),
        (["my_networks:other", "--example", "1x3"], 1, "module 'my_networks' has no function 'other'"),
        (["my_networks:nothing", "--example", "1x3"], 1, "must return a torch.nn.Module, got int"),
    ],
)
def test_wrong_turns_are_one_line(arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["check", *arguments]) == status
    error = capsys.readouterr().err
    assert error.startswith("maqd: error: ")
    assert error.count("\n") == 1
    assert message in error
