"""The moving average against a plain formula."""

from dataclasses import replace

import torch
from small_runs import Silent, entries, last
from torch import nn

from maqd.models import ModelConfig, build_model
from maqd.settings.model import Architecture
from maqd.settings.training import TrainConfig
from maqd.training.checkpoint import read_checkpoint
from maqd.training.ema import WeightAverage
from maqd.training.runs import load_network


def test_average_matches_the_formula() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = WeightAverage(network, decay=0.8)
    expected = {name: value.clone().double() for name, value in network.state_dict().items()}
    for step in range(100):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        network(torch.randn(4, 3))
        average.update(network)
        decay = min(0.8, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
        for name, value in average.network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                assert value == step + 1
            else:
                torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_evaluation_of_an_updated_average_is_not_stale() -> None:
    # Layers cache what they compute in evaluation mode; an update in place must not leave it behind.
    torch.manual_seed(0)
    config = ModelConfig(architecture=Architecture.DIGITS, width=0.25)
    network, fresh = (build_model(config, in_channels=1, num_classes=10, image_size=8) for _ in range(2))
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    average = WeightAverage(network, decay=0.5)
    with torch.no_grad():
        before = average.network.eval()(images)
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
        average.update(network)
        after = average.network.eval()(images)
        fresh.load_state_dict(average.network.state_dict())
        assert torch.equal(after, fresh.eval()(images))
        assert not torch.equal(after, before)


def test_average_is_evaluated_and_saved(config: TrainConfig, run: Silent) -> None:
    config = replace(config, ema_decay=0.5)
    result = run(config)
    path = last(config)
    checkpoint = read_checkpoint(path)
    trained, averaged = checkpoint.trained_state(), checkpoint.network_state()
    assert any(not torch.equal(trained[name], averaged[name]) for name in trained)
    network, _ = load_network(path)
    assert all(torch.equal(value, averaged[name]) for name, value in network.state_dict().items())
    assert entries(config, "test")[-1]["correct"] == result.evaluation.correct
