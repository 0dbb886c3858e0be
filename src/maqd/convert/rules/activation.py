"""Activation functions, which a quantizer applies."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from maqd.convert.rewriter import MANY_STATES, Rule, Rules, Step, Want
from maqd.convert.rules.merging import product
from maqd.convert.values import Activation, Affine, Grade, Value
from maqd.nn.curves import Curve, Shape


def activate(step: Step, x: Any, act: Activation) -> Value:
    """A function, pending until its result is read."""
    value = step.tensor(x)
    if value.activation is not None:
        value = step.quantized(value, Want.FEW)
    rectifier = act.function is torch.relu
    if rectifier and not value.pending and value.grade is Grade.CODES and not value.signed:
        step.became("nothing: its input has no sign")
        return value
    loses = act.curve is not None and not act.curve.rises
    step.became(
        "quantizer"
        if act.curve is None
        else "quantizer without what is below zero, an approximation"
        if loses
        else "quantizer with steps along the curve"
    )
    scale = None if value.grade is Grade.ACCUMULATOR else value.scale
    return replace(value, activation=act, name=_name(step, value), scale=scale, applied=step.call)


def _name(step: Step, value: Value) -> str:
    return value.norm or (str(step.call.target) if step.call.op == "call_module" else step.name)


def rising(curve: Curve, *, signed: bool) -> Activation:
    """A function that rises: its codes are steps along it."""
    return Activation(function=curve, signed=signed, curve=curve)


def below_zero(step: Step, x: Any, curve: Curve) -> Value:
    """A function that rises everywhere and is flatter below zero: with a sign where there are states for it."""
    name = _name(step, step.tensor(x))
    return activate(step, x, rising(curve, signed=step.rewriter.activation_states(name) >= MANY_STATES))


def gated(step: Step, x: Any, curve: Curve, gate: Activation) -> Value:
    """A function that is x times a gate: that product where there are states for it, a rectifier otherwise."""
    value = step.tensor(x)
    name = _name(step, value)
    if step.rewriter.activation_states(name) < step.config.products:
        return activate(step, x, Activation(function=curve, signed=False, curve=curve))
    codes = step.quantized(value, Want.MANY)
    return times(step, codes, replace(codes, activation=gate, name=f"{step.name}_gate", scale=None, applied=None))


def times(step: Step, codes: Value, gate: Value) -> Value:
    """The product of x and a gate of it."""
    return replace(product(step, codes, gate, "product with a gate of its own"), wide=True)


RELU = Activation(function=torch.relu, signed=False)
RELU6 = Activation(function=F.relu6, signed=False)
TANH = rising(Curve(shape=Shape.TANH), signed=True)

GATE_STATES = 64
"""States that a gate without straight lines has at most: each is a comparison."""


def gate_of(shape: Shape) -> Activation:
    """A function from 0 to 1."""
    curve = Curve(shape=shape)
    return Activation(function=curve, signed=False, curve=curve, most=GATE_STATES)


SIGMOID = gate_of(Shape.SIGMOID)
HARD_SIGMOID = Activation(function=F.hardsigmoid, signed=False, folded=True)


def clipped(low: float, high: float) -> Activation:
    """Hardtanh."""
    return Activation(function=partial(torch.clamp, min=low, max=high), signed=low < 0)


def _fixed(act: Activation) -> Callable[..., Value]:
    def layer(step: Step, x: Any, module: nn.Module) -> Value:
        return activate(step, x, act)

    return layer


def _function(act: Activation) -> Callable[..., Value]:
    def function(step: Step, x: Any, inplace: bool = False, **_: Any) -> Value:
        return activate(step, x, act)

    return function


def _hardtanh_layer(step: Step, x: Any, module: nn.Hardtanh) -> Value:
    return activate(step, x, clipped(module.min_val, module.max_val))


def _hardtanh(step: Step, x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    return activate(step, x, clipped(min_val, max_val))


def _clamp(step: Step, x: Any, min: float | None = None, max: float | None = None) -> Value:
    return activate(step, x, clipped(-float("inf") if min is None else min, float("inf") if max is None else max))


def _leaky_layer(step: Step, x: Any, module: nn.LeakyReLU) -> Value:
    return leaky(step, x, module.negative_slope)


def leaky(step: Step, x: Any, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    """`F.leaky_relu`."""
    return below_zero(step, x, Curve(shape=Shape.LEAKY_RELU, slope=negative_slope))


def _elu_layer(step: Step, x: Any, module: nn.ELU) -> Value:
    return elu(step, x, module.alpha)


def elu(step: Step, x: Any, alpha: float = 1.0, inplace: bool = False) -> Value:
    """`F.elu`."""
    return below_zero(step, x, Curve(shape=Shape.ELU, slope=alpha))


def _selu(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    return below_zero(step, x, Curve(shape=Shape.SELU))


def _softplus_layer(step: Step, x: Any, module: nn.Softplus) -> Value:
    return softplus(step, x, module.beta, module.threshold)


def softplus(step: Step, x: Any, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """`F.softplus`."""
    if beta != 1:
        step.refuse(f"its beta is {beta}", "use beta=1")
    return activate(step, x, rising(Curve(shape=Shape.SOFTPLUS), signed=False))


def silu(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    """X * sigmoid(x)."""
    return gated(step, x, Curve(shape=Shape.SILU), SIGMOID)


def hardswish(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    """X * hardsigmoid(x)."""
    value = step.tensor(x)
    name = _name(step, value)
    curve = Curve(shape=Shape.HARDSWISH)
    if step.rewriter.activation_states(name) < step.config.products:
        return gated(step, x, curve, SIGMOID)
    codes = step.quantized(value, Want.MANY)
    return times(step, codes, opening(step, codes, f"{step.name}_gate"))


def mish(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    """X * tanh(softplus(x))."""
    return gated(step, x, Curve(shape=Shape.MISH), gate_of(Shape.TANH_OF_SOFTPLUS))


def _gelu_layer(step: Step, x: Any, module: nn.GELU) -> Value:
    return gelu(step, x, module.approximate)


def gelu(step: Step, x: Any, approximate: str = "none") -> Value:
    """X times the normal distribution function of x."""
    shape = Shape.GELU if approximate == "none" else Shape.GELU_TANH
    return gated(step, x, Curve(shape=shape), gate_of(Shape.NORMAL))


_MODULES: dict[type[nn.Module], Callable[..., Value]] = {
    nn.ReLU: _fixed(RELU),
    nn.ReLU6: _fixed(RELU6),
    nn.Hardtanh: _hardtanh_layer,
    nn.LeakyReLU: _leaky_layer,
    nn.ELU: _elu_layer,
    nn.SELU: _selu,
    nn.Softplus: _softplus_layer,
    nn.SiLU: silu,
    nn.GELU: _gelu_layer,
    nn.Hardswish: hardswish,
    nn.Mish: mish,
    nn.Tanh: _fixed(TANH),
}
_FUNCTIONS: dict[Any, Callable[..., Value]] = {
    **dict.fromkeys((torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_"), _function(RELU)),
    F.relu6: _function(RELU6),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    **dict.fromkeys((torch.clamp, torch.clamp_, "clamp", "clamp_", torch.clip, "clip"), _clamp),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), leaky),
    **dict.fromkeys((F.elu, F.elu_), elu),
    F.selu: _selu,
    F.softplus: softplus,
    F.silu: silu,
    F.gelu: gelu,
    F.hardswish: hardswish,
    F.mish: mish,
    **dict.fromkeys((torch.tanh, F.tanh, "tanh", "tanh_"), _function(TANH)),
}


def opening(step: Step, value: Value, name: str) -> Value:
    """clip(x / 6 + 1/2, 0, 1), pending."""
    half = torch.full((1,), 0.5, dtype=torch.float64)
    numbers = Affine(value, half / 3, half)
    return replace(
        value, grade=Grade.ACCUMULATOR, scale=None, numbers=numbers, activation=HARD_SIGMOID, name=name,
        applied=step.call,
    )  # fmt: skip


def hard_gate(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    """`F.hardsigmoid`: what multiplies a tensor."""
    value = step.tensor(x)
    if value.pending:
        value = step.quantized(value, Want.MANY)
    step.became("quantizer")
    name = str(step.call.target) if step.call.op == "call_module" else step.name
    return opening(step, value, name)


def sigmoid(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    """Removed at the very end; a gate inside of a network."""
    return final(step, x) if ends(step) else activate(step, x, SIGMOID)


def ends(step: Step) -> bool:
    """Whether a call's result leaves the network and nothing else reads it."""
    return step.wants == {Want.EXACT} and all(user.op == "output" for user in step.call.users)


