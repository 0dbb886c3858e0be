"""From a MaQD network to its integer graph.

The network is traced (torch.fx) with the layers of `maqd.nn` as leaves. Whatever would not give the same integers is
refused: with the layer's name, the reason and a remedy. Every activation is proved (`maqd.graph.proof`).
"""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from maqd.errors import DataError, LoweringError, MaqdError
from maqd.graph import (
    Add,
    Concat,
    Conv,
    Flatten,
    GlobalSum,
    Graph,
    Input,
    Linear,
    Logits,
    MaxPool,
    Node,
    SumPool,
    TensorType,
    channel_interval,
)
from maqd.graph.interpreter import check_images
from maqd.graph.proof import ActivationReport, Candidate, Evaluated, candidate
from maqd.nn import (
    GlobalSumPool,
    IntegerInput,
    MaxPool2d,
    NormActivation,
    Normalization,
    QuantActivation,
    QuantConv1d,
    QuantConv2d,
    QuantLinear,
)
from maqd.nn.norm import FoldableNorm
from maqd.numerics.fixedpoint import AffineForm, activation_cuts
from maqd.numerics.limits import EXACT_LIMIT, SAFE_EXPONENT
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import power_of_two_exponent


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A lowered network.

    Args:
        graph: The integer graph.
        activations: The proof of each of its activations.
    """

    graph: Graph
    activations: tuple[ActivationReport, ...]


Progress = Callable[[str, int, int], None]
"""Called with an activation's name, its number and their count before it is proved."""


