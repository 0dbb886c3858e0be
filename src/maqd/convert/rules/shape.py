"""The same codes in another shape, and calls that change nothing in evaluation."""

import operator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from maqd.convert.inputs import EntryNumbers
from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.rules.pooling import codes, pooled
from maqd.convert.values import Grade, Value


def reshape(step: Step, x: Any, *arguments: Any, **options: Any) -> Value:
    """Any call that keeps the order of a sample's values."""
    value = step.tensor(x)
    same = step.shape == value.shape
    value = step.passed(value) if not value.per_channel or value.pending or value.scale else moved(step, value)
    call = step.call
    if call.op == "call_module":
        module: Any = step.rewriter.traced.model.get_submodule(str(call.target))
        node = step.call_module(step.add_module(module), value)
    else:
        target = {"view": "reshape", "view_as": "reshape_as"}.get(str(call.target), call.target)
        args, kwargs = step.rewriter.written(call)
        node = step.rewriter.write(call, call.op, target, (value.node, *args[1:]), kwargs)
    step.became("the same codes")
    return replace(value, node=node, float_node=call, shape=step.shape, channel_dim=value.channel_dim if same else 1)


def moved(step: Step, value: Value) -> Value:
    """Accumulators as codes: their channels are about to move. An input of one scale may pass."""
    numbers = value.numbers
    if isinstance(numbers, EntryNumbers) and max(numbers.k.numel(), numbers.t.numel()) == 1:
        return value
    many = bool(step.wants & {Want.MANY, Want.EXACT, Want.ANY})
    return step.quantized(value, Want.MANY if many or value.grade is Grade.INPUT else Want.FEW)


def permuted(step: Step, x: Any, *dims: Any, **options: Any) -> Value:
    """Dimensions of a sample in another order: permute and transpose."""
    value = step.tensor(x)
    value = step.passed(value) if not value.per_channel or value.pending or value.scale else moved(step, value)
    call = step.call
    args, kwargs = step.rewriter.written(call)
    node = step.rewriter.write(call, call.op, call.target, (value.node, *args[1:]), kwargs)
    step.became("the same codes")
    return replace(value, node=node, float_node=call, shape=step.shape, channel_dim=1)


def shuffle_layer(step: Step, x: Any, module: nn.ChannelShuffle) -> Value:
    """`nn.ChannelShuffle`."""
    return _moving_layer(step, x, nn.ChannelShuffle(module.groups))


def pixels_layer(step: Step, x: Any, module: nn.PixelShuffle) -> Value:
    """`nn.PixelShuffle`."""
    return _moving_layer(step, x, nn.PixelShuffle(module.upscale_factor))


def _moving_layer(step: Step, x: Any, module: nn.Module) -> Value:
    value = step.tensor(x)
    value = step.passed(value) if not value.per_channel or value.pending or value.scale else moved(step, value)
    node = step.call_module(step.add_module(module), value)
    step.became("the same codes")
    return replace(value, node=node, float_node=step.call, shape=step.shape, channel_dim=1)


def pieces(step: Step, x: Any, *arguments: Any, **options: Any) -> tuple[Value, ...]:
    """Parts of a tensor: chunk and split."""
    value = step.tensor(x)
    value = step.passed(value) if not value.per_channel or value.pending or value.scale else moved(step, value)
    call = step.call
    args, kwargs = step.rewriter.written(call)
    node = step.rewriter.write(call, call.op, call.target, (value.node, *args[1:]), kwargs)
    step.became("parts of the codes")
    return tuple(
        replace(value, node=step.call_function(operator.getitem, (node, place)), shape=tuple(part.shape[1:]))
        for place, part in enumerate(call.meta["value"])
    )


def item(step: Step, x: Any, place: Any) -> Any:
    """One of several tensors, or a slice of one."""
    if isinstance(x, tuple | list | dict):
        found = x[place]
        return replace(found, float_node=step.call) if isinstance(found, Value) else found
    value = step.tensor(x)
    value = step.passed(value) if not value.per_channel or value.pending or value.scale else moved(step, value)
    args, _ = step.rewriter.written(step.call)
    node = step.call_function(operator.getitem, (value.node, args[1]))
    step.became("parts of the codes")
    same = len(step.shape) == len(value.shape)
    return replace(
        value, node=node, float_node=step.call, shape=step.shape, channel_dim=value.channel_dim if same else 1
    )


