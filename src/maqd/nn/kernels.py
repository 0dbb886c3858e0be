"""Four memory-bound operations of training, as C loops where they can be had and PyTorch expressions elsewhere.

All take tensors with the channels innermost and contiguous. With v = a[c] * x + b[c] (two roundings, in float32):

    affine_act           offset + step * floor(clip(v, 0, M - 1)); v itself for M = 1
    channel_moments      sum of x, sum of x^2, per channel
    backward_sums        sum of g phi(v), sum of g phi(v) x, per channel
    backward_input       g phi(v) A[c] + x B[c] + C[c]

They are registered with PyTorch as operators of the library `maqd`, so that `torch.compile` sees them as opaque
nodes and does not break its graph. The C side (csrc/train/norm_act.c) is a plain shared library called through raw
pointers: it depends on no PyTorch ABI. Both sides give the same codes bit for bit.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import maqd
from maqd.nn.surrogate import surrogate_gradient
from maqd.settings.quantization import Profile, Surrogate

_DTYPES = {torch.float32: 0, torch.bfloat16: 1}
_PROFILES = {profile: number for number, profile in enumerate(Profile)}  # the order of the enum in norm_act.c
_PROFILE_OF = list(Profile)


def _load_library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where the package was installed without a C compiler."""
    for folder in maqd.__path__:
        path = Path(folder) / "maqd_train.so"
        if path.exists():
            library = ctypes.CDLL(str(path))
            pointer, integer, real, wide = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_int64
            tensor = [pointer, integer, wide, wide]
            tensors = [pointer, pointer, integer, wide, wide]
            quantizer = [pointer, integer, integer, real, pointer, integer]
            library.maqd_channel_moments.argtypes = [*tensor, pointer, integer]
            library.maqd_affine_act.argtypes = [*tensor, pointer, integer, real, real, pointer, integer]
            library.maqd_affine_act_backward_sums.argtypes = [*tensors, *quantizer]
            library.maqd_affine_act_backward_input.argtypes = [*tensors, *quantizer]
            return library
    return None


_LIBRARY = _load_library()  # at import, so that torch.compile finds a constant


def has_compiled_kernels() -> bool:
    """Whether the C kernels were built and are used for float32 and bfloat16 tensors on the CPU."""
    return _LIBRARY is not None


def _check(status: int) -> None:
    if status:
        raise MemoryError("out of memory in a training kernel; use a smaller batch or fewer threads")


