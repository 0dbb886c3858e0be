"""The numbers of a converted network: scales, steps, weights and normalizations, each by least squares."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maqd.convert.values import Layer, Norm, Numbers, Scale, Site, hull
from maqd.errors import ConfigError
from maqd.nn import (
    BatchNorm,
    ChannelMap,
    FittedSteps,
    LayerBatchNorm,
    LevelledLayerBatchNorm,
    NormActivation,
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
    QuantLinear,
    Values,
)
from maqd.nn.curves import CurveQuantizer
from maqd.nn.fitted import PAST
from maqd.nn.functional import EPS_WEIGHT, quantize_activation
from maqd.nn.layers import QuantLayer
from maqd.nn.norm import FoldableNorm
from maqd.nn.quantizers import RoundClip
from maqd.numerics.states import Grid, States
from maqd.settings.conversion import ConversionConfig, Kept
from maqd.settings.quantization import Affine, Quantizer

PARTS = 8
"""Scales that are tried in a factor of two."""

SAMPLE = 2**15
"""Values that a scale is fitted on."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was seen of a float tensor.

    Args:
        sample: Some of its values, evenly spread.
        mean, variance: Of each channel, float64.
        count: Values per channel.
    """

    sample: Tensor
    mean: Tensor
    variance: Tensor
    count: int


def sampled(x: Tensor) -> Tensor:
    """Values of a tensor, evenly spread, the same places for the same shape."""
    flat = x.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLE) | 1].float().clone()  # a call may change x in place


def observe(x: Tensor, channel_dim: int) -> Observed:
    """What there is to see of a float tensor."""
    rows = x.detach().movedim(channel_dim, -1).reshape(-1, x.shape[channel_dim]).double()
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    return Observed(sample=sampled(x), mean=mean, variance=variance, count=rows.shape[0])


def fit_scale(scale: Scale, seen: dict[Site, Observed]) -> None:
    """Sets the scale of some quantizers, and the power-of-two step of each, for the least square error in float.

    E[(q(s y) / s - f(y))^2] / E[f(y)^2] summed over the quantizers, with f the activation function, s the scale and q
    the staircase.
    """
    scales = [scale.value] if scale.fixed else [2.0 ** (k / PARTS) for k in range(PARTS)]
    best: tuple[float, float, list[int]] | None = None
    for s in scales:
        total, exponents = 0.0, []
        for site in scale.sites:
            error, exponent = fit_step(seen[site].sample, site, s)
            total += error
            exponents.append(exponent)
        if best is None or total < best[0]:
            best = total, s, exponents
    if best is None:
        return
    if not scale.fixed:
        scale.fit(best[1])
    for site, exponent in zip(scale.sites, best[2], strict=True):
        site.exponent = exponent


def fit_step(y: Tensor, site: Site, scale: float) -> tuple[float, int]:
    """The best exponent of a site's step for a scale, and its relative error."""
    wanted = site.target(y)
    read = y if site.straight else wanted  # the states of a curve have places of their own
    size = float(wanted.square().mean())
    largest = float(wanted.abs().max()) * scale
    if not largest > 0:
        return 0.0, 0
    widest = math.ceil(math.log2(largest / max(site.states.high, 1))) + 1 - (site.states.spacing - 1)
    best = (math.inf, 0)
    for exponent in range(widest, widest - 8, -1):
        quantizer = Quantizer(states=site.states, step=2.0**exponent)
        error = float((quantize_activation(read * scale, quantizer) / scale - wanted).square().mean()) / size
        if error > PAST * best[0]:
            break
        best = min(best, (error, exponent))
    return best


