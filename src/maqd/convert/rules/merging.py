"""Sums and concatenations, whose tensors share a scale; sums and products with constants."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from maqd.convert.inputs import EntryNumbers
from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Activation, Affine, Grade, Numbers, Value, hull
from maqd.numerics.states import Grid


def add(step: Step, x: Any, other: Any, *, alpha: Any = 1, becomes: str = "exact sum of codes") -> Any:
    """The sum of two tensors, or of one and a constant."""
    if not isinstance(x, Value) or not isinstance(other, Value):
        value, constant = (x, other) if isinstance(x, Value) else (other, x)
        factor = alpha if value is x else 1
        return affine(step, value, ONE, as_constant(step, constant).map(lambda values: values * factor))
    if alpha != 1:
        step.refuse(f"it scales a summand by {alpha}", "add without alpha")
    one, two = aligned(step, [step.quantized(value, Want.MANY) for value in (x, other)], Want.MANY)
    node = step.call_function(operator.add, (one.node, two.node))
    step.became(becomes)
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


@dataclass(frozen=True)
class Constant:
    """A number, or one a channel.

    Args:
        values: float64, 1 or C.
        dim: Where the channels are: 1, or -1 for the last dimension; None for one number.
    """

    values: Tensor
    dim: int | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Constant":
        """The same with other values."""
        return replace(self, values=function(self.values))


def as_constant(step: Step, constant: Any) -> Constant:
    """An operand that is no tensor of the network."""
    if isinstance(constant, int | float):
        return Constant(torch.full((1,), float(constant), dtype=torch.float64))
    if isinstance(constant, Tensor) and max(constant.numel(), 1) == max([*constant.shape, 1]):
        rank = len(step.shape)
        where = [place - constant.ndim for place, size in enumerate(constant.shape) if size > 1]
        values = constant.detach().double().flatten()
        if not where or where[0] in (-rank, -1):
            return Constant(values, None if not where else 1 if where[0] == -rank else -1)
    step.refuse("one operand is no tensor that the network computes", "use numbers, or one number per channel")


def affine(step: Step, x: Any, k: Constant, t: Constant) -> Value:
    """K * x + t, which the next layer or quantizer takes in."""
    value = step.tensor(x)
    if value.pending:
        value = step.quantized(value, Want.MANY)
    dim = k.dim or t.dim
    if dim is not None and len(value.shape) > 1 and dim != value.channel_dim:
        if value.per_channel:
            value = step.quantized(value, Want.MANY)
        value = replace(value, channel_dim=dim)
    scale, offset = k.values, t.values
    if not bool((scale != 0).all()) or not bool(torch.cat((scale, offset)).isfinite().all()):
        step.refuse("it multiplies by zero, or by what is no number", "use constants other than zero")
    step.became("folded into what reads it")
    numbers = value.numbers
    if isinstance(numbers, EntryNumbers):
        changed = EntryNumbers(entry=numbers.entry, k=numbers.k * scale, t=numbers.t * scale + offset)
        return replace(value, float_node=step.call, numbers=changed)
    changed = Affine(value, scale, offset)
    if value.scale is not None and scale.numel() == 1 and float(scale) > 0 and not bool(offset.any()):
        factor = value.factor / float(scale)
        return replace(value, float_node=step.call, numbers=changed, factor=factor, name=step.name)
    return replace(
        value, float_node=step.call, numbers=changed, grade=Grade.ACCUMULATOR, scale=None, name=step.name, signed=True
    )


ONE, ZERO = (Constant(torch.full((1,), number, dtype=torch.float64)) for number in (1.0, 0.0))


def subtract(step: Step, x: Any, other: Any, *, alpha: Any = 1) -> Value:
    """The difference of two tensors, or of one and a constant."""
    if alpha != 1:
        step.refuse(f"it scales what it subtracts by {alpha}", "subtract without alpha")
    if not isinstance(other, Value):
        return affine(step, x, ONE, as_constant(step, other).map(torch.neg))
    if not isinstance(x, Value):
        return affine(step, other, ONE.map(torch.neg), as_constant(step, x))
    if other.pending:
        other = step.quantized(other, Want.MANY)
    turned = replace(
        other, grade=Grade.ACCUMULATOR, scale=None, numbers=Affine(other, -ONE.values, ZERO.values), name=step.name,
        activation=NEGATIVE,
    )  # fmt: skip
    return add(step, x, turned, becomes="exact sum of codes, the second with its sign turned")


def reverse_subtract(step: Step, x: Any, other: Any, *, alpha: Any = 1) -> Value:
    """`torch.rsub`: other - x."""
    return subtract(step, other, x, alpha=alpha)


NEGATIVE = Activation(function=torch.neg, signed=True, folded=True)


def negative(step: Step, x: Any) -> Value:
    """-x, which a quantizer takes in."""
    return affine(step, x, ONE.map(torch.neg), ZERO)


def multiply(step: Step, x: Any, other: Any) -> Value:
    """A tensor times a constant."""
    if isinstance(x, Value) and isinstance(other, Value):
        return product(step, x, other)
    value, constant = (x, other) if isinstance(x, Value) else (other, x)
    return affine(step, value, as_constant(step, constant), ZERO)


def product(step: Step, x: Value, other: Value, becomes: str = "exact product of codes") -> Value:
    """The product of two tensors: exact, with the product of their scales, which a quantizer takes out."""
    one, two = (step.quantized(value, Want.MANY) for value in (x, other))
    node = step.call_function(operator.mul, (one.node, two.node))
    step.became(becomes)
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
    return affine(step, x, as_constant(step, other).map(torch.reciprocal), ZERO)


_ADD = Rule(apply=add, want=Want.MANY)
_CAT = Rule(apply=concat, want=Want.PASS)
_CONSTANT = Want.ANY

RULES = Rules(
    modules={},
    functions={
        **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _ADD),
        **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _CAT),
        **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), Rule(apply=subtract, want=_CONSTANT)),
        torch.rsub: Rule(apply=reverse_subtract, want=_CONSTANT),
        **dict.fromkeys((operator.neg, torch.neg, "neg"), Rule(apply=negative, want=_CONSTANT)),
        **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), Rule(apply=multiply, want=_CONSTANT)),
        **dict.fromkeys(
            (operator.truediv, operator.itruediv, torch.div, "div", "div_"), Rule(apply=divide, want=_CONSTANT)
        ),
    },
)
