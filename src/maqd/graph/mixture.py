"""Different states for each layer: what they cost, and the best ones for a budget.

A group is an activation and the layers that read it, for what such a layer costs depends on the states of both. A group
has several options, each with a cost and a loss; the choice of one option a group is a knapsack with multiple choices.
Losses of groups are taken to add up, as in HAWQ (arXiv 1911.03852) and MixQuant (arXiv 2309.17341).
"""

import enum
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maqd.errors import ConfigError
from maqd.graph import Activation, Graph, Input, Weighted


class Budget(enum.Enum):
    """What states are paid in."""

    BYTES = "bytes"
    """Information in the weights: n log2(M_w) / 8."""
    OPERATIONS = "operations"
    """Multiplications of single bits for one sample: those of the layer times the bits of its weights and inputs."""


class Kind(enum.Enum):
    """What has states of its own."""

    WEIGHTS = "weights"
    ACTIVATION = "activation"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """States of one layer's weights, or of one activation.

    Args:
        name: Of the layer.
        kind: Which of the two.
        states: M_w or M_a.
    """

    name: str
    kind: Kind
    states: int


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How much a choice adds to the loss."""

    choice: Choice
    increase: float


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A layer with weights.

    Args:
        name: Of the layer.
        weights: How many it has.
        macs: Multiplications for one sample.
    """

    name: str
    weights: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """An activation and the layers with weights that read it, at once or through pools and the like.

    Args:
        activation: Its name; None for the layers that read the input itself.
        readers: The layers.
        input_states: What the layers read where there is no activation.
    """

    activation: str | None
    readers: tuple[Reader, ...]
    input_states: int = 256


def groups_of(graph: Graph) -> tuple[Group, ...]:
    """The groups of a valid graph, in the order of their activations.

    Layers that read a sum of streams, with no activation between, are read with the last activation before it.
    """
    origin: dict[str, str | None] = {}
    readers: dict[str | None, list[Reader]] = {}
    for node in graph.nodes:
        before = [origin[name] for name in node.inputs]
        if isinstance(node, Activation):
            origin[node.name] = node.name
            readers.setdefault(node.name, [])
        else:
            origin[node.name] = next((name for name in reversed(before) if name is not None), None)
        if isinstance(node, Weighted):
            reader = Reader(name=node.name, weights=node.weight.size, macs=graph.macs(node.name))
            readers.setdefault(origin[node.name], []).append(reader)
    widest = max((1 + kind.grid.high - kind.grid.low for kind in _inputs(graph)), default=256)
    return tuple(
        Group(activation=name, readers=tuple(members), input_states=widest) for name, members in readers.items()
    )


def _inputs(graph: Graph) -> Iterable:
    return (graph.types[node.name] for node in graph.nodes if isinstance(node, Input))


def bits(states: int) -> int:
    """Binary digits of a code."""
    return max(1, math.ceil(math.log2(states)))


def cost(group: Group, option: Sequence[Choice], budget: Budget) -> float:
    """What an option of a group costs.

    Args:
        group: The group.
        option: A choice for the weights of each reader, and one for the activation if there is one.
        budget: What it is paid in.
    """
    states = {(choice.name, choice.kind): choice.states for choice in option}
    read = states.get((group.activation or "", Kind.ACTIVATION), group.input_states)
    total = 0.0
    for reader in group.readers:
        own = states[reader.name, Kind.WEIGHTS]
        if budget is Budget.BYTES:
            total += reader.weights * math.log2(own) / 8
        else:
            total += reader.macs * bits(own) * bits(read)
    return total


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A choice for everything that has states.

    Args:
        choices: One for each layer's weights and each activation.
        cost: Of all of them.
        increase: Sum of what they add to the loss.
    """

    choices: tuple[Choice, ...]
    cost: float
    increase: float


def uniform(groups: Sequence[Group], losses: Sequence[Loss], budget: Budget, weight: int, act: int) -> Mixture:
    """The same states everywhere.

    Args:
        groups: The groups of the network.
        losses: As in `front`; those with these states are needed.
        budget: What is paid in.
        weight, act: M_w and M_a.
    """
    wanted = {Kind.WEIGHTS: weight, Kind.ACTIVATION: act}
    kept = [loss for loss in losses if loss.choice.states == wanted[loss.choice.kind]]
    return front(groups, kept, budget)[0]


_BUCKETS = 1024
"""Costs that are told apart: of mixtures whose costs fall into the same part of the range, the best is kept."""


def front(groups: Sequence[Group], losses: Sequence[Loss], budget: Budget) -> tuple[Mixture, ...]:
    """The best mixture for every budget: costs ascend, losses fall.

    Args:
        groups: The groups of the network.
        losses: One or more for the weights of every layer and for every activation: the states to choose from.
        budget: What is paid in.

    Returns:
        Exact up to 1/1024 of the largest cost for each group.

    Raises:
        ConfigError: There is nothing to choose from for a layer or an activation.
    """
    options = [_options(group, losses, budget) for group in groups]
    most = sum(max(option.cost for option in own) for own in options)
    best = [Mixture(choices=(), cost=0.0, increase=0.0)]
    for own in options:
        both = (
            Mixture(
                choices=(*left.choices, *right.choices),
                cost=left.cost + right.cost,
                increase=left.increase + right.increase,
            )
            for left in best
            for right in own
        )
        best = _undominated(both, most / _BUCKETS)
    return tuple(best)


def _options(group: Group, losses: Sequence[Loss], budget: Budget) -> list[Mixture]:
    members = [(reader.name, Kind.WEIGHTS) for reader in group.readers]
    if group.activation is not None:
        members.append((group.activation, Kind.ACTIVATION))
    known = [[loss for loss in losses if (loss.choice.name, loss.choice.kind) == member] for member in members]
    for (name, kind), found in zip(members, known, strict=True):
        if not found:
            raise ConfigError(f"{name}: no loss is known of its {kind.value}; measure it for one number of states")
    mixtures = []
    for picked in itertools.product(*known):
        choices = tuple(loss.choice for loss in picked)
        increase = sum(loss.increase for loss in picked)
        mixtures.append(Mixture(choices=choices, cost=cost(group, choices, budget), increase=increase))
    return _undominated(mixtures, 0.0)


def _undominated(mixtures: Iterable[Mixture], width: float) -> list[Mixture]:
    """Those that no other beats in both, at most one in `width` of cost."""
    kept: list[Mixture] = []
    for mixture in sorted(mixtures, key=lambda one: (one.cost, one.increase)):
        if kept and mixture.increase >= kept[-1].increase:
            continue
        if len(kept) > 1 and mixture.cost - kept[-2].cost < width:
            kept[-1] = mixture  # a little dearer and better; the one before stays within reach of small budgets
        else:
            kept.append(mixture)
    return kept


def within(mixtures: Sequence[Mixture], limit: float, budget: Budget) -> Mixture:
    """The best mixture of a front that costs no more than the limit.

    Raises:
        ConfigError: Even the cheapest costs more.
    """
    fitting = [mixture for mixture in mixtures if mixture.cost <= limit]
    if not fitting:
        raise ConfigError(
            f"the cheapest mixture takes {mixtures[0].cost:,.0f} {budget.value}, more than the {limit:,.0f} asked for; "
            "allow more, or offer fewer states"
        )
    return min(fitting, key=lambda one: (one.increase, one.cost))
