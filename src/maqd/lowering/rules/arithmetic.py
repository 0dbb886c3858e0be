"""Sums, differences and products of tensors, and of tensors with numbers."""

import math
import operator
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from maqd.graph import Add, Concat, Conv, MaxPool, Multiply, SumPool
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.lowering.rules.merging import aligned
from maqd.lowering.rules.shape import reshaped
from maqd.numerics.bounds import narrow
from maqd.numerics.limits import INT32_LIMIT
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States


def add(step: Step, x: Any, other: Any, *, alpha: Any = 1) -> Codes:
    """The sum of two tensors, after shifts to the smaller unit; or of a tensor and a number."""
    if alpha != 1:
        step.refuse(f"it scales a summand by {alpha}", "add without alpha")
    if isinstance(x, int | float) or isinstance(other, int | float):
        x, number = (other, x) if isinstance(x, int | float) else (x, other)
        return scaled(step, step.codes(x), 1, number, step.name)
    return _sum(step, step.codes(x), step.codes(other))


def subtract(step: Step, x: Any, other: Any, *, alpha: Any = 1) -> Codes:
    """The difference of two tensors, or of a tensor and a number."""
    if alpha != 1:
        step.refuse(f"it scales a summand by {alpha}", "subtract without alpha")
    if isinstance(other, int | float):
        return scaled(step, step.codes(x), 1, -other, step.name)
    if isinstance(x, int | float):
        return scaled(step, step.codes(other), -1, x, step.name)
    negated = scaled(step, step.codes(other), -1, 0, step.builder.free(f"{step.name}.negated"))
    return _sum(step, step.codes(x), negated)


def negate(step: Step, x: Codes | Raw) -> Codes:
    """`-x`."""
    return scaled(step, step.codes(x), -1, 0, step.name)


def _sum(step: Step, *sources: Codes) -> Codes:
    names = tuple(source.source for source in sources)
    return step.put(Add(name=step.name, inputs=names, shifts=aligned(step, sources)), *sources)


def multiply(step: Step, x: Any, other: Any, *, out: None = None) -> Codes:
    """The product of two tensors, element by element (a gate, squeeze and excitation), or of a tensor and a number."""
    if isinstance(x, int | float) or isinstance(other, int | float):
        x, number = (other, x) if isinstance(x, int | float) else (x, other)
        return scaled(step, step.codes(x), number, 0, step.name)
    sources = (step.codes(x), step.codes(other))
    names = tuple(source.source for source in sources)
    return step.put(Multiply(name=step.name, inputs=names), *sources)


def power(step: Step, x: Any, exponent: Any) -> Codes:
    """`x ** 2`, and small whole exponents: products of the tensor with itself."""
    source = step.codes(x)
    if isinstance(exponent, bool) or exponent not in range(1, MOST_POWER + 1):
        step.refuse(f"it raises to the power {exponent}", f"use one of 1 .. {MOST_POWER}")
    found = source
    for place in range(2, int(exponent) + 1):
        name = step.name if place == exponent else step.builder.free(f"{step.name}.power{place}")
        found = step.put(Multiply(name=name, inputs=(found.source, source.source)), found, source)
    return found


def square(step: Step, x: Codes | Raw) -> Codes:
    """`x.square()`."""
    return power(step, x, 2)


def maximum(step: Step, x: Any, other: Any) -> Codes:
    """The larger of two tensors' elements."""
    return _larger(step, step.codes(x), step.codes(other), step.name)


def minimum(step: Step, x: Any, other: Any) -> Codes:
    """The smaller of two tensors' elements: of the negated ones the larger, negated."""
    free = step.builder.free
    first, second = (
        scaled(step, step.codes(value), -1, 0, free(f"{step.name}.negated{place}"))
        for place, value in enumerate((x, other))
    )
    return scaled(step, _larger(step, first, second, free(f"{step.name}.larger")), -1, 0, step.name)


def magnitude(step: Step, x: Any) -> Codes:
    """`x.abs()`: the larger of the tensor and its negative."""
    source = step.codes(x)
    return _larger(step, source, scaled(step, source, -1, 0, step.builder.free(f"{step.name}.negated")), step.name)