def make_layer(layer: Layer, *, centred: bool = False) -> None:
    """Makes a weighted layer from a float one: the same but for a factor per filter, which its numbers say.

    Args:
        layer: Its description.
        centred: Whether its filters lose their means, unless it is a head or has filters of a few weights.

    Raises:
        ConfigError: Its sums may leave the range of exact integers.
    """
    module, source = layer.module, layer.source.numbers()
    grid = hull([source.grid, *(other.numbers().grid for other in layer.others)])
    with torch.no_grad():
        plain = weight = filters(module).double()
        groups = getattr(module, "groups", 1)
        a, b = source.a, source.b
        if a.numel() > 1 or bool(a < 0):  # a scale per input channel, or a sign, goes into the weights
            weight, a = weight * per_input(a.expand(plain.shape[1] * groups), plain, groups), torch.ones_like(a[:1])
        bias = torch.zeros(weight.shape[0], dtype=torch.float64)
        if module.bias is not None:
            bias = bias + module.bias.double()
        if bool(b.any()):
            full = b.expand(plain.shape[1] * groups)
            bias = bias + (plain * per_input(full, plain, groups)).flatten(1).sum(1)
        if layer.head:
            layer.made, layer.numbers = make_head(layer, weight, bias, grid, a)
            return
        quantizer = None
        if layer.states is not None:
            kind = RoundClip if centred and weight[0].numel() >= LEAST_WEIGHTS else FittedSteps
            quantizer = kind(states=States(count=layer.states, signed=True))
        made = build_layer(module, quantizer, grid, bias=False, gain=1.0)
        set_weight(made, weight)
        factor = torch.ones(1, dtype=torch.float64)
        if quantizer is not None and made.exponent is not None:
            if isinstance(quantizer, RoundClip):
                deviation = made.weight.double().flatten(1).var(1, correction=0).add(EPS_WEIGHT).sqrt()
                steps = quantizer.distance * deviation
            else:
                steps = quantizer.steps(made.weight, tuple(made.learned or ())).flatten()
            factor = steps / (quantizer.states.spacing * math.ldexp(1.0, made.exponent))
        layer.made, layer.numbers = made, Numbers(a=a * factor, b=bias, grid=None)


LEAST_WEIGHTS = 8
"""Of a filter that can lose its mean: of fewer, too little is left."""


def make_head(layer: Layer, weight: Tensor, bias: Tensor, grid: Grid | None, a: Tensor) -> tuple[QuantLayer, Numbers]:
    """A layer whose values are those of the float one: its step is the unit of its accumulator."""
    one = torch.ones(1, dtype=torch.float64)
    numbers = Numbers(a=one, b=0 * one, grid=None)
    if layer.states is None:
        made = build_layer(layer.module, None, grid, bias=True, gain=1.0)
        set_weight(made, weight * a)
    else:
        quantizer = FittedSteps(states=States(count=layer.states, signed=True), per_filter=False)
        fitted = float(quantizer.initial(weight)[0]) * float(a) / quantizer.states.spacing
        exponents = (math.floor(math.log2(fitted)), math.ceil(math.log2(fitted)))
        errors = [rounding_error(weight, quantizer, math.ldexp(1.0, e) / float(a)) for e in exponents]
        exponent = exponents[int(np.argmin(errors))]
        made = build_layer(layer.module, quantizer, grid, bias=True, gain=1.0)
        made = build_layer(layer.module, quantizer, grid, bias=True, gain=2.0 ** (exponent - (made.exponent or 0)))
        set_weight(made, weight)
        if made.learned is not None:
            made.learned[0].fill_(math.ldexp(1.0, exponent) / float(a) * quantizer.states.spacing)
    if made.bias is not None:
        made.bias.copy_(bias)
        made.bias.requires_grad_(layer.module.bias is None or layer.module.bias.requires_grad)
    return made, numbers


def rounding_error(weight: Tensor, quantizer: FittedSteps, value: float) -> float:
    """Mean square error of weights whose code 1 has a value."""
    step = torch.tensor(value * quantizer.states.spacing, dtype=torch.float64)
    codes = quantizer.codes(weight, (step,)).double()
    return float((codes * value - weight).square().mean())


def filters(module: Any) -> Tensor:
    """A float layer's weight, outputs first: one filter a row."""
    weight = module.weight.detach()
    if not isinstance(module, nn.modules.conv._ConvTransposeNd):
        return weight
    split = weight.reshape(module.groups, -1, *weight.shape[1:]).transpose(1, 2)
    return split.reshape(module.out_channels, -1, *weight.shape[2:])


def per_input(values: Tensor, weight: Tensor, groups: int) -> Tensor:
    """One value per input channel as a factor of a weight: the channels of a filter's group."""
    rows = values.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1).reshape(weight.shape[0], -1)
    return rows.reshape(weight.shape[0], weight.shape[1], *[1] * (weight.ndim - 2))


def build_layer(
    module: Any, quantizer: FittedSteps | RoundClip | None, grid: Grid | None, *, bias: bool, gain: float
) -> QuantLayer:
    """The layer of a float one's shape, with memory for its numbers but no numbers yet; without a grid, for inputs in
    float.
    """
    known = Values.FLOAT if grid is None else grid
    with torch.device("meta"):  # or steps would be fitted to random weights, half of a conversion's time
        made = _outlined(module, quantizer, known, bias=bias, gain=gain)
    return made.to_empty(device="cpu")


