"""Grows an integer graph, call by call.

Every call of the traced network has a rule (`maqd.lowering.rules`) that adds nodes to the graph, or refuses. After a
refusal the walk goes on with a stand-in of the right shape, so that all refusals are found at once; what a rule would
say of the stand-in's numbers is not reported.
"""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from maqd.errors import MaqdError
from maqd.graph import Gather, Graph, Input, Labels, Memory, Metadata, Node, Output, Reshape, TensorType
from maqd.graph.proof import Candidate
from maqd.lowering.calls import CallRules
from maqd.lowering.refusals import OPERATIONS, REMEDIES, Refusal, RefusedCall, why_not
from maqd.nn.tracing import BATCH, Traced, changes_its_input, samples
from maqd.numerics.bounds import Interval
from maqd.numerics.fixedpoint import AffineForm
from maqd.numerics.limits import EXACT_LIMIT, SAFE_EXPONENT
from maqd.numerics.states import Grid


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A parameter of `forward`: data that has not become integers of the network yet.

    Args:
        name: The parameter's name.
        shape: Of one sample.
        dtype: Of the example.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A tensor of the graph.

    Args:
        source: The node that computes it.
        type: Its type.
        known: False after a refusal: then only the shape means anything.
        wide: Whether PyTorch has it in float64.
        divisor: What PyTorch has divided the codes by, with one rounding: averages over another count than 2^n.
    """

    source: str
    type: TensorType
    known: bool = True
    wide: bool = False
    divisor: int = 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of several tensors that a call returns: a slice, which becomes a node where it is used.

    Args:
        source: Of which tensor.
        axis, indices: Dimension of a sample, and which of its elements.
        squeezed: Whether the dimension, which has one element, is taken away.
    """

    source: Codes
    axis: int
    indices: tuple[int, ...]
    squeezed: bool = False


Rule = Callable[..., Any]
"""Takes a `Step` and the call's arguments (for a layer: its input and the layer); returns the call's result."""


Rules = CallRules[Rule]
"""What each kind of call becomes."""


