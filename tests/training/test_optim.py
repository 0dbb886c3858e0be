"""Schedules against closed forms, and which parameters decay."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from maqd.settings.training import OptimConfig, Optimizer, Schedule
from maqd.training.optim import build_optimizer, build_scheduler, learning_rate, parameter_groups

STEPS = 200


def rates(config: OptimConfig) -> np.ndarray:
    """The rates that an optimizer really sees, step by step."""
    optimizer = build_optimizer([nn.Parameter(torch.zeros(2, 2))], config)
    scheduler = build_scheduler(optimizer, config, steps=STEPS)
    seen = []
    for _ in range(STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(seen)


def test_one_cycle_matches_its_closed_form() -> None:
    config = OptimConfig(lr=0.4, schedule=Schedule.ONE_CYCLE, warmup=0.25)
    rising = 0.4 / 25 + (0.4 - 0.4 / 25) * np.arange(50) / 50
    falling = 0.2 * (1 + np.cos(np.pi * np.arange(150) / 150))
    np.testing.assert_allclose(rates(config), np.concatenate([rising, falling]), rtol=1e-12)
    assert rates(config)[50] == pytest.approx(0.4)
    assert rates(config)[-1] < 0.4 * 1e-3


def test_cosine_matches_its_closed_form() -> None:
    plain = OptimConfig(lr=0.4, schedule=Schedule.COSINE, warmup=0.0)
    np.testing.assert_allclose(rates(plain), 0.2 * (1 + np.cos(np.pi * np.arange(200) / 200)), rtol=1e-12)
    warm = OptimConfig(lr=0.4, schedule=Schedule.COSINE, warmup=0.1)
    rising = 0.4 * np.maximum(np.arange(20), 1) / 20
    falling = 0.2 * (1 + np.cos(np.pi * np.arange(180) / 180))
    np.testing.assert_allclose(rates(warm), np.concatenate([rising, falling]), rtol=1e-12)


def test_constant_is_constant() -> None:
    assert set(rates(OptimConfig(lr=0.3, schedule=Schedule.CONSTANT))) == {0.3}


@pytest.mark.parametrize("schedule", list(Schedule))
def test_the_logged_rate_is_the_optimizers(schedule: Schedule) -> None:
    config = OptimConfig(lr=0.4, schedule=schedule)
    assert [learning_rate(step, config, steps=STEPS) for step in range(STEPS)] == pytest.approx(rates(config))


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_positive_rates(schedule: Schedule, steps: int) -> None:
    config = OptimConfig(lr=1.0, schedule=schedule)
    for step in range(steps):
        rate = learning_rate(step, config, steps=steps)
        assert math.isfinite(rate)
        assert 0 < rate <= 1


def test_norms_and_biases_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)
    groups = parameter_groups([*network.parameters(), frozen], 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert {id(p) for p in groups[0]["params"]} == {id(network[0].weight), id(network[2].weight)}
    assert len(groups[1]["params"]) == 4


@pytest.mark.parametrize("kind", list(Optimizer))
def test_only_weights_shrink_without_gradients(kind: Optimizer) -> None:
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = build_optimizer([weight, bias], OptimConfig(optimizer=kind, lr=0.1, weight_decay=0.5))
    weight.grad, bias.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    assert (weight < 1).all()
    assert (bias == 1).all()