def _outlined(
    module: Any, quantizer: FittedSteps | RoundClip | None, known: Grid | Values, *, bias: bool, gain: float
) -> QuantLayer:
    if isinstance(module, nn.Linear):
        return QuantLinear(module.in_features, module.out_features, bias, states=quantizer, input_grid=known, gain=gain)
    if (kind := _TRANSPOSED.get(type(module))) is not None:
        return kind(
            module.in_channels, module.out_channels, tuple(module.kernel_size), tuple(module.stride),
            tuple(int(size) for size in module.padding), tuple(module.output_padding), module.groups, bias,
            tuple(module.dilation), states=quantizer, input_grid=known, gain=gain,
        )  # fmt: skip
    return _CONVOLUTIONS[type(module)](
        module.in_channels, module.out_channels, tuple(module.kernel_size), tuple(module.stride), pads(module),
        tuple(module.dilation), module.groups, bias, states=quantizer, input_grid=known, gain=gain,
    )  # fmt: skip


_TRANSPOSED = {
    nn.ConvTranspose1d: QuantConvTranspose1d,
    nn.ConvTranspose2d: QuantConvTranspose2d,
    nn.ConvTranspose3d: QuantConvTranspose3d,
}
_CONVOLUTIONS = {nn.Conv1d: QuantConv1d, nn.Conv2d: QuantConv2d, nn.Conv3d: QuantConv3d}


def pads(module: Any) -> tuple[int, ...] | str:
    """Padding that is left to the layer."""
    if module.padding_mode != "zeros":
        return (0,) * len(module.kernel_size)
    return module.padding if isinstance(module.padding, str) else tuple(int(size) for size in module.padding)


def set_weight(made: QuantLayer, weight: Tensor) -> None:
    """Takes over the weights and fits their steps."""
    made.weight.copy_(weight)
    if isinstance(made.quantizer, FittedSteps) and made.learned is not None:
        for parameter, value in zip(made.learned, made.quantizer.initial(weight), strict=True):
            parameter.data = value.to(parameter.dtype)
        made.learned.requires_grad_(False)


