"""Writes a QONNX model: tensors of float32 that hold codes."""

import enum
from typing import Any

import numpy as np

from maqd.export.onnx.writer import Writer
from maqd.graph import Graph


class Flavour(enum.Enum):
    """How activations are written."""

    QUANT = "quant"
    """A multiplication, an addition and a `Quant` node that rounds down: for hls4ml and tools of Brevitas' kind."""
    MULTITHRESHOLD = "multithreshold"
    """A `MultiThreshold` node: for FINN."""


DOMAIN = "qonnx.custom_op.general"


class QonnxEmitter(Writer):
    """The tensor of each node of the graph has its name.

    Args:
        graph: A valid graph with unique names.
        flavour: How activations are written.
        onnx: The package.
    """

    def __init__(self, graph: Graph, flavour: Flavour, onnx: Any) -> None:
        super().__init__(onnx)
        self.graph = graph
        self.types = graph.types
        self.flavour = flavour

    def float_constant(self, values: Any, name: str) -> str:
        """A float32 initializer."""
        return self.constant(values, np.float32, name)

    def quant(self, source: str, output: str, bits: int, *, signed: bool) -> str:
        """A Quant node on integers: scale 1, zero point 0, rounding down, the narrow range if signed."""
        one, zero = self.float_constant(1, "/one"), self.float_constant(0, "/zero")
        width = self.float_constant(bits, f"/bits{bits}")
        options = {"signed": int(signed), "narrow": int(signed), "rounding_mode": "FLOOR"}
        return self.emit("Quant", [source, one, zero, width], output, domain=DOMAIN, **options)
