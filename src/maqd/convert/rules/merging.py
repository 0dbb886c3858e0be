"""Sums and concatenations, whose tensors share a scale; sums and products with constants."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from maqd.convert.inputs import EntryNumbers
from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Affine, Grade, Numbers, Value, hull
from maqd.numerics.states import Grid


def add(step: Step, x: Any, other: Any, *, alpha: Any = 1) -> Any:
    """The sum of two tensors, or of one and a constant."""
    if not isinstance(x, Value) or not isinstance(other, Value):
        value, constant = (x, other) if isinstance(x, Value) else (other, x)
        return affine(step, value, 1.0, as_constant(step, constant, alpha if value is x else 1))
    if alpha != 1:
        step.refuse(f"it scales a summand by {alpha}", "add without alpha")
    one, two = aligned(step, [step.quantized(value, Want.MANY) for value in (x, other)], Want.MANY)
    node = step.call_function(operator.add, (one.node, two.node))
    step.became("exact sum of codes")
    return replace(
        one, node=node, float_node=step.call, grade=Grade.SUM, numbers=Summed((one, two)), shape=step.shape,
        name=step.name, magnitude=one.magnitude + two.magnitude, signed=one.signed or two.signed, wide=False,
    )  # fmt: skip


def aligned(step: Step, values: list[Value], want: Want) -> list[Value]:
    """Tensors with one scale: those that cannot have it get a quantizer of their own."""

    def again(value: Value) -> Value:
        return step.quantizer(value, step.states(value, few=want is Want.FEW))

    if len({value.factor for value in values}) > 1:
        values = [value if value.factor == 1 else again(value) for value in values]
    first, result = values[0], values[:1]
    for value in values[1:]:
        if step.scale_of(first).join(step.scale_of(value)):
            result.append(value)
        else:
            result.append(again(value))
            step.scale_of(first).join(step.scale_of(result[-1]))
    return result


def concat(step: Step, tensors: Sequence[Any], dim: Any = 0, *, axis: Any = None) -> Value:
    """Tensors side by side."""
    dim = dim if axis is None else axis
    many = bool(step.wants & {Want.MANY, Want.EXACT})
    want = Want.MANY if many else Want.FEW
    parts = [step.quantized(step.tensor(value), want) for value in tensors]
    parts = [step.quantized(part, Want.MANY) if part.grade is Grade.INPUT else part for part in parts]
    parts = aligned(step, parts, want)
    node = step.call_function(torch.cat, ([part.node for part in parts], dim))
    step.became("codes side by side")
    return replace(
        parts[0], node=node, float_node=step.call, numbers=Joined(tuple(parts)), shape=step.shape, name=step.name,
        grade=Grade.SUM if any(part.grade is Grade.SUM for part in parts) else Grade.CODES,
        magnitude=max(part.magnitude for part in parts), signed=any(part.signed for part in parts),
        wide=any(part.wide for part in parts),
    )  # fmt: skip


@dataclass(frozen=True)
class Joined:
    """The numbers of a concatenation of tensors of one scale."""

    parts: tuple[Value, ...]

    def __call__(self) -> Numbers:
        found = [part.numbers() for part in self.parts]
        return replace(found[0], grid=hull([numbers.grid for numbers in found]))


@dataclass(frozen=True)
class Summed:
    """The numbers of a sum of tensors of one scale."""

    parts: tuple[Value, ...]

    def __call__(self) -> Numbers:
        found = [part.numbers() for part in self.parts]
        grids = [numbers.grid for numbers in found]
        if any(grid is None for grid in grids):
            return replace(found[0], grid=None)
        unit = min(grid.exponent for grid in grids if grid is not None)
        low = sum(min(grid.low << (grid.exponent - unit), 0) for grid in grids if grid is not None)
        high = sum(max(grid.high << (grid.exponent - unit), 0) for grid in grids if grid is not None)
        return replace(found[0], grid=Grid(low=low, high=high, exponent=unit))


def as_constant(step: Step, constant: Any, factor: float = 1) -> float | Tensor:
    """A number, or one a channel."""
    if isinstance(constant, int | float):
        return constant * factor
    if isinstance(constant, Tensor) and max(constant.numel(), 1) == max([*constant.shape, 1]):
        rank = len(step.shape)
        where = [place for place, size in enumerate(constant.shape) if size > 1]
        if not where or where[0] - constant.ndim == -rank:
            return constant.detach().double().flatten() * factor
    step.refuse("one operand is no tensor that the network computes", "use numbers, or one number per channel")


def affine(step: Step, x: Any, k: float | Tensor, t: float | Tensor) -> Value:
    """K * x + t, which the next layer or quantizer takes in."""
    value = step.tensor(x)
    if value.pending:
        value = step.quantized(value, Want.MANY)
    one = torch.ones(1, dtype=torch.float64)
    k, t = one * k, one * t
    if not bool((k > 0).all()):
        step.refuse("it multiplies by a constant that is not positive", "use a positive one")
    step.became("folded into what reads it")
    numbers = value.numbers
    if isinstance(numbers, EntryNumbers):
        changed = EntryNumbers(entry=numbers.entry, k=numbers.k * k, t=numbers.t * k + t)
        return replace(value, float_node=step.call, numbers=changed)
    if value.scale is not None and k.numel() == 1 and not bool(t.any()):
        factor = value.factor / float(k)
        return replace(value, float_node=step.call, numbers=Affine(value, k, t), factor=factor, name=step.name)
    return replace(
        value, float_node=step.call, numbers=Affine(value, k, t), grade=Grade.ACCUMULATOR, scale=None, name=step.name
    )


def subtract(step: Step, x: Any, other: Any) -> Value:
    """A constant subtracted from a tensor."""
    if isinstance(other, Value):
        step.refuse("it subtracts tensors", "add, and let the layer before learn the sign")
    constant = as_constant(step, other)
    return affine(step, x, 1.0, -constant)


def multiply(step: Step, x: Any, other: Any) -> Value:
    """A tensor times a constant."""
    if isinstance(x, Value) and isinstance(other, Value):
        return product(step, x, other)
    value, constant = (x, other) if isinstance(x, Value) else (other, x)
    return affine(step, value, as_constant(step, constant), 0.0)


def product(step: Step, x: Value, other: Value) -> Value:
    """The product of two tensors: exact, with the product of their scales, which a quantizer takes out."""
    one, two = (step.quantized(value, Want.MANY) for value in (x, other))
    node = step.call_function(operator.mul, (one.node, two.node))
    step.became("exact product of codes")
    wide = one if one.shape == step.shape else two
    return replace(
        wide, node=node, float_node=step.call, grade=Grade.ACCUMULATOR, numbers=Multiplied(one, two), shape=step.shape,
        name=step.name, scale=None, magnitude=one.magnitude * two.magnitude, signed=one.signed or two.signed,
        wide=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Multiplied:
    """The numbers of a product of two tensors with offsets of zero."""

    one: Value
    two: Value

    def __call__(self) -> Numbers:
        found = (self.one.numbers(), self.two.numbers())
        return Numbers(a=found[0].a * found[1].a, b=torch.zeros_like(found[0].a), grid=None)


def divide(step: Step, x: Any, other: Any) -> Value:
    """A tensor divided by a constant."""
    if isinstance(other, Value):
        step.refuse("it divides by a tensor", "divide by constants only")
    return affine(step, x, 1.0 / as_constant(step, other), 0.0)


_ADD = Rule(apply=add, want=Want.MANY)
_CAT = Rule(apply=concat, want=Want.PASS)
_CONSTANT = Want.ANY

RULES = Rules(
    modules={},
    functions={
        **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _ADD),
        **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _CAT),
        **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), Rule(apply=subtract, want=_CONSTANT)),
        **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), Rule(apply=multiply, want=_CONSTANT)),
        **dict.fromkeys(
            (operator.truediv, operator.itruediv, torch.div, "div", "div_"), Rule(apply=divide, want=_CONSTANT)
        ),
    },
)
