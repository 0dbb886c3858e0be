"""Weights rounded one after the other, each taking up the errors of the ones before it (GPFQ, arXiv 2201.11113)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.nn.fitted import FittedSteps, weight_scale
from maqd.nn.functional import state_index
from maqd.nn.layers import QuantLayer

PATCHES = 1024
"""Sums that are looked at for each filter."""

INSIDE = 0.45
"""How far from its state, in steps, a weight may stay: it has the state's code, and training goes on from there."""


@torch.no_grad()
def follow(layer: QuantLayer, module: Any, x: Tensor) -> tuple[float, float] | None:
    """Rounds the weights of a layer along its input, and moves each into the cell of its code.

    With X the input's patches and u = 0 at first, for each weight t of a filter:

        q_t = state nearest to w_t + <X_t, u> / <X_t, X_t>,    u = u + (w_t - q_t) X_t

    A filter whose sums are closer with each weight rounded by itself keeps that.

    Args:
        layer: With fitted steps, which are kept.
        module: The float layer.
        x: The layer's input.

    Returns:
        The error of the sums, ||X (w - q)|| / ||X w||, rounding to the nearest state and this way; None where the layer
        is left as it is: transposed and three-dimensional convolutions, weights in float.
    """
    quantizer, learned = layer.quantizer, layer.learned
    rows = patches(module, x)
    if rows is None or not isinstance(quantizer, FittedSteps) or learned is None:
        return None
    groups = getattr(module, "groups", 1)
    weight = layer.weight.double()
    flat = weight.flatten(1).reshape(groups, -1, weight[0].numel()).transpose(1, 2)  # G x K x O/G
    step = quantizer.steps(layer.weight, tuple(learned)).flatten().expand(len(weight)).reshape(groups, 1, -1)
    states = quantizer.states

    def nearest(values: Tensor, step: Tensor) -> Tensor:
        return (state_index(values / step, states, 1.0) * states.spacing + states.low) * (step / states.spacing)

    square = rows.square().sum(1).clamp_min(1e-30)  # G x K
    left = torch.zeros(groups, rows.shape[1], flat.shape[2], dtype=torch.float64)
    rounded = torch.empty_like(flat)
    for t in range(flat.shape[1]):
        column = rows[:, :, t]
        wanted = flat[:, t] + torch.einsum("gm,gmo->go", column, left) / square[:, t, None]
        rounded[:, t] = nearest(wanted, step[:, 0])
        left += column[:, :, None] * (flat[:, t] - rounded[:, t])[:, None, :]
    alone = nearest(flat, step)
    off = rows @ (flat - alone)
    better = left.norm(dim=1, keepdim=True) < off.norm(dim=1, keepdim=True)  # each filter takes what is closer
    rounded = torch.where(better, rounded, alone)
    size = max(float((rows @ flat).norm()), 1e-30)
    errors = float(off.norm()) / size, float(torch.where(better, left, off).norm()) / size
    apart = INSIDE * step
    moved = (rounded + torch.clamp(flat - rounded, -apart, apart)).transpose(1, 2).reshape(weight.shape)
    layer.weight.copy_(moved)
    if quantizer.per_filter:  # the steps are relative to the weights' root mean square
        relative = step.reshape(-1, *[1] * (weight.ndim - 1)) / weight_scale(layer.weight.double())
        learned[0].copy_(relative)
    return errors


def patches(module: Any, x: Tensor) -> Tensor | None:
    """What a layer's filters are multiplied with at some places: groups x places x fan-in, float64."""
    if isinstance(module, nn.Linear):
        return some(x.reshape(-1, x.shape[-1]))[None]
    if not isinstance(module, nn.Conv1d | nn.Conv2d) or module.padding_mode != "zeros":
        return None
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    pads = module._reversed_padding_repeated_twice
    x = F.pad(x[:: max(1, len(x) // 64)], list(pads)) if any(pads) else x[:: max(1, len(x) // 64)]
    if isinstance(module, nn.Conv1d):
        x, kernel, stride, dilation = x[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
    found = F.unfold(x.float(), kernel, dilation, 0, stride)  # N x C k x L
    found = some(found.transpose(1, 2).reshape(-1, found.shape[1]))
    return found.reshape(len(found), module.groups, -1).transpose(0, 1)


def some(rows: Tensor) -> Tensor:
    """`PATCHES` of some rows, evenly spread."""
    return rows[:: max(1, math.ceil(len(rows) / PATCHES))].double()
