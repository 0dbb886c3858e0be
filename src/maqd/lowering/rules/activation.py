"""Normalization and quantizer in one."""

import math

import numpy as np
from numpy.typing import NDArray

from maqd.graph import channel_interval
from maqd.graph.proof import Evaluated, candidate
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.nn import NormActivation, QuantActivation
from maqd.nn.norm import FoldableNorm, Normalization
from maqd.numerics.fixedpoint import activation_cuts
from maqd.numerics.states import power_of_two_exponent
from maqd.settings.quantization import Quantizer


def quant_activation(step: Step, x: Codes | Raw, module: QuantActivation) -> Codes:
    """`QuantActivation`: the same step function in every channel."""
    source, quantizer = step.codes(x, divided=True), _quantizer(step, module)
    channels = source.type.shape[0]
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


def _put(step: Step, source: Codes, axis: int, evaluated: Evaluated) -> Codes:
    if not source.known or step.builder.sketch:
        return step.on_grid(evaluated.states.grid(evaluated.step_exponent), known=source.known)
    found = candidate(step.name, source.source, axis, evaluated, step.builder.affine)
    if found is None:
        step.refuse(
            "no fixed-point map whose products fit 64 bits equals it on every accumulator value",
            "lower with thresholds (auto chooses them where needed)",
        )
    result = step.put(found.node, source, wide=False)
    step.builder.candidates.append(found)
    return result


RULES = Rules(modules={NormActivation: norm_activation, QuantActivation: quant_activation}, functions={})
