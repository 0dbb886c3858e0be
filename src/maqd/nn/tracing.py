"""The calls that a network consists of: their names, their lines of code, and the shapes of what they return.

The network is traced with `torch.fx`, the layers of `maqd.nn` being single calls. The tracer knows the shape of an
example and follows it through every call on PyTorch's meta device, without computing values: `x.shape[2]` and
`x.size(1)` are numbers, so that code may branch and loop on them. The batch size alone stays open: `x.size(0)` is a
call of its own.
"""

import linecache
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.func import functional_call
from torch.fx.node import map_arg

from maqd.errors import ConfigError, LoweringError, MaqdError
from maqd.nn.activation import NormActivation, QuantActivation
from maqd.nn.inputs import IntegerInput
from maqd.nn.layers import QuantLayer
from maqd.nn.neurons import IntegrateFire
from maqd.nn.norm import Normalization
from maqd.nn.pooling import GlobalSumPool, MaxPool2d

LEAVES = (
    IntegerInput,
    QuantLayer,
    NormActivation,
    QuantActivation,
    Normalization,
    MaxPool2d,
    GlobalSumPool,
    IntegrateFire,
)
"""Layers that are one call each."""

BATCH = 1_000_003
"""The batch size while tracing: a prime that no other size of a network is a multiple of."""

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class TracingError(LoweringError):
    """A network cannot be followed call by call.

    Args:
        module: The call that stopped it, or the class of the network.
        line: Its line of code, if it is known.
        reason, remedy: Why, and what helps.
        inside: The innermost module of the network whose `forward` was followed; "" for the network itself.
    """

    def __init__(self, *, module: str, line: str | None, reason: str, remedy: str, inside: str = "") -> None:
        super().__init__(f"{module}: {reason}; {remedy}")
        self.module, self.line, self.reason, self.remedy, self.inside = module, line, reason, remedy, inside


@dataclass(frozen=True)
class Traced:
    """A network as a sequence of calls.

    Args:
        model: The network, referring to the layers of the original.
        names: The calls that return tensors, in order, and the name of each: that of its module in the network, or
            of a function, after the name of the module that calls it. A repeated name gets #2, #3, ...
    """

    model: fx.GraphModule
    names: dict[fx.Node, str]


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; every module's own mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def plain(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel` and `DistributedDataParallel`.

    Raises:
        ConfigError: It is no module.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"a network is a torch.nn.Module, got {type(model).__name__}; pass the network itself")
    while True:
        if isinstance(model, OptimizedModule):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def trace(model: nn.Module, examples: tuple[Tensor, ...], leaves: Mapping[str, Sequence[Any]] | None = None) -> Traced:
    """The calls of a network in evaluation mode.

    Args:
        model: The network.
        examples: A batch for each parameter of `forward` that has no default: dtypes and shapes matter, values do not.
        leaves: Modules that are one call each whatever they do, by name, with what each of their calls returns.

    Raises:
        TracingError: The course of `forward` depends on the data, or PyTorch refuses a call.
    """
    tracer = _Tracer(examples, leaves or {})
    with evaluation(model), torch.no_grad():
        calls = tracer.run(model)
    if tracer.unread:
        raise TracingError(
            module=type(model).__name__,
            line=None,
            reason=f"its forward takes {len(examples) - tracer.unread} tensors, and the example has {len(examples)}",
            remedy="pass a batch for each parameter",
        )
    module = fx.GraphModule(tracer.root, calls)  # refers to the layers of the network: nothing is copied
    module.graph.eliminate_dead_code(lambda node: node.is_impure() or changes_its_input(module, node))
    names: dict[fx.Node, str] = {}
    taken: set[str] = set()
    for node in module.graph.nodes:
        if not _holds_tensors(node.meta.get("value")):
            continue
        plain_name = name = name_of(node)
        number = 1
        while name in taken:  # a module or function that is called again
            number += 1
            name = f"{plain_name}#{number}"
        taken.add(name)
        names[node] = name
    return Traced(module, names)


def name_of(node: fx.Node) -> str:
    """The name of a call's module, or of its function after the module that calls it."""
    if node.op == "call_module":
        return _without_compile(str(node.target))
    if node.op not in ("call_function", "call_method"):
        return node.name
    function = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    stack = list(node.meta.get("nn_module_stack", {}).values())
    caller = _without_compile(stack[-1][0]) if stack else ""
    return ".".join(part for part in (caller, function.strip("_")) if part)


