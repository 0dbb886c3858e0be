"""How much the loss rises when one layer's weights, or one activation, have few states."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.graph.mixture import Choice, Kind, Loss
from maqd.nn import NormActivation, set_rounding
from maqd.nn.calling import call
from maqd.nn.layers import QuantLayer
from maqd.settings.quantization import ActMethod, Override, QuantConfig, WeightMethod, act_step


def losses(
    build: Callable[[QuantConfig], nn.Module],
    quant: QuantConfig,
    state: dict[str, Tensor],
    *,
    weight_states: Sequence[int],
    act_states: Sequence[int],
    batches: Sequence[tuple[Any, Any]],
    objective: Callable[[Any, Any], Tensor],
) -> Iterator[Loss]:
    """The rise of the loss for every layer and number of states, everything else being without rounding.

    The network runs as in training, with the statistics of each batch, so that a normalization follows what the
    states do to its input, as it would when training goes on.

    Args:
        build: Makes the network of a quantization, the same parameters for all numbers of states.
        quant: That of the trained network.
        state: Its trained state.
        weight_states, act_states: The numbers of states to try.
        batches: Inputs and targets.
        objective: Outputs and targets -> the mean loss of a batch.

    Raises:
        ConfigError: The network uses another method than MaQD's, which has no ranges without rounding; or there is no
            batch.
    """
    if (quant.weight_method, quant.act_method) != (WeightMethod.MAQD, ActMethod.MAQD):
        raise ConfigError(
            f"states are chosen for MaQD's quantizers, got {quant.weight_method.value} weights and "
            f"{quant.act_method.value} activations; train with model.quant.weight_method and act_method maqd"
        )
    if not batches:
        raise ConfigError("the loss is measured on batches, got none; pass at least one")
    free = replace(quant, rounding=False)
    base_network = build(free)
    base = _loss(base_network, state, batches, objective)
    for name, module in base_network.named_modules():
        if isinstance(module, QuantLayer) and module.quantizer is not None:
            choices = [Choice(name=name, kind=Kind.WEIGHTS, states=count) for count in weight_states]
        elif isinstance(module, NormActivation) and module.quantizer is not None:
            choices = [Choice(name=name, kind=Kind.ACTIVATION, states=count) for count in act_states]
        else:
            continue
        for choice in choices:
            network = build(mixed(free, [choice]))
            layer = network.get_submodule(name)
            held = layer.quantizer if isinstance(layer, QuantLayer | NormActivation) else None
            found = None if held is None else held.states.count
            if found != choice.states:
                raise ConfigError(
                    f"{name}: the network does not take states from model.quant.overrides, it has {found} where "
                    f"{choice.states} are asked for; build its layers with maqd.nn.LayerFactory"
                )
            yield Loss(choice=choice, increase=_loss(network, state, batches, objective, layer) - base)


def mixed(quant: QuantConfig, choices: Sequence[Choice]) -> QuantConfig:
    """A quantization with some of its states replaced, by one override for each choice."""
    overrides = [
        Override(pattern=choice.name, weight_states=choice.states)
        if choice.kind is Kind.WEIGHTS
        else Override(pattern=choice.name, act_states=choice.states, act_step=act_step(choice.states))
        for choice in choices
    ]
    return replace(quant, overrides=[*quant.overrides, *overrides])


@torch.no_grad()
def _loss(
    network: nn.Module,
    state: dict[str, Tensor],
    batches: Sequence[tuple[Any, Any]],
    objective: Callable[[Any, Any], Tensor],
    rounded: nn.Module | None = None,
) -> float:
    network.load_state_dict(state)
    network.train()
    if isinstance(rounded, QuantLayer):
        # Layers look at their first batch and refuse one that is off their grid, as it will be when only this layer
        # rounds. So that batch is one of the network as it will be trained.
        set_rounding(network, True)
        call(network, batches[0][0])
        set_rounding(network, False)
    if rounded is not None:
        set_rounding(rounded, True)
    return sum(float(objective(call(network, inputs), targets)) for inputs, targets in batches) / len(batches)
