"""States of each layer for a budget: what they cost, and that the front is the best of all combinations."""

import itertools
import math
import random

import numpy as np
import pytest
from graphs import every_node

from maqd.errors import ConfigError
from maqd.graph.mixture import (
    Budget,
    Choice,
    Group,
    Kind,
    Loss,
    Reader,
    bits,
    cost,
    front,
    groups_of,
    uniform,
    within,
)

WEIGHTS = (3, 7, 15)
ACTS = (2, 4, 8)
GROUPS = (
    Group(activation=None, readers=(Reader(name="stem", weights=27, macs=27 * 64),)),
    Group(
        activation="a", readers=(Reader(name="b", weights=144, macs=9216), Reader(name="short", weights=16, macs=512))
    ),
    Group(activation="c", readers=(Reader(name="head", weights=40, macs=40),)),
    Group(activation="last", readers=()),
)


def random_losses(seed: int) -> list[Loss]:
    generator = random.Random(seed)
    found = []
    for group in GROUPS:
        for reader in group.readers:
            found += [
                Loss(choice=Choice(name=reader.name, kind=Kind.WEIGHTS, states=m), increase=generator.random())
                for m in WEIGHTS
            ]
        if group.activation is not None:
            found += [
                Loss(choice=Choice(name=group.activation, kind=Kind.ACTIVATION, states=m), increase=generator.random())
                for m in ACTS
            ]
    return found


def everything(losses: list[Loss], budget: Budget) -> list[tuple[float, float]]:
    """Cost and loss of every combination."""
    names = list(dict.fromkeys((loss.choice.name, loss.choice.kind) for loss in losses))
    by_name = [[loss for loss in losses if (loss.choice.name, loss.choice.kind) == name] for name in names]
    found = []
    for picked in itertools.product(*by_name):
        chosen = {(loss.choice.name, loss.choice.kind): loss.choice for loss in picked}
        total = 0.0
        for group in GROUPS:
            own = [chosen[reader.name, Kind.WEIGHTS] for reader in group.readers]
            own += [chosen[group.activation, Kind.ACTIVATION]] if group.activation else []
            total += cost(group, own, budget)
        found.append((total, sum(loss.increase for loss in picked)))
    return found


def test_costs_are_bytes_of_information_and_multiplications_of_bits() -> None:
    option = [
        Choice(name="b", kind=Kind.WEIGHTS, states=3),
        Choice(name="short", kind=Kind.WEIGHTS, states=15),
        Choice(name="a", kind=Kind.ACTIVATION, states=8),
    ]
    assert cost(GROUPS[1], option, Budget.BYTES) == pytest.approx((144 * math.log2(3) + 16 * math.log2(15)) / 8)
    assert cost(GROUPS[1], option, Budget.OPERATIONS) == 9216 * 2 * 3 + 512 * 4 * 3
    stem = [Choice(name="stem", kind=Kind.WEIGHTS, states=15)]
    assert cost(GROUPS[0], stem, Budget.OPERATIONS) == 27 * 64 * 4 * 8
    assert [bits(m) for m in (2, 3, 4, 5, 8, 9, 16, 256)] == [1, 2, 2, 3, 3, 4, 4, 8]


@pytest.mark.parametrize("budget", Budget)
@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_the_best_of_all_combinations(seed: int, budget: Budget) -> None:
    losses = random_losses(seed)
    every = everything(losses, budget)
    found = front(GROUPS, losses, budget)
    costs, rises = [one.cost for one in found], [one.increase for one in found]
    assert costs == sorted(costs)
    assert rises == sorted(rises, reverse=True)
    grain = 4 * max(cost for cost, _ in every) / 1024  # a bucket for each group
    assert found[0].cost == pytest.approx(min(cost for cost, _ in every))
    for limit in np.linspace(min(costs) + grain, max(costs), 40):
        best = within(found, limit, budget)
        assert best.cost <= limit
        assert best.increase <= min(rise for cost, rise in every if cost <= limit - grain) + 1e-9
    for one in found:  # what it says of itself holds
        chosen = {(choice.name, choice.kind): choice.states for choice in one.choices}
        assert len(chosen) == 7
        assert one.increase == pytest.approx(
            sum(loss.increase for loss in losses if chosen[loss.choice.name, loss.choice.kind] == loss.choice.states)
        )


def test_layers_are_read_with_the_activation_before_them() -> None:
    groups = groups_of(every_node())
    found = {group.activation: [reader.name for reader in group.readers] for group in groups}
    assert found == {
        None: ["stem"],
        "stem.act": ["grouped", "shortcut"],
        "add.act": ["wide"],
        "average.act": [],
        "wide.act": ["head"],
    }
    assert next(group.input_states for group in groups if group.activation is None) == 256


def test_uniform_states_are_no_better_than_the_front() -> None:
    losses = random_losses(5)
    same = uniform(GROUPS, losses, Budget.OPERATIONS, 7, 4)
    assert {choice.states for choice in same.choices if choice.kind is Kind.WEIGHTS} == {7}
    assert {choice.states for choice in same.choices if choice.kind is Kind.ACTIVATION} == {4}
    best = within(front(GROUPS, losses, Budget.OPERATIONS), same.cost, Budget.OPERATIONS)
    assert best.increase <= same.increase


def test_a_budget_below_the_cheapest_mixture_is_refused() -> None:
    found = front(GROUPS, random_losses(0), Budget.BYTES)
    with pytest.raises(ConfigError, match="the cheapest mixture takes"):
        within(found, found[0].cost / 2, Budget.BYTES)


def test_a_layer_without_a_loss_is_named() -> None:
    losses = [loss for loss in random_losses(0) if loss.choice.name != "short"]
    with pytest.raises(ConfigError, match="short: no loss is known of its weights"):
        front(GROUPS, losses, Budget.BYTES)
