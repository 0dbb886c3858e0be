"""Convolutions, linear layers and normalizations."""

import math
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from maqd.convert.inputs import EntryNumbers
from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Grade, Layer, Scale, Value
from maqd.numerics.limits import INT32_LIMIT
from maqd.numerics.states import States
from maqd.settings.quantization import UNCHANGED


def weighted(step: Step, x: Any, module: nn.Conv1d | nn.Conv2d | nn.Linear) -> Value:
    """A layer of few states; called again, the same layer."""
    name = str(step.call.target)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        if module.padding_mode != "zeros":
            step.refuse(f"its padding is {module.padding_mode!r}", "pad with zeros")
        padding(step, module)
    source = step.tensor(x)
    first = source.grade is Grade.INPUT and not source.pending
    source = step.quantized(source, Want.FEW)
    head = Want.EXACT in step.wants
    layer = step.rewriter.layers.get(name)
    if layer is None:
        states = weight_states(step, name, module, edge=first or head)
        source = within_limit(step, source, module, states, INT32_LIMIT // 2 if head else INT32_LIMIT)
        layer = Layer(name=name, module=module, source=source, states=states, head=head, call=step.call)
        step.rewriter.layers[name] = layer
        step.rewriter.taken.add(name)
        step.plan.order.append(layer)
        if isinstance(source.numbers, EntryNumbers):
            source.numbers.read()
        step.became("", layer)
    else:
        step.became(f"again {name}")
        share(step, layer.source, source)
        layer.others.append(source)
        if head and not layer.head:
            step.refuse("its weights are shared by a layer inside of the network", "give the head weights of its own")
    node = step.call_module(name, source)
    scale = None
    if layer.head:
        scale = Scale()
        scale.fix(1.0)
    return Value(
        node=node, float_node=step.call, grade=Grade.ACCUMULATOR, numbers=Result(layer), shape=step.shape, name=name,
        channel_dim=-1 if isinstance(module, nn.Linear) and len(step.shape) > 1 else 1, scale=scale,
    )  # fmt: skip


class Result:
    """The numbers of a layer's result, once it is made."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def __call__(self) -> Any:
        if self.layer.numbers is None:
            raise RuntimeError(f"{self.layer.name} is read before it is made")
        return self.layer.numbers


def weight_states(step: Step, name: str, module: nn.Module, *, edge: bool) -> int | None:
    """M_w of a layer."""
    config = step.config
    depthwise = isinstance(module, nn.Conv1d | nn.Conv2d) and 1 < module.groups == module.in_channels
    states: int | None = config.edge_states if edge else config.depthwise_states if depthwise else config.weights
    for override in config.overrides:
        if override.weight_states != UNCHANGED and fnmatchcase(name, override.pattern):
            states = override.weight_states
    return states


def within_limit(step: Step, source: Value, module: Any, states: int | None, limit: int) -> Value:
    """What a layer reads, with fewer codes where its sums could reach a limit, half for a head, which adds a bias."""
    if states is None or not source.magnitude or source.grade is Grade.INPUT:
        return source
    fan_in = math.prod(module.weight.shape[1:])
    wanted = States(count=step.config.stream - (source.signed and step.config.stream % 2 == 0), signed=source.signed)
    if fan_in * States(count=states, signed=True).high * source.magnitude < limit:
        return source
    return source if source.magnitude <= wanted.high else step.quantizer(source, wanted)


def share(step: Step, one: Value, other: Value) -> None:
    """Lets two tensors that the same weights read have the same scale."""
    if one.scale is None or other.scale is None:
        if isinstance(one.numbers, EntryNumbers) and isinstance(other.numbers, EntryNumbers):
            other.numbers.entry.zero = one.numbers.entry.zero
            other.numbers.entry.like = one.numbers.entry
            return
        step.refuse("its weights are shared by calls with different inputs", "give each call weights of its own")
    if one.factor != other.factor or not one.scale.join(other.scale):
        step.refuse("its weights are shared by calls whose inputs have different scales", "pool both in the same way")


def padding(step: Step, module: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    """Zeros at each side of each dimension."""
    if not isinstance(module.padding, str):
        return tuple(int(size) for size in module.padding)
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    sizes = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(size % 2 for size in sizes):
        step.refuse("padding='same' pads unevenly with its kernel", "use an odd kernel, or pad by numbers")
    return tuple(size // 2 for size in sizes)


def norm(step: Step, x: Any, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Value:
    """A batch normalization, pending until the result is read."""
    value = step.tensor(x)
    if module.running_mean is None or module.running_var is None:
        step.refuse("it keeps no running statistics", "set track_running_stats=True")
    if value.pending:
        value = step.quantized(value, Want.MANY if value.activation is None else Want.FEW)
    if len(value.shape) > 1 and value.channel_dim == -1:
        step.refuse("it normalizes the dimension after the batch of a linear layer's result", "transpose before")
    name = str(step.call.target)
    step.became("folded into the quantizer after it")
    return replace(value, norm=name, float_node=step.call, name=name, scale=None)


RULES = Rules(
    modules={
        **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Linear), Rule(apply=weighted, want=Want.FEW)),
        **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), Rule(apply=norm, want=Want.ANY)),
    },
    functions={},
)