def lower(
    model: nn.Module,
    example: Tensor,
    *,
    affine: AffineForm = AffineForm.AUTO,
    labels: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Lowered:
    """The integer graph of a network's evaluation, every activation proved.

    Args:
        model: Layers of `maqd.nn`, max and average pooling, additions, concatenations and flattenings; one input.
        example: uint8, N x C x ...: sets the shape of an input. The values do not matter.
        affine: Form of the activations.
        labels: Names of the classes.
        progress: Told how far the proof is.

    Raises:
        LoweringError: Something has no exact integer form; the message names the layer, the reason and the remedy.
        DataError: `example` is no batch of uint8 samples.
    """
    if example.dtype != torch.uint8 or example.ndim < 2:
        raise DataError(
            f"lowering needs a uint8 batch to know the shape of an input, got {example.dtype} {tuple(example.shape)}"
        )
    builder = _Builder(model, tuple(example.shape[1:]), affine)
    with torch.no_grad():
        graph = builder.build(labels)
    reports = []
    for place, step in enumerate(builder.candidates):
        if progress is not None:
            progress(step.node.name, place, len(builder.candidates))
        report = step.prove()
        if report.mismatches:
            raise LoweringError(
                f"{report.name}: its integer form differs from the network in {report.mismatches} of {report.checked} "
                "values; this is a bug of maqd, please report it with the network"
            )
        reports.append(report)
    return Lowered(graph=graph, activations=tuple(reports))


# ---- tracing --------------------------------------------------------------------------------------------------------

_LEAVES = (
    IntegerInput, QuantConv1d, QuantConv2d, QuantLinear, NormActivation, QuantActivation, Normalization, MaxPool2d,
    GlobalSumPool,
)  # fmt: skip


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Traced:
    """A network as a sequence of calls.

    Args:
        model: The network, referring to the layers of the original.
        names: The calls whose results are used, in order, and the name of each: that of its module in the network,
            or of a function, behind the name of the module that calls it.
    """

    model: fx.GraphModule
    names: dict[fx.Node, str]


def trace(model: nn.Module) -> Traced:
    """The calls of a network.

    Raises:
        LoweringError: The course of its `forward` depends on the data.
    """
    try:
        calls = _Tracer().trace(model)
    except Exception as error:  # whatever the network's own code raises when it is given no real tensor
        raise LoweringError(
            f"{type(model).__name__} cannot be traced: {error}; lowering needs a forward() whose course does not "
            "depend on the data"
        ) from error
    module = fx.GraphModule(model, calls)  # refers to the layers of the network: nothing is copied
    module.graph.eliminate_dead_code()
    names: dict[fx.Node, str] = {}
    taken: set[str] = set()
    for node in module.graph.nodes:
        plain = name = _name(node)
        number = 1
        while name in taken:  # a module or function that is called again
            number += 1
            name = f"{plain}#{number}"
        taken.add(name)
        names[node] = name
    return Traced(module, names)


def _name(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    if node.op not in ("call_function", "call_method"):
        return node.name
    function = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    inside = list(node.meta.get("nn_module_stack", {}).values())
    return ".".join(part for part in (inside[-1][0] if inside else "", function.strip("_")) if part)


class TorchEngine:
    """The network itself in evaluation mode, call by call, as integers: to compare engines with.

    Args:
        model: The network that was lowered; it is switched to evaluation.
        graph: Its graph.
    """

    name = "pytorch"

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.graph = graph
        self.traced = trace(model.eval())
        self.device = next((value.device for value in model.parameters()), torch.device("cpu"))

    def layers(self, images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Every tensor of the graph that the network computes.

        Args:
            images: uint8, N x the input's shape.

        Yields:
            Name and codes, int64, N x the tensor's shape.

        Raises:
            EngineError: The images have another type or shape.
            LoweringError: A value is no multiple of its tensor's unit: this is not the network that was lowered.
        """
        check_images(self.graph, images)
        types = self.graph.types
        interpreter = fx.Interpreter(self.traced.model, garbage_collect_values=False)
        with torch.no_grad():
            result = interpreter.run(torch.from_numpy(images).to(self.device))
            for node, name in self.traced.names.items():
                if name in types and node.op != "output":
                    yield name, _codes(name, interpreter.env[node], types[name])
        logits = self.graph.logits.name
        yield logits, _codes(logits, result, types[logits])


def _codes(name: str, value: Tensor, kind: TensorType) -> NDArray[np.int64]:
    scaled = np.ldexp(value.cpu().double().numpy(), -kind.exponent)
    codes = scaled.astype(np.int64)
    if not np.array_equal(codes, scaled) or codes[0].size != kind.size:
        raise LoweringError(
            f"{name}: PyTorch computes {tuple(value.shape)} values that are not multiples of 2^{kind.exponent} of "
            f"shape {kind.shape}; compare with the network that was lowered"
        )
    return codes.reshape(len(codes), *kind.shape)


# ---- building -------------------------------------------------------------------------------------------------------


class _Builder:
    """Grows the graph, call by call.

    Args:
        model: The network.
        shape: Of one input.
        affine: Form of the activations.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...], affine: AffineForm) -> None:
        self.traced = trace(model)
        self.shape = shape
        self.affine = affine
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.candidates: list[Candidate] = []
        self.results: dict[fx.Node, str] = {}
        """The graph's node behind each call; raw pixels have none."""

    def build(self, labels: tuple[str, ...]) -> Graph:
        """The graph of all calls."""
        for call, name in self.traced.names.items():
            try:
                self._add(call, name, labels)
            except LoweringError:
                raise
            except MaqdError as error:
                raise LoweringError(f"{name}: {error}") from error
        graph = Graph(nodes=tuple(self.nodes))
        graph.validate()
        return graph

    def _add(self, call: fx.Node, name: str, labels: tuple[str, ...]) -> None:
        match call.op:
            case "placeholder":
                if call.prev.op == "placeholder":
                    _refuse(name, "a graph has one input", "lower a module whose forward() takes one tensor")
            case "call_module":
                self._module(call, name, self.traced.model.get_submodule(str(call.target)))
            case "call_function" | "call_method":
                self._function(call, name)
            case "output":
                (result,) = call.args
                if not isinstance(result, fx.Node):
                    _refuse(name, f"the network must return one tensor, got {result}", "return the logits alone")
                self._put(call, Logits(name=self._free("logits"), inputs=(self._source(result, name),), labels=labels))
            case _:
                _refuse(name, "a tensor of the module itself is used", "use the layers of maqd.nn for all parameters")

    def _free(self, name: str) -> str:
        while name in self.types:
            name += "_"
        return name

    def _source(self, argument: object, name: str) -> str:
        """The graph's node behind an argument of a call."""
        if not isinstance(argument, fx.Node):
            _refuse(name, f"it takes {argument!r}, which is no tensor of the network", "use tensors only")
        if argument not in self.results:
            _refuse(name, "it takes the raw pixels", "put maqd.nn.IntegerInput first")
        return self.results[argument]

    def _put(self, call: fx.Node, node: Node) -> None:
        kind = node.infer(*(self.types[source] for source in node.inputs))
        low, high = kind.interval.lowest, kind.interval.highest
        if max(-low, high) >= EXACT_LIMIT:
            _refuse(
                node.name,
                f"its integers can reach {low} .. {high}, and float32, in which PyTorch evaluates, is exact below 2^24",
                "use fewer states, a smaller fan-in or fewer summands",
            )
        if abs(kind.exponent) > SAFE_EXPONENT:
            _refuse(
                node.name,
                f"its unit is 2^{kind.exponent}, beyond 2^+-{SAFE_EXPONENT}",
                "put an activation between the layers before it",
            )
        self.nodes.append(node)
        self.types[node.name] = kind
        self.results[call] = node.name

    # ---- modules ----

    def _module(self, call: fx.Node, name: str, module: Any) -> None:
        if len(call.all_input_nodes) != 1 or len(call.args) != 1 or call.kwargs:
            _refuse(name, f"{type(module).__name__} must be called with one tensor", "call it with one tensor")
        known = type(module)  # a subclass may do anything
        if known is IntegerInput:
            if call.all_input_nodes[0] in self.results:
                _refuse(name, "an input layer takes the raw pixels", "use one IntegerInput, first")
            self._put(call, Input(name=name, inputs=(), shape=self.shape, exponent=IntegerInput.grid.exponent))
            return
        source = self._source(call.args[0], name)
        if known in (QuantConv1d, QuantConv2d, QuantLinear):
            self._weighted(call, name, source, module)
        elif known is NormActivation or known is QuantActivation:
            self._activation(call, name, source, module)
        elif known in (MaxPool2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d):
            self._pool(call, name, source, module)
        elif known is GlobalSumPool:
            self._put(call, GlobalSum(name=name, inputs=(source,), shift=module.shift))
        elif known in (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d):
            self._adaptive(call, name, source, module)
        elif known is nn.Flatten:
            self._flatten(call, name, source, module.start_dim, module.end_dim)
        elif isinstance(module, nn.Identity | nn.Dropout | nn.Dropout1d | nn.Dropout2d):
            self.results[call] = source
        else:
            _refuse(name, *_why_not(module))

    def _weighted(self, call: fx.Node, name: str, source: str, module: Any) -> None:
        if module.states is None:
            _refuse(name, "its weights are in float", "give it states and train again")
        module.fold()
        weight = PackedCodes.pack(module.weight_codes().numpy(), module.states)
        exponent = module.exponent
        bias = None
        if module.bias is not None:
            units = np.ldexp(module.eval_bias.cpu().double().numpy(), -(self.types[source].exponent + exponent))
            bias = units.astype(np.int32)
            if not np.array_equal(bias, units):
                _refuse(
                    name,
                    "its bias is not on the grid of its accumulator",
                    "build the layer with the input_grid that its input has",
                )
        common = {"name": name, "inputs": (source,), "weight": weight, "exponent": exponent, "bias": bias}
        if isinstance(module, QuantLinear):
            self._put(call, Linear(**common))
            return
        geometry = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
        self._put(call, Conv(**common, **geometry, groups=module.groups))

    def _activation(self, call: fx.Node, name: str, source: str, module: NormActivation | QuantActivation) -> None:
        quantizer = module.quantizer
        if quantizer is None:
            _refuse(name, "it is a ReLU in float", "give it a quantizer and train again")
        kind = self.types[source]
        if isinstance(module, QuantActivation):
            axis, channels = 0, kind.shape[0]
            cuts = activation_cuts(quantizer.states, quantizer.step).astype(np.float32)
            thresholds, signs = np.repeat(cuts[:, None], channels, 1), np.ones(channels, np.float32)
            gain, mean, bias = np.ones(channels), np.zeros(channels), np.zeros(channels)
        else:
            norm = module.norm
            if not isinstance(norm, FoldableNorm):
                _refuse(
                    name,
                    f"{type(norm).__name__} takes its statistics from each sample at inference and cannot be folded",
                    "train with LayerBatchNorm or BatchNorm",
                )
            axis = norm.channel_dim - 1 if norm.channel_dim > 0 else len(kind.shape) + norm.channel_dim
            if not 0 <= axis < len(kind.shape) or kind.shape[axis] != norm.num_features:
                _refuse(
                    name,
                    f"its normalization has {norm.num_features} channels in dimension {norm.channel_dim} and is given "
                    f"samples of shape {kind.shape}",
                    "give it as many channels",
                )
            module.fold()
            thresholds, signs = module.thresholds.cpu().numpy(), module.signs.cpu().numpy()
            gain, mean, bias = norm.affine_map()
        evaluated = Evaluated(
            states=quantizer.states,
            step_exponent=power_of_two_exponent(quantizer.step, "the activation step"),
            thresholds=thresholds,
            signs=signs,
            exponent=kind.exponent,
            interval=channel_interval(kind, axis),
            scale=gain / quantizer.step * math.ldexp(1.0, kind.exponent),
            offset=(bias - gain * mean) / quantizer.step + quantizer.states.origin + 0.5,
        )
        found = candidate(name, source, axis, evaluated, self.affine)
        if found is None:
            _refuse(
                name,
                "no fixed-point map whose products fit 64 bits equals it on every accumulator value",
                "lower with thresholds (auto chooses them where needed)",
            )
        self.candidates.append(found)
        self._put(call, found.node)

    def _pool(self, call: fx.Node, name: str, source: str, module: Any) -> None:
        rank = len(self.types[source].shape) - 1
        kernel = _each(module.kernel_size, rank)
        window = {
            "name": name,
            "inputs": (source,),
            "kernel": kernel,
            "stride": _each(module.stride, rank),
            "padding": _each(module.padding, rank),
        }
        if getattr(module, "ceil_mode", False) or set(_each(getattr(module, "dilation", 1), rank)) != {1}:
            _refuse(name, "it pools with ceil_mode or dilation", "pool without them")
        if getattr(module, "return_indices", False):
            _refuse(name, "it returns indices", "pool without return_indices")
        if isinstance(module, MaxPool2d | nn.MaxPool1d | nn.MaxPool2d):
            self._put(call, MaxPool(**window))
            return
        divisor = getattr(module, "divisor_override", None) or math.prod(kernel)
        if any(window["padding"]) and not module.count_include_pad:
            _refuse(name, "its divisor depends on the position", "pool with count_include_pad=True")
        self._put(call, SumPool(**window, shift=_shift(name, divisor)))

    def _adaptive(self, call: fx.Node, name: str, source: str, module: Any) -> None:
        space = self.types[source].shape[1:]
        if set(_each(module.output_size, len(space))) != {1}:
            _refuse(name, f"its windows for an output of {module.output_size} may differ", "pool to one position")
        shift = _shift(name, math.prod(space))
        nothing = (0,) * len(space)
        self._put(call, SumPool(name=name, inputs=(source,), kernel=space, stride=space, padding=nothing, shift=shift))

    # ---- functions and methods ----

    def _function(self, call: fx.Node, name: str) -> None:
        arguments, options = list(call.args), dict(call.kwargs)
        if call.target in (operator.add, operator.iadd, torch.add, "add", "add_") and len(arguments) == 2:
            if options.get("alpha", 1) != 1:
                _refuse(name, f"it scales a summand by {options['alpha']}", "add without alpha")
            sources = tuple(self._source(argument, name) for argument in arguments)
            self._put(call, Add(name=name, inputs=sources, shifts=self._shifts(name, sources)))
        elif call.target in (torch.cat, torch.concat, torch.concatenate):
            tensors: Any = arguments.pop(0) if arguments else options["tensors"]
            sources = tuple(self._source(tensor, name) for tensor in tensors)
            axis = self._axis(name, sources[0], arguments[0] if arguments else options.get("dim", 0))
            self._put(call, Concat(name=name, inputs=sources, axis=axis, shifts=self._shifts(name, sources)))
        elif call.target in (torch.flatten, "flatten"):
            start, end = (*arguments[1:], *(None, None))[:2]
            start = options.get("start_dim", 0) if start is None else start
            end = options.get("end_dim", -1) if end is None else end
            self._flatten(call, name, self._source(arguments[0], name), start, end)
        else:
            what = call.target if isinstance(call.target, str) else getattr(call.target, "__name__", call.target)
            _refuse(
                name,
                f"{what} with {len(arguments)} arguments is no operation of the integer graph",
                "use the layers of maqd.nn, pooling layers, x + y, torch.cat and flatten(1)",
            )

    def _shifts(self, name: str, sources: tuple[str, ...]) -> tuple[int, ...]:
        """How far each tensor is shifted left to reach the smallest unit."""
        exponents = [self.types[source].exponent for source in sources]
        shifts = tuple(exponent - min(exponents) for exponent in exponents)
        if max(shifts) > 31:
            _refuse(name, f"its units are up to 2^{max(shifts)} apart", "bring them closer with the layers' gains")
        return shifts

    def _axis(self, name: str, source: str, dimension: object) -> int:
        """A dimension of the batch as one of a sample."""
        rank = len(self.types[source].shape) + 1
        if not isinstance(dimension, int) or not -rank <= dimension < rank or dimension % rank == 0:
            _refuse(name, f"it works along dimension {dimension} of {rank}", "work along a dimension of the sample")
        return dimension % rank - 1

    def _flatten(self, call: fx.Node, name: str, source: str, start: object, end: object) -> None:
        rank = len(self.types[source].shape) + 1
        if start != 1 or end not in (-1, rank - 1):
            _refuse(name, f"it flattens dimensions {start} to {end}", "flatten samples whole, with flatten(1)")
        if rank == 2:
            self.results[call] = source
        else:
            self._put(call, Flatten(name=name, inputs=(source,)))


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * rank
    return values


def _shift(name: str, positions: int) -> int:
    """log2 of the divisor of an average."""
    if positions & (positions - 1):
        _refuse(
            name,
            f"an average over {positions} positions is no integer times a power of two",
            "use GlobalSumPool, or a window of 2, 4, 8, .. positions",
        )
    return positions.bit_length() - 1


def _why_not(module: nn.Module) -> tuple[str, str]:
    """Reason and remedy for a layer that has no integer form."""
    kind = type(module).__name__
    if isinstance(module, Normalization) or "Norm" in kind:
        return (
            f"{kind} alone leaves a float behind it",
            "put it inside of NormActivation, which evaluates in integers",
        )
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        return f"{kind} has float weights", "use QuantConv1d, QuantConv2d or QuantLinear"
    if isinstance(module, _LEAVES):
        return f"{kind} is a subclass, which may compute anything", "use the class of maqd.nn itself"
    return f"{kind} has no integer form", "use the layers of maqd.nn, pooling layers, x + y, torch.cat and flatten(1)"


def _refuse(name: str, reason: str, remedy: str) -> NoReturn:
    raise LoweringError(f"{name}: {reason}; {remedy}")
