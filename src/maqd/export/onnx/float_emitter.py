"""Writes a QONNX model: tensors of float32 that hold codes."""

import enum
from collections.abc import Mapping
from typing import Any

import numpy as np

from maqd.export.onnx.writer import Writer
from maqd.graph import Graph
from maqd.numerics.states import Grid


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

    def drop_copies(self) -> None:
        """Remove operators that only copy: hls4ml loses an output that is one."""
        results = {node.key for node in self.graph.outputs}
        names: dict[str, str] = {}
        kept = []
        given = {node.key for node in self.graph.inputs}
        for made in self.nodes:
            if made.op_type == "Identity" and made.output[0] not in results:
                source: str = made.input[0]
                names[made.output[0]] = names.get(source, source)
            else:
                kept.append(made)
        for made in kept:
            made.input[:] = [names.get(name, name) for name in made.input]
        # What an output copies gets the output's name, where nothing else is called so.
        last = {made.input[0]: made.output[0] for made in reversed(kept) if made.op_type == "Identity"}
        last = {source: key for source, key in last.items() if source not in given}
        self.nodes = [made for made in kept if made.op_type != "Identity" or last.get(made.input[0]) != made.output[0]]
        for made in self.nodes:
            made.input[:] = [last.get(name, name) for name in made.input]
            made.output[:] = [last.get(name, name) for name in made.output]
        grids = {name: kind.grid for name, kind in self.types.items()}
        for renamed in (names, last):
            grids |= {new: grids[old] for old, new in renamed.items() if old in grids}
        self._part_repeated(grids)

    def _part_repeated(self, grids: Mapping[str, Grid]) -> None:
        """Let no operator read a tensor twice: qonnx (1.0.0) renames the first of both only.

        The second comes from a Quant node of the tensor's own width, which changes no value.
        """
        nodes, self.nodes = self.nodes, []
        for made in nodes:
            for place, name in enumerate(made.input):
                if name in made.input[:place] and name not in self.constants:
                    low, high = grids[name].low, grids[name].high
                    bits = max(1, max(high, -low - 1).bit_length() + (low < 0))
                    again = f"{made.name}/again{place}"
                    made.input[place] = self.quant(name, again, bits, signed=low < 0, narrow=False)
                    self.nodes[-1].doc_string = made.doc_string
            self.nodes.append(made)

    def float_constant(self, values: Any, name: str) -> str:
        """A float32 initializer."""
        return self.constant(values, np.float32, name)

    def quant(self, source: str, output: str, bits: int, *, signed: bool, narrow: bool) -> str:
        """A Quant node on integers: scale 1, zero point 0, rounding to the nearest; a narrow range lacks an end."""
        one, zero = self.float_constant(1, "/one"), self.float_constant(0, "/zero")
        width = self.float_constant(bits, f"/bits{bits}")
        options = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"}
        return self.emit("Quant", [source, one, zero, width], output, domain=DOMAIN, **options)
