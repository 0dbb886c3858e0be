"""Pooling: maxima of codes, and sums with a power of two for a divisor, whose factor the next scale takes in."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Grade, Numbers, Value
from maqd.nn import MaxPool2d
from maqd.numerics.states import Grid


def each(value: Any, rank: int) -> tuple[Any, ...]:
    """One value per dimension."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


def max_pool(
    step: Step,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    """Maxima over windows; arguments as in `torch.nn.functional.max_pool2d`."""
    value = step.passed(step.tensor(x))
    if return_indices:
        step.refuse("it returns indices", "pool without return_indices")
    rank = len(value.shape) - 1
    plain = not ceil_mode and set(each(dilation, rank)) == {1}
    if rank == 2 and plain:
        module: nn.Module = MaxPool2d(kernel_size, stride, padding)
    else:
        kind = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank]
        module = kind(kernel_size, stride, padding, dilation, False, ceil_mode)
    node = step.call_module(step.add_module(module), value)
    step.became("maxima of codes")
    return replace(value, node=node, float_node=step.call, shape=step.shape)


def average_pool(
    step: Step,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """Averages over windows; arguments as in `torch.nn.functional.avg_pool2d`."""
    value = codes(step, x)
    rank = len(value.shape) - 1
    kernel = each(kernel_size, rank)
    if ceil_mode:
        step.refuse("it pools with ceil_mode", "pool without it")
    if any(each(padding, rank)) and not count_include_pad:
        step.refuse("its divisor depends on the position", "pool with count_include_pad=True")
    positions = math.prod(kernel)
    divisor = divisor_override or positions
    nearest = 1 << round(math.log2(divisor))
    if rank == 1:
        node = step.call_module(step.add_module(nn.AvgPool1d(kernel, stride, padding)), value)
        step.became("sums of codes")
        if nearest == positions:
            return pooled(step, value, node, positions, 1.0, round(math.log2(nearest)))
        return averaged(step, value, node)
    kind = nn.AvgPool2d if rank == 2 else nn.AvgPool3d
    node = step.call_module(step.add_module(kind(kernel, stride, padding, divisor_override=nearest)), value)
    step.became("sums of codes")
    return pooled(step, value, node, positions, divisor / nearest, round(math.log2(nearest)))


def averaged(step: Step, value: Value, node: Any) -> Value:
    """An average over any number of positions, whose divisor only a quantizer takes."""
    return replace(
        value, node=node, float_node=step.call, shape=step.shape, grade=Grade.ACCUMULATOR, scale=None, name=step.name,
        numbers=Pooled(value, 1, 1.0, 0),
    )  # fmt: skip


def codes(step: Step, x: Any) -> Value:
    """What is summed."""
    value = step.tensor(x)
    many = bool(step.wants & {Want.MANY, Want.EXACT}) or value.activation is None
    return step.quantized(value, Want.MANY if many or value.grade is Grade.INPUT else Want.FEW)


def pooled(step: Step, value: Value, node: Any, positions: int, factor: float, shift: int) -> Value:
    """The sum over a number of positions, divided by 2**shift; factor times the float network's average."""
    return replace(
        value, node=node, float_node=step.call, shape=step.shape, factor=value.factor * factor, name=step.name,
        magnitude=value.magnitude * positions, numbers=Pooled(value, positions, factor, shift),
    )  # fmt: skip


@dataclass(frozen=True)
class Pooled:
    """The numbers of a sum over positions."""

    value: Value
    positions: int
    factor: float
    shift: int

    def __call__(self) -> Numbers:
        found, grid = self.value.numbers(), None
        if found.grid is not None:
            low, high = found.grid.low * self.positions, found.grid.high * self.positions
            grid = Grid(low=low, high=high, exponent=found.grid.exponent - self.shift)
        return Numbers(a=found.a / self.factor, b=found.b, grid=grid)


def adaptive_average(step: Step, x: Any, output_size: Any) -> Value:
    """Averages over windows that divide the input into `output_size` parts a dimension."""
    space = step.tensor(x).shape[1:]
    sizes = tuple(old if new is None else new for old, new in zip(space, each(output_size, len(space)), strict=True))
    if set(sizes) == {1}:
        return over_space(step, x, tuple(range(2, len(space) + 2)), True, average=True)
    if any(old % new for old, new in zip(space, sizes, strict=True)):
        step.refuse(f"its windows for an output of {sizes} of {space} differ in size", "choose sizes that divide")
    return average_pool(step, x, tuple(old // new for old, new in zip(space, sizes, strict=True)))


def over_space(step: Step, x: Any, dim: Any, keepdim: bool, *, average: bool) -> Value:
    """Sums over all positions, which stand for averages times their number."""
    value = step.tensor(x)
    rank = len(value.shape) + 1
    dims = tuple(range(rank)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if rank < 3 or sorted(d % rank for d in dims) != list(range(2, rank)) or value.channel_dim == -1:
        step.refuse(f"it reduces dimensions {dims} of {rank}", "reduce all positions of each channel")
    value = codes(step, x)
    positions = math.prod(value.shape[1:])
    node = step.call_function(torch.sum, (value.node, tuple(range(2, rank))), {"keepdim": keepdim})
    step.became("sums of codes")
    return pooled(step, value, node, positions, positions if average else 1.0, 0)


def mean(step: Step, x: Any, dim: Any = None, keepdim: bool = False) -> Value:
    """`x.mean((2, 3))`."""
    return over_space(step, x, dim, keepdim, average=True)


def total(step: Step, x: Any, dim: Any = None, keepdim: bool = False) -> Value:
    """`x.sum((2, 3))`."""
    return over_space(step, x, dim, keepdim, average=False)


def adaptive_max(step: Step, x: Any, output_size: Any, return_indices: bool = False) -> Value:
    """Maxima over windows that divide the input into `output_size` parts a dimension."""
    space = step.tensor(x).shape[1:]
    sizes = tuple(old if new is None else new for old, new in zip(space, each(output_size, len(space)), strict=True))
    if any(old % new for old, new in zip(space, sizes, strict=True)):
        step.refuse(f"its windows for an output of {sizes} of {space} differ in size", "choose sizes that divide")
    kernel = tuple(old // new for old, new in zip(space, sizes, strict=True))
    return max_pool(step, x, kernel, return_indices=return_indices)


def _max_layer(step: Step, x: Any, module: Any) -> Value:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    return max_pool(step, x, *(getattr(module, name) for name in names))


def _average_layer(step: Step, x: Any, module: Any) -> Value:
    override = getattr(module, "divisor_override", None)
    window = (module.kernel_size, module.stride, module.padding)
    return average_pool(step, x, *window, module.ceil_mode, module.count_include_pad, override)


def _adaptive_layer(function: Callable[..., Value]) -> Callable[..., Value]:
    def layer(step: Step, x: Any, module: Any) -> Value:
        return function(step, x, module.output_size)

    return layer


_MAX, _AVERAGE = Rule(apply=max_pool, want=Want.PASS), Rule(apply=average_pool, want=Want.PASS)

RULES = Rules(
    modules={
        **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), Rule(apply=_max_layer, want=Want.PASS)),
        **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), Rule(apply=_average_layer, want=Want.PASS)),
        **dict.fromkeys(
            (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
            Rule(apply=_adaptive_layer(adaptive_average), want=Want.PASS),
        ),
        **dict.fromkeys(
            (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
            Rule(apply=_adaptive_layer(adaptive_max), want=Want.PASS),
        ),
    },
    functions={
        **dict.fromkeys((F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d), _MAX),
        **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), _AVERAGE),
        **dict.fromkeys(
            (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
            Rule(apply=adaptive_average, want=Want.PASS),
        ),
        **dict.fromkeys(
            (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
            Rule(apply=adaptive_max, want=Want.PASS),
        ),
        **dict.fromkeys((torch.sum, "sum"), Rule(apply=total, want=Want.PASS)),
        **dict.fromkeys((torch.mean, "mean"), Rule(apply=mean, want=Want.PASS)),
    },
)
