"""Maxima and sums over windows, as layers, functions and methods."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from maqd.graph import GlobalSum, MaxPool, SumPool
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.lowering.calls import Windows, pooling_rules, refuse_uneven
from maqd.lowering.rules.shape import gathered, permuted, reshaped
from maqd.nn import GlobalSumPool


def maxima(step: Step, x: Codes | Raw, windows: Windows) -> Codes:
    """Maxima over windows."""
    source = step.codes(x, divided=True)
    return step.move(MaxPool(name=step.name, inputs=(source.source,), **vars(windows)), source)


def averages(step: Step, x: Codes | Raw, windows: Windows, divisor: int | None) -> Codes:
    """Averages over windows."""
    return _averaged(step, step.codes(x), vars(windows), divisor or math.prod(windows.kernel))


def _averaged(step: Step, source: Codes, window: Mapping[str, tuple[int, ...]], count: int) -> Codes:
    """Sums over windows, divided: by a power of two in the exponent, by another number where the sums are used."""
    shift, divisor = _shift_and_divisor(count)
    return replace(
        step.put(SumPool(name=step.name, inputs=(source.source,), **window, shift=shift), source), divisor=divisor
    )


def adaptive_averages(step: Step, x: Codes | Raw) -> Codes:
    """Averages over windows that divide the input into as many parts a dimension as the result has."""
    source = step.codes(x)
    space, sizes = source.type.shape[1:], step.shape[1:]
    windows = [_adaptive(old, new) for old, new in zip(space, sizes, strict=True)]
    kernel = tuple(len(found[0]) for found in windows)
    if any(len(places) != k for found, k in zip(windows, kernel, strict=True) for places in found):
        refuse_uneven(step, space)
    count = math.prod(kernel)
    if count & (count - 1) and len(space) > 1 and math.prod(sizes) > 1:
        step.refuse(
            f"PyTorch divides its sums over {kernel} positions one dimension after the other and rounds twice",
            "use nn.AvgPool2d with that kernel, which divides once",
        )
    source = _side_by_side(step, source, windows)
    return _averaged(step, source, _apart(kernel), count)


def adaptive_maxima(step: Step, x: Codes | Raw) -> Codes:
    """Maxima over windows that divide the input into as many parts a dimension as the result has."""
    source = step.codes(x, divided=True)
    windows = [_adaptive(old, new) for old, new in zip(source.type.shape[1:], step.shape[1:], strict=True)]
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


def _shift_and_divisor(count: int) -> tuple[int, int]:
    """An average over `count` positions is the sum times 2**-shift, or else divided where it is used."""
    return (0, count) if count & (count - 1) else (count.bit_length() - 1, 1)


def _global_sum(step: Step, x: Codes | Raw, module: GlobalSumPool) -> Codes:
    source = step.codes(x)
    return step.put(GlobalSum(name=step.name, inputs=(source.source,), shift=module.shift), source)


RULES = Rules.union(
    pooling_rules(maxima, averages, adaptive_maxima, adaptive_averages, make=lambda rule: rule),
    Rules(
        modules={GlobalSumPool: _global_sum},
        functions={
            **dict.fromkeys((torch.amax, "amax"), largest),
            **dict.fromkeys((torch.sum, "sum"), total),
            **dict.fromkeys((torch.mean, "mean"), mean),
        },
    ),
)
