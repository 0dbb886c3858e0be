"""Reads a traced float network call by call and writes the converted one's calls: which modules, not yet which numbers.

Every call has a rule (`maqd.convert.rules`). A normalization or an activation function is not written at once but kept
pending; a quantizer that applies it is made where its result is read, with the states that the reader wants: few for
weighted layers, many for additions. A call without a rule stays in float and is reported.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from maqd.convert.inputs import Entry, EntryNumbers
from maqd.convert.values import Grade, Layer, Norm, Numbers, Scale, Site, Value
from maqd.lowering.calls import CallRules
from maqd.lowering.refusals import Refusal, RefusedCall
from maqd.nn.tracing import Traced, changes_its_input, samples
from maqd.numerics.states import FEW_STATES, States
from maqd.settings.conversion import ConversionConfig
from maqd.settings.quantization import UNCHANGED


class Want(enum.Enum):
    """What a reader does with a tensor."""

    FEW = enum.auto()
    """A weighted layer: the states of activations."""
    MANY = enum.auto()
    """It adds, multiplies or compares: as many states as there are."""
    EXACT = enum.auto()
    """Its values leave the network, or enter a call that stays in float: many states, and the float network's scale."""
    ANY = enum.auto()
    """A normalization or an activation function, which takes accumulators too."""
    PASS = enum.auto()
    """What the readers of its result want."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of a kind of call.

    Args:
        apply: Takes a `Step` and the call's arguments (for a module: its input and itself); returns a `Value`.
        want: What it does with its tensors.
    """

    apply: Callable[..., Any]
    want: Want


Rules = CallRules[Rule]
"""What each kind of call becomes."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of a call, for the report.

    Args:
        call: The float network's call.
        name: Its name.
        becomes: In words.
        plan: The layer that it became, if it has weights.
    """

    call: fx.Node
    name: str
    becomes: str
    plan: Layer | None = None