def final(step: Step, x: Any, *arguments: Any, **options: Any) -> Value:
    """A function at the very end that changes no order: removed."""
    if not ends(step):
        step.refuse("it stands inside of the network", "keep it at the very end, where it is removed")
    step.became("removed: the network returns what was before it")
    read = step.call.all_input_nodes[0]
    step.plan.removed[step.call] = step.plan.removed.get(read, read)
    return step.tensor(x)


_FINAL_MODULES = (nn.Softmax, nn.LogSoftmax)
_FINAL_FUNCTIONS = (
    torch.softmax, F.softmax, "softmax", torch.log_softmax, F.log_softmax, "log_softmax",
)  # fmt: skip

RULES = Rules(
    modules={
        **{kind: Rule(apply=rule, want=Want.ANY) for kind, rule in _MODULES.items()},
        nn.Hardsigmoid: Rule(apply=hard_gate, want=Want.ANY),
        nn.Sigmoid: Rule(apply=sigmoid, want=Want.PASS),
        **dict.fromkeys(_FINAL_MODULES, Rule(apply=final, want=Want.PASS)),
    },
    functions={
        **{function: Rule(apply=rule, want=Want.ANY) for function, rule in _FUNCTIONS.items()},
        F.hardsigmoid: Rule(apply=hard_gate, want=Want.ANY),
        **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"), Rule(apply=sigmoid, want=Want.PASS)),
        **dict.fromkeys(_FINAL_FUNCTIONS, Rule(apply=final, want=Want.PASS)),
    },
)
