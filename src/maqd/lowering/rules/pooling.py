"""Maxima and sums over windows, as layers, functions and methods."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from maqd.graph import GlobalSum, MaxPool, SumPool
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.lowering.rules.shape import gathered, permuted, reshaped
from maqd.nn import GlobalSumPool, MaxPool2d
from maqd.nn.pooling import max_pool2d


def max_pool(
    step: Step,
    x: Codes | Raw,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Codes:
    """Maxima over windows; arguments as in `torch.nn.functional.max_pool2d`."""
    source = step.codes(x, divided=True)
    if return_indices:
        step.refuse("it returns indices", "pool without return_indices")
    window = _window(step, source, kernel_size, stride, padding, dilation)
    return step.move(MaxPool(name=step.name, inputs=(source.source,), **window), source)


def average_pool(
    step: Step,
    x: Codes | Raw,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Codes:
    """Averages over windows; arguments as in `torch.nn.functional.avg_pool2d`."""
    source = step.codes(x)
    window = _window(step, source, kernel_size, stride, padding, 1)
    partial = any(after > before for before, after in zip(window["padding"], window["trailing"], strict=True))
    if any(window["padding"]) and not count_include_pad and not divisor_override:
        step.refuse("its divisor depends on the position", "pool with count_include_pad=True")
    if partial and not divisor_override:
        step.refuse("its divisor depends on the position", "pool with ceil_mode=False")
    return _averaged(step, source, window, divisor_override or math.prod(window["kernel"]))


def _averaged(step: Step, source: Codes, window: dict[str, tuple[int, ...]], count: int) -> Codes:
    """Sums over windows, divided: by a power of two in the exponent, by another number where the sums are used."""
    shift, divisor = _shift_and_divisor(count)
    return replace(
        step.put(SumPool(name=step.name, inputs=(source.source,), **window, shift=shift), source), divisor=divisor
    )


def adaptive_average(step: Step, x: Codes | Raw, output_size: Any) -> Codes:
    """Averages over windows that divide the input into `output_size` parts a dimension."""
    source = step.codes(x)
    space = source.type.shape[1:]
    sizes = tuple(old if new is None else new for old, new in zip(space, _each(output_size, len(space)), strict=True))
    windows = [_adaptive(old, new) for old, new in zip(space, sizes, strict=True)]
    kernel = tuple(len(found[0]) for found in windows)
    if any(len(places) != k for found, k in zip(windows, kernel, strict=True) for places in found):
        step.refuse(f"its windows for an output of {sizes} of {space} differ in size", "choose sizes that divide")
    count = math.prod(kernel)
    if count & (count - 1) and len(space) > 1 and math.prod(sizes) > 1:
        step.refuse(
            f"PyTorch divides its sums over {kernel} positions one dimension after the other and rounds twice",
            "use nn.AvgPool2d with that kernel, which divides once",
        )
    source = _side_by_side(step, source, windows)
    return _averaged(step, source, _apart(kernel), count)


def adaptive_maximum(step: Step, x: Codes | Raw, output_size: Any, return_indices: bool = False) -> Codes:
    """Maxima over windows that divide the input into `output_size` parts a dimension."""
    source = step.codes(x, divided=True)
    if return_indices:
        step.refuse("it returns indices", "pool without return_indices")
    space = source.type.shape[1:]
    sizes = tuple(old if new is None else new for old, new in zip(space, _each(output_size, len(space)), strict=True))
    windows = [_adaptive(old, new) for old, new in zip(space, sizes, strict=True)]
    # Shorter windows repeat their last position.
    longest = [max(map(len, found)) for found in windows]
    windows = [
        [[*places, *places[-1:] * (most - len(places))] for places in found]
        for found, most in zip(windows, longest, strict=True)
    ]
    source = _side_by_side(step, source, windows)
    return step.move(MaxPool(name=step.name, inputs=(source.source,), **_apart(tuple(longest))), source)


def largest(step: Step, x: Codes | Raw, dim: Any = (), keepdim: bool = False) -> Codes:
    """`x.amax((2, 3))`: maxima over all positions of each channel."""
    source = step.codes(x, divided=True)
    rank = len(source.type.shape) + 1
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if not 3 <= rank <= 5 or sorted(d % rank for d in dims) != list(range(2, rank)):
        step.refuse(
            f"it takes maxima over the dimensions {dims} of {rank}", "take them over all positions of a channel"
        )
    name = step.name if keepdim else step.builder.free(f"{step.name}.kept")
    pooled = step.move(MaxPool(name=name, inputs=(source.source,), **_apart(source.type.shape[1:])), source)
    return pooled if keepdim else reshaped(step, pooled, step.shape, step.name)


def _adaptive(size: int, count: int) -> list[list[int]]:
    """The positions of PyTorch's adaptive windows along a dimension."""
    return [list(range(at * size // count, -(-(at + 1) * size // count))) for at in range(count)]


def _side_by_side(step: Step, source: Codes, windows: list[list[list[int]]]) -> Codes:
    """The positions of windows one after the other, along each dimension."""
    for axis, found in enumerate(windows, start=1):
        places = [place for window in found for place in window]
        source = gathered(step, source, axis, places, step.builder.free(f"{step.name}.axis{axis}"))
    return source


def _apart(kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Windows side by side."""
    return {"kernel": kernel, "stride": kernel, "padding": (0,) * len(kernel)}


def total(step: Step, x: Codes | Raw, dim: Any = None, keepdim: bool = False) -> Codes:
    """`x.sum((2, 3))`: sums over any dimensions of a sample."""
    return _reduced(step, step.codes(x), dim, keepdim, average=False)


def mean(step: Step, x: Codes | Raw, dim: Any = None, keepdim: bool = False) -> Codes:
    """`x.mean((2, 3))`: averages over any dimensions of a sample."""
    return _reduced(step, step.codes(x), dim, keepdim, average=True)


def _reduced(step: Step, source: Codes, dim: Any, keepdim: bool, *, average: bool) -> Codes:
    sizes = source.type.shape
    rank = len(sizes) + 1
    given = range(rank) if dim is None or dim == () else (dim,) if isinstance(dim, int) else dim
    dims = sorted(d % rank for d in given)
    if dims[0] == 0:
        step.refuse("it reduces the batch", f"give it dimensions of a sample, 1 to {rank - 1}")
    count = math.prod(sizes[d - 1] for d in dims) if average else 1
    if keepdim and dims == list(range(2, rank)):
        return _averaged(step, source, _apart(sizes[1:]), count)
    kept = [d for d in range(1, rank) if d not in dims]
    if not kept and not keepdim:
        step.refuse("it leaves one number without a dimension for each sample", "pass keepdim=True")
    # The dimensions that stay become the channels, the others the positions.
    free, order = step.builder.free, tuple(d - 1 for d in (*kept, *dims))
    source = permuted(step, source, order, free(f"{step.name}.order"))
    channels = math.prod(sizes[d - 1] for d in kept)
    if len(kept) != 1:
        source = reshaped(step, source, (channels, math.prod(sizes) // channels), free(f"{step.name}.rows"))
    shift, divisor = _shift_and_divisor(count)
    name = step.name if len(step.shape) == 1 else free(f"{step.name}.sums")
    found = step.put(GlobalSum(name=name, inputs=(source.source,), shift=shift), source)
    return reshaped(step, replace(found, divisor=divisor), step.shape, step.name)


def _window(
    step: Step, source: Codes, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> dict[str, tuple[int, ...]]:
    """Kernel, stride, padding and dilation, one number a dimension; at the end as much padding as the result needs."""
    rank = len(source.type.shape) - 1
    kernel = _each(kernel_size, rank)
    strides = kernel if stride in (None, ()) else _each(stride, rank)
    pads, dilations = _each(padding, rank), _each(dilation, rank)
    needed = [
        (count - 1) * s + d * (k - 1) + 1 - size - p
        for count, s, d, k, size, p in zip(
            step.shape[1:], strides, dilations, kernel, source.type.shape[1:], pads, strict=True
        )
    ]
    # More than in front only with ceil_mode.
    trailing = tuple(max(p, need) for p, need in zip(pads, needed, strict=True))
    return {"kernel": kernel, "stride": strides, "padding": pads, "trailing": trailing, "dilation": dilations}


def _each(value: Any, rank: int) -> tuple[Any, ...]:
    """One value per dimension."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


def _shift_and_divisor(count: int) -> tuple[int, int]:
    """An average over `count` positions is the sum times 2**-shift, or else divided where it is used."""
    return (0, count) if count & (count - 1) else (count.bit_length() - 1, 1)


def _max_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    options = {
        name: getattr(module, name) for name in ("dilation", "ceil_mode", "return_indices") if hasattr(module, name)
    }
    return max_pool(step, x, module.kernel_size, module.stride, module.padding, **options)


def _average_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    override = getattr(module, "divisor_override", None)
    window = (module.kernel_size, module.stride, module.padding)
    return average_pool(step, x, *window, module.ceil_mode, module.count_include_pad, override)


def _adaptive_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    return adaptive_average(step, x, module.output_size)


def _adaptive_max_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    return adaptive_maximum(step, x, module.output_size, module.return_indices)


def _global_sum(step: Step, x: Codes | Raw, module: GlobalSumPool) -> Codes:
    source = step.codes(x)
    return step.put(GlobalSum(name=step.name, inputs=(source.source,), shift=module.shift), source)


RULES = Rules(
    modules={
        **dict.fromkeys((MaxPool2d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_layer),
        **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _average_layer),
        **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive_layer),
        **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _adaptive_max_layer),
        GlobalSumPool: _global_sum,
    },
    functions={
        **dict.fromkeys(
            (F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, max_pool2d), max_pool
        ),
        **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), average_pool),
        **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d), adaptive_average),
        **dict.fromkeys((F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d), adaptive_maximum),
        **dict.fromkeys((torch.amax, "amax"), largest),
        **dict.fromkeys((torch.sum, "sum"), total),
        **dict.fromkeys((torch.mean, "mean"), mean),
    },
)
