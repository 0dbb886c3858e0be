"""Networks that cannot be traced whole: what they are made of, converted one by one."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from maqd.lowering import Refusal
from maqd.nn.tracing import Traced, TracingError, evaluation, trace

REMEDY = "let its course not depend on the data; its layers are converted one by one with partial=True"


@dataclass(frozen=True, kw_only=True)
class Calls:
    """The calls of a module in one run of a network.

    Args:
        inputs: Positional arguments of each.
        plain: Whether all are tensors, by position.
        results: What each returned.
    """

    inputs: list[tuple[Any, ...]] = field(default_factory=list)
    plain: list[bool] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


@torch.no_grad()
def calls_of(modules: Sequence[nn.Module], run: Callable[[], object]) -> list[Calls]:
    """What some modules of a network are given, and return, while it runs."""
    found = [Calls() for _ in modules]

    def watch(calls: Calls) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], result: Any) -> None:
            calls.inputs.append(tuple(one.clone() if isinstance(one, Tensor) else one for one in inputs))
            calls.plain.append(not options and all(isinstance(one, Tensor) for one in inputs))
            calls.results.append(result)

        return hook

    handles = [
        module.register_forward_hook(watch(calls), with_kwargs=True)
        for module, calls in zip(modules, found, strict=True)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def trace_around(model: nn.Module, examples: tuple[Tensor, ...]) -> tuple[Traced, dict[str, Refusal]]:
    """The calls of a network; modules that cannot be followed are one call each.

    Returns:
        The calls, and why the modules cannot be followed, by name.

    Raises:
        TracingError: The network's own `forward` cannot be followed, or fails.
    """
    leaves: dict[str, list[Any]] = {}
    refusals: dict[str, Refusal] = {}
    while True:
        try:
            return trace(model, examples, leaves), refusals
        except TracingError as error:
            name = error.inside
            if not name or name in leaves:
                raise
            with evaluation(model):
                try:
                    calls = calls_of([model.get_submodule(name)], lambda: model(*examples))[0]
                except Exception:  # the network does not run at all: the message says where
                    raise error from None
            if not calls.results:
                raise
            leaves[name] = calls.results
            refusals[name] = Refusal(module=name, line=error.line, reason=error.reason, remedy=REMEDY)


@dataclass(kw_only=True)
class Parts:
    """A module whose own code stays as it is, with converted parts.

    Args:
        model: A copy of it.
        made: The converted parts, by name.
        refusals: What is in the way, with names from the module.
    """

    model: nn.Module
    made: dict[str, Any] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)


def convert_parts(
    module: nn.Module, run: Callable[[], object], convert: Callable[[nn.Module, tuple[Tensor, ...]], Any]
) -> Parts:
    """Converts what a module calls, each for itself.

    Args:
        module: Whose own code cannot be followed; it is left as it is.
        run: Runs it, or the network around it.
        convert: The conversion of a part for the batch that it is given.
    """
    parts = Parts(model=copy.deepcopy(module))
    _descend(module, parts, "", run, convert)
    return parts


def _descend(
    module: nn.Module, parts: Parts, prefix: str, run: Callable[[], object], convert: Callable[..., Any]
) -> None:
    children = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    for (name, child), calls in zip(children, calls_of([child for _, child in children], run), strict=True):
        path = f"{prefix}{name}"
        if not calls.inputs:  # a list of modules, say
            _descend(child, parts, f"{path}.", run, convert)
        elif len(calls.inputs) > 1 or not calls.plain[0]:
            what = f"is called {len(calls.inputs)} times" if len(calls.inputs) > 1 else "takes what is no tensor"
            parts.refusals.append(Refusal(module=path, line=None, reason=f"it {what}", remedy=REMEDY))
        else:
            made = convert(child, calls.inputs[0])
            parts.made[path] = made
            holder = parts.model.get_submodule(prefix[:-1]) if prefix else parts.model
            setattr(holder, name, made.model)
            for refusal in made.report.refusals:
                inner = f"{path}.{refusal.module}"
                parts.refusals.append(
                    Refusal(module=inner, line=refusal.line, reason=refusal.reason, remedy=refusal.remedy)
                )
