"""The method as functions on tensors: standardization, round-clip quantizers, fused normalization and activation.

Forward passes are those of docs/numerics.md; gradients are written out, not traced.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from maqd.errors import ConfigError
from maqd.nn import kernels
from maqd.nn.surrogate import surrogate_gradient
from maqd.numerics.states import FEW_STATES, States
from maqd.settings.quantization import Quantizer, Surrogate


def round_half_up(x: Tensor) -> Tensor:
    """floor(x + 1/2) for every float, exactly.

    Adding 1/2 first would round just below a tie, and `torch.round` takes ties to even. The difference x - floor(x)
    is exact where it decides.
    """
    floor = torch.floor(x)
    return floor + (x - floor >= 0.5).to(x.dtype)


def state_index(y: Tensor, states: States, step: float) -> Tensor:
    """The number of the state of y: clip(floor(y / step + origin + 1/2), 0, M-1), ties up.

    Exact for every float when the step is a power of two.

    Args:
        y: Real values, any shape.
        states: The states; `origin` is the index of the state at zero.
        step: Distance of neighbouring states.

    Returns:
        Integers in 0 .. M-1, in y's dtype. Not-a-number stays not-a-number.
    """
    u = y / step
    if states.spacing == 2:
        # A quotient that underflows to zero must not hide that y is negative.
        index = torch.floor(u) - ((u == 0) & (y < 0)).to(u.dtype) + states.count // 2
    else:
        index = round_half_up(u) + states.origin
    return torch.clamp(index, 0, states.count - 1)


# ---- weights --------------------------------------------------------------------------------------------------------

EPS_WEIGHT = 1e-10
"""Added to the variance of a filter's weights, which may be as small as 1 / fan-in."""


def _per_filter(weight: Tensor, vector: Tensor) -> Tensor:
    return vector.reshape(-1, *[1] * (weight.ndim - 1))


def weight_standardize(weight: Tensor, eps: float = EPS_WEIGHT) -> Tensor:
    """Weight standardization (Qiao et al., arXiv 1903.10520; MaQD): zero mean and unit variance per filter.

    Args:
        weight: O x ..., float.
        eps: Added to the variance.

    Returns:
        (w - mean) / sqrt(var + eps) with the mean and the biased variance over all but the first dimension.
    """
    variance, mean = torch.var_mean(weight.flatten(1), dim=1, correction=0)
    return (weight - _per_filter(weight, mean)) * _per_filter(weight, torch.rsqrt(variance + eps))


class _QuantizeWeight(torch.autograd.Function):
    """Standardize, round, clip, scale; saves the weights and two scalars a filter."""

    @staticmethod
    def forward(weight: Tensor, states: States, step: float, unit: float) -> tuple[Tensor, ...]:
        variance, mean = torch.var_mean(weight.flatten(1), dim=1, correction=0)
        rstd = torch.rsqrt(variance + EPS_WEIGHT)
        normalized = (weight - _per_filter(weight, mean)) * _per_filter(weight, rstd)
        index = state_index(normalized, states, step)
        return (index * states.spacing + states.low) * unit, mean, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        weight, states, step, unit = inputs
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, mean, rstd)
        ctx.slope = states.spacing * unit / step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        grad = grads[0]
        if grad is None:
            return None, None, None, None
        weight, mean, rstd = ctx.saved_tensors
        grad = grad * ctx.slope
        normalized = (weight - _per_filter(weight, mean)) * _per_filter(weight, rstd)
        along = (grad * normalized).flatten(1).mean(1)
        centre = grad.flatten(1).mean(1)
        inner = grad - _per_filter(weight, centre) - normalized * _per_filter(weight, along)
        return inner * _per_filter(weight, rstd), None, None, None


def quantize_weight(weight: Tensor, states: States, step: float, unit: float) -> Tensor:
    """Scaled round-clip of the weights of a layer (MaQD, section on weight quantization).

    code = low + spacing * clip(floor(w' / step + origin + 1/2), 0, M-1) with w' the standardized weight; the
    result is code * unit. Backward: the straight-through slope spacing * unit / step everywhere (clipping it costs
    accuracy, since standardization already bounds the weights), through the standardization exactly.

    Args:
        weight: O x ..., float.
        states: Signed states.
        step: Distance of neighbouring states in standard deviations of a filter.
        unit: Value of code 1, a power of two.

    Returns:
        Like weight: codes times unit, exact.
    """
    return _QuantizeWeight.apply(weight, states, step, unit)[0]


def weight_codes(weight: Tensor, states: States, step: float) -> Tensor:
    """The codes that evaluation and lowering use: float64 on the CPU, whatever the device, so there is one answer.

    Args:
        weight: O x ..., float.
        states: Signed states.
        step: As in `quantize_weight`.

    Returns:
        int16, like weight, on the CPU.
    """
    exact = weight_standardize(weight.detach().to(device="cpu", dtype=torch.float64).contiguous())
    return (state_index(exact, states, step) * states.spacing + states.low).to(torch.int16)


