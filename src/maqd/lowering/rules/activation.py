"""Normalization and quantizer in one."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from maqd.graph import Activation, FixedPoint, Weighted, channel_interval
from maqd.graph.proof import Candidate, Evaluated, EvaluatedScale, candidate, scaled_candidate
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.nn import NormActivation, QuantActivation
from maqd.nn.norm import FoldableNorm, Normalization
from maqd.numerics.bounds import narrow
from maqd.numerics.fixedpoint import activation_cuts
from maqd.numerics.shared_scale import SharedScale, shared_scale
from maqd.numerics.states import FEW_STATES, MAX_STATES, States, power_of_two_exponent
from maqd.settings.quantization import Quantizer


def quant_activation(step: Step, x: Codes | Raw, module: QuantActivation) -> Codes:
    """`QuantActivation`: the same step function in every channel."""
    source, quantizer = step.codes(x, divided=True), _quantizer(step, module)
    channels = source.type.shape[0]
    if not quantizer.states.few:
        ones = np.ones(channels)
        scale = shared_scale(ones, 0 * ones, 0 * ones, quantizer.states, quantizer.step)
        return _put(step, source, 0, _evaluated_scale(step, source, quantizer, 0, scale))
    cuts = activation_cuts(quantizer.states, quantizer.step)
    evaluated = _evaluated(
        source,
        quantizer,
        0,
        cuts,
        (np.repeat(cuts.astype(_dtype(source))[:, None], channels, 1), np.ones(channels, np.float32)),
        (np.ones(channels), np.zeros(channels), np.zeros(channels)),
    )
    return _put(step, source, 0, evaluated)


def norm_activation(step: Step, x: Codes | Raw, module: NormActivation) -> Codes:
    """`NormActivation`: a step function for each channel, as evaluation computes it."""
    source, quantizer, norm = step.codes(x, divided=True), _quantizer(step, module), module.norm
    if not isinstance(norm, Normalization):
        step.refuse(f"it holds {type(norm).__name__}, which it cannot fold", "use BatchNorm or LayerBatchNorm")
    if not isinstance(norm, FoldableNorm):
        step.refuse(
            f"{type(norm).__name__} takes its statistics from each sample at inference and cannot be folded",
            "train with LayerBatchNorm or BatchNorm",
        )
    axis = norm.channel_dim - 1 if norm.channel_dim > 0 else len(source.type.shape) + norm.channel_dim
    module.refold()
    if not quantizer.states.few:
        return _put(step, source, axis, _evaluated_scale(step, source, quantizer, axis, module.shared_scale()))
    thresholds = module.wide_thresholds if source.wide else module.thresholds
    integers = (thresholds.cpu().numpy(), module.signs.cpu().numpy())
    return _put(step, source, axis, _evaluated(source, quantizer, axis, module.cuts(), integers, norm.affine_map()))


def _dtype(source: Codes) -> type[np.floating]:
    return np.float64 if source.wide else np.float32


def _quantizer(step: Step, module: NormActivation | QuantActivation) -> Quantizer:
    if module.quantizer is None:
        step.refuse("it is a ReLU in float", "give it a quantizer and train again")
    return module.quantizer


def _evaluated(
    source: Codes,
    quantizer: Quantizer,
    axis: int,
    cuts: NDArray[np.float64],
    integers: tuple[np.ndarray, np.ndarray],
    affine_map: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Evaluated:
    """What PyTorch evaluates.

    Args:
        source: The input.
        quantizer: Of the activation.
        axis: The channels' dimension in a sample.
        cuts: Values of the normalization at which the code rises.
        integers: Thresholds (M-1) x C, and signs.
        affine_map: Gain, mean and bias of each channel.
    """
    gain, mean, bias = affine_map
    # The codes as a line over y, through the first and the last cut: what is usually deployed.
    spacing = (cuts[-1] - cuts[0]) / (len(cuts) - 1) if cuts[-1] > cuts[0] else quantizer.step
    return Evaluated(
        states=quantizer.states,
        step_exponent=power_of_two_exponent(quantizer.step, "the activation step"),
        thresholds=integers[0],
        signs=integers[1],
        exponent=source.type.exponent,
        divisor=source.divisor,
        interval=channel_interval(source.type, axis),
        scale=gain / spacing * math.ldexp(1.0, source.type.exponent) / source.divisor,
        offset=(bias - gain * mean - cuts[0]) / spacing + 1,
    )


def _evaluated_scale(step: Step, source: Codes, quantizer: Quantizer, axis: int, scale: SharedScale) -> EvaluatedScale:
    """What PyTorch evaluates with many states; arguments as in `_evaluated`."""
    if source.divisor > 1:
        step.refuse(
            f"it has {quantizer.states.count} states, and its input is an average over {source.divisor} positions",
            f"use at most {FEW_STATES} states, or average over 2, 4, 8, .. positions",
        )
    return EvaluatedScale(
        states=quantizer.states,
        step_exponent=power_of_two_exponent(quantizer.step, "the activation step"),
        scale=scale,
        exponent=source.type.exponent,
        interval=channel_interval(source.type, axis),
    )


def _put(step: Step, source: Codes, axis: int, evaluated: Evaluated | EvaluatedScale) -> Codes:
    if not source.known or step.builder.sketch:
        return step.on_grid(evaluated.states.grid(evaluated.step_exponent), known=source.known)
    if isinstance(evaluated, EvaluatedScale):
        found = scaled_candidate(step.name, source.source, axis, evaluated)
        if found is None:
            step.refuse(
                "its scale is so small that no fixed-point map in 64 bits has it: only a few of its states are reached",
                "use fewer states, a larger step, or train again",
            )
        return _settled(step, source, found)
    found = candidate(step.name, source.source, axis, evaluated, step.builder.affine)
    if found is None:
        step.refuse(
            "no fixed-point map whose products fit 64 bits equals it on every accumulator value",
            "lower with thresholds (auto chooses them where needed)",
        )
    return _settled(step, source, found)


def _settled(step: Step, source: Codes, found: Candidate) -> Codes:
    result = step.put(found.node, source, wide=False)
    step.builder.candidates.append(found)
    return result


def clipped(step: Step, x: Codes | Raw, low: Any = None, high: Any = None) -> Codes:
    """Codes clipped to 0 .. high or -high .. high: ReLU, ReLU6, clamp and hardtanh on integers that are there already.

    Args:
        step: The call.
        x: A tensor of the graph.
        low, high: Values, multiples of the unit; None for no bound.
    """
    source = step.codes(x)
    _refuse_sums(step, source)
    if not source.known:
        return step.builder.stand_in(step.call.meta["value"])
    grid = source.type.grid
    bounds: list[int] = []
    for bound, end in ((low, grid.low), (high, grid.high)):
        if bound is not None and not isinstance(bound, int | float):
            step.refuse(f"it clips to {bound!r}", "clip to numbers")
        code = end if bound is None else math.ldexp(bound, -grid.exponent)
        if code != round(code):
            step.refuse(f"it clips to {bound}, no multiple of 2^{grid.exponent}", "clip to such a multiple")
        bounds.append(int(code))
    lowest, highest = max(bounds[0], grid.low), min(bounds[1], grid.high)
    if (lowest, highest) == (grid.low, grid.high):
        return source
    signed = lowest < 0
    # Signed states are symmetric: clipping further out than the input reaches changes nothing.
    top = max(-lowest, highest) if signed else highest
    reach = (-top if signed else 0, top)
    ends = np.array([grid.low, grid.high])
    if top < 1 or not np.array_equal(np.clip(ends, lowest, highest), np.clip(ends, *reach)):
        step.refuse(f"it clips to {low} .. {high}", "clip to 0 .. x or to -x .. x")
    count = 2 * top + 1 if signed else top + 1
    if count > MAX_STATES:
        step.refuse(f"it has {count} different results", f"use QuantActivation, with at most {MAX_STATES} states")
    channels = source.type.shape[0]
    states = States(count=count, signed=signed)
    node = FixedPoint(
        name=step.name,
        inputs=(source.source,),
        axis=0,
        states=states,
        step_exponent=grid.exponent,
        multiplier=np.ones(channels, np.int8),
        offset=narrow(np.full(channels, -states.low)),
        shift=0,
    )
    return step.put(node, source, wide=False)


def _refuse_sums(step: Step, source: Codes) -> None:
    """Refuses the sums of a layer: how far they reach changes with the weights, and so would the states."""
    nodes = {node.name: node for node in step.builder.nodes}
    open_ = [source.source]
    while open_:
        node = nodes.get(open_.pop())
        if isinstance(node, Weighted) and node.weight.length > 1:
            step.refuse("it clips the sums of a layer, whose range changes in training", "use NormActivation")
        if node is not None and not isinstance(node, Activation):
            open_ += node.inputs


def _relu(step: Step, x: Codes | Raw, inplace: bool = False) -> Codes:
    return clipped(step, x, 0)


def _relu6(step: Step, x: Codes | Raw, inplace: bool = False) -> Codes:
    return clipped(step, x, 0, 6)


def _clamp(step: Step, x: Codes | Raw, min: Any = None, max: Any = None) -> Codes:
    return clipped(step, x, min, max)


def _clamp_min(step: Step, x: Codes | Raw, min: Any) -> Codes:
    return clipped(step, x, min)


def _hardtanh(step: Step, x: Codes | Raw, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Codes:
    return clipped(step, x, min_val, max_val)


def _relu_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    return clipped(step, x, 0)


def _hardtanh_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    return clipped(step, x, module.min_val, module.max_val)


RULES = Rules(
    modules={
        NormActivation: norm_activation,
        QuantActivation: quant_activation,
        nn.ReLU: _relu_layer,
        **dict.fromkeys((nn.ReLU6, nn.Hardtanh), _hardtanh_layer),
    },
    functions={
        **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), _relu),
        F.relu6: _relu6,
        F.hardtanh: _hardtanh,
        **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clamp_", "clip", "clip_"), _clamp),
        **dict.fromkeys((torch.clamp_min, "clamp_min"), _clamp_min),
    },
)
