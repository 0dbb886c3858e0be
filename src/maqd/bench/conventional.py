"""The network that others would deploy: the graph's layers in float32 or in 8 bits, as ONNX, to measure runtimes with.

It has the shapes of the graph and none of its arithmetic: step functions become ReLUs, and scales are made up, since
the time does not depend on them. The 8-bit network is the one that runtimes are best at: uint8 activations, int8
weights, one scale a tensor, quantizers where their fusions look for them. Normalizations are left out, as if all of
them could be folded into weights, which favours these networks where a normalization follows an addition.
"""

import enum
from typing import Any

import numpy as np

from maqd.errors import ExportError
from maqd.export.onnx.integer import VERSIONS, Profile
from maqd.export.onnx.names import with_unique_names
from maqd.export.onnx.rules import pooling, weighted
from maqd.export.onnx.writer import Writer, require_onnx
from maqd.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    Flatten,
    Gather,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Node,
    Output,
    Permute,
    Reshape,
    SumPool,
    Weighted,
)
from maqd.graph.rules import Rules
from maqd.numerics.states import PIXELS


class Precision(enum.Enum):
    """Numbers of a conventional network."""

    FLOAT = "float"
    INT8 = "int8"


def conventional_model(graph: Graph, precision: Precision) -> Any:
    """The network as an `onnx.ModelProto`.

    Its input is float32 or, in 8 bits, uint8, N x the graph's input shape; its output is float32.

    Raises:
        ExportError: The graph has a node that has no counterpart.
        MissingDependencyError: onnx is not installed.
    """
    return _Emitter(with_unique_names(graph), precision, require_onnx()).model()


class _Emitter(Writer):
    """Writes nodes; tensors are float32, those of the 8-bit network between quantizers."""

    def __init__(self, graph: Graph, precision: Precision, onnx: Any) -> None:
        super().__init__(onnx)
        self.graph = graph
        self.int8 = precision is Precision.INT8

    def model(self) -> Any:
        kinds, versions = self.onnx.TensorProto, VERSIONS[Profile.COMPATIBLE]
        for node in self.graph.nodes:
            CONVENTIONAL.find(node, f"{node.operation} node {node.name!r}")(self, node)
        output, shape = self.graph.output.key, self.graph.types[self.graph.output.name].shape
        return self.assemble(
            self.graph,
            inputs=[
                self.value(self.graph.input.key, kinds.UINT8 if self.int8 else kinds.FLOAT, "N", self.graph.input.shape)
            ],
            outputs=[self.value(output, kinds.FLOAT, "N", shape)],
            opsets={"": versions.opset},
            ir=versions.ir,
        )

    def scale(self) -> str:
        return self.constant(1 / 64, np.float32, "/scale")

    def dequantized(self, source: str, output: str, zero: int) -> str:
        zero_point = self.constant(zero, np.uint8, f"/zero{zero}")
        return self.emit("DequantizeLinear", [source, self.scale(), zero_point], output)

    def quantized(self, source: str, output: str, zero: int) -> str:
        """The tensor as it is after 8 bits; unchanged in the float network."""
        if not self.int8:
            return self.emit("Identity", [source], output)
        zero_point = self.constant(zero, np.uint8, f"/zero{zero}")
        codes = self.emit("QuantizeLinear", [source, self.scale(), zero_point], f"{output}/codes")
        return self.dequantized(codes, output, zero)

    def weight(self, node: Weighted) -> str:
        codes = np.clip(node.weight.unpack(), -127, 127)
        if not self.int8:
            return self.constant(codes / np.sqrt(node.weight.length), np.float32, f"{node.name}/weight")
        stored = self.constant(codes, np.int8, f"{node.name}/weight/codes")
        zero = self.constant(0, np.int8, "/zero")
        return self.emit("DequantizeLinear", [stored, self.scale(), zero], f"{node.name}/weight")

    def settle(self, node: Node, result: str) -> None:
        """A sum becomes 8 bits, unless what follows is a step function, which does it, or the end."""
        if all(isinstance(reader, Activation | Output | Flatten) for reader in self.graph.readers[node.name]):
            self.emit("Identity", [result], node.name)
        else:
            self.quantized(result, node.name, -PIXELS.low)

    def bias(self, node: Weighted) -> list[str]:
        """Every convolution of a conventional network has one: that of its normalization."""
        if not self.int8:
            return [self.constant(np.zeros(node.weight.shape[0]), np.float32, f"{node.name}/bias")]
        codes = self.constant(np.zeros(node.weight.shape[0]), np.int32, f"{node.name}/bias/codes")
        unit = self.constant(1 / 4096, np.float32, "/unit")
        zero = self.constant(0, np.int32, "/zero32")
        return [self.emit("DequantizeLinear", [codes, unit, zero], f"{node.name}/bias")]


