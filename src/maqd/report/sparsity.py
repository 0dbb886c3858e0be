"""How few of a network's weights and activations are non-zero, and how many bytes its weights need.

R_w and R_a are the MaQD paper's ratios of non-zero weights and activations.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maqd.nn import NormActivation, QuantActivation, QuantConv1d, QuantConv2d, QuantLinear
from maqd.nn.calling import Inputs, call
from maqd.numerics.states import States

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """The weights of a layer.

    Args:
        name: Dotted name of the layer.
        states: Their states; None in float.
        count: How many there are.
        nonzero: How many are not zero.
    """

    name: str
    states: States | None
    count: int
    nonzero: int

    @property
    def bytes(self) -> float:
        """Bytes at the information bound: count log2(M) / 8, or 4 per weight in float."""
        return self.count * (FLOAT_BYTES if self.states is None else self.states.bits / 8)


@dataclass(frozen=True, kw_only=True)
class LayerActivations:
    """The activations of a layer over some images.

    Args:
        name: Dotted name of the layer.
        states: Their states; None in float.
        count: How many values there were over all images.
        nonzero: How many were not zero.
    """

    name: str
    states: States | None
    count: int
    nonzero: int


def weights(network: nn.Module) -> list[LayerWeights]:
    """The weights of every convolution and linear layer, in order. Biases and norms are not weights."""
    found: list[LayerWeights] = []
    for name, module in network.named_modules():
        if isinstance(module, QuantConv2d | QuantConv1d | QuantLinear):
            states = module.states
            values = module.weight if states is None else module.weight_codes()
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            states, values = None, module.weight
        else:
            continue
        nonzero = int(torch.count_nonzero(values))
        found.append(LayerWeights(name=name, states=states, count=values.numel(), nonzero=nonzero))
    return found


def activation_outputs(network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """The output of every activation, by the layer's dotted name, in order of execution.

    Args:
        network: A network in evaluation mode.
        inputs: A batch.
    """
    outputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: output}))
        for name, module in network.named_modules()
        if isinstance(module, NormActivation | QuantActivation)
    ]
    try:
        with torch.no_grad():
            call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def activations(network: nn.Module, batches: Iterable[Inputs]) -> list[LayerActivations]:
    """How many activations are non-zero over some batches of images.

    Args:
        network: A network in evaluation mode.
        batches: Inputs of the network.
    """
    modules = dict(network.named_modules())
    count: dict[str, int] = {}
    nonzero: dict[str, int] = {}
    for inputs in batches:
        for name, output in activation_outputs(network, inputs).items():
            count[name] = count.get(name, 0) + output.numel()
            nonzero[name] = nonzero.get(name, 0) + int(torch.count_nonzero(output))
    return [
        LayerActivations(name=name, states=_states(modules[name]), count=count[name], nonzero=nonzero[name])
        for name in count
    ]


def _states(module: nn.Module) -> States | None:
    return module.states if isinstance(module, NormActivation | QuantActivation) else None


def nonzero_ratio(layers: Sequence[LayerWeights] | Sequence[LayerActivations]) -> float:
    """R_w or R_a: the fraction of non-zero values over all layers, each value counting once."""
    total = sum(layer.count for layer in layers)
    return sum(layer.nonzero for layer in layers) / total if total else 0.0


def total_bytes(layers: Sequence[LayerWeights]) -> float:
    """Bytes of all weights: the information bound of the quantized ones, 4 per float weight."""
    return sum(layer.bytes for layer in layers)
