"""ONNX with standard integer operators only: floats at float inputs alone, so no runtime has a rounding to choose.

docs/onnx.md says what is emitted.
"""

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd import __version__
from maqd.errors import ExportError
from maqd.export.onnx.names import with_unique_names
from maqd.graph import (
    Activation,
    Add,
    Aligned,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Node,
    Output,
    Storage,
    SumPool,
    Thresholds,
    Weighted,
)
from maqd.io.files import write_atomically
from maqd.numerics.limits import INT32_LIMIT
from maqd.optional import require


class Profile(enum.Enum):
    """Which ONNX a model needs."""

    COMPATIBLE = "compatible"
    """Opset 21; a byte a weight."""
    COMPACT = "compact"
    """Opset 25; weights of up to 4 states in 2 bits, of up to 16 states in 4."""


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Versions that a model declares."""

    opset: int
    ir: int


VERSIONS = {Profile.COMPATIBLE: Versions(opset=21, ir=10), Profile.COMPACT: Versions(opset=25, ir=13)}
"""Opset 21 came with IR version 10; 2-bit integers came with opset 25 and IR version 13."""

CHUNK = 16
"""Thresholds that are compared at once: the comparisons of all of them are in memory together."""

LOWEST = int(np.iinfo(np.int32).min)


def require_onnx() -> Any:
    """The package onnx.

    Raises:
        MissingDependencyError: It is not installed.
    """
    return require("onnx", "an export to ONNX")


def save_onnx(graph: Graph, path: Path | str, profile: Profile = Profile.COMPATIBLE) -> None:
    """Write an ONNX file; all of it or nothing.

    Raises:
        ExportError: The graph has something that the profile cannot express.
        MissingDependencyError: onnx is not installed.
        OSError: The file cannot be written; one that was there is untouched.
    """
    write_atomically(Path(path), [onnx_model(graph, profile).SerializeToString(deterministic=True)])


def onnx_model(graph: Graph, profile: Profile = Profile.COMPATIBLE, *, layers: bool = False) -> Any:
    """The graph as an `onnx.ModelProto`.

    Args:
        graph: A valid graph.
        profile: Which ONNX it may use.
        layers: Whether every tensor of the graph is an output as well, int32 codes under its node's name.

    Raises:
        ExportError: The graph has something that the profile cannot express.
        MissingDependencyError: onnx is not installed.
    """
    return _Emitter(with_unique_names(graph), profile, require_onnx()).model(layers=layers)


@dataclass(frozen=True)
class _Bytes:
    """A tensor in bytes: code = factor * (value - zero).

    Args:
        name: A uint8 tensor.
        zero: 0 .. 255.
        factor: A power of 256, where a wide tensor is a sum of several.
    """

    name: str
    zero: int
    factor: int = 1


class Writer:
    """Collects operators and constants of a model.

    Args:
        onnx: The package.
    """

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def emit(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One operator, named like its output."""
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, values: NDArray[np.generic] | Sequence[float] | float, dtype: type[np.number], name: str) -> str:
        """An initializer; the name says what it is for.

        Raises:
            ExportError: The name belongs to another value.
        """
        made = self.onnx.numpy_helper.from_array(np.asarray(values, dtype), name)
        if self.constants.setdefault(name, made) != made:
            raise ExportError(f"two constants are called {name!r}; this is a bug of maqd, please report it")
        return name

    def value(self, name: str, kind: int, batch: str | int, shape: tuple[int, ...]) -> Any:
        """Name, type and shape of a tensor."""
        return self.onnx.helper.make_tensor_value_info(name, kind, [batch, *shape])

    def element(self, node: Input) -> int:
        """ONNX's number of the type of an input's array."""
        return self.onnx.helper.np_dtype_to_tensor_dtype(node.storage.dtype)

    def assemble(self, graph: Graph, *, inputs: Any, outputs: Any, values: Any, opsets: dict[str, int], ir: int) -> Any:
        """The model: what was collected, and what its outputs mean as metadata properties.

        Args:
            graph: Where it comes from.
            inputs, outputs, values: Its tensors, those in between last.
            opsets: Version of each domain.
            ir: Version of the format.
        """
        helper = self.onnx.helper
        body = helper.make_graph(self.nodes, "maqd", inputs, outputs, list(self.constants.values()), value_info=values)
        model = helper.make_model(
            body,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            ir_version=ir,
            producer_name="maqd",
            producer_version=__version__,
        )
        properties = {}
        for node in graph.outputs:
            properties[f"exponent.{node.key}"] = str(graph.types[node.name].exponent)
            properties[f"divisor.{node.key}"] = str(node.divisor)
        for labels in graph.metadata.labels:
            properties[f"labels.{labels.output}"] = json.dumps(labels.names)
        helper.set_model_props(model, properties)
        return model