def _enter(e: _Emitter, node: Input) -> None:
    if e.int8:
        e.dequantized(node.key, node.name, node.zero)
    else:
        e.emit("Identity", [node.key], node.name)


def _conv(e: _Emitter, node: Conv) -> None:
    operands = [*node.inputs, e.weight(node), *e.bias(node)]
    e.settle(node, e.emit("Conv", operands, f"{node.name}/sum", **weighted.geometry(node)))


def _linear(e: _Emitter, node: Linear) -> None:
    if len(e.graph.types[node.inputs[0]].shape) > 1:
        raise ExportError(
            f"linear node {node.name!r} on several dimensions has no counterpart in a conventional network"
        )
    operands = [*node.inputs, e.weight(node), *e.bias(node)]
    e.settle(node, e.emit("Gemm", operands, f"{node.name}/sum", transB=1))


def _activation(e: _Emitter, node: Activation) -> None:
    e.quantized(e.emit("Relu", node.inputs, f"{node.name}/relu"), node.name, 0)


def _max_pool(e: _Emitter, node: MaxPool) -> None:
    e.quantized(e.emit("MaxPool", node.inputs, f"{node.name}/max", **pooling.geometry(node)), node.name, 0)


def _average(e: _Emitter, node: SumPool) -> None:
    mean = e.emit("AveragePool", node.inputs, f"{node.name}/mean", **pooling.geometry(node), count_include_pad=1)
    e.quantized(mean, node.name, 0)


def _global(e: _Emitter, node: GlobalSum) -> None:
    mean = e.emit("GlobalAveragePool", node.inputs, f"{node.name}/mean")
    e.quantized(e.emit("Flatten", [mean], f"{node.name}/flat"), node.name, 0)


def _add(e: _Emitter, node: Add) -> None:
    total, *others = node.inputs
    for place, other in enumerate(others):
        total = e.emit("Add", [total, other], f"{node.name}/sum{place}")
    e.settle(node, total)


def _multiply(e: _Emitter, node: Multiply) -> None:
    e.settle(node, e.emit("Mul", node.inputs, f"{node.name}/product"))


def _concat(e: _Emitter, node: Concat) -> None:
    e.emit("Concat", node.inputs, node.name, axis=node.axis + 1)


def _flatten(e: _Emitter, node: Flatten) -> None:
    e.emit("Flatten", node.inputs, node.name)


def _reshape(e: _Emitter, node: Reshape) -> None:
    e.reshaped(node, node.inputs[0], node.name)


def _permute(e: _Emitter, node: Permute) -> None:
    e.permuted(node, node.inputs[0], node.name)


def _gather(e: _Emitter, node: Gather) -> None:
    source = node.inputs[0]
    e.gathered(node, source, node.name, e.graph.types[source].shape, 0, np.float32)


def _leave(e: _Emitter, node: Output) -> None:
    e.emit("Identity", node.inputs, node.key)


CONVENTIONAL = Rules(
    "the conventional network",
    ExportError,
    {
        Input: _enter,
        Conv: _conv,
        Linear: _linear,
        Activation: _activation,
        MaxPool: _max_pool,
        SumPool: _average,
        GlobalSum: _global,
        Add: _add,
        Multiply: _multiply,
        Concat: _concat,
        Flatten: _flatten,
        Reshape: _reshape,
        Permute: _permute,
        Gather: _gather,
        Output: _leave,
    },
)
"""What each kind of node becomes."""
