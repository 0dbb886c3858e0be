"""QONNX: float-typed ONNX whose values are the graph's integers, for tools that build hardware from it.

The tensors hold codes, exact in float32 below 2**24; docs/onnx.md says what is emitted.
"""

import enum
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ExportError
from maqd.export.onnx.integer import Writer, require_onnx
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
    SumPool,
    Thresholds,
    Weighted,
    channel_interval,
)
from maqd.io.files import write_atomically
from maqd.numerics.bounds import Interval
from maqd.numerics.fixedpoint import FixedAffine, affine_thresholds, fixed_point_affine


class Flavour(enum.Enum):
    """How activations are written."""

    QUANT = "quant"
    """A multiplication, an addition and a `Quant` node that rounds down: for hls4ml and tools of Brevitas' kind."""
    MULTITHRESHOLD = "multithreshold"
    """A `MultiThreshold` node: for FINN."""


DOMAIN = "qonnx.custom_op.general"
OPSET = 13
IR = 8
"""Versions that the tools for QONNX were written for."""

EXACT = 2**24
"""Integers below are exact in float32."""


def save_qonnx(graph: Graph, path: Path | str, flavour: Flavour) -> None:
    """Write a QONNX file; all of it or nothing.

    Raises:
        ExportError: The flavour cannot express the graph exactly.
        MissingDependencyError: onnx is not installed.
        OSError: The file cannot be written; one that was there is untouched.
    """
    write_atomically(Path(path), [qonnx_model(graph, flavour).SerializeToString(deterministic=True)])


def qonnx_model(graph: Graph, flavour: Flavour) -> Any:
    """The graph as an `onnx.ModelProto` for one sample: uint8 images to logits, float32 of integer value.

    Args:
        graph: A valid graph.
        flavour: How activations are written.

    Raises:
        ExportError: The flavour cannot express the graph exactly.
        MissingDependencyError: onnx is not installed.
    """
    return _Emitter(with_unique_names(graph), flavour, require_onnx()).model()


