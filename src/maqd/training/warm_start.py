"""Starting the training of a network of few states from a float network: plain functions on modules and states.

On short schedules this is worth 4 to 6 points of accuracy, more than anything else (docs/recipes.md).
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from maqd.errors import CheckpointError, ConfigError
from maqd.nn import NormActivation, Quantizer, ThresholdQuantizer
from maqd.nn.calling import Inputs, call
from maqd.nn.functional import quantize_activation
from maqd.nn.layers import QuantLayer
from maqd.nn.norm import FoldableNorm

SAMPLE = 2**18
"""Values of a layer that its scale is fitted on; the error of the fit does not depend on more."""

OCTAVE_PARTS = 8
"""Scales that are tried in a factor of two."""


def quantization_error(values: Tensor, quantizer: Quantizer, scale: float) -> float:
    """Mean square of what the quantizer takes from an activation when its input is scaled by `scale`.

    E[(q(scale y) / scale - r(y))^2], with r the rectifier for unsigned states and the identity for signed ones.

    Args:
        values: Normalized values y, any shape, float.
        quantizer: States and step; q is its staircase.
        scale: Positive.
    """
    wanted = values if quantizer.states.signed else torch.relu(values)
    return float((quantize_activation(values * scale, quantizer) / scale - wanted).square().mean())


def fitted_scale(values: Tensor, quantizer: Quantizer) -> float:
    """The scale of a quantizer's input with the least error, to an eighth of an octave, within 1/16 .. 16.

    Scaling the affine parameters of the normalization by it is the same as dividing the quantizer's step by it, but
    keeps the step a power of two. The next normalization takes the factor out again.

    Args:
        values: Normalized values, any shape, float; `SAMPLE` of them are looked at, evenly spread.
        quantizer: States and step.
    """
    flat = values.flatten()
    flat = flat[:: max(1, flat.numel() // SAMPLE)].float()
    scales = [2.0 ** (k / OCTAVE_PARTS) for k in range(-4 * OCTAVE_PARTS, 4 * OCTAVE_PARTS + 1)]
    return min(scales, key=lambda scale: (quantization_error(flat, quantizer, scale), abs(math.log(scale))))


@contextmanager
def _momentum(network: nn.Module) -> Iterator[list[FoldableNorm]]:
    """The normalizations of a network, their momentum to be restored."""
    norms = [module for module in network.modules() if isinstance(module, FoldableNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def reestimate_statistics(network: nn.Module, batches: Iterable[Inputs]) -> None:
    """Replaces the running statistics of all normalizations by plain means over batches, in place.

    Afterwards they belong to the weights as they are now, and not to those of the last few hundred steps. (Called BN
    re-estimation in arXiv 2203.11086.)

    Args:
        network: Any network with `maqd.nn` normalizations; its mode is kept.
        batches: Inputs of the network.

    Raises:
        ConfigError: There is no batch.
    """
    training = network.training
    network.train()
    count = 0
    with _momentum(network) as norms:
        for batch in batches:
            count += 1
            for norm in norms:
                norm.momentum = 1 / count
            call(network, batch)
    network.train(training)
    if not count:
        raise ConfigError("statistics are re-estimated from batches, got none; pass at least one")


@torch.no_grad()
def warm_start(
    network: nn.Module, float_state: Mapping[str, Tensor], batches: Iterable[Inputs], *, fit: bool = True
) -> dict[str, Tensor]:
    """The state with which a network of few states starts from a trained float network of the same layers.

    Weights and affine parameters are carried over. Then, layer by layer from the input on, the normalization in front
    of each quantizer is scaled so that the quantizer changes the float activation least (`fitted_scale`), with
    everything before it quantized already. At last the running statistics are re-estimated. What quantizers learn
    themselves begins anew: a float network does not have it.

    Args:
        network: The network to start; left as it is, but for its mode if it raises.
        float_state: State of the float network. Its parameters must have the names and shapes of the network's; its
            running statistics are not used, so the normalization may be another.
        batches: Inputs of the network, a few hundred images in all; the first one is used for the fit.
        fit: Whether to scale. A network trained without rounding (`maqd.nn.set_rounding`) has its scales already.

    Returns:
        A state for `network.load_state_dict`.

    Raises:
        CheckpointError: A parameter of the network is missing in the float state or has another shape.
        ConfigError: There is no batch.
    """
    started = copy.deepcopy(network)
    own = {id(parameter) for _, learned in _learned(started) for parameter in learned}
    for name, parameter in started.named_parameters():
        if id(parameter) in own:
            continue
        found = tuple(float_state[name].shape) if name in float_state else "absent"
        if found != tuple(parameter.shape):
            raise CheckpointError(
                f"the float network does not fit: {name} is {found} there, {tuple(parameter.shape)} here; "
                "train a float network of the same architecture and width"
            )
        parameter.copy_(float_state[name])
    for layer, learned in _learned(started):
        if isinstance(layer, QuantLayer) and layer.quantizer is not None:
            for parameter, value in zip(learned, layer.quantizer.initial(layer.weight), strict=True):
                parameter.copy_(value)
    held = list(islice(batches, 1 << 20))
    if not held:
        raise ConfigError("a warm start fits its scales on batches, got none; pass at least one")
    if fit:
        _fit_scales(started, held[0])
    reestimate_statistics(started, held)
    return started.state_dict()


def _learned(network: nn.Module) -> Iterator[tuple[nn.Module, nn.ParameterList]]:
    """The layers whose quantizers learn something, and what that is."""
    for module in network.modules():
        if isinstance(module, QuantLayer | NormActivation) and module.learned is not None:
            yield module, module.learned


def _fit_scales(network: nn.Module, batch: Inputs) -> None:
    hooks = [
        module.register_forward_pre_hook(_fit)
        for module in network.modules()
        if isinstance(module, NormActivation) and module.quantizer is not None
    ]
    network.train()
    call(network, batch)
    for hook in hooks:
        hook.remove()


def _fit(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Scale the affine parameters of the module's normalization for the input that it is about to get."""
    norm, quantizer = module.norm, module.quantizer
    if not isinstance(norm, FoldableNorm) or not isinstance(quantizer, Quantizer):
        return
    if isinstance(quantizer, ThresholdQuantizer):
        return  # it learns its scale
    if norm.weight is None or norm.bias is None:
        return
    scale = fitted_scale(norm.normalize(inputs[0].float(), None), quantizer)
    norm.weight.mul_(scale)
    norm.bias.mul_(scale)
