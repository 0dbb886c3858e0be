"""A loss that is not finite stops the run, says where it began, and costs no checkpoint."""

from typing import Any

import pytest
import torch
from small_runs import Silent, last
from torch import Tensor, nn

from maqd.errors import NonFiniteError
from maqd.settings.training import TrainConfig
from maqd.training import train as training
from maqd.training.checkpoint import read_checkpoint
from maqd.training.module import TrainingModule
from maqd.training.nonfinite import locate_nonfinite


class Root(nn.Module):
    """Takes a root, which is not a number for negative values."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def broken() -> nn.Sequential:
    """Layers "2", which gives negative values, and "3", which cannot take them, and then layer "4"."""
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Sequential(Root()), nn.Linear(4, 2))


def test_the_first_layer_is_named() -> None:
    torch.manual_seed(0)
    assert locate_nonfinite(broken(), torch.randn(8, 4)) == "the output of layer '3.0' (Root) is not finite"


def test_parameters_come_first() -> None:
    network = broken()
    with torch.no_grad():
        network[4].bias[1] = torch.inf
    assert locate_nonfinite(network, torch.randn(8, 4)) == "parameter 'bias' of layer '4' is not finite"


def test_a_finite_network_is_not_blamed() -> None:
    network = nn.Linear(4, 2)
    assert "only the loss" in locate_nonfinite(network, torch.ones(1, 4))
    assert not network._forward_hooks


class Drifting(nn.Module):
    """Divides by a number that reaches zero at its tenth training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 10

    def forward(self, x: Tensor) -> Tensor:
        self.left -= self.training
        return x / max(self.left, 0)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 10)
        self.drifting = Drifting()
        self.second = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drifting(self.first(x.float().flatten(1) / 255)))


def test_a_run_stops_and_keeps_its_checkpoint(
    config: TrainConfig, run: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "network_of", lambda *_, **__: Network())
    with pytest.raises(NonFiniteError, match=r"at step 9: the output of layer 'drifting' \(Drifting\) is not finite"):
        run(config)
    checkpoint = read_checkpoint(last(config))
    assert checkpoint.header.position.step == 7
    assert all(value.isfinite().all() for value in checkpoint.trained_state().values())


def test_broken_parameters_are_not_saved(config: TrainConfig, run: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = TrainingModule.on_validation_epoch_end, [0]

    def end(self: Any) -> None:
        original(self)
        seen[0] += 1
        if seen[0] == 2:
            with torch.no_grad():
                next(self.network.parameters()).view(-1)[0] = torch.nan

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", end)
    with pytest.raises(NonFiniteError, match=r"parameter 'weight' of layer 'stem\.conv' is not finite at step 14"):
        run(config)
    assert read_checkpoint(last(config)).header.position.epoch == 1