@dataclass(kw_only=True)
class Plan:
    """The converted network before any number is fitted.

    Args:
        graph: Its calls, whose `meta["line"]` is that of the float network.
        entries, layers, sites: Modules to be made, each in the order of the calls; `order` has all of them.
        modules: Modules that are ready.
        norms: The normalizations that are pending somewhere, by name.
        refusals: Calls that stay in float.
        changes: What became of each call.
        removed: Calls at the very end that were removed, and what they read.
        results: The float network's calls whose results the converted network returns, in order.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    entries: list[Entry] = field(default_factory=list)
    order: list[Layer | Site] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    removed: dict[fx.Node, fx.Node] = field(default_factory=dict)
    results: list[fx.Node] = field(default_factory=list)

    @property
    def layers(self) -> list[Layer]:
        """The weighted layers."""
        return [item for item in self.order if isinstance(item, Layer)]

    @property
    def sites(self) -> list[Site]:
        """The quantizers."""
        return [item for item in self.order if isinstance(item, Site)]


class Rewriter:
    """Plans the conversion of a traced network.

    Args:
        traced: The float network.
        rules: What each kind of call becomes.
        config: States.
        opaque: Modules that could not be traced, with the reason.
        inner: Whether the network is a part of another one, which gives it floats that have a gradient.
    """

    def __init__(
        self,
        traced: Traced,
        rules: Rules,
        config: ConversionConfig,
        *,
        opaque: Mapping[str, Refusal] | None = None,
        inner: bool = False,
    ) -> None:
        self.traced, self.rules, self.config = traced, rules, config
        self.opaque, self.inner = opaque or {}, inner
        self.plan = Plan()
        self.layers: dict[str, Layer] = {}
        self._values: dict[fx.Node, Any] = {}
        self._made: dict[tuple[Value, bool], Value] = {}
        self.names = {name for name, _ in traced.model.named_modules() if name}
        out_of_place(traced)
        self.constants = constants(traced)
        self.taken = {str(call.target) for call in traced.model.graph.nodes if self._keeps_name(call)}
        self.wants = self._find_wants()

    def run(self) -> Plan:
        """Walks through all calls."""
        for call in self.traced.model.graph.nodes:
            name = self.traced.names.get(call) or str(call.name)
            step = Step(rewriter=self, call=call, name=name)
            self._values[call] = self._rewrite(step)
        return self.plan

    def _keeps_name(self, call: fx.Node) -> bool:
        """Whether a call's module has a successor of its name, which no quantizer may take."""
        rule = self.rule_of(call)
        return call.op == "call_module" and (rule is None or rule.want is Want.FEW)

    def rule_of(self, call: fx.Node) -> Rule | None:
        """The rule for a call."""
        if call.op == "call_module" and str(call.target) in self.opaque:
            return None
        if call.op == "call_module":
            return self.rules.modules.get(type(self.traced.model.get_submodule(str(call.target))))
        return self.rules.functions.get(call.target) if call.op in ("call_function", "call_method") else None

    def free(self, name: str) -> str:
        """A module's name that is not taken, from one that may be."""
        name = name.replace("#", "_")
        base, number = name, 1
        while name in self.taken or any(other.startswith(f"{name}.") for other in self.taken):
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def write(self, call: fx.Node, kind: str, target: Any, args: tuple[Any, ...], kwargs: Any = None) -> fx.Node:
        """A call of the converted network."""
        node = self.plan.graph.create_node(kind, target, args, kwargs or {})
        node.meta["line"], node.meta["float"] = call.meta.get("line"), call
        return node

    def _find_wants(self) -> dict[fx.Node, set[Want]]:
        """What the readers of each tensor do with it."""
        wants: dict[fx.Node, set[Want]] = {}
        for call in reversed(self.traced.model.graph.nodes):
            found: set[Want] = set()
            for user in call.users:
                rule = self.rule_of(user)
                if user not in self.traced.names and user.op != "output":
                    continue  # it reads the size
                want = Want.EXACT if rule is None else rule.want
                if want is Want.ANY and sum(read not in self.constants for read in tensors(user)) > 1:
                    want = Want.MANY  # an operation of two tensors, not of one and a constant
                found |= wants[user] if want is Want.PASS else {want}
            wants[call] = found
        return wants

    def _rewrite(self, step: "Step") -> Any:
        call = step.call
        traced = call.meta.get("value")
        if call.op == "placeholder":
            return step.enter(traced) if isinstance(traced, Tensor) else self._copy(step)
        if call.op == "output":
            return self._leave(step)
        if call not in self.traced.names:
            return self._copy(step)
        if call.op == "get_attr":
            return self.constant(call)
        if call in self.constants:
            return self.computed(call)
        rule = self.rule_of(call)
        try:
            if call.op == "call_module" and (known := self.opaque.get(str(call.target))) is not None:
                step = replace(step, line=known.line)
                raise RefusedCall(known.reason, known.remedy)
            if rule is None:
                raise RefusedCall(*why_not(self.traced, call))
            args = [self.argument(argument) for argument in call.args]
            kwargs = {key: self.argument(argument) for key, argument in call.kwargs.items()}
            if "input" in kwargs:
                args.insert(0, kwargs.pop("input"))
            if call.op == "call_module":
                if len(args) != 1 or kwargs or not isinstance(args[0], Value):
                    step.refuse("it is not called with one tensor", "call it with one tensor")
                args.append(self.traced.model.get_submodule(str(call.target)))
            return rule.apply(step, *args, **kwargs)
        except RefusedCall as error:
            self._report(step, error.reason, error.remedy)
            return self._stay(step)

    def argument(self, argument: Any) -> Any:
        """An argument of a call: `Value` for a tensor; calls that return sizes as calls of the converted network."""
        return map_arg(argument, lambda node: self._values[node])

    def activation_states(self, name: str) -> int:
        """M_a of the quantizer of a float network's module, after overrides."""
        states = self.config.activations
        for override in self.config.overrides:
            if override.act_states not in (UNCHANGED, None) and fnmatchcase(name, override.pattern):
                states = override.act_states
        return states

    def constant(self, call: fx.Node) -> Any:
        """A tensor of the module itself."""
        found: Any = self.traced.model
        for part in str(call.target).split("."):
            found = getattr(found, part)
        return found

    def computed(self, call: fx.Node) -> Any:
        """What a call makes of tensors of the module itself, as it is now."""
        args, kwargs = self.argument(call.args), self.argument(call.kwargs)
        with torch.no_grad():
            if isinstance(call.target, str):
                return getattr(args[0], call.target)(*args[1:], **kwargs)
            return call.target(*args, **kwargs)

    def _report(self, step: "Step", reason: str, remedy: str) -> None:
        line = step.line or step.call.meta.get("line")
        self.plan.refusals.append(Refusal(module=step.name, line=line, reason=reason, remedy=remedy))
        self.plan.changes.append(Change(call=step.call, name=step.name, becomes="float"))

    def written(self, call: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, which read tensors for their sizes alone."""

        def node(found: fx.Node) -> Any:
            value = self._values[found]
            return value.node if isinstance(value, Value) else value

        return map_arg((call.args, call.kwargs), node)

    def _nodes(self, step: "Step", argument: Any) -> Any:
        """The arguments of a call that is written as it is."""

        def node(found: fx.Node) -> Any:
            value = self._values[found]
            return step.quantized(value, Want.EXACT).node if isinstance(value, Value) else value

        return map_arg(argument, node)

    def _copy(self, step: "Step") -> fx.Node:
        """A call that returns no tensor."""
        call = step.call
        args, kwargs = self.written(call)
        return self.write(call, call.op, call.target, args, kwargs)

    def _stay(self, step: "Step") -> Any:
        """A call that stays in float."""
        call = step.call
        args, kwargs = self._nodes(step, call.args), self._nodes(step, call.kwargs)
        target = call.target
        if call.op == "call_module":
            target = self._keep(str(target))
        node = self.write(call, call.op, target, args, kwargs)
        return self.floats(call, call.meta["value"], node, step.name)

    def floats(self, call: fx.Node, value: Any, node: fx.Node, name: str) -> Any:
        """What is known of tensors that stay in float."""
        if isinstance(value, Tensor):
            shape = samples(value) or tuple(value.shape[1:])
            return Value(
                node=node, float_node=call, grade=Grade.FLOAT, numbers=partial(unchanged_numbers, None), shape=shape,
                name=name, magnitude=0,
            )  # fmt: skip
        return node

    def _keep(self, name: str) -> str:
        """A module of the float network that is used as it is."""
        if name not in self.plan.modules:
            self.taken.add(name)
            self.plan.modules[name] = self.traced.model.get_submodule(name)
        return name

    def _leave(self, step: "Step") -> fx.Node:
        result = step.call.args[0]

        def node(found: fx.Node) -> Any:
            value = self._values[found]
            if not isinstance(value, Value):
                return value
            value = step.quantized(value, Want.EXACT)
            self.plan.results.append(self.plan.removed.get(found, found))
            return value.node

        return self.plan.graph.output(map_arg(result, node))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of the float network, as its rule sees it.

    Args:
        rewriter: What was written so far.
        call: The call; `call.meta["value"]` is what it returned while tracing.
        name: Its name.
        line: Its line of code, where it is not the call's.
    """

    rewriter: Rewriter
    call: fx.Node
    name: str
    line: str | None = None

    @property
    def plan(self) -> Plan:
        """What was written so far."""
        return self.rewriter.plan

    @property
    def config(self) -> ConversionConfig:
        """States."""
        return self.rewriter.config

    @property
    def wants(self) -> set[Want]:
        """What the readers of the result do with it."""
        return self.rewriter.wants[self.call]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of the result."""
        shape = samples(self.call.meta["value"])
        if shape is None:
            self.refuse("it moves the batch, or mixes it with other dimensions", "keep samples apart in dimension 0")
        return shape

    def refuse(self, reason: str, remedy: str) -> NoReturn:
        """This call stays in float."""
        raise RefusedCall(reason, remedy)

    def tensor(self, value: Any) -> Value:
        """An argument that must be a tensor."""
        if not isinstance(value, Value):
            self.refuse(f"it takes {value!r}, which is no tensor of the network", "use tensors of the network only")
        return value

    def scale_of(self, value: Value) -> Scale:
        """The scale of codes."""
        if value.scale is None:
            self.refuse("an operand has no scale", "put an activation before it")
        return value.scale

    def became(self, text: str, layer: Layer | None = None) -> None:
        """Notes for the report what the call became."""
        self.plan.changes.append(Change(call=self.call, name=self.name, becomes=text, plan=layer))

    def call_module(self, name: str, x: Value) -> fx.Node:
        """Writes the call of a module with one tensor."""
        return self.rewriter.write(self.call, "call_module", name, (x.node,))

    def call_function(self, function: Any, args: tuple[Any, ...], kwargs: Any = None) -> fx.Node:
        """Writes the call of a function."""
        return self.rewriter.write(self.call, "call_function", function, args, kwargs)

    def add_module(self, module: nn.Module) -> str:
        """A module that is ready, in the place of the call's own or named after the function."""
        name = str(self.call.target) if self.call.op == "call_module" else self.name
        if self.call.op == "call_module" and name in self.plan.modules:
            return name
        name = self.rewriter.free(name)
        self.plan.modules[name] = module
        return name

    def enter(self, example: Tensor) -> Value:
        """A parameter of `forward`."""
        key = str(self.call.target)
        if self.rewriter.inner:
            self.became("float")
            node = self.rewriter.write(self.call, "placeholder", key, tuple(self.call.args))
            return self.rewriter.floats(self.call, example, node, self.rewriter.free(f"{key}_input"))
        others = [node for node in self.call.graph.nodes if node.op == "placeholder"]
        single = sum(isinstance(node.meta.get("value"), Tensor) for node in others) == 1
        shape = tuple(example.shape[1:])
        name = "input" if single else f"input_{key}"
        while name in self.rewriter.names:  # a module of the float network
            name += "_"
        entry = Entry(name=self.rewriter.free(name), call=self.call)
        placeholder = self.rewriter.write(self.call, "placeholder", key, tuple(self.call.args))
        node = self.rewriter.write(self.call, "call_module", entry.name, (placeholder,))
        self.plan.entries.append(entry)
        self.became("IntegerInput")
        one = torch.ones(1, dtype=torch.float64)
        return Value(
            node=node, float_node=self.call, grade=Grade.INPUT, shape=shape, name=entry.name, magnitude=255,
            numbers=EntryNumbers(entry=entry, k=one, t=torch.zeros_like(one)),
        )  # fmt: skip

    def passed(self, value: Value) -> Value:
        """A tensor as an operation reads it that moves values only: as codes, unless accumulators may pass too."""
        if not value.pending and (self.wants <= {Want.ANY} or value.grade is Grade.INPUT):
            return value
        many = bool(self.wants & {Want.MANY, Want.EXACT})
        return self.quantized(value, Want.MANY if many else Want.FEW)

    def quantized(self, value: Value, want: Want) -> Value:
        """A tensor with nothing pending, as a reader wants it."""
        few = want is Want.FEW
        if not value.pending:
            if value.grade is Grade.INPUT and few:
                return value
            if value.grade is Grade.FLOAT and want is Want.EXACT:
                return value
            if value.grade is Grade.SUM and not few:
                return self._exact(value, want)
            if value.grade is Grade.CODES and not (few and value.wide):
                return self._exact(value, want)
            if value.grade is Grade.ACCUMULATOR and value.scale is not None and want is Want.EXACT:
                return value  # a head's
        made = self.rewriter._made
        if (value, few) not in made:
            made[value, few] = self._quantizer(value, few=few)
        return self._exact(made[value, few], want)

    def _exact(self, value: Value, want: Want) -> Value:
        if want is not Want.EXACT or value.scale is None or value.scale.fix(1 / value.factor):
            return value
        return self._exact(self.quantizer(value, self.states(value, few=False)), want)

    def states(self, value: Value, *, few: bool) -> States:
        """Of a new quantizer."""
        act = value.activation
        signed = act.signed if act is not None else value.signed or value.norm is not None
        count = self.config.stream_states
        chosen = few and (act is not None or value.wide)
        if few:  # what layers read stays in a byte
            count = min(count, FEW_STATES)
        if chosen:
            count = self.rewriter.activation_states(value.name)
        if act is not None:
            count = min(count, act.most if act.curve is None else min(act.most, FEW_STATES))
        if signed and count % 2 == 0 and (not chosen or count >= MANY_STATES):
            count -= 1
        return States(count=count, signed=signed)

    def _quantizer(self, value: Value, *, few: bool) -> Value:
        other = self.rewriter._made.get((value, not few))
        states = self.states(value, few=few)
        if other is not None and states == self.states(value, few=not few):
            return other
        return self.quantizer(value, states, wide=not few and value.activation is not None)

    def quantizer(self, value: Value, states: States, *, wide: bool = False) -> Value:
        """Writes a quantizer that applies what is pending."""
        base = value.norm or (value.name if value.activation is not None else f"{value.name}_quant")
        name = self.rewriter.free(base)
        site = Site(name=name, source=value, states=states, scale=Scale())
        site.scale.sites.append(site)
        self.plan.order.append(site)
        node = self.call_module(name, value)
        if wide and self.rewriter.activation_states(value.name) >= states.count:
            wide = False
        return replace(
            value, node=node, grade=Grade.CODES, numbers=site.code_numbers, scale=site.scale, factor=1.0,
            magnitude=states.magnitude, signed=states.signed, wide=wide, norm=None, activation=None,
            name=name, applied=None, float_node=value.applied or value.float_node,
        )  # fmt: skip


MANY_STATES = 32
"""From this number of states on, one state fewer is a fair price for a state at zero."""


def unchanged_numbers(grid: Any) -> Numbers:
    """Those of a tensor that is the float one."""
    one = torch.ones(1, dtype=torch.float64)
    return Numbers(a=one, b=torch.zeros_like(one), grid=grid)


def tensors(call: fx.Node) -> list[fx.Node]:
    """The tensors that a call reads."""
    return [read for read in call.all_input_nodes if isinstance(read.meta.get("value"), Tensor)]


def constants(traced: Traced) -> set[fx.Node]:
    """Tensors of the module itself, and what functions make of them alone."""
    found: set[fx.Node] = set()
    for call in traced.model.graph.nodes:
        reads = call.all_input_nodes
        made = call.op in ("call_function", "call_method") and reads and all(read in found for read in reads)
        if call.op == "get_attr" or made:
            found.add(call)
    return found


def out_of_place(traced: Traced) -> None:
    """Lets what reads a tensor after a call changed it in place read that call's result, so that nothing depends on
    memory.
    """
    calls = list(traced.model.graph.nodes)
    order = {call: place for place, call in enumerate(calls)}
    for call in calls:
        if call in traced.names and call.all_input_nodes and changes_its_input(traced.model, call):
            changed = call.all_input_nodes[0]
            changed.replace_all_uses_with(call, delete_user_cb=lambda user, call=call: order[user] > order[call])


def why_not(traced: Traced, call: fx.Node) -> tuple[str, str]:
    """Reason and remedy for a call without a rule."""
    if call.op == "get_attr":
        return "a tensor of the module itself is used", "use layers for all parameters"
    if call.op == "call_module":
        kind = type(traced.model.get_submodule(str(call.target)))
        for family, (reason, remedy) in UNSUPPORTED.items():
            if issubclass(kind, family):
                return f"{kind.__name__} {reason}", remedy
        return f"{kind.__name__} has no quantized meaning", OPERATIONS
    what = call.target if isinstance(call.target, str) else getattr(call.target, "__name__", call.target)
    return f"{what} has no quantized meaning", OPERATIONS


OPERATIONS = (
    "use convolutions, linear layers, batch normalizations, activations, pooling, x + y, torch.cat and reshapes"
)
"""A remedy where there is none in particular."""

UNSUPPORTED: dict[type[nn.Module], tuple[str, str]] = {
    nn.modules.instancenorm._InstanceNorm: ("takes its statistics from each sample at inference", "use BatchNorm"),
    nn.RNNBase: ("has no integer form", "use a convolution over time"),
    nn.MultiheadAttention: ("has no integer form", "use convolutions"),
    nn.Softmax: ("stands inside the network", "keep it at the very end, where it is not needed, or use a gate"),
    nn.modules.batchnorm._BatchNorm: ("has no rule", "use BatchNorm1d, BatchNorm2d or BatchNorm3d"),
    nn.modules.conv._ConvNd: ("has no layer of few states", "use the classes of torch.nn themselves"),
    nn.Embedding: ("has no integer form", "feed its vectors to the network"),
}
"""Layers that cannot be converted, by class, with the reason and the remedy."""
