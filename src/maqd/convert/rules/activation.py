"""Activation functions, which a quantizer applies."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Activation, Grade, Value


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


def final(step: Step, x: Any, *arguments: Any, **options: Any) -> Value:
    """A function at the very end that changes no order: removed."""
    if step.wants != {Want.EXACT} or any(user.op != "output" for user in step.call.users):
        step.refuse("it stands inside of the network", "keep it at the very end, where it is removed")
    step.became("removed: the network returns what was before it")
    read = step.call.all_input_nodes[0]
    step.plan.removed[step.call] = step.plan.removed.get(read, read)
    return step.tensor(x)


_FINAL_MODULES = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)
_FINAL_FUNCTIONS = (
    torch.softmax, F.softmax, "softmax", torch.log_softmax, F.log_softmax, "log_softmax", torch.sigmoid, F.sigmoid,
    "sigmoid",
)  # fmt: skip

RULES = Rules(
    modules={
        **{kind: Rule(apply=rule, want=Want.ANY) for kind, rule in _MODULES.items()},
        **dict.fromkeys(_FINAL_MODULES, Rule(apply=final, want=Want.PASS)),
    },
    functions={
        **{function: Rule(apply=rule, want=Want.ANY) for function, rule in _FUNCTIONS.items()},
        **dict.fromkeys(_FINAL_FUNCTIONS, Rule(apply=final, want=Want.PASS)),
    },
)
