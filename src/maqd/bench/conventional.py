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
from maqd.export.onnx.integer import VERSIONS, Profile, Writer, require_onnx
from maqd.export.onnx.names import with_unique_names
from maqd.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    Flatten,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Node,
    Output,
    SumPool,
    Weighted,
)


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
        self.readers: dict[str, list[Node]] = {node.name: [] for node in graph.nodes}
        for node in graph.nodes:
            for name in node.inputs:
                self.readers[name].append(node)

    def model(self) -> Any:
        kinds, versions = self.onnx.TensorProto, VERSIONS[Profile.COMPATIBLE]
        for node in self.graph.nodes:
            self.node(node)
        output, shape = self.graph.output.key, self.graph.types[self.graph.output.name].shape
        return self.assemble(
            self.graph,
            inputs=[
                self.value(self.graph.input.key, kinds.UINT8 if self.int8 else kinds.FLOAT, "N", self.graph.input.shape)
            ],
            outputs=[self.value(output, kinds.FLOAT, "N", shape)],
            values=[],
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
        if all(isinstance(reader, Activation | Output | Flatten) for reader in self.readers[node.name]):
            self.emit("Identity", [result], node.name)
        else:
            self.quantized(result, node.name, 128)

    def node(self, node: Node) -> None:
        inputs = list(node.inputs)
        match node:
            case Input():
                if self.int8:
                    self.dequantized(self.graph.input.key, node.name, 128)
                else:
                    self.emit("Identity", [self.graph.input.key], node.name)
            case Conv():
                bias = self.bias(node)
                pads = {"pads": [*node.padding, *node.padding], "strides": list(node.stride)}
                geometry = {"dilations": list(node.dilation), "group": node.groups, **pads}
                self.settle(
                    node, self.emit("Conv", [inputs[0], self.weight(node), *bias], f"{node.name}/sum", **geometry)
                )
            case Linear() if len(self.graph.types[inputs[0]].shape) == 1:
                operands = [inputs[0], self.weight(node), *self.bias(node)]
                self.settle(node, self.emit("Gemm", operands, f"{node.name}/sum", transB=1))
            case Activation():
                self.quantized(self.emit("Relu", inputs, f"{node.name}/relu"), node.name, 0)
            case MaxPool():
                window = {"kernel_shape": list(node.kernel), "strides": list(node.stride)}
                pads = {"pads": [*node.padding, *node.padding]}
                self.quantized(self.emit("MaxPool", inputs, f"{node.name}/max", **window, **pads), node.name, 0)
            case SumPool():
                window = {"kernel_shape": list(node.kernel), "strides": list(node.stride)}
                pads = {"pads": [*node.padding, *node.padding], "count_include_pad": 1}
                self.quantized(self.emit("AveragePool", inputs, f"{node.name}/mean", **window, **pads), node.name, 0)
            case GlobalSum():
                mean = self.emit("GlobalAveragePool", inputs, f"{node.name}/mean")
                self.quantized(self.emit("Flatten", [mean], f"{node.name}/flat"), node.name, 0)
            case Add():
                total = inputs[0]
                for place, other in enumerate(inputs[1:]):
                    total = self.emit("Add", [total, other], f"{node.name}/sum{place}")
                self.settle(node, total)
            case Concat():
                self.emit("Concat", inputs, node.name, axis=node.axis + 1)
            case Flatten():
                self.emit("Flatten", inputs, node.name)
            case Output():
                self.emit("Identity", inputs, node.key)
            case _:
                raise ExportError(f"{node.operation} node {node.name!r} has no counterpart in a conventional network")

    def bias(self, node: Weighted) -> list[str]:
        """Every convolution of a conventional network has one: that of its normalization."""
        if not self.int8:
            return [self.constant(np.zeros(node.weight.shape[0]), np.float32, f"{node.name}/bias")]
        codes = self.constant(np.zeros(node.weight.shape[0]), np.int32, f"{node.name}/bias/codes")
        unit = self.constant(1 / 4096, np.float32, "/unit")
        zero = self.constant(0, np.int32, "/zero32")
        return [self.emit("DequantizeLinear", [codes, unit, zero], f"{node.name}/bias")]
