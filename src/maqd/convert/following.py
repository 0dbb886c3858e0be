"""Weights rounded one after the other, each taking up the errors of the ones before it (GPFQ, arXiv 2201.11113)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.nn.fitted import FittedSteps, weight_scale
from maqd.nn.functional import state_index
from maqd.nn.layers import QuantLayer

PATCHES = 8192
"""Sums that are looked at for each filter."""

VALUES = 2**24
"""Of all patches of a layer, at most."""

DAMPING = 0.01
"""Of the mean square of an input: what is added to the square of each, so that few patches move no weight far."""

INSIDE = 0.45
"""How far from its state, in steps, a weight may stay: it has the state's code, and training goes on from there."""


@torch.no_grad()
def follow(layer: QuantLayer, module: Any, x: Tensor, wanted: Tensor | None = None) -> tuple[float, float] | None:
    """Rounds the weights of a layer along its input, and moves each into the cell of its code.

    With X and Y the patches of the converted and of the float network's input, each without its mean, which the
    normalization or the bias after the layer sets, and u = 0 at first, for each weight t of a filter:

        q_t = state nearest to (<X_t, u + w_t Y_t> + d w_t) / (<X_t, X_t> + d),    u = u + w_t Y_t - q_t X_t

    d is `DAMPING` times the mean of all <X_t, X_t>. So a filter makes up for the rounding of what it reads as well. A
    filter whose sums are closer with each weight rounded by itself keeps that.

    Args:
        layer: With fitted steps, which are kept.
        module: The float layer.
        x: The layer's input.
        wanted: The same of the float network, in the layer's units; None takes `x`.

    Returns:
        The error of the sums, ||Y w - X q|| / ||Y w||, rounding to the nearest state and this way; None where the layer
        is left as it is: transposed and three-dimensional convolutions, weights in float.
    """
    quantizer, learned = layer.quantizer, layer.learned
    rows = patches(module, x)
    if rows is None or not isinstance(quantizer, FittedSteps) or learned is None:
        return None
    ideal = rows if wanted is None else patches(module, wanted)
    groups = getattr(module, "groups", 1)
    weight = layer.weight.double()
    flat = weight.flatten(1).reshape(groups, -1, weight[0].numel()).transpose(1, 2)  # G x K x O/G
    step = quantizer.steps(layer.weight, tuple(learned)).flatten().expand(len(weight)).reshape(groups, 1, -1)
    states = quantizer.states

    def nearest(values: Tensor, step: Tensor) -> Tensor:
        return (state_index(values / step, states, 1.0) * states.spacing + states.low) * (step / states.spacing)

    square = rows.transpose(1, 2) @ rows  # G x K x K
    along = square if ideal is None or ideal is rows else rows.transpose(1, 2) @ ideal
    length = square.diagonal(dim1=1, dim2=2)
    damping = (DAMPING * length.mean(1, keepdim=True)).clamp_min(1e-30)
    reached = torch.tril(along) @ flat + damping[:, :, None] * flat
    rounded = torch.zeros_like(flat)
    for t in range(flat.shape[1]):
        left = reached[:, t] - (square[:, t, None, :t] @ rounded[:, :t])[:, 0]
        rounded[:, t] = nearest(left / (length[:, t, None] + damping), step[:, 0])
    alone = nearest(flat, step)
    sums = (rows if ideal is None else ideal) @ flat
    off, followed = sums - rows @ alone, sums - rows @ rounded
    better = followed.norm(dim=1, keepdim=True) < off.norm(dim=1, keepdim=True)  # each filter takes what is closer
    rounded = torch.where(better, rounded, alone)
    size = max(float(sums.norm()), 1e-30)
    errors = float(off.norm()) / size, float(torch.where(better, followed, off).norm()) / size
    apart = INSIDE * step
    moved = (rounded + torch.clamp(flat - rounded, -apart, apart)).transpose(1, 2).reshape(weight.shape)
    layer.weight.copy_(moved)
    if quantizer.per_filter:  # the steps are relative to the weights' root mean square
        relative = step.reshape(-1, *[1] * (weight.ndim - 1)) / weight_scale(layer.weight.double())
        learned[0].copy_(relative)
    return errors


def patches(module: Any, x: Tensor) -> Tensor | None:
    """What filters are multiplied with at some places, without its mean: groups x places x fan-in, float64."""
    if isinstance(module, nn.Linear):
        return centred(some(x.reshape(-1, x.shape[-1]), 1)[None])
    if not isinstance(module, nn.Conv1d | nn.Conv2d) or module.padding_mode != "zeros":
        return None
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    pads = module._reversed_padding_repeated_twice
    x = x[:: max(1, len(x) // 64)].float()
    x = F.pad(x, list(pads)) if any(pads) else x
    if isinstance(module, nn.Conv1d):
        x, kernel, stride, dilation = x[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
    found = F.unfold(x, kernel, dilation, 0, stride)  # N x C k x L
    found = some(found.transpose(1, 2).reshape(-1, found.shape[1]), module.groups)
    return centred(found.reshape(len(found), module.groups, -1).transpose(0, 1))


def some(rows: Tensor, groups: int) -> Tensor:
    """Some rows, evenly spread."""
    count = max(1, min(PATCHES, groups * VALUES // rows.shape[1]))
    return rows[:: -(-len(rows) // count)].double()


def centred(rows: Tensor) -> Tensor:
    """Patches without their mean."""
    return rows - rows.mean(1, keepdim=True)