def statistics(norm: Norm, read: Observed | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of what a normalization reads, each float64, one a channel.

    Args:
        norm: The normalization.
        read: What it reads, unless it has running statistics.
    """
    if norm.mean is not None and norm.variance is not None:
        return norm.mean, norm.variance
    if read is None:
        raise RuntimeError("a normalization without statistics is made before its input is seen")
    return read.mean, read.variance


def float_map(norm: Norm | None, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset of a pending normalization in evaluation, float64."""
    one = torch.ones(1, dtype=torch.float64)
    if norm is None:
        return one, 0 * one
    if norm.mean is None:  # of all channels together
        centre = mean.mean()
        mean, variance = centre, (variance + (mean - centre).square()).mean()
    gain = 1 / torch.sqrt(variance + norm.eps)
    if norm.weight is not None:
        gain = gain * norm.weight
    offset = -gain * mean
    return gain, offset if norm.bias is None else offset + norm.bias


def make_site(site: Site, norm: Norm | None, read: Observed | None, config: ConversionConfig) -> None:
    """Makes a quantizer with the normalization before it.

    Args:
        site: Whose scale and step are fitted.
        norm: The float network's normalization, if one is pending.
        read: What that reads, unless it has running statistics.
        config: What it becomes.
    """
    source, numbers = site.source, site.source.numbers()
    mean, variance = (torch.zeros(1), torch.ones(1)) if norm is None else statistics(norm, read)
    gain, offset = float_map(norm, mean, variance)
    scale = site.scale.value
    channels = source.channels
    made: FoldableNorm
    total_gain = (scale * gain * numbers.a).expand(channels)
    total_offset = (scale * (gain * numbers.b + offset)).expand(channels)
    if norm is None:
        affine = Affine.CHANNEL if source.per_channel else Affine.LAYER
        made = ChannelMap(channels, affine=affine, channel_dim=source.channel_dim)
        set_norm(made, total_gain, total_offset, None, None)
    else:
        kind = {Kept.KEEP: BatchNorm, Kept.LBN: LayerBatchNorm, Kept.LEVELLED: LevelledLayerBatchNorm}[config.norm]
        made = kind(channels, eps=norm.eps, momentum=norm.momentum, channel_dim=source.channel_dim)
        mean = ((mean - numbers.b) / numbers.a).expand(channels)
        variance = (variance / numbers.a.square()).expand(channels)
        set_norm(made, total_gain, total_offset, mean, variance)
    step, act = 2.0**site.exponent, source.activation
    quantizer = Quantizer(states=site.states, step=step, surrogate=config.surrogate)
    if act is not None and act.curve is not None:
        quantizer = CurveQuantizer(
            states=site.states, step=step, surrogate=config.surrogate, curve=act.curve, scale=scale
        )
    site.made = NormActivation(made, quantizer)


def set_norm(norm: FoldableNorm, gain: Tensor, offset: Tensor, mean: Tensor | None, variance: Tensor | None) -> None:
    """Lets a normalization compute gain * x + offset in evaluation, for channels of that mean and variance."""
    with torch.no_grad():
        if norm.weight is None or norm.bias is None:
            raise ConfigError(f"{type(norm).__name__} without parameters cannot take over a map")
        deviation = torch.ones(1, dtype=torch.float64)
        centre = torch.zeros(1, dtype=torch.float64)
        if mean is not None and variance is not None:
            if isinstance(norm, LevelledLayerBatchNorm):
                norm.level_mean.copy_(mean)
                norm.level_var.copy_(variance)
                norm.batches.fill_(MANY_BATCHES)
                deviation = torch.sqrt(norm.level_var.double() + norm.eps) * math.sqrt(1 + norm.eps)
                centre = norm.level_mean.double()
            elif isinstance(norm, LayerBatchNorm):
                centre = mean.mean().reshape(1)
                norm.running_mean.copy_(centre[0])
                norm.running_var.copy_((variance + (mean - centre).square()).mean())
                deviation = torch.sqrt(norm.running_var.double() + norm.eps)
                centre = norm.running_mean.double()
            else:
                norm.running_mean.copy_(mean)
                norm.running_var.copy_(variance)
                deviation = torch.sqrt(norm.running_var.double() + norm.eps)
                centre = norm.running_mean.double()
        size = norm.weight.numel()
        weight, bias = gain * deviation, offset + gain * centre
        norm.weight.copy_(weight.expand(norm.num_features)[:size])
        norm.bias.copy_(bias.expand(norm.num_features)[:size])


def correct(norm: FoldableNorm, x: Tensor, wanted: Observed, scale: float) -> None:
    """Shifts and scales a normalization so that its results have the float network's mean and variance per channel.

    What rounding took from, or added to, the sums before it is taken back. Batch normalization gets other statistics,
    the others other parameters.

    Args:
        norm: Of the converted network.
        x: What it reads.
        wanted: The float network's result, for the same samples.
        scale: Of the codes after it.
    """
    seen = observe(x, norm.channel_dim)
    gain, _, _ = (torch.from_numpy(value) for value in norm.affine_map())
    if seen.count < LEAST_VALUES or norm.weight is None or norm.bias is None:
        return
    if norm.weight.numel() == 1:
        return
    spread = (gain.square() * seen.variance).sqrt()
    ratio = (wanted.variance.sqrt() * scale / torch.where(spread > 0, spread, 1.0)).clamp(0.5, 2.0)
    ratio = torch.where((spread > 0) & (wanted.variance > 0), ratio, 1.0)
    new_gain = gain * ratio
    new_offset = wanted.mean * scale - new_gain * seen.mean
    if isinstance(norm, BatchNorm):
        weight, beta = norm.weight.detach().double(), norm.bias.detach().double()
        variance = (weight / new_gain).square() - norm.eps
        new_mean = (beta - new_offset) / new_gain
        fine = (new_gain != 0) & (variance > 0) & variance.isfinite() & new_mean.isfinite()
        norm.running_var.copy_(torch.where(fine, variance, norm.running_var.double()))
        norm.running_mean.copy_(torch.where(fine, new_mean, norm.running_mean.double()))
        return
    known: tuple[Tensor, Tensor] | tuple[None, None] = (None, None)
    if isinstance(norm, LevelledLayerBatchNorm):
        known = (norm.level_mean.double().clone(), norm.level_var.double().clone())
    elif isinstance(norm, LayerBatchNorm):
        known = (seen.mean, seen.variance)
    set_norm(norm, new_gain, new_offset, *known)


def correct_head(head: QuantLayer, result: Tensor, wanted: Observed, channel_dim: int) -> None:
    """Shifts the biases of a head so that its results have the float network's mean.

    Args:
        head: Of the converted network.
        result: What it returns.
        wanted: What the float layer returns, for the same samples.
        channel_dim: Of the result.
    """
    if head.bias is None or wanted.count < LEAST_VALUES:
        return
    with torch.no_grad():
        head.bias.add_((wanted.mean - observe(result, channel_dim).mean).to(head.bias.dtype))


MANY_BATCHES = 2**20
"""After which running averages move with their momentum alone."""

LEAST_VALUES = 64
"""Values per channel from which statistics are corrected: fewer say too little."""