class Builder:
    """The graph of a traced network.

    Args:
        traced: The network.
        rules: What each kind of call becomes.
        affine: Form of the activations.
        sketch: Whether to follow ranges alone, those that hold whatever the weights become in training. There is no
            graph then.
    """

    def __init__(self, traced: Traced, rules: Rules, affine: AffineForm, *, sketch: bool = False) -> None:
        self.traced = traced
        self.rules = rules
        self.affine = affine
        self.sketch = sketch
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.candidates: list[Candidate] = []
        self.refusals: list[Refusal] = []
        self.graph: Graph | None = None
        """What was built; None where calls were refused (`refusals`)."""
        self._after: list[tuple[Output, Memory]] = []
        self._values: dict[fx.Node, Any] = {}
        self._parts: dict[Part, Codes] = {}

    def build(self, labels: tuple[str, ...] = ()) -> None:
        """Walks through all calls."""
        for call in self.traced.model.graph.nodes:
            name = self.traced.names.get(call) or str(call.name)
            step = Step(builder=self, call=call, name=name)
            try:
                self._values[call] = self._lower(step)
            except RefusedCall as refused:
                self._refuse(step, refused.reason, refused.remedy)
            except MaqdError as error:
                self._refuse(step, str(error), "change the layer or what it is given")
        if not self.refusals and not self.sketch:
            inputs = [node for node in self.nodes if isinstance(node, Input)]
            others = [node for node in self.nodes if not isinstance(node, Input)]
            after = [output for output, _ in self._after]
            self.graph = Graph(nodes=(*inputs, *others, *after), metadata=self._metadata(labels))
            self.graph.validate()

    def remember(self, output: Output, memory: Memory) -> None:
        """What goes into the next frame: the output comes after those of the network."""
        self._after.append((output, memory))

    def free(self, name: str) -> str:
        """The name, with underscores after it until no node has it."""
        while name in self.types:
            name += "_"
        return name

    def value(self, argument: Any) -> Any:
        """An argument of a call: `Codes` or `Raw` for a tensor; numbers, also those from shapes, as they are."""
        return map_arg(argument, lambda node: self._values[node])

    def _refuse(self, step: "Step", reason: str, remedy: str) -> None:
        self.refusals.append(Refusal(module=step.name, line=step.call.meta.get("line"), reason=reason, remedy=remedy))
        self._values[step.call] = self.stand_in(step.call.meta.get("value"))

    def stand_in(self, value: Any) -> Any:
        """Something of the right shape in place of a refused call's result."""
        if isinstance(value, Tensor):
            shape = samples(value) or tuple(value.shape[1:])
            kind = TensorType(shape=shape, exponent=0, interval=Interval.of(0, 1, len(shape)))
            return Codes(source="", type=kind, known=False)
        if isinstance(value, tuple | list):
            return type(value)(self.stand_in(item) for item in value)
        return value

    def _lower(self, step: "Step") -> Any:
        call, traced = step.call, step.call.meta.get("value")
        if call.op == "placeholder":
            if not isinstance(traced, Tensor):
                return traced
            return Raw(name=str(call.target), shape=tuple(traced.shape[1:]), dtype=traced.dtype)
        if call.op == "output":
            return self._output(step, self.value(call.args[0]))
        if call not in self.traced.names:
            return traced  # a size, or what was computed from sizes
        if call.op == "get_attr":
            constant = self._constant(call)
            if constant is not None:
                return constant
            step.refuse("a tensor of the module itself is used", "use the layers of maqd.nn for all parameters")
        args, kwargs = list(self.value(call.args)), dict(self.value(call.kwargs))
        _check_in_place(step)
        if call.op == "call_module":
            module: Any = self.traced.model.get_submodule(str(call.target))
            rule = self.rules.modules.get(type(module))
            if rule is None:
                step.refuse(*why_not(module))
            if not getattr(module, "rounding", True):
                step.refuse("it is set not to round", "set its `rounding` and train with it")
            step.require_finite(module)
            args = [self.whole(step, value) for value in (*args, *kwargs.values())]
            if len(args) != 1 or not isinstance(args[0], Codes | Raw):
                step.refuse(f"{type(module).__name__} must be called with one tensor", "call it with one tensor")
            return step.run(rule, args[0], module)
        rule = self.rules.functions.get(call.target)
        what = call.target if isinstance(call.target, str) else getattr(call.target, "__name__", call.target)
        if rule is None:
            step.refuse(
                f"{what} with {len(args)} arguments is no operation of the integer graph",
                REMEDIES.get(str(what), OPERATIONS),
            )
        if "input" in kwargs:
            args.insert(0, kwargs.pop("input"))
        if call.target is not operator.getitem:
            args = [self.whole(step, value) for value in args]
            kwargs = {key: self.whole(step, value) for key, value in kwargs.items()}
        try:
            inspect.signature(rule).bind(step, *args, **kwargs)
        except TypeError as error:
            step.refuse(f"{what} is called with arguments that have no integer form ({error})", "leave them out")
        return step.run(rule, *args, **kwargs)

    def _constant(self, call: fx.Node) -> Tensor | None:
        """A tensor of the module that holds places, as `x[:, self.order]` does; None for any other."""
        value: Any = self.traced.model
        for part in str(call.target).split("."):
            value = getattr(value, part)
        integers = isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32) and not value.is_meta
        return value if integers else None

    def whole(self, step: "Step", value: Any) -> Any:
        """An argument with every part of a tensor as a node of its own."""
        if isinstance(value, tuple | list) and any(isinstance(one, Part) for one in value):
            return [self.whole(step, one) for one in value]
        if not isinstance(value, Part):
            return value
        if value not in self._parts:
            indices = np.array(value.indices, np.int32)
            name = self.free(f"{value.source.source}.part{value.indices[0]}")
            node = Gather(name=name, inputs=(value.source.source,), axis=value.axis, indices=indices)
            found = step.move(node, value.source)
            if value.squeezed:
                shape = found.type.shape[: value.axis] + found.type.shape[value.axis + 1 :]
                element = Reshape(name=self.free(f"{name}.element"), inputs=(name,), shape=shape)
                found = step.move(element, found)
            self._parts[value] = found
        return self._parts[value]

    def _output(self, step: "Step", result: Any) -> None:
        found = named_results(result)
        if not found:
            step.refuse(
                f"the network must return tensors, got {result!r}", "return one tensor, a tuple or a dict of them"
            )
        for key, part in found.items():
            value = self.whole(step, part)
            if not isinstance(value, Codes | Raw):
                step.refuse(f"its result {key!r} is {value!r} and no tensor", "return tensors only")
            source = step.codes(value, divided=True)
            if source.known:
                name = self.free(key)
                step.put(Output(name=name, key=key, inputs=(source.source,), divisor=source.divisor), source)

    def _metadata(self, labels: tuple[str, ...]) -> Metadata:
        memories = tuple(memory for _, memory in self._after)
        if not labels:
            return Metadata(memories=memories)
        outputs = [node for node in self.nodes if isinstance(node, Output)]
        return Metadata(labels=(Labels(output=outputs[0].key, names=labels),), memories=memories)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of the network, as its rule sees it.

    Args:
        builder: The graph so far.
        call: The call; `call.meta["value"]` is what it returned while tracing.
        name: Its name.
    """

    builder: Builder
    call: fx.Node
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of the result.

        Raises:
            RefusedCall: The batch is not the first dimension of the result, or was mixed with others.
        """
        shape = samples(self.call.meta["value"])
        if shape is None:
            self.refuse("it moves the batch, or mixes it with other dimensions", "keep samples apart in dimension 0")
        return shape

    def run(self, rule: Rule, *args: Any, **kwargs: Any) -> Any:
        """The result of a rule."""
        return rule(self, *args, **kwargs)

    def refuse(self, reason: str, remedy: str) -> NoReturn:
        """This call has no exact integer form."""
        raise RefusedCall(reason, remedy)

    def codes(self, value: object, *, divided: bool = False) -> Codes:
        """An argument that must be a tensor of the graph.

        Args:
            value: The argument.
            divided: Whether it may be an average over a number of positions that is no power of two.
        """
        if isinstance(value, Codes):
            if value.divisor > 1 and not divided:
                self.refuse(
                    f"its input is an average over {value.divisor} positions, no integer times a power of two",
                    "put NormActivation or QuantActivation between them, or average over 2, 4, 8, .. positions",
                )
            return value
        if isinstance(value, Raw):
            self.refuse("it takes the raw input", "put maqd.nn.IntegerInput first")
        self.refuse(f"it takes {value!r}, which is no tensor of the network", "use tensors only")

    def require_finite(self, module: nn.Module) -> None:
        """Refuses weights and statistics that are infinite or not a number."""
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and (count := int((~torch.isfinite(tensor)).sum())):
                self.refuse(
                    f"{count} of the {tensor.numel()} values of its {name} are infinite or not a number",
                    "train again, or load a checkpoint from before the values were lost",
                )

    def on_grid(self, grid: Grid, *, known: bool = False) -> Codes:
        """A stand-in whose values are known to lie on a grid; in a sketch it is the result."""
        kind = TensorType(
            shape=self.shape, exponent=grid.exponent, interval=Interval.of(grid.low, grid.high, len(self.shape))
        )
        return Codes(source=self.name, type=kind, known=known)

    def repeat(self, x: Tensor) -> Tensor:
        """What the call returns for another tensor in place of its first one.

        Args:
            x: N x ..., with a small N: sizes that were multiples of the batch are multiples of N.
        """
        call, first = self.call, self.call.all_input_nodes[0]

        def value(node: fx.Node) -> Any:
            found = x if node is first else node.meta["value"]
            return found // BATCH * len(x) if isinstance(found, int) and found % BATCH == 0 else found

        args, kwargs = map_arg((call.args, call.kwargs), value)
        if call.op == "call_module":
            return self.builder.traced.model.get_submodule(str(call.target))(*args, **kwargs)
        if isinstance(call.target, str):
            return getattr(args[0], call.target)(*args[1:], **kwargs)
        return call.target(*args, **kwargs)

    def move(self, node: Node, source: Codes) -> Codes:
        """Adds a node that changes no codes but their places."""
        return replace(self.put(node, source), divisor=source.divisor)

    def put(self, node: Node, *sources: Codes, wide: bool | None = None) -> Codes:
        """Adds a node to the graph; after a refusal among the sources, a stand-in only.

        Args:
            node: The node.
            sources: Its inputs.
            wide: Whether PyTorch computes it in float64; by default, if a source is.
        """
        if not all(source.known for source in sources):
            return self.builder.stand_in(self.call.meta["value"])
        kind = node.infer(*(source.type for source in sources))
        low, high = kind.interval.lowest, kind.interval.highest
        wide = any(source.wide for source in sources) if wide is None else wide
        if self.builder.sketch:
            return Codes(source=node.name, type=kind)
        if kind.interval.magnitude >= EXACT_LIMIT and not wide:
            self.refuse(
                f"its integers can reach {low} .. {high}, and float32, in which PyTorch evaluates, is exact below 2^24",
                "use fewer states, a smaller fan-in or fewer summands",
            )
        if abs(kind.exponent) > SAFE_EXPONENT:
            self.refuse(
                f"its unit is 2^{kind.exponent}, beyond 2^+-{SAFE_EXPONENT}",
                "put an activation between the layers before it",
            )
        self.builder.nodes.append(node)
        self.builder.types[node.name] = kind
        return Codes(source=node.name, type=kind, wide=wide)