class _Emitter(Writer):
    """Writes nodes; each tensor of the graph exists as bytes, as int32, or as both, whichever are asked for."""

    def __init__(self, graph: Graph, profile: Profile, onnx: Any) -> None:
        super().__init__(onnx)
        self.graph = graph
        self.types = graph.types
        self.profile = profile
        self.words: dict[str, str] = {}
        self.bytes: dict[str, _Bytes] = {}

    # ---- the model ----

    def model(self, *, layers: bool) -> Any:
        """All nodes as one model."""
        for node in self.graph.nodes:
            self.node(node)
        results = {node.name: node.key for node in self.graph.outputs}
        if layers:
            results = {node.name: f"{node.name}/layer" for node in self.graph.nodes}
        for name, result in results.items():
            self.emit("Identity", [self.int32(name)], result)
        kinds, versions = self.onnx.TensorProto, VERSIONS[self.profile]
        return self.assemble(
            self.graph,
            inputs=[self.value(node.key, self.element(node), "N", node.shape) for node in self.graph.inputs],
            outputs=[self.value(result, kinds.INT32, "N", self.types[name].shape) for name, result in results.items()],
            values=[],
            opsets={"": versions.opset},
            ir=versions.ir,
        )

    # ---- tensors ----

    def int32(self, name: str) -> str:
        """The codes of a tensor as int32."""
        if name not in self.words:
            source = self.bytes[name]
            word = self.emit("Cast", [source.name], f"{name}/int32", to=self.onnx.TensorProto.INT32)
            if source.zero:
                zero = self.constant(source.zero, np.int32, f"{name}/zero")
                word = self.emit("Sub", [word, zero], f"{name}/codes")
            self.words[name] = word
        return self.words[name]

    def as_bytes(self, name: str) -> list[_Bytes]:
        """The codes of a tensor as a sum of tensors of bytes; one where they fit."""
        if name in self.bytes:
            return [self.bytes[name]]
        grid = self.types[name].grid
        word, low, high = self.int32(name), grid.low, grid.high
        parts: list[_Bytes] = []
        while not _fits(low, high):
            # floor division: word = 256 * high part + low byte, whatever the sign.
            place = len(parts)
            base = self.constant(256, np.int32, f"{name}/base{place}")
            byte = self.emit("Mod", [word, base], f"{name}/byte{place}/int32")
            rest = self.emit("Sub", [word, byte], f"{name}/rest{place}/shifted")
            parts.append(_Bytes(self.to_uint8(byte, f"{name}/byte{place}"), 0, 256**place))
            word = self.emit("Div", [rest, base], f"{name}/rest{place}")
            low, high = low >> 8, high >> 8
        zero = -min(low, 0)
        place = len(parts)
        if zero:
            offset = self.constant(zero, np.int32, f"{name}/offset{place}")
            word = self.emit("Add", [word, offset], f"{name}/byte{place}/int32")
        last = _Bytes(self.to_uint8(word, f"{name}/byte{place}"), zero, 256**place)
        if not parts:
            self.bytes[name] = last
        return [*parts, last]

    def to_uint8(self, source: str, output: str) -> str:
        """A cast that loses nothing."""
        return self.emit("Cast", [source], output, to=self.onnx.TensorProto.UINT8)

    def column(self, node: Node, axis: int) -> tuple[int, ...]:
        """Shape of one value a channel that can be broadcast to a batch; `axis` is that of a sample."""
        rank = len(self.types[node.inputs[0]].shape)
        return (1, *(-1 if d == axis else 1 for d in range(rank)))

    # ---- nodes ----

    def node(self, node: Node) -> None:
        """The operators of a node of the graph."""
        name = node.name
        match node:
            case Input():
                self.enter(node)
            case Conv():
                self.words[name] = self.weighted(
                    node,
                    "ConvInteger",
                    strides=node.stride,
                    pads=(*node.padding, *node.padding),
                    dilations=node.dilation,
                    group=node.groups,
                )
            case Linear():
                self.words[name] = self.weighted(node, "MatMulInteger")
            case Thresholds():
                self.activation(node, self.thresholds(node))
            case FixedPoint():
                self.activation(node, self.fixed_point(node))
            case MaxPool():
                self.max_pool(node)
            case SumPool():
                self.words[name] = self.sum_pool(node)
            case GlobalSum():
                space = range(2, len(self.types[node.inputs[0]].shape) + 1)
                self.words[name] = self.sums(node, space, keep=False)
            case Add():
                first, *others = self.aligned(node)
                for place, other in enumerate(others):
                    first = self.emit("Add", [first, other], f"{name}/sum{place}")
                self.words[name] = first
            case Concat():
                self.words[name] = self.emit("Concat", self.aligned(node), f"{name}/joined", axis=node.axis + 1)
            case Flatten():
                self.same(node, "Flatten", axis=1)
            case Output():
                self.words[name] = self.int32(node.inputs[0])
            case _:
                raise ExportError(f"ONNX export does not know {node.operation} node {name!r}")

    def enter(self, node: Input) -> None:
        """The codes of an input: its bytes as they are, other integers less zero, floats quantized in double."""
        name, kinds = node.name, self.onnx.TensorProto
        if node.storage is Storage.U8 and node.zero >= 0:
            self.bytes[name] = _Bytes(node.key, node.zero)
        elif node.border is None:
            wide = self.emit("Cast", [node.key], f"{name}/stored", to=kinds.INT32)
            zero = self.constant(node.zero, np.int32, f"{name}/zero")
            self.words[name] = self.emit("Sub", [wide, zero], f"{name}/codes")
        else:
            border, column = node.border, [-1 if d == node.border.axis else 1 for d in range(len(node.shape))]
            double = self.emit("Cast", [node.key], f"{name}/double", to=kinds.DOUBLE)
            factors = border.multiplier.astype(np.float64) * 2.0**-border.shift
            factor = self.constant(factors.reshape(column), np.float64, f"{name}/factor")
            half = self.constant(0.5, np.float64, f"{name}/half")
            offset = self.constant(border.offset.astype(np.float64).reshape(column), np.float64, f"{name}/offset")
            ends = [
                self.constant(float(end), np.float64, f"{name}/{what}")
                for what, end in (("lowest", node.grid.low), ("highest", node.grid.high))
            ]
            scaled = self.emit("Mul", [double, factor], f"{name}/scaled")
            # The product is exact: a runtime that contracts it with the sum gives the same.
            floor = self.emit("Floor", [self.emit("Add", [scaled, half], f"{name}/raised")], f"{name}/floor")
            moved = self.emit("Add", [floor, offset], f"{name}/moved")
            # Not-a-number compares as false: it becomes the lowest code.
            number = self.emit("GreaterOrEqual", [moved, ends[0]], f"{name}/number")
            whole = self.emit("Where", [number, moved, ends[0]], f"{name}/whole")
            inside = self.emit("Min", [whole, ends[1]], f"{name}/inside")
            self.words[name] = self.emit("Cast", [inside], f"{name}/codes", to=kinds.INT32)

    def same(self, node: Node, operator: str, **attributes: Any) -> None:
        """An operator that keeps codes as they are, on bytes where there are bytes."""
        (source,) = node.inputs
        if source in self.bytes:
            given = self.bytes[source]
            output = self.emit(operator, [given.name], f"{node.name}/bytes", **attributes)
            self.bytes[node.name] = _Bytes(output, given.zero)
        else:
            self.words[node.name] = self.emit(operator, [self.int32(source)], f"{node.name}/codes", **attributes)

    def weight(self, node: Weighted) -> tuple[str, str]:
        """The weight and its zero point, uint8: int8 weights are not exact in every runtime.

        (On x86 without VNNI, ONNX Runtime adds products of uint8 and int8 in pairs with 16-bit saturation.)
        """
        states, name = node.weight.states, f"{node.name}.weight"
        if states.high - states.low > 255:
            raise ExportError(
                f"{node.operation} node {node.name!r}: codes {states.low} .. {states.high} of {states.count} weight "
                "states do not fit 8 bits, which ONNX's integer operators take; use at most 128 or 255 states"
            )
        index = (node.weight.unpack().astype(np.int16) - states.low) // states.spacing
        if isinstance(node, Linear):
            index = index.T
        zero = self.constant(-states.low, np.uint8, f"{name}/zero")
        bits = 2 if states.count <= 4 else 4 if states.count <= 16 else 8
        if self.profile is Profile.COMPATIBLE or bits == 8:
            return self.constant(index * states.spacing, np.uint8, name), zero
        kinds = self.onnx.TensorProto
        self.constants[name] = self.onnx.helper.make_tensor(
            name, kinds.UINT2 if bits == 2 else kinds.UINT4, index.shape, _pack_bits(index, bits), raw=True
        )
        wide = self.to_uint8(name, f"{name}/uint8")
        if states.spacing > 1:
            spacing = self.constant(states.spacing, np.uint8, f"{name}/spacing")
            wide = self.emit("Mul", [wide, spacing], f"{name}/codes")
        return wide, zero

    def weighted(self, node: Weighted, operator: str, **attributes: Any) -> str:
        """Sums of products, a byte of the input at a time, and the bias."""
        weight, zero = self.weight(node)
        total = ""
        for part in self.as_bytes(node.inputs[0]):
            place = f"{node.name}/times{part.factor}"
            point = self.constant(part.zero, np.uint8, f"{place}/zero")
            product = self.emit(operator, [part.name, weight, point, zero], f"{place}/products", **attributes)
            if part.factor > 1:
                factor = self.constant(part.factor, np.int32, f"{place}/factor")
                product = self.emit("Mul", [product, factor], place)
            total = self.emit("Add", [total, product], f"{place}/sum") if total else product
        if node.bias is not None:
            space = len(node.weight.shape) - 2 if isinstance(node, Conv) else 0
            bias = self.constant(node.bias.reshape(-1, *[1] * space), np.int32, f"{node.name}.bias")
            total = self.emit("Add", [total, bias], f"{node.name}/biased")
        return total

    def activation(self, node: Activation, index: str) -> None:
        """Codes from the index of the state, int32."""
        states, name = node.states, node.name
        if states.high - states.low <= 255:
            value = self.to_uint8(index, f"{name}/index/uint8")
            if states.spacing > 1:
                spacing = self.constant(states.spacing, np.uint8, f"{name}/spacing")
                value = self.emit("Mul", [value, spacing], f"{name}/bytes")
            self.bytes[name] = _Bytes(value, -states.low)
            return
        spacing = self.constant(states.spacing, np.int32, f"{name}/spacing")
        scaled = self.emit("Mul", [index, spacing], f"{name}/scaled")
        lowest = self.constant(states.low, np.int32, f"{name}/lowest")
        self.words[name] = self.emit("Add", [scaled, lowest], f"{name}/codes")

    def thresholds(self, node: Thresholds) -> str:
        """How many thresholds each code reaches, int32: comparisons and a sum over them."""
        name, column = node.name, self.column(node, node.axis)
        x = self.int32(node.inputs[0])
        if (node.signs < 0).any():
            signs = self.constant(node.signs.reshape(column), np.int32, f"{name}.signs")
            x = self.emit("Mul", [x, signs], f"{name}/signed")
        axis = self.constant([1], np.int64, f"{name}/axis")
        x = self.emit("Unsqueeze", [x, axis], f"{name}/unsqueezed")
        total = ""
        for place, start in enumerate(range(0, len(node.thresholds), CHUNK)):
            cuts = node.thresholds[start : start + CHUNK]
            constant = self.constant(cuts.reshape(len(cuts), *column[1:]), np.int32, f"{name}.thresholds{place}")
            reached = self.emit("GreaterOrEqual", [x, constant], f"{name}/reached{place}")
            ones = self.emit("Cast", [reached], f"{name}/ones{place}", to=self.onnx.TensorProto.INT32)
            count = self.emit("ReduceSum", [ones, axis], f"{name}/count{place}", keepdims=0)
            total = self.emit("Add", [total, count], f"{name}/total{place}") if total else count
        return total

    def fixed_point(self, node: FixedPoint) -> str:
        """clip(floor((A x + B) / 2^K), 0, M-1), int32.

        ONNX's Div truncates, so what it would truncate is subtracted before. The clip is in int32: on x86, ONNX
        Runtime's Clip, Max and Min of int64 compare by the low halves alone (seen in versions up to 1.31).
        """
        name, column = node.name, self.column(node, node.axis)
        reach = (node.reach(self.types[node.inputs[0]]) >> node.shift) + 1
        if reach > INT32_LIMIT:
            raise ExportError(
                f"{node.operation} node {name!r}: (A x + B) / 2^{node.shift} can reach {reach}, which does not fit 32 "
                "bits; lower the network with --affine thresholds"
            )
        wide = self.emit("Cast", [self.int32(node.inputs[0])], f"{name}/int64", to=self.onnx.TensorProto.INT64)
        a = self.constant(node.multiplier.reshape(column), np.int64, f"{name}.multiplier")
        b = self.constant(node.offset.reshape(column), np.int64, f"{name}.offset")
        numerator = self.emit("Add", [self.emit("Mul", [wide, a], f"{name}/product"), b], f"{name}/numerator")
        divisor = self.constant(1 << node.shift, np.int64, f"{name}/divisor")
        rest = self.emit("Mod", [numerator, divisor], f"{name}/rest")  # of the divisor's sign, so never negative
        even = self.emit("Sub", [numerator, rest], f"{name}/even")
        quotient = self.emit("Div", [even, divisor], f"{name}/quotient")
        word = self.emit("Cast", [quotient], f"{name}/quotient/int32", to=self.onnx.TensorProto.INT32)
        bounds = [
            self.constant(value, np.int32, f"{name}/{what}")
            for what, value in (("low", 0), ("high", node.states.count - 1))
        ]
        return self.emit("Clip", [word, *bounds], f"{name}/index")

    def max_pool(self, node: MaxPool) -> None:
        """The operator on bytes; it does not take int32, so there maxima of shifted views."""
        (source,) = node.inputs
        if source in self.bytes:
            pads = (*node.padding, *node.padding)
            self.same(node, "MaxPool", kernel_shape=node.kernel, strides=node.stride, pads=pads)
            return
        views = self.views(node, LOWEST)
        self.words[node.name] = self.emit("Max", views, f"{node.name}/codes") if len(views) > 1 else views[0]

    def sum_pool(self, node: SumPool) -> str:
        """Sums of shifted views, or over all positions."""
        space = self.types[node.inputs[0]].shape[1:]
        if node.kernel == space and not any(node.padding):
            return self.sums(node, range(2, len(space) + 2), keep=True)
        first, *others = self.views(node, 0)
        for place, other in enumerate(others):
            first = self.emit("Add", [first, other], f"{node.name}/sum{place}")
        return first

    def sums(self, node: Node, axes: Sequence[int], *, keep: bool) -> str:
        dimensions = self.constant(list(axes), np.int64, f"{node.name}/axes")
        return self.emit(
            "ReduceSum", [self.int32(node.inputs[0]), dimensions], f"{node.name}/codes", keepdims=int(keep)
        )

    def views(self, node: MaxPool | SumPool, fill: int) -> list[str]:
        """For each position of the window, what all windows have there, int32."""
        name, rank = node.name, len(node.kernel)
        source = self.int32(node.inputs[0])
        if any(node.padding):
            pads = self.constant([0, 0, *node.padding] * 2, np.int64, f"{name}/pads")
            source = self.emit("Pad", [source, pads, self.constant(fill, np.int32, f"{name}/fill")], f"{name}/padded")
        space = self.types[name].shape[1:]
        axes = self.constant(list(range(2, rank + 2)), np.int64, f"{name}/axes")
        steps = self.constant(list(node.stride), np.int64, f"{name}/steps")
        found = []
        for place, offset in enumerate(np.ndindex(*node.kernel)):
            ends = [o + (n - 1) * s + 1 for o, n, s in zip(offset, space, node.stride, strict=True)]
            bounds = [
                self.constant(list(offset), np.int64, f"{name}/starts{place}"),
                self.constant(ends, np.int64, f"{name}/ends{place}"),
            ]
            found.append(self.emit("Slice", [source, *bounds, axes, steps], f"{name}/view{place}"))
        return found

    def aligned(self, node: Aligned) -> list[str]:
        """The inputs as int32, shifted to one unit."""
        words = []
        for place, (source, shift) in enumerate(zip(node.inputs, node.shifts, strict=True)):
            word = self.int32(source)
            if shift:
                factor = self.constant(1 << shift, np.int32, f"{node.name}/factor{place}")
                word = self.emit("Mul", [word, factor], f"{node.name}/shifted{place}")
            words.append(word)
        return words


def _fits(low: int, high: int) -> bool:
    """Whether bytes and a zero point can stand for low .. high."""
    return low >= -255 and high - min(low, 0) <= 255


def _pack_bits(index: NDArray[np.integer], bits: int) -> bytes:
    """Indices in 2 or 4 bits each, the first in the lowest bits of a byte, as ONNX stores them."""
    each = 8 // bits
    flat = index.reshape(-1).astype(np.uint8)
    rows = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    shifts = np.arange(each, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(rows << shifts, axis=1).astype(np.uint8).tobytes()
