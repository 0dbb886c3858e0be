"""Normalizations, which are folded into the quantizer that reads their result."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from maqd.convert.rewriter import Rule, Rules, Step, Want
from maqd.convert.values import Grade, Norm, Value
from maqd.settings.conversion import Kept


def pending(step: Step, value: Value, name: str, norm: Norm, channel_dim: int, becomes: str) -> Value:
    """A normalization, until its result is read."""
    if value.pending:
        value = step.quantized(value, Want.MANY if value.activation is None else Want.FEW)
    if len(value.shape) > 1 and (value.channel_dim == -1) != (channel_dim == -1):
        if value.per_channel:
            value = step.quantized(value, Want.MANY)
        value = replace(value, channel_dim=channel_dim)
    step.plan.norms[name] = norm
    step.became(becomes)
    return replace(value, norm=name, float_node=step.call, name=name, scale=None)


def batch_layer(step: Step, x: Any, module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> Value:
    """A batch normalization."""
    if module.running_mean is None or module.running_var is None:
        step.refuse("it keeps no running statistics", "set track_running_stats=True")
    return batch(
        step, x, module.running_mean, module.running_var, module.weight, module.bias,
        momentum=0.1 if module.momentum is None else module.momentum, eps=module.eps, name=str(step.call.target),
    )  # fmt: skip


def batch(
    step: Step,
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    name: str | None = None,
) -> Value:
    """`F.batch_norm` in evaluation."""
    value = step.tensor(x)
    if training or not isinstance(running_mean, Tensor) or not isinstance(running_var, Tensor):
        step.refuse("it takes its statistics from the batch at inference", "give it running statistics")
    if len(value.shape) > 1 and value.channel_dim == -1:
        step.refuse("it normalizes the dimension after the batch of a linear layer's result", "transpose before")
    norm = Norm(
        eps=eps, momentum=momentum, weight=_constant(weight), bias=_constant(bias), mean=_constant(running_mean),
        variance=_constant(running_var),
    )  # fmt: skip
    return pending(step, value, name or step.name, norm, 1, "folded into the quantizer after it")


def layer_layer(step: Step, x: Any, module: nn.LayerNorm) -> Value:
    """A layer normalization."""
    weight, bias = module.weight, getattr(module, "bias", None)
    return layer(step, x, module.normalized_shape, weight, bias, module.eps, name=str(step.call.target))


def layer(
    step: Step,
    x: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    name: str | None = None,
) -> Value:
    """`F.layer_norm`: over channels that are last, or over all of a sample."""
    value, shape = step.tensor(x), tuple(normalized_shape)
    if shape == value.shape[-1:]:
        return from_samples(step, value, weight, bias, eps, name, channel_dim=-1 if len(value.shape) > 1 else 1)
    if shape != value.shape:
        step.refuse(f"it normalizes {shape} of {value.shape}", "normalize the last dimension, or all of a sample")
    parts = []
    for part in (weight, bias):
        rows = None if part is None else _constant(part).reshape(shape[0], -1)
        if rows is not None and not bool((rows == rows[:, :1]).all()):
            step.refuse("its weights differ from position to position", "use GroupNorm(1, channels)")
        parts.append(None if rows is None else rows[:, 0])
    return from_samples(step, value, parts[0], parts[1], eps, name, channel_dim=1)


def group_layer(step: Step, x: Any, module: nn.GroupNorm) -> Value:
    """A group normalization."""
    return group(step, x, module.num_groups, module.weight, module.bias, module.eps, name=str(step.call.target))


def group(
    step: Step, x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    name: str | None = None,
) -> Value:  # fmt: skip
    """`F.group_norm`, of one group."""
    if num_groups != 1:
        step.refuse(
            f"it takes its statistics from each sample at inference, in {num_groups} groups",
            "use BatchNorm, or one group",
        )
    return from_samples(step, step.tensor(x), weight, bias, eps, name, channel_dim=1)


def from_samples(
    step: Step, value: Value, weight: Any, bias: Any, eps: float, name: str | None, *, channel_dim: int
) -> Value:
    """A normalization with statistics from each sample, in whose place LBN takes those of the batch."""
    if step.config.norm is Kept.KEEP:
        step.refuse("it takes its statistics from each sample at inference", SAMPLES)
    if value.grade is Grade.INPUT and not value.pending:
        value = step.quantized(value, Want.MANY)
    norm = Norm(
        eps=eps, momentum=0.1, weight=_constant(weight), bias=_constant(bias), read=step.call.all_input_nodes[0]
    )
    kind = "LBN" if step.config.norm is Kept.LBN else "levelled LBN"
    return pending(
        step, value, name or step.name, norm, channel_dim, f"{kind}, an approximation, in the quantizer after it"
    )


SAMPLES = "convert with norm='lbn', which takes them from the batch and folds away, and train after it"
"""The remedy for statistics from each sample."""


def _constant(value: Any) -> Any:
    return None if value is None else value.detach().double()


RULES = Rules(
    modules={
        **dict.fromkeys(
            (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), Rule(apply=batch_layer, want=Want.ANY)
        ),
        nn.LayerNorm: Rule(apply=layer_layer, want=Want.ANY),
        nn.GroupNorm: Rule(apply=group_layer, want=Want.ANY),
    },
    functions={
        nn.functional.batch_norm: Rule(apply=batch, want=Want.ANY),
        nn.functional.layer_norm: Rule(apply=layer, want=Want.ANY),
        nn.functional.group_norm: Rule(apply=group, want=Want.ANY),
    },
)