def _check_in_place(step: Step) -> None:
    """Refuses a call that changes memory which is read again: the graph has no such thing."""
    call = step.call
    if not changes_its_input(step.builder.traced.model, call):
        return
    order = {node: place for place, node in enumerate(call.graph.nodes)}
    memory = call.all_input_nodes[0].meta["value"].untyped_storage()
    for other in step.builder.traced.names:
        value = other.meta["value"]
        if order[other] >= order[call] or not isinstance(value, Tensor):
            continue
        if value.untyped_storage()._cdata == memory._cdata and any(order[user] > order[call] for user in other.users):
            step.refuse("it changes its input in place, and the input is used again", "use its result, out of place")


def named_results(result: Any, prefix: str = "") -> dict[str, Any]:
    """What a network returns, by name: "output" for one tensor, "output0", "output1" ... for several, the keys of a
    dict; names inside of others are joined with a dot.
    """
    if isinstance(result, dict):
        parts = {str(key): value for key, value in result.items()}
    elif isinstance(result, tuple | list):
        parts = {f"output{place}": value for place, value in enumerate(result)}
    else:
        return {prefix or "output": result}
    return {
        name: value
        for key, part in parts.items()
        for name, value in named_results(part, f"{prefix}.{key}" if prefix else key).items()
    }
