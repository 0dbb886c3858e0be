"""What all walks through a traced network share: rules by kind of call, and how PyTorch's pooling is called."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import fx, nn

from maqd.nn import MaxPool2d
from maqd.nn.pooling import max_pool2d

Rule = TypeVar("Rule")


@dataclass(frozen=True, kw_only=True)
class CallRules(Generic[Rule]):
    """What each kind of call becomes.

    Args:
        modules: By class of the layer; a subclass may compute anything and has no rule.
        functions: By function, or by name of the method.
    """

    modules: dict[type[nn.Module], Rule]
    functions: dict[Callable[..., Any] | str, Rule]

    @classmethod
    def union(cls, *parts: "CallRules[Rule]") -> "CallRules[Rule]":
        """All rules of several families."""
        modules = {kind: rule for part in parts for kind, rule in part.modules.items()}
        functions = {function: rule for part in parts for function, rule in part.functions.items()}
        return cls(modules=modules, functions=functions)


class Call(Protocol):
    """One call of a network, as its rule sees it."""

    @property
    def call(self) -> fx.Node:
        """The call."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of the result."""
        ...

    def refuse(self, reason: str, remedy: str) -> NoReturn:
        """There is no rule for this one."""
        ...


def of_layer(rule: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """The rule of a layer whose attributes are the arguments of a function; those that it lacks keep their defaults."""

    def of_module(step: Any, x: Any, module: Any) -> Any:
        return rule(step, x, **{name: getattr(module, name) for name in names if hasattr(module, name)})

    return of_module


# ---- pooling --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows of a call, one number a dimension.

    Args:
        kernel, stride, padding, dilation: As in `torch.nn.functional.max_pool2d`.
        trailing: Padding at the end: more than in front only where ceil_mode needs it.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    trailing: tuple[int, ...]

    @property
    def partial(self) -> bool:
        """Whether some windows end beyond the padding."""
        return any(after > before for before, after in zip(self.padding, self.trailing, strict=True))

    @classmethod
    def of(cls, step: Call, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> "Windows":
        """Those of a call of one tensor."""
        space, sizes = step.call.all_input_nodes[0].meta["value"].shape[2:], step.shape[1:]
        kernel = _each(kernel_size, len(sizes))
        strides = kernel if stride in (None, (), []) else _each(stride, len(sizes))
        pads, dilations = _each(padding, len(sizes)), _each(dilation, len(sizes))
        trailing = tuple(
            max(p, (count - 1) * s + d * (k - 1) + 1 - size - p)
            for count, s, d, k, size, p in zip(sizes, strides, dilations, kernel, space, pads, strict=True)
        )
        return cls(kernel=kernel, stride=strides, padding=pads, dilation=dilations, trailing=trailing)


def _each(value: Any, rank: int) -> tuple[Any, ...]:
    """One value per dimension."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


def refuse_uneven(step: Call, space: tuple[int, ...]) -> NoReturn:
    """Adaptive windows of several sizes have no common divisor."""
    step.refuse(f"its windows for an output of {step.shape[1:]} of {space} differ in size", "choose sizes that divide")


def pooling_rules(
    maxima: Callable[..., Any],
    averages: Callable[..., Any],
    adaptive_maxima: Callable[..., Any],
    adaptive_averages: Callable[..., Any],
    make: Callable[[Callable[..., Any]], Rule],
) -> CallRules[Rule]:
    """The rules of all layers and functions that pool.

    Args:
        maxima: Takes a step, the tensor and its `Windows`.
        averages: The same with a divisor, None for the number of positions.
        adaptive_maxima, adaptive_averages: Take a step and the tensor; the traced result has the sizes.
        make: A rule of what takes a step and a call's arguments.
    """

    def max_pool(
        step: Call,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        del ceil_mode  # the traced result has the shape
        if return_indices:
            step.refuse("it returns indices", "pool without return_indices")
        return maxima(step, x, Windows.of(step, kernel_size, stride, padding, dilation))

    def average_pool(
        step: Call,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        del ceil_mode
        windows = Windows.of(step, kernel_size, stride, padding, 1)
        if not divisor_override:
            if any(windows.padding) and not count_include_pad:
                step.refuse("its divisor depends on the position", "pool with count_include_pad=True")
            if windows.partial:
                step.refuse("its divisor depends on the position", "pool with ceil_mode=False")
        return averages(step, x, windows, divisor_override)

    def adaptive_max_pool(step: Call, x: Any, output_size: Any, return_indices: bool = False) -> Any:
        del output_size
        if return_indices:
            step.refuse("it returns indices", "pool without return_indices")
        return adaptive_maxima(step, x)

    def adaptive_average_pool(step: Call, x: Any, output_size: Any) -> Any:
        del output_size
        return adaptive_averages(step, x)

    window = ("kernel_size", "stride", "padding", "ceil_mode")
    max_layer = make(of_layer(max_pool, *window, "dilation", "return_indices"))
    average_layer = make(of_layer(average_pool, *window, "count_include_pad", "divisor_override"))
    adaptive_max_layer = make(of_layer(adaptive_max_pool, "output_size", "return_indices"))
    adaptive_average_layer = make(of_layer(adaptive_average_pool, "output_size"))
    return CallRules(
        modules={
            **dict.fromkeys((MaxPool2d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), max_layer),
            **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), average_layer),
            **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), adaptive_max_layer),
            **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), adaptive_average_layer),
        },
        functions={
            **dict.fromkeys(
                (F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, max_pool2d),
                make(max_pool),
            ),
            **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), make(average_pool)),
            **dict.fromkeys(
                (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d), make(adaptive_max_pool)
            ),
            **dict.fromkeys(
                (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d), make(adaptive_average_pool)
            ),
        },
    )