def _without_compile(name: str) -> str:
    """The name of a module without the levels that `torch.compile` adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


_IN_PLACE = {
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.iand, operator.ior,
}  # fmt: skip


def changes_its_input(model: nn.Module, call: fx.Node) -> bool:
    """Whether a call writes its result into the memory of its first argument."""
    module = model.get_submodule(str(call.target)) if call.op == "call_module" else None
    method = call.target if call.op == "call_method" and isinstance(call.target, str) else ""
    return bool(call.all_input_nodes) and bool(
        (method.endswith("_") and not method.endswith("__"))
        or (call.op == "call_function" and call.target in _IN_PLACE and _holds_tensors(call.meta["value"]))
        or call.kwargs.get("inplace", False)
        or getattr(module, "inplace", False)
    )


class _Value(fx.Proxy):
    """What a call returns, while tracing: its shape and type are known."""

    @property
    def value(self) -> Any:
        return self.node.meta["value"]

    @property
    def shape(self) -> Any:
        """The sizes: numbers, but for multiples of the batch size."""
        return self.size()

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    def dim(self) -> int:
        return self.value.ndim

    def size(self, dim: int | None = None) -> Any:
        if dim is None:
            return tuple(self.size(place) for place in range(self.value.ndim))
        size = self.value.size(dim)
        return self.tracer.create_proxy("call_method", "size", (self, dim), {}) if size % BATCH == 0 else size


def _in_place(function: Callable[..., Any]) -> Callable[..., fx.Proxy]:
    """`x += y` as the call that it is: torch.fx would record `x + y`."""

    def method(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _function in _IN_PLACE:
    setattr(_Value, f"__{_function.__name__}__", _in_place(_function))


class _Tracer(fx.Tracer):
    """Traces, and computes the shape of every result on the meta device."""

    def __init__(self, examples: tuple[Tensor, ...], leaves: Mapping[str, Sequence[Any]]) -> None:
        super().__init__()
        self._examples = list(examples)
        self._leaves = {name: list(results) for name, results in leaves.items()}
        self._inside: str | None = None
        self._evaluating = False
        self._last: tuple[str, str | None] | None = None

    @property
    def unread(self) -> int:
        """Examples that no parameter took."""
        return len(self._examples)

    def run(self, model: nn.Module) -> fx.Graph:
        """The calls of a network, each with the `value` it returns and its `line` in its `meta`."""
        kind = type(model).__name__
        try:
            return self.trace(model)
        except MaqdError as error:
            module, line = self._last or (kind, None)
            raise TracingError(
                module=module, line=line, reason=_without_batch(error), remedy="change the layer or the example",
                inside=self._inside or "",
            ) from error  # fmt: skip
        except Exception as error:  # whatever the network's own code raises when it is given no real tensor
            if self._last is not None:  # PyTorch has refused a call, with these shapes
                module, line = self._last
                reason, remedy = f"PyTorch refuses it: {_without_batch(error)}", "change the network or the example"
            else:
                module, line = kind, _line_of(error)
                reason = f"it cannot be traced: {_without_batch(error)}"
                remedy = "lowering needs a forward() whose course does not depend on the data"
            raise TracingError(
                module=module, line=line, reason=reason, remedy=remedy, inside=self._inside or ""
            ) from error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = module_qualified_name in self._leaves or isinstance(m, LEAVES)
        return known or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._evaluating:
            return forward(*args, **kwargs)
        if isinstance(m, OptimizedModule):
            inner = m._orig_mod
            return self.call_module(inner, lambda *a, **k: nn.Module._call_impl(inner, *a, **k), args, kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self._inside is None:
                self._inside = self.path_of_module(m)
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The results of a call that returns several."""
        several = obj.node.meta.get("value")
        if not isinstance(several, tuple | list):
            return super().iter(obj)
        items = [self.create_proxy("call_function", operator.getitem, (obj, n), {}) for n in range(len(several))]
        return iter(items)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def create_node(self, kind: str, *more: Any, **options: Any) -> fx.Node:
        node = super().create_node(kind, *more, **options)
        if kind == "get_attr":  # a buffer in an expression becomes a node without a proxy
            node.meta["line"], node.meta["value"] = _line(sys._getframe(1)), self._evaluated(node)
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **options)
        node = proxy.node
        node.meta["line"] = _line(sys._getframe(1))
        self._last = (name_of(node), node.meta["line"])
        node.meta["value"] = self._evaluated(node)
        self._last = None
        return proxy

    def _evaluated(self, node: fx.Node) -> Any:
        self._evaluating, before = True, self._evaluating
        try:
            return self._evaluate(node)
        finally:
            self._evaluating = before

    def _evaluate(self, node: fx.Node) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), lambda argument: argument.meta["value"])
        args, kwargs = _on_meta(args), _on_meta(kwargs)
        match node.op:
            case "placeholder":
                if not self._examples:
                    if args:
                        return args[0]
                    raise ConfigError(f"forward() takes {node.target!r}, for which there is no example")
                example = self._examples.pop(0)
                return torch.empty(BATCH, *example.shape[1:], dtype=example.dtype, device="meta")
            case "call_module" if str(node.target) in self._leaves:
                results = self._leaves[str(node.target)]
                return _outlined(results.pop(0) if len(results) > 1 else results[0])
            case "call_module":
                return _outline(self.root.get_submodule(str(node.target)), args, kwargs)
            case "call_function":
                return node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue]
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            case "get_attr":
                value: Any = self.root
                for part in str(node.target).split("."):
                    value = getattr(value, part)
                return _on_meta(value)
        return args[0]


