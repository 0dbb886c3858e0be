"""Pooling: maxima of codes, and sums with a power of two for a divisor, whose factor the next scale takes in."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from maqd.convert.inputs import EntryNumbers
from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Affine, Grade, Numbers, Value
from maqd.lowering.calls import Windows, pooling_rules, refuse_uneven
from maqd.nn import MaxPool2d
from maqd.numerics.limits import EXACT_LIMIT
from maqd.numerics.states import FEW_STATES, Grid, States


def maxima(step: Step, x: Any, windows: Windows) -> Value:
    """Maxima over windows."""
    value = step.tensor(x)
    if falls(value):  # the largest of what is to be turned is not the turned largest
        value = step.quantized(value, Want.MANY)
    value = step.passed(value)
    rank = len(windows.kernel)
    window: Any = (windows.kernel, windows.stride, windows.padding)
    if rank == 2 and not windows.partial and set(windows.dilation) == {1}:
        module: nn.Module = MaxPool2d(*window)
    else:
        kind = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[rank]
        module = kind(*window, windows.dilation, False, windows.partial)
    node = step.call_module(step.add_module(module), value)
    step.became("maxima of codes")
    return replace(value, node=node, float_node=step.call, shape=step.shape)


def falls(value: Value) -> bool:
    """Whether a tensor may fall where what is computed for it rises: a constant with a sign is still to be applied."""
    numbers = value.numbers
    while isinstance(numbers, Affine):
        if bool((numbers.k < 0).any()):
            return True
        numbers = numbers.value.numbers
    return isinstance(numbers, EntryNumbers) and bool((numbers.k < 0).any())


def averages(step: Step, x: Any, windows: Windows, divisor: int | None) -> Value:
    """Averages over windows."""
    positions = math.prod(windows.kernel)
    value = codes(step, x, positions)
    window: Any = (windows.kernel, windows.stride, windows.padding, windows.partial)
    divisor = divisor or positions
    nearest = 1 << round(math.log2(divisor))
    if len(windows.kernel) == 1:
        node = step.call_module(step.add_module(nn.AvgPool1d(*window)), value)
        step.became("sums of codes")
        if nearest == positions:
            return pooled(step, value, node, positions, 1.0, round(math.log2(nearest)))
        return averaged(step, value, node)
    kind = nn.AvgPool2d if len(windows.kernel) == 2 else nn.AvgPool3d
    node = step.call_module(step.add_module(kind(*window, divisor_override=nearest)), value)
    step.became("sums of codes")
    return pooled(step, value, node, positions, divisor / nearest, round(math.log2(nearest)))


def averaged(step: Step, value: Value, node: Any) -> Value:
    """An average over any number of positions, whose divisor only a quantizer takes."""
    return replace(
        value, node=node, float_node=step.call, shape=step.shape, grade=Grade.ACCUMULATOR, scale=None, name=step.name,
        numbers=Pooled(value, 1, 1.0, 0),
    )  # fmt: skip


def codes(step: Step, x: Any, positions: int) -> Value:
    """What is summed over some positions: codes whose sums are exact in float32."""
    value = step.tensor(x)
    many = bool(step.wants & {Want.MANY, Want.EXACT}) or value.activation is None
    value = step.quantized(value, Want.MANY if many or value.grade is Grade.INPUT else Want.FEW)
    if value.magnitude * positions < EXACT_LIMIT:
        return value
    return step.quantizer(value, States(count=FEW_STATES - value.signed, signed=value.signed))


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


def even_windows(step: Step, space: tuple[int, ...]) -> Windows:
    """Windows that divide the input into as many parts a dimension as the result has."""
    sizes = step.shape[1:]
    if any(old % new for old, new in zip(space, sizes, strict=True)):
        refuse_uneven(step, space)
    kernel = tuple(old // new for old, new in zip(space, sizes, strict=True))
    return Windows.of(step, kernel, None, 0, 1)


def adaptive_averages(step: Step, x: Any) -> Value:
    """Averages over windows that divide the input."""
    space = step.tensor(x).shape[1:]
    if set(step.shape[1:]) == {1}:
        return over_space(step, x, tuple(range(2, len(space) + 2)), True, average=True)
    return averages(step, x, even_windows(step, space), None)


def adaptive_maxima(step: Step, x: Any) -> Value:
    """Maxima over windows that divide the input."""
    return maxima(step, x, even_windows(step, step.tensor(x).shape[1:]))


def over_space(step: Step, x: Any, dim: Any, keepdim: bool, *, average: bool) -> Value:
    """Sums over all positions, which stand for averages times their number."""
    value = step.tensor(x)
    rank = len(value.shape) + 1
    dims = tuple(range(rank)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if rank < 3 or sorted(d % rank for d in dims) != list(range(2, rank)) or value.channel_dim == -1:
        step.refuse(f"it reduces dimensions {dims} of {rank}", "reduce all positions of each channel")
    positions = math.prod(value.shape[1:])
    value = codes(step, x, positions)
    node = step.call_function(torch.sum, (value.node, tuple(range(2, rank))), {"keepdim": keepdim})
    step.became("sums of codes")
    return pooled(step, value, node, positions, positions if average else 1.0, 0)


def mean(step: Step, x: Any, dim: Any = None, keepdim: bool = False) -> Value:
    """`x.mean((2, 3))`."""
    return over_space(step, x, dim, keepdim, average=True)


def total(step: Step, x: Any, dim: Any = None, keepdim: bool = False) -> Value:
    """`x.sum((2, 3))`."""
    return over_space(step, x, dim, keepdim, average=False)


RULES = Rules.union(
    pooling_rules(
        maxima, averages, adaptive_maxima, adaptive_averages, make=lambda apply: Rule(apply=apply, want=Want.PASS)
    ),
    Rules(
        modules={},
        functions={
            **dict.fromkeys((torch.sum, "sum"), Rule(apply=total, want=Want.PASS)),
            **dict.fromkeys((torch.mean, "mean"), Rule(apply=mean, want=Want.PASS)),
        },
    ),
)