class _QuantizeBias(torch.autograd.Function):
    @staticmethod
    def forward(bias: Tensor, unit: float) -> Tensor:
        return round_half_up(bias / unit) * unit

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return grads[0], None


def quantize_bias(bias: Tensor, unit: float) -> Tensor:
    """The nearest multiple of `unit`, ties up; straight-through gradient."""
    return _QuantizeBias.apply(bias, unit)  # pyright: ignore[reportReturnType]


class _WithGradientOf(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, surrogate: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.dtype = inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return None, grads[0].to(ctx.dtype)


def with_gradient_of(values: Tensor, surrogate: Tensor) -> Tensor:
    """The values, exactly, with the gradient of another tensor of the same shape."""
    return _WithGradientOf.apply(values.detach(), surrogate)  # pyright: ignore[reportReturnType]


# ---- activations ----------------------------------------------------------------------------------------------------


class _QuantizeActivation(torch.autograd.Function):
    @staticmethod
    def forward(y: Tensor, quantizer: Quantizer) -> Tensor:
        return state_index(y, quantizer.states, quantizer.step) * quantizer.step + quantizer.offset

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.quantizer = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (y,) = ctx.saved_tensors
        quantizer = ctx.quantizer
        v = y / quantizer.step + quantizer.states.shift
        phi = surrogate_gradient(v, quantizer.states.count, quantizer.surrogate)
        return grads[0] * phi * quantizer.surrogate.scale, None


def quantize_activation(y: Tensor, quantizer: Quantizer) -> Tensor:
    """Scaled round-clip of an activation (MaQD): (low + spacing * index) * unit, ties up, exact for every float.

    Args:
        y: Any shape and float dtype.
        quantizer: States, step and surrogate.

    Returns:
        Like y, on `quantizer.grid`. Backward: the surrogate (`maqd.nn.surrogate`).
    """
    return _QuantizeActivation.apply(y, quantizer)  # pyright: ignore[reportReturnType]


def threshold_activation(x: Tensor, thresholds: Tensor, signs: Tensor, quantizer: Quantizer) -> Tensor:
    """The integer form of normalization and activation: count the thresholds that x reaches.

    Args:
        x: ... x C, float32.
        thresholds: (M-1) x C, ascending (`maqd.numerics.fixedpoint.input_thresholds`).
        signs: C, +-1.
        quantizer: States and step.

    Returns:
        ... x C, float32, on `quantizer.grid`.
    """
    signed = x * signs
    if thresholds.shape[0] > 16:  # a binary search for each channel is faster than a pass for each threshold
        columns = signed.reshape(-1, signed.shape[-1]).t().contiguous()
        counts = torch.searchsorted(thresholds.t().contiguous(), columns, right=True)
        counts = counts.masked_fill(columns.isnan(), 0)  # not-a-number reaches no threshold
        return (counts.t().to(x.dtype) * quantizer.step + quantizer.offset).reshape(x.shape)
    count = torch.zeros_like(signed)
    for threshold in thresholds:
        count += signed >= threshold
    return count * quantizer.step + quantizer.offset


def scaled_activation(x: Tensor, slope: Tensor, whole: Tensor, rest: Tensor, quantizer: Quantizer) -> Tensor:
    """The integer form of normalization and activation with many states (`maqd.numerics.shared_scale`).

    Args:
        x: ... x C, integers of at most 32 bits times a unit, float32 or float64.
        slope, whole, rest: C, float64: `SharedScale.parts`.
        quantizer: States and step.

    Returns:
        ... x C, float32, on `quantizer.grid`.
    """
    product = x.double() * slope  # exact, and so are its whole part and its fraction
    floor = torch.floor(product)
    index = torch.clamp(floor + whole + (product - floor >= rest), 0, quantizer.states.count - 1)
    return (index * quantizer.step + quantizer.offset).float()


def require_exact_codes(x: Tensor, states: States, what: str) -> None:
    """Raises ConfigError if codes of many states would go through a type of few bits: training under autocast."""
    if not states.few and (x.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(x.device.type)):
        raise ConfigError(
            f"{what} has {states.count} states, and {x.dtype if x.dtype.itemsize == 2 else 'autocast'} holds codes "
            f"of up to {FEW_STATES} states exactly; train it in float32, without autocast (--compute.bf16 false)"
        )


# ---- normalization, alone or fused with an activation ---------------------------------------------------------------


def _all_reduce(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    if group is not None:
        dist.all_reduce(x, group=group)
    return x


def _steps(quantizer: Quantizer | None) -> tuple[int, float, float, float]:
    """M, step, output offset and the shift that puts the thresholds at 1 .. M-1; no quantizer: the identity."""
    if quantizer is None:
        return 1, 1.0, 0.0, 0.0
    return quantizer.states.count, quantizer.step, quantizer.offset, quantizer.states.shift


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a normalization subtracts and divides by, from the current batch: xhat = (x - mean) * rstd.

    Args:
        mean: C, or 1 for all channels, float64.
        rstd: Like mean.
        count: Number of values per channel, one value, float64.
        own: Share of each channel in its own statistics, one value in 0 .. 1 or 2 x 1 for the mean and the scale,
            float64: 1 where they are the channel's alone (BN). None where all channels share them (LBN), which is 0 and
            saves the sums per channel.
        group: Processes that share them.
    """

    mean: Tensor
    rstd: Tensor
    count: Tensor
    own: Tensor | None = None
    group: dist.ProcessGroup | None = None


class _NormAct(torch.autograd.Function):
    """act(weight * xhat + bias) with xhat = (x - mean) * rstd; saves x and a few values a channel.

    Backward. With g the gradient of the output, phi the surrogate and h = scale g phi the gradient of y:
        d bias = sum h,   d weight = sum h xhat
        d x    = rstd (weight h - m1 - xhat m2),   m1 = mean(weight h),   m2 = mean(weight h xhat)
    where m1, m2 are means over what the statistics see: everything (LBN), one channel (BN), or the blend
    own * channel + (1 - own) * everything. All follow from the two sums per channel that d bias and d weight need, so
    x and g are read twice and nothing else is stored.
    """

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        rstd: Tensor,
        count: Tensor,
        own: Tensor | None,
        quantizer: Quantizer | None,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor]:
        channels = x.shape[-1]
        states, step, offset, shift = _steps(quantizer)
        gain = (rstd if weight is None else weight.double() * rstd) / step
        centre = shift - gain * mean
        if bias is not None:
            centre = centre + bias.double() / step
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        params = torch.stack([gain.expand(channels), centre.expand(channels)]).to(dtype)
        return kernels.affine_act(x, params, states, step, offset), params

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, mean, rstd, count, own, quantizer, group = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, mean, rstd, count, own, output[1])
        ctx.quantizer, ctx.group = quantizer, group

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        grad, nothing = grads[0], (None,) * 6
        if grad is None:
            return None, None, None, *nothing
        x, weight, bias, mean, rstd, count, own, params = ctx.saved_tensors
        surrogate = Surrogate() if ctx.quantizer is None else ctx.quantizer.surrogate
        scale = 1.0 if ctx.quantizer is None else surrogate.scale
        states = _steps(ctx.quantizer)[0]
        grad = grad.contiguous()

        sums = kernels.backward_sums(x, grad, params, states, surrogate) * scale
        grad_bias = sums[0]
        grad_weight = rstd * (sums[1] - mean * sums[0])
        totals = torch.stack([grad_bias, grad_weight]) * (1.0 if weight is None else weight.double())
        if own is None:
            m1, m2 = _all_reduce(totals.sum(1, keepdim=True), ctx.group) / (count * x.shape[-1])
        else:
            totals = _all_reduce(totals, ctx.group) / count
            m1, m2 = torch.lerp(totals.mean(1, keepdim=True), totals, own)
        gain = rstd if weight is None else weight.double() * rstd
        slope = -rstd * rstd * m2
        rows = [gain * scale, slope, -rstd * m1 - slope * mean]
        packed = torch.cat([params, torch.stack([row.expand(x.shape[-1]) for row in rows]).to(params.dtype)])
        grad_x = kernels.backward_input(x, grad, packed, states, surrogate)
        return grad_x, _like(grad_weight, weight), _like(grad_bias, bias), *nothing


def _like(gradient: Tensor, parameter: Tensor | None) -> Tensor | None:
    """The gradient per channel as that of the parameter, which may be one for the whole layer."""
    if parameter is None:
        return None
    return (gradient.sum(0, keepdim=True) if parameter.numel() == 1 else gradient).to(parameter.dtype)


def channel_moments(x: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """The sums of x and of x^2 per channel, 2 x C, and the number of values per channel, all float64.

    Args:
        x: ... x C.
        group: Processes whose batches count as one; None for this one alone.
    """
    moments = kernels.channel_moments(x.detach().contiguous())
    count = moments.new_full((1,), x.numel() / x.shape[-1])
    if group is not None:
        moments, count = torch.split(_all_reduce(torch.cat([moments.flatten(), count]), group), [moments.numel(), 1])
        moments = moments.reshape(2, -1)
    return moments, count


def norm_act(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, statistics: Statistics, quantizer: Quantizer | None
) -> Tensor:
    """Normalization with the statistics of the batch, fused with a quantizing activation.

    The gradient goes through the statistics as if they had been computed from x, as `Statistics.own` says.

    Args:
        x: ... x C, float32, bfloat16 or float64.
        weight: C or 1, or None for 1.
        bias: C or 1, or None for 0.
        statistics: Of x, over the whole group.
        quantizer: The activation; None for the normalization alone.

    Returns:
        Like x.
    """
    s = statistics
    arguments = (s.mean, s.rstd, s.count, s.own, quantizer, s.group)
    return _NormAct.apply(x.contiguous(), weight, bias, *arguments)[0]  # pyright: ignore[reportOptionalSubscript]