def _outline(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a module returns for meta tensors, computed from shapes alone."""
    if isinstance(module, QuantLayer | NormActivation):
        return module.outline(*args, **kwargs)
    if isinstance(module, nn.RNNBase):
        return _recurrent(module, *args)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return functional_call(module, {name: _on_meta(tensor) for name, tensor in tensors.items()}, args, kwargs)


def _outlined(result: Any) -> Any:
    """The outlines of what a call returned, with the batch of the tracer."""
    if isinstance(result, Tensor):
        return torch.empty(BATCH, *result.shape[1:], dtype=result.dtype, device="meta")
    if isinstance(result, tuple | list):
        return type(result)(_outlined(item) for item in result)
    return {key: _outlined(item) for key, item in result.items()} if isinstance(result, dict) else result


def _recurrent(module: nn.RNNBase, x: Tensor, *_: Any) -> tuple[Tensor, Any]:
    """What a recurrent layer returns: PyTorch would go through all steps, of which there may be a batch."""
    ways = 2 if module.bidirectional else 1
    size = module.proj_size or module.hidden_size
    batch = x.shape[0 if module.batch_first else 1]
    state = x.new_empty(ways * module.num_layers, batch, size)
    cell = x.new_empty(ways * module.num_layers, batch, module.hidden_size)
    return x.new_empty(*x.shape[:-1], ways * size), (state, cell) if isinstance(module, nn.LSTM) else state


def _without_batch(error: Exception) -> str:
    return str(error).replace(str(BATCH), "N")


def _on_meta(value: Any) -> Any:
    """The same with every tensor replaced by its outline."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return type(value)(_on_meta(item) for item in value)
    if isinstance(value, dict):
        return {key: _on_meta(item) for key, item in value.items()}
    return value


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(_holds_tensors(v) for v in value))


def _describe(file: str, number: int) -> str:
    path = Path(file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{number}: {linecache.getline(file, number).strip()}"


def _is_the_networks(file: str) -> bool:
    return not file.startswith(_LIBRARIES) and not file.startswith("<")


def _line(frame: Any) -> str | None:
    """The innermost line of the network's own code, or None where only libraries are between it and the tracer."""
    while frame is not None and frame.f_code is not _Tracer.run.__code__:
        if _is_the_networks(frame.f_code.co_filename):
            return _describe(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def _line_of(error: BaseException) -> str | None:
    """The innermost line of the network's own code in an error's traceback."""
    found, place = None, error.__traceback__
    while place is not None:
        if _is_the_networks(place.tb_frame.f_code.co_filename):
            found = _describe(place.tb_frame.f_code.co_filename, place.tb_lineno)
        place = place.tb_next
    return found


def samples(value: Tensor) -> tuple[int, ...] | None:
    """The shape of one sample of a traced tensor; None unless the batch comes first and nowhere else."""
    first, rest = value.shape[:1], value.shape[1:]
    return tuple(rest) if first == (BATCH,) and math.prod(rest) % BATCH else None