def _larger(step: Step, first: Codes, second: Codes, name: str) -> Codes:
    """Maxima over two tensors of one shape that lie above each other."""
    shape, free = first.type.shape, step.builder.free
    if second.type.shape != shape:
        step.refuse(f"its tensors have the shapes {shape} and {second.type.shape}", "give them one shape")
    lifted = [
        reshaped(step, source, (shape[0], 1, math.prod(shape[1:])), free(f"{name}.row{place}"))
        for place, source in enumerate((first, second))
    ]
    names = tuple(source.source for source in lifted)
    both = Concat(name=free(f"{name}.both"), inputs=names, axis=1, shifts=aligned(step, lifted))
    joined = step.put(both, *lifted)
    window = {"kernel": (2, 1), "stride": (2, 1), "padding": (0, 0)}
    pooled = step.put(MaxPool(name=free(f"{name}.pooled"), inputs=(joined.source,), **window), joined)
    return reshaped(step, pooled, shape, name)


MOST_POWER = 4
"""The largest exponent that is written out."""


def divide(step: Step, x: Any, other: Any, *, rounding_mode: None = None) -> Codes:
    """A tensor divided by a power of two."""
    if not isinstance(other, int | float) or not isinstance(x, Codes | Raw):
        step.refuse("it divides by a tensor", "multiply by a gate of few states")
    if other == 0 or not math.isfinite(other) or math.frexp(abs(other))[0] != 0.5:
        step.refuse(f"it divides by {other}, no power of two", NUMBERS)
    return scaled(step, step.codes(x), 1 / other, 0, step.name)


MOST_FACTOR = 127
"""The largest odd factor of a number that tensors are multiplied by: a weight of 255 states."""

NUMBERS = "multiply by a power of two, or leave it to the normalization that follows, which learns its scale"


def scaled(step: Step, source: Codes, factor: float, constant: float, name: str) -> Codes:
    """The codes times a number, plus a number: exact where the factor is a small whole number times a power of two.

    Args:
        step: The call.
        source: The tensor.
        factor: What it is multiplied by.
        constant: What is added; a multiple of the result's unit.
        name: Of the result.
    """
    if not (math.isfinite(factor) and math.isfinite(constant)) or factor == 0:
        step.refuse(f"it multiplies by {factor} and adds {constant}", "leave the call out")
    if factor == 1 and constant == 0:
        return source
    number = Fraction(factor)
    up = (number.numerator & -number.numerator).bit_length() - 1
    whole, exponent = number.numerator >> up, up - (number.denominator.bit_length() - 1)
    if abs(whole) > MOST_FACTOR:
        step.refuse(f"it multiplies by {factor}, no small whole number times a power of two", NUMBERS)
    unit = source.type.exponent + exponent
    offset = Fraction(constant) / Fraction(2) ** unit
    if source.known and (offset.denominator != 1 or abs(offset) > INT32_LIMIT):
        step.refuse(f"it adds {constant}, no multiple of 2^{unit}", "add such a multiple, or leave it to a bias")
    shape = source.type.shape
    space = shape[1:] if 2 <= len(shape) <= 4 else (math.prod(shape[1:]),)
    flat = shape[:1] + space
    end = name if flat == shape else step.builder.free(f"{name}.scaled")
    source = reshaped(step, source, flat, step.builder.free(f"{name}.flat"))
    ones = (1,) * len(space)
    if whole == 1 and exponent <= 0 and not offset:
        window = {"kernel": ones, "stride": ones, "padding": (0,) * len(space)}
        found = step.put(SumPool(name=end, inputs=(source.source,), **window, shift=-exponent), source)
    else:
        states = States(count=2 * abs(whole) + 1, signed=True)
        weight = PackedCodes.pack(np.full((shape[0], 1, *ones), whole), states)
        bias = narrow(np.full(shape[0], int(offset), np.int64)) if offset and source.known else None
        node = Conv(
            name=end, inputs=(source.source,), weight=weight, exponent=exponent, bias=bias, stride=ones,
            padding=(0,) * len(space), dilation=ones, groups=shape[0],
        )  # fmt: skip
        found = step.put(node, source)
    return reshaped(step, found, shape, name)


RULES = Rules(
    modules={},
    functions={
        **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), add),
        **dict.fromkeys((operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract"), subtract),
        **dict.fromkeys((operator.neg, torch.neg, torch.negative, "neg", "negative"), negate),
        **dict.fromkeys((operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"), multiply),
        **dict.fromkeys(
            (operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "div_", "divide"),
            divide,
        ),
        **dict.fromkeys((operator.pow, torch.pow, "pow"), power),
        **dict.fromkeys((torch.square, "square"), square),
        **dict.fromkeys((torch.maximum, "maximum"), maximum),
        **dict.fromkeys((torch.minimum, "minimum"), minimum),
        **dict.fromkeys((torch.abs, torch.absolute, abs, operator.abs, "abs", "absolute"), magnitude),
    },
)