class _Emitter(Writer):
    """Writes nodes; the tensor of each node of the graph has its name."""

    def __init__(self, graph: Graph, flavour: Flavour, onnx: Any) -> None:
        super().__init__(onnx)
        self.graph = graph
        self.types = graph.types
        self.flavour = flavour

    def model(self) -> Any:
        """All nodes as one model."""
        for node in self.graph.nodes:
            grid = self.types[node.name].grid
            if grid.magnitude >= EXACT:
                raise ExportError(
                    f"{node.operation} node {node.name!r} can reach {grid.low} .. {grid.high}, and QONNX computes in "
                    "float32, which is exact below 2^24; use fewer states or export to ONNX"
                )
            self.node(node)
        kinds = self.onnx.TensorProto
        inner = [
            self.value(node.name, kinds.FLOAT, 1, self.types[node.name].shape)
            for node in self.graph.nodes
            if not isinstance(node, Output)
        ]
        return self.assemble(
            self.graph,
            inputs=[self.value(node.key, self.element(node), 1, node.shape) for node in self.graph.inputs],
            outputs=[self.value(node.key, kinds.FLOAT, 1, self.types[node.name].shape) for node in self.graph.outputs],
            values=inner,
            opsets={"": OPSET, DOMAIN: 1},
            ir=IR,
        )

    def float_constant(self, values: Any, name: str) -> str:
        """A float32 initializer."""
        return self.constant(values, np.float32, name)

    def quant(self, source: str, output: str, bits: int, *, signed: bool) -> str:
        """A Quant node on integers: scale 1, zero point 0, rounding down, the narrow range if signed."""
        one, zero = self.float_constant(1, "/one"), self.float_constant(0, "/zero")
        width = self.float_constant(bits, f"/bits{bits}")
        options = {"signed": int(signed), "narrow": int(signed), "rounding_mode": "FLOOR"}
        return self.emit("Quant", [source, one, zero, width], output, domain=DOMAIN, **options)

    def weight(self, node: Weighted) -> str:
        """The weight: narrow integers in the file, cast, and declared with a Quant node."""
        states, name = node.weight.states, f"{node.name}.weight"
        codes = node.weight.unpack()
        if isinstance(node, Linear):
            codes = codes.T
        stored = self.constant(codes, np.int8 if states.high <= 127 else np.int16, name)
        wide = self.emit("Cast", [stored], f"{name}/float", to=self.onnx.TensorProto.FLOAT)
        return self.quant(wide, f"{name}/quant", states.high.bit_length() + 1, signed=True)

    def node(self, node: Node) -> None:
        """The operators of a node of the graph."""
        name = node.name
        match node:
            case Input():
                if node.border is not None:
                    raise ExportError(
                        f"input node {name!r} takes floats, and QONNX has no exact rule for them; export to ONNX"
                    )
                wide = self.emit("Cast", [node.key], f"{name}/float", to=self.onnx.TensorProto.FLOAT)
                self.emit("Sub", [wide, self.float_constant(node.zero, f"{name}/zero")], name)
            case Conv():
                self.biased(
                    node,
                    "Conv",
                    strides=node.stride,
                    pads=(*node.padding, *node.padding),
                    dilations=node.dilation,
                    group=node.groups,
                )
            case Linear():
                self.biased(node, "MatMul")
            case Activation() if self.flavour is Flavour.MULTITHRESHOLD:
                self.multi_threshold(node)
            case Activation():
                self.affine(node)
            case MaxPool():
                pads = (*node.padding, *node.padding)
                self.emit("MaxPool", node.inputs, name, kernel_shape=node.kernel, strides=node.stride, pads=pads)
            case SumPool():
                self.sum_pool(node)
            case GlobalSum():
                axes = self.constant(range(2, len(self.types[node.inputs[0]].shape) + 1), np.int64, f"{name}/axes")
                self.emit("ReduceSum", [*node.inputs, axes], name, keepdims=0)
            case Add():
                first, *others = self.aligned(node)
                for place, other in enumerate(others):
                    last = place == len(others) - 1
                    first = self.emit("Add", [first, other], name if last else f"{name}/sum{place}")
            case Concat():
                self.emit("Concat", self.aligned(node), name, axis=node.axis + 1)
            case Flatten():
                self.emit("Flatten", node.inputs, name, axis=1)
            case Output():
                self.emit("Identity", node.inputs, node.key)
            case _:
                raise ExportError(f"QONNX export does not know {node.operation} node {name!r}")

    def biased(self, node: Weighted, operator: str, **attributes: Any) -> None:
        """Sums of products and the bias."""
        weight = self.weight(node)
        if node.bias is None:
            self.emit(operator, [*node.inputs, weight], node.name, **attributes)
            return
        products = self.emit(operator, [*node.inputs, weight], f"{node.name}/products", **attributes)
        space = len(node.weight.shape) - 2 if isinstance(node, Conv) else 0
        bias = self.float_constant(node.bias.reshape(-1, *[1] * space), f"{node.name}.bias")
        self.emit("Add", [products, bias], node.name)

    def column(self, node: Activation) -> tuple[int, ...]:
        """Shape of one value a channel that can be broadcast to a batch."""
        return (1, *(-1 if d == node.axis else 1 for d in range(len(self.types[node.name].shape))))

    def codes(self, node: Activation, index: str) -> None:
        """Codes from the index of the state."""
        states, name = node.states, node.name
        if states.spacing > 1:
            spacing = self.float_constant(states.spacing, f"{name}/spacing")
            index = self.emit("Mul", [index, spacing], f"{name}/spaced")
        if states.low:
            index = self.emit("Add", [index, self.float_constant(states.low, f"{name}/low")], f"{name}/codes")
        self.emit("Identity", [index], name)

    def multi_threshold(self, node: Activation) -> None:
        """Signs, then a count of thresholds."""
        name, interval = node.name, channel_interval(self.types[node.inputs[0]], node.axis)
        if isinstance(node, Thresholds):
            cuts, signs = node.thresholds, node.signs
        elif isinstance(node, FixedPoint):
            cuts, signs = affine_thresholds(_affine(node), node.states.count, interval.low, interval.high)
        else:
            raise ExportError(f"QONNX export does not know {node.operation} node {name!r}")
        (source,) = node.inputs
        if (signs < 0).any():
            source = self.emit(
                "Mul",
                [source, self.float_constant(signs.reshape(self.column(node)), f"{name}.signs")],
                f"{name}/signed",
            )
        layout = ["N", *"DHW"[3 - (len(self.types[name].shape) - 1) :]]
        layout.insert(node.axis + 1, "C")
        states, bits = node.states, max(1, (node.states.count - 1).bit_length())
        kind = f"INT{states.high.bit_length() + 1}" if states.signed else "BINARY" if bits == 1 else f"UINT{bits}"
        self.emit(
            "MultiThreshold",
            [source, self.float_constant(cuts.T, f"{name}.thresholds")],
            name,
            domain=DOMAIN,
            out_dtype=kind,
            out_scale=float(states.spacing),
            out_bias=float(states.low),
            data_layout="".join(layout),
        )

    def affine(self, node: Activation) -> None:
        """floor(clip(A 2^-K x + B 2^-K, 0, M-1)), if float32 gets that right for every x."""
        name, interval = node.name, channel_interval(self.types[node.inputs[0]], node.axis)
        affine = None
        if isinstance(node, FixedPoint):
            affine = _affine(node)
        elif isinstance(node, Thresholds):
            affine = fixed_point_affine(node.thresholds, node.signs, interval.low, interval.high)
        if affine is None or not _right_in_float32(node, affine, interval):
            raise ExportError(
                f"{node.operation} node {name!r}: float32 has too few bits for a scale and an offset that give the "
                "same codes for every accumulator value; export with --flavour multithreshold"
            )
        column, last = self.column(node), node.states.count - 1
        scale = self.float_constant(_float32(affine.multiplier, affine.shift).reshape(column), f"{name}.scale")
        offset = self.float_constant(_float32(affine.offset, affine.shift).reshape(column), f"{name}.offset")
        scaled = self.emit("Mul", [*node.inputs, scale], f"{name}/scaled")
        real = self.emit("Add", [scaled, offset], f"{name}/real")
        ends = [self.float_constant(0, "zero"), self.float_constant(last, f"{name}/last")]
        clipped = self.emit("Clip", [real, *ends], f"{name}/clipped")
        self.codes(node, self.quant(clipped, f"{name}/quant", max(1, last.bit_length()), signed=False))

    def sum_pool(self, node: SumPool) -> None:
        """A convolution of each channel with ones."""
        channels, name = self.types[node.inputs[0]].shape[0], node.name
        ones = self.constant(np.ones((channels, 1, *node.kernel)), np.int8, f"{name}.ones")
        weight = self.emit("Cast", [ones], f"{name}.ones/float", to=self.onnx.TensorProto.FLOAT)
        pads = (*node.padding, *node.padding)
        self.emit("Conv", [*node.inputs, weight], name, strides=node.stride, pads=pads, group=channels)

    def aligned(self, node: Aligned) -> list[str]:
        """The inputs, shifted to one unit."""
        found = []
        for place, (source, shift) in enumerate(zip(node.inputs, node.shifts, strict=True)):
            factor = self.float_constant(math.ldexp(1, shift), f"two{shift}")
            found.append(self.emit("Mul", [source, factor], f"{node.name}/shifted{place}") if shift else source)
        return found


def _affine(node: FixedPoint) -> FixedAffine:
    return FixedAffine(
        multiplier=node.multiplier.astype(np.int64), offset=node.offset.astype(np.int64), shift=node.shift
    )


def _float32(values: NDArray[np.int64], shift: int) -> NDArray[np.float32]:
    return np.ldexp(values.astype(np.float64), -shift).astype(np.float32)


def _right_in_float32(node: Activation, affine: FixedAffine, interval: Interval) -> bool:
    """Whether the multiplication and addition in float32, fused or not, give the node's index for every integer."""
    scale, offset = _float32(affine.multiplier, affine.shift), _float32(affine.offset, affine.shift)
    last = node.states.count - 1
    for channel in range(len(scale)):
        x = np.arange(interval.low[channel], interval.high[channel] + 1)
        wanted = node.index(x[None], slice(channel, channel + 1))[0]
        apart = x.astype(np.float32) * scale[channel] + offset[channel]
        fused = (x * scale[channel].astype(np.float64) + offset[channel].astype(np.float64)).astype(np.float32)
        for value in (apart, fused):
            if not np.array_equal(np.floor(np.clip(value, 0, last)), wanted):
                return False
    return True
