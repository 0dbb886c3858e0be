"""Convolutions and linear layers."""

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.convert.fitting import filters
from maqd.convert.inputs import EntryNumbers
from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Grade, Layer, Scale, Value
from maqd.numerics.limits import INT32_LIMIT
from maqd.numerics.states import FEW_STATES, States
from maqd.settings.quantization import UNCHANGED

LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip
"""What has a layer of few states."""


def weighted(step: Step, x: Any, module: Any, name: str | None = None) -> Value:
    """A layer of few states; called again, the same layer."""
    name = name or str(step.call.target)
    source = step.tensor(x)
    first = source.grade is Grade.INPUT and not source.pending
    # An offset of the input would not be the same sum at every place of a transposed convolution's result.
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    apart = first and pads_apart(step, source, module)
    source = step.quantized(source, Want.MANY if first and (transposed or apart) else Want.FEW)
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
            source.numbers.read(source.channel_dim)
        step.became("", layer)
    else:
        step.became(f"again {name}")
        share(step, layer.source, source)
        layer.others.append(source)
        if head and not layer.head:
            step.refuse("its weights are shared by a layer inside of the network", "give the head weights of its own")
    node = step.call_module(name, surrounded(step, source, module))
    scale = None
    if layer.head:
        scale = Scale()
        scale.fix(1.0)
    return Value(
        node=node, float_node=step.call, grade=Grade.ACCUMULATOR, numbers=Result(layer), shape=step.shape, name=name,
        channel_dim=layer.channel_dim, scale=scale,
    )  # fmt: skip


def pads_apart(step: Step, source: Value, module: nn.Module) -> bool:
    """Whether the zeros around pixels stand for another pixel in each channel, and codes of many states can say so."""
    numbers = source.numbers
    if not isinstance(numbers, EntryNumbers) or numbers.entry.call.meta["value"].is_floating_point():
        return False
    zeros = -numbers.t / numbers.k
    padded = any(getattr(module, "_reversed_padding_repeated_twice", ()))
    return padded and float(zeros.max() - zeros.min()) > HALF and step.config.stream_states > FEW_STATES


HALF = 0.5
"""Of a pixel: what the zero of an input is rounded by."""


def surrounded(step: Step, source: Value, module: nn.Module) -> Value:
    """What a convolution reads that does not pad with zeros."""
    mode = getattr(module, "padding_mode", "zeros")
    if mode == "zeros":
        return source
    sizes = [int(size) for size in getattr(module, "_reversed_padding_repeated_twice", ())]
    return replace(source, node=step.call_function(F.pad, (source.node, tuple(sizes), mode)))


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
    depthwise = isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels
    states: int | None = config.edge_states if edge else config.depthwise_states if depthwise else config.weights
    for override in config.overrides:
        if override.weight_states != UNCHANGED and fnmatchcase(name, override.pattern):
            states = override.weight_states
    return states


def within_limit(step: Step, source: Value, module: Any, states: int | None, limit: int) -> Value:
    """What a layer reads, with fewer codes where its sums could reach a limit, half for a head, which adds a bias."""
    if states is None or not source.magnitude or source.grade is Grade.INPUT:
        return source
    fan_in = filters(module)[0].numel()
    count = min(step.config.stream_states, FEW_STATES)
    wanted = States(count=count - (source.signed and count % 2 == 0), signed=source.signed)
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


def linear(step: Step, x: Any, weight: Any, bias: Any = None) -> Value:
    """`F.linear` with parameters of the network."""
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        step.refuse("its weight is computed", "use a parameter of the network")
    return _with(step, x, nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def convolution(
    step: Step, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    """`F.conv1d`, `F.conv2d` and `F.conv3d` with parameters of the network."""
    if not isinstance(weight, Tensor):
        step.refuse("its weight is computed", "use a parameter of the network")
    kind = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[weight.ndim]
    outputs, inputs, *kernel = weight.shape
    module = kind(inputs * groups, outputs, tuple(kernel), stride, padding, dilation, groups, bias is not None)  # pyright: ignore[reportArgumentType]
    return _with(step, x, module, weight, bias)


def _with(step: Step, x: Any, module: Any, weight: Tensor, bias: Any) -> Value:
    """The layer of some parameters, named after their module."""
    module.weight = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    if bias is not None:
        module.bias = nn.Parameter(bias.detach(), requires_grad=bias.requires_grad)
    of_weight = step.call.kwargs["weight"] if len(step.call.args) < 2 else step.call.args[1]
    name = str(getattr(of_weight, "target", "")).rpartition(".")[0] or step.name
    return weighted(step, x, module, name)


RULES = Rules(
    modules=dict.fromkeys(LAYERS, Rule(apply=weighted, want=Want.FEW)),
    functions={
        F.linear: Rule(apply=linear, want=Want.FEW),
        **dict.fromkeys(
            (F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d),
            Rule(apply=convolution, want=Want.FEW),
        ),
    },
)