def _uses_library(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in _DTYPES and _LIBRARY is not None


def _shape(x: Tensor) -> tuple[int, int, int]:
    channels = x.shape[-1]
    return _DTYPES[x.dtype], x.numel() // max(channels, 1), channels


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


# ---- PyTorch expressions: any device and float dtype ----------------------------------------------------------------


def channel_moments_expression(x: Tensor) -> Tensor:
    """See `channel_moments`. Squares of deviations, so that a large mean costs no digits of the variance."""
    rows = _rows(x.to(_accumulation_dtype(x)))
    count = rows.shape[0]
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    mean, variance = mean.double(), variance.double()
    return torch.stack([mean * count, (variance + mean * mean) * count])


def _position(x: Tensor, params: Tensor) -> Tensor:
    dtype = _accumulation_dtype(x)
    return params[0].to(dtype) * x.to(dtype) + params[1].to(dtype)


def affine_act_expression(x: Tensor, params: Tensor, states: int, step: float, offset: float) -> Tensor:
    """See `affine_act`."""
    v = _position(x, params)
    if states > 1:
        v = torch.floor(torch.clamp(v, 0, states - 1)) * step + offset
    return v.to(x.dtype)


def _masked(x: Tensor, grad: Tensor, params: Tensor, states: int, profile: int, width: float) -> Tensor:
    grad = grad.to(_accumulation_dtype(x))
    if states == 1:
        return grad
    surrogate = Surrogate(profile=_PROFILE_OF[profile], width=width)
    return grad * surrogate_gradient(_position(x, params), states, surrogate)


def backward_sums_expression(
    x: Tensor, grad: Tensor, params: Tensor, states: int, profile: int, width: float
) -> Tensor:
    """See `backward_sums`."""
    masked = _rows(_masked(x, grad, params, states, profile, width))
    return torch.stack([masked.sum(0), (masked * _rows(x.to(masked.dtype))).sum(0)]).double()


def backward_input_expression(
    x: Tensor, grad: Tensor, params: Tensor, states: int, profile: int, width: float
) -> Tensor:
    """See `backward_input`."""
    masked = _masked(x, grad, params, states, profile, width)
    A, B, C = params[2:].to(masked.dtype)
    return ((masked * A + x.to(masked.dtype) * B) + C).to(x.dtype)


# ---- the operators --------------------------------------------------------------------------------------------------


def _moments_cpu(x: Tensor) -> Tensor:
    if _LIBRARY is None or x.dtype not in _DTYPES:
        return channel_moments_expression(x)
    sums = torch.empty(2, x.shape[-1], dtype=torch.float64)
    _check(_LIBRARY.maqd_channel_moments(x.data_ptr(), *_shape(x), sums.data_ptr(), torch.get_num_threads()))
    return sums


def _affine_act_cpu(x: Tensor, params: Tensor, states: int, step: float, offset: float) -> Tensor:
    if _LIBRARY is None or x.dtype not in _DTYPES:
        return affine_act_expression(x, params, states, step, offset)
    out = torch.empty_like(x)
    threads = torch.get_num_threads()
    _check(
        _LIBRARY.maqd_affine_act(
            x.data_ptr(), *_shape(x), params.data_ptr(), states, step, offset, out.data_ptr(), threads
        )
    )
    return out


def _backward_sums_cpu(x: Tensor, grad: Tensor, params: Tensor, states: int, profile: int, width: float) -> Tensor:
    if _LIBRARY is None or x.dtype not in _DTYPES:
        return backward_sums_expression(x, grad, params, states, profile, width)
    sums = torch.empty(2, x.shape[-1], dtype=torch.float64)
    arguments = (x.data_ptr(), grad.data_ptr(), *_shape(x), params.data_ptr(), states, profile, width)
    _check(_LIBRARY.maqd_affine_act_backward_sums(*arguments, sums.data_ptr(), torch.get_num_threads()))
    return sums


def _backward_input_cpu(x: Tensor, grad: Tensor, params: Tensor, states: int, profile: int, width: float) -> Tensor:
    if _LIBRARY is None or x.dtype not in _DTYPES:
        return backward_input_expression(x, grad, params, states, profile, width)
    out = torch.empty_like(x)
    arguments = (x.data_ptr(), grad.data_ptr(), *_shape(x), params.data_ptr(), states, profile, width)
    _check(_LIBRARY.maqd_affine_act_backward_input(*arguments, out.data_ptr(), torch.get_num_threads()))
    return out


def _fake_sums(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(2, x.shape[-1], dtype=torch.float64)


def _fake_like(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


_registry = torch.library.Library("maqd", "DEF")


def _register(schema: str, cpu: Callable[..., Tensor], fake: Callable[..., Tensor]) -> None:
    name = schema.partition("(")[0]
    _registry.define(schema)
    _registry.impl(name, cpu, "CPU")
    torch.library.register_fake(f"maqd::{name}", fake, lib=_registry)


_QUANTIZER = "Tensor params, int states, int profile, float width"
_register("channel_moments(Tensor x) -> Tensor", _moments_cpu, _fake_sums)
_register(
    "affine_act(Tensor x, Tensor params, int states, float step, float offset) -> Tensor", _affine_act_cpu, _fake_like
)
_register(f"backward_sums(Tensor x, Tensor grad, {_QUANTIZER}) -> Tensor", _backward_sums_cpu, _fake_sums)
_register(f"backward_input(Tensor x, Tensor grad, {_QUANTIZER}) -> Tensor", _backward_input_cpu, _fake_like)


def channel_moments(x: Tensor) -> Tensor:
    """Sums over all but the last dimension.

    Args:
        x: ... x C, contiguous.

    Returns:
        2 x C, float64: the sums of x and of x^2 for each channel.
    """
    return torch.ops.maqd.channel_moments(x) if _uses_library(x) else channel_moments_expression(x)


def affine_act(x: Tensor, params: Tensor, states: int, step: float, offset: float) -> Tensor:
    """Offset + step * floor(clip(a x + b, 0, M-1)).

    Args:
        x: ... x C, contiguous.
        params: 2 x C, float32 (float64 for a float64 x), contiguous: a and b, in steps.
        states: M; 1 gives a x + b.
        step: Distance of neighbouring output values.
        offset: Output value of the first state.

    Returns:
        Like x. Not-a-number stays not-a-number.
    """
    if _uses_library(x):
        return torch.ops.maqd.affine_act(x, params, states, step, offset)
    return affine_act_expression(x, params, states, step, offset)


def backward_sums(x: Tensor, grad: Tensor, params: Tensor, states: int, surrogate: Surrogate) -> Tensor:
    """Sums of g phi and of g phi x over all but the last dimension: 2 x C, float64.

    Args:
        x: ... x C, contiguous: the input of `affine_act`.
        grad: Like x: the gradient of its output.
        params: At least 2 x C: a and b.
        states: M; at 1, phi = 1.
        surrogate: Profile and width.
    """
    arguments = (x, grad, params, states, _PROFILES[surrogate.profile], surrogate.width)
    return torch.ops.maqd.backward_sums(*arguments) if _uses_library(x) else backward_sums_expression(*arguments)


def backward_input(x: Tensor, grad: Tensor, params: Tensor, states: int, surrogate: Surrogate) -> Tensor:
    """G phi A[c] + x B[c] + C[c], like x.

    Args:
        x: ... x C, contiguous: the input of `affine_act`.
        grad: Like x: the gradient of its output.
        params: 5 x C, contiguous: a, b, A, B and C.
        states: M; at 1, phi = 1.
        surrogate: Profile and width.
    """
    arguments = (x, grad, params, states, _PROFILES[surrogate.profile], surrogate.width)
    return torch.ops.maqd.backward_input(*arguments) if _uses_library(x) else backward_input_expression(*arguments)
