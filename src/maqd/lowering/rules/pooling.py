"""Maxima and sums over windows, as layers, functions and methods."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from maqd.graph import GlobalSum, MaxPool, SumPool
from maqd.lowering.builder import Codes, Raw, Rules, Step
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
    source = step.codes(x)
    if return_indices:
        step.refuse("it returns indices", "pool without return_indices")
    window = _window(step, source, kernel_size, stride, padding, dilation, ceil_mode)
    return step.put(MaxPool(name=step.name, inputs=(source.source,), **window), source)


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
    window = _window(step, source, kernel_size, stride, padding, 1, ceil_mode)
    if any(window["padding"]) and not count_include_pad:
        step.refuse("its divisor depends on the position", "pool with count_include_pad=True")
    shift = _shift(step, divisor_override or math.prod(window["kernel"]))
    return step.put(SumPool(name=step.name, inputs=(source.source,), **window, shift=shift), source)


def adaptive_average(step: Step, x: Codes | Raw, output_size: Any) -> Codes:
    """Averages over windows that divide the input into `output_size` parts a dimension."""
    source = step.codes(x)
    space = source.type.shape[1:]
    sizes = tuple(old if new is None else new for old, new in zip(space, _each(output_size, len(space)), strict=True))
    if any(old % new for old, new in zip(space, sizes, strict=True)):
        step.refuse(f"its windows for an output of {sizes} of {space} differ in size", "choose sizes that divide")
    kernel = tuple(old // new for old, new in zip(space, sizes, strict=True))
    return average_pool(step, x, kernel)


def total(step: Step, x: Codes | Raw, dim: Any = None, keepdim: bool = False) -> Codes:
    """`x.sum((2, 3))`: sums over all positions."""
    return _over_space(step, step.codes(x), dim, keepdim, 0)


def mean(step: Step, x: Codes | Raw, dim: Any = None, keepdim: bool = False) -> Codes:
    """`x.mean((2, 3))`: averages over all positions."""
    source = step.codes(x)
    return _over_space(step, source, dim, keepdim, _shift(step, math.prod(source.type.shape[1:])))


def _over_space(step: Step, source: Codes, dim: Any, keepdim: bool, shift: int) -> Codes:
    rank = len(source.type.shape) + 1
    dims = tuple(range(rank)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if rank < 3 or sorted(d % rank for d in dims) != list(range(2, rank)):
        step.refuse(f"it reduces dimensions {dims} of {rank}", "reduce all positions of each channel")
    if not keepdim:
        return step.put(GlobalSum(name=step.name, inputs=(source.source,), shift=shift), source)
    space = source.type.shape[1:]
    nothing = (0,) * len(space)
    window = {"kernel": space, "stride": space, "padding": nothing}
    return step.put(SumPool(name=step.name, inputs=(source.source,), **window, shift=shift), source)


def _window(
    step: Step, source: Codes, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> dict[str, tuple[int, ...]]:
    """Kernel, stride and padding, one number a dimension."""
    rank = len(source.type.shape) - 1
    if ceil_mode or set(_each(dilation, rank)) != {1}:
        step.refuse("it pools with ceil_mode or dilation", "pool without them")
    kernel = _each(kernel_size, rank)
    return {
        "kernel": kernel,
        "stride": kernel if stride in (None, ()) else _each(stride, rank),
        "padding": _each(padding, rank),
    }


def _each(value: Any, rank: int) -> tuple[Any, ...]:
    """One value per dimension."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


def _shift(step: Step, positions: int) -> int:
    """log2 of the divisor of an average."""
    if positions & (positions - 1):
        step.refuse(
            f"an average over {positions} positions is no integer times a power of two",
            "use GlobalSumPool, or a window of 2, 4, 8, .. positions",
        )
    return positions.bit_length() - 1


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


def _global_sum(step: Step, x: Codes | Raw, module: GlobalSumPool) -> Codes:
    source = step.codes(x)
    return step.put(GlobalSum(name=step.name, inputs=(source.source,), shift=module.shift), source)


RULES = Rules(
    modules={
        **dict.fromkeys((MaxPool2d, nn.MaxPool1d, nn.MaxPool2d), _max_layer),
        **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), _average_layer),
        **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), _adaptive_layer),
        GlobalSumPool: _global_sum,
    },
    functions={
        **dict.fromkeys((F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d, max_pool2d), max_pool),
        **dict.fromkeys((F.avg_pool1d, F.avg_pool2d), average_pool),
        **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d), adaptive_average),
        **dict.fromkeys((torch.sum, "sum"), total),
        **dict.fromkeys((torch.mean, "mean"), mean),
    },
)
