"""Activation functions, which a quantizer applies."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Activation, Affine, Grade, Value


def activate(step: Step, x: Any, act: Activation) -> Value:
    """A function, pending until its result is read."""
    value = step.tensor(x)
    if value.activation is not None:
        value = step.quantized(value, Want.FEW)
    rectifier = act.function is torch.relu
    if rectifier and not value.pending and value.grade is Grade.CODES and not value.signed:
        step.became("nothing: its input has no sign")
        return value
    step.became("quantizer" if act.exact else "quantizer, its shape is an approximation")
    name = value.norm or (str(step.call.target) if step.call.op == "call_module" else step.name)
    scale = None if value.grade is Grade.ACCUMULATOR else value.scale
    return replace(value, activation=act, name=name, scale=scale)


RELU = Activation(function=torch.relu, signed=False)
RELU6 = Activation(function=F.relu6, signed=False)
TANH = Activation(function=torch.tanh, signed=True, exact=False)


def smooth(function: Callable[[Tensor], Tensor]) -> Activation:
    """A function that a rectifier's quantizer stands for."""
    return Activation(function=function, signed=False, exact=False)


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
    return activate(step, x, smooth(partial(F.leaky_relu, negative_slope=module.negative_slope)))


def _leaky(step: Step, x: Any, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    return activate(step, x, smooth(partial(F.leaky_relu, negative_slope=negative_slope)))


_MODULES: dict[type[nn.Module], Callable[..., Value]] = {
    nn.ReLU: _fixed(RELU),
    nn.ReLU6: _fixed(RELU6),
    nn.Hardtanh: _hardtanh_layer,
    nn.LeakyReLU: _leaky_layer,
    nn.SiLU: _fixed(smooth(F.silu)),
    nn.GELU: _fixed(smooth(F.gelu)),
    nn.Hardswish: _fixed(smooth(F.hardswish)),
    nn.ELU: _fixed(smooth(F.elu)),
    nn.Tanh: _fixed(TANH),
}
_FUNCTIONS: dict[Any, Callable[..., Value]] = {
    **dict.fromkeys((torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_"), _function(RELU)),
    F.relu6: _function(RELU6),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    **dict.fromkeys((torch.clamp, torch.clamp_, "clamp", "clamp_", torch.clip, "clip"), _clamp),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky),
    F.silu: _function(smooth(F.silu)),
    F.gelu: _function(smooth(F.gelu)),
    F.hardswish: _function(smooth(F.hardswish)),
    F.elu: _function(smooth(F.elu)),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh", "tanh_"), _function(TANH)),
}


def gate(step: Step, x: Any, k: float) -> Value:
    """clip(k x + 1/2, 0, 1): what multiplies a tensor."""
    value = step.tensor(x)
    if value.pending:
        value = step.quantized(value, Want.MANY)
    half = torch.full((1,), 0.5, dtype=torch.float64)
    sloped = replace(
        value, grade=Grade.ACCUMULATOR, scale=None, numbers=Affine(value, 2 * half * k, half), float_node=step.call
    )
    exact = k == 1 / 6
    step.became("quantizer" if exact else "quantizer of a hard sigmoid, its shape is an approximation")
    name = str(step.call.target) if step.call.op == "call_module" else step.name
    return replace(sloped, activation=GATE, name=name)


GATE = Activation(function=partial(torch.clamp, min=0.0, max=1.0), signed=False, after=True)
"""Of values that are in 0 .. 1 already."""

SIGMOID_SLOPE = 0.2
"""Of the hard sigmoid that stands for a sigmoid."""


def _hard_gate(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    return gate(step, x, 1 / 6)


def sigmoid(step: Step, x: Any, *_: Any, **__: Any) -> Value:
    """Removed at the very end; a hard sigmoid inside of a network."""
    return final(step, x) if ends(step) else gate(step, x, SIGMOID_SLOPE)


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
        nn.Hardsigmoid: Rule(apply=_hard_gate, want=Want.ANY),
        nn.Sigmoid: Rule(apply=sigmoid, want=Want.PASS),
        **dict.fromkeys(_FINAL_MODULES, Rule(apply=final, want=Want.PASS)),
    },
    functions={
        **{function: Rule(apply=rule, want=Want.ANY) for function, rule in _FUNCTIONS.items()},
        F.hardsigmoid: Rule(apply=_hard_gate, want=Want.ANY),
        **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"), Rule(apply=sigmoid, want=Want.PASS)),
        **dict.fromkeys(_FINAL_FUNCTIONS, Rule(apply=final, want=Want.PASS)),
    },
)