def upsample(
    step: Step,
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:
    """Upsampling by nearest neighbours, or to twice the size linearly; arguments as in `F.interpolate`."""
    value = step.tensor(x)
    smooth = mode in ("linear", "bilinear", "trilinear")
    twice = tuple(2 * size for size in value.shape[1:]) == step.shape[1:]
    if (mode not in ("nearest", "nearest-exact") and not (smooth and twice and not align_corners)) or antialias:
        step.refuse(
            f"it interpolates in mode {mode!r} from {value.shape[1:]} to {step.shape[1:]}",
            "use mode='nearest', or 'bilinear' to twice the size without align_corners",
        )
    value = step.passed(value) if not smooth else codes(step, value, 4 ** (len(value.shape) - 1))
    if value.grade is Grade.INPUT:
        value = step.quantized(value, Want.MANY)
    options = {"scale_factor": 2.0} if smooth else {"size": tuple(step.shape[1:])}
    node = step.call_function(F.interpolate, (value.node,), {**options, "mode": mode})
    step.became("sums of codes" if smooth else "the same codes, repeated")
    if smooth:  # weights of 1/4 and 3/4 in each dimension
        rank = len(value.shape) - 1
        return pooled(step, value, node, 4**rank, 1.0, 2 * rank)
    return replace(value, node=node, float_node=step.call, shape=step.shape)


def _upsample_layer(step: Step, x: Any, module: Any) -> Value:
    return upsample(step, x, module.size, module.scale_factor, module.mode, module.align_corners)


def unchanged(step: Step, x: Any, *arguments: Any, **options: Any) -> Any:
    """A call that changes nothing."""
    step.became("nothing")
    return x


def dropout(step: Step, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    """Dropout, which acts in training."""
    return _drop(step, x, nn.Dropout(p))


def _drop(step: Step, x: Any, module: Any) -> Value:
    value = step.tensor(x)
    if module.p == 0:
        return unchanged(step, value)
    kind = type(module)
    value = step.passed(value)
    node = step.call_module(step.add_module(kind(module.p)), value)
    step.became("the same, in training")
    return replace(value, node=node, float_node=step.call)


def pad(step: Step, x: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Value:
    """Zeros around each sample; arguments as in `torch.nn.functional.pad`."""
    source = step.tensor(x)
    if mode != "constant":
        source = step.passed(source)
        node = step.call_function(F.pad, (source.node, tuple(pad), mode))
        step.became("codes around the codes")
        return replace(source, node=node, float_node=step.call, shape=step.shape)
    if value:
        step.refuse(f"it pads with {value}", "pad with zeros")
    if source.grade is Grade.INPUT and not source.pending and isinstance(source.numbers, EntryNumbers):
        source.numbers.read(source.channel_dim)  # its zero is code 0
    elif source.per_channel or source.pending:
        source = step.quantized(source, Want.MANY if step.wants & {Want.MANY, Want.EXACT, Want.ANY} else Want.FEW)
    node = step.call_function(F.pad, (source.node, tuple(pad)))
    step.became("zeros around the codes")
    return replace(source, node=node, float_node=step.call, shape=step.shape)


def _pad_layer(step: Step, x: Any, module: Any) -> Value:
    return pad(step, x, module.padding, value=getattr(module, "value", 0.0))


def _mode_layer(mode: str) -> Rule:
    def layer(step: Step, x: Any, module: Any) -> Value:
        return pad(step, x, module.padding, mode)

    return Rule(apply=layer, want=Want.PASS)


_RESHAPE = Rule(apply=reshape, want=Want.PASS)
_UNCHANGED = Rule(apply=unchanged, want=Want.PASS)

RULES = Rules(
    modules={
        **dict.fromkeys((nn.Flatten, nn.Unflatten), _RESHAPE),
        **dict.fromkeys(
            (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
            Rule(apply=_pad_layer, want=Want.PASS),
        ),
        **dict.fromkeys((nn.ReflectionPad1d, nn.ReflectionPad2d), _mode_layer("reflect")),
        **dict.fromkeys((nn.ReplicationPad1d, nn.ReplicationPad2d), _mode_layer("replicate")),
        nn.CircularPad2d: _mode_layer("circular"),
        **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d), Rule(apply=_upsample_layer, want=Want.PASS)),
        nn.Identity: _UNCHANGED,
        nn.ChannelShuffle: Rule(apply=shuffle_layer, want=Want.PASS),
        nn.PixelShuffle: Rule(apply=pixels_layer, want=Want.PASS),
        **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), Rule(apply=_drop, want=Want.PASS)),
    },
    functions={
        **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze), _RESHAPE),
        **dict.fromkeys(
            ("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "reshape_as", "view_as"), _RESHAPE
        ),
        **dict.fromkeys(
            (torch.permute, "permute", torch.transpose, "transpose", torch.swapaxes),
            Rule(apply=permuted, want=Want.PASS),
        ),
        **dict.fromkeys((torch.chunk, "chunk", torch.split, "split"), Rule(apply=pieces, want=Want.PASS)),
        operator.getitem: Rule(apply=item, want=Want.PASS),
        F.interpolate: Rule(apply=upsample, want=Want.PASS),
        F.pad: Rule(apply=pad, want=Want.PASS),
        torch.channel_shuffle: Rule(apply=permuted, want=Want.PASS),
        torch.pixel_shuffle: Rule(apply=permuted, want=Want.PASS),
        **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d), Rule(apply=dropout, want=Want.PASS)),
        **dict.fromkeys(("contiguous", "clone", "detach", "float", "to", "type"), _UNCHANGED),
    },
)
