"""What every export to ONNX needs: operators, constants and the model around them."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd import __version__
from maqd.errors import ExportError
from maqd.graph import Activation, Gather, Graph, Input, Node, Permute, Reshape, Weighted
from maqd.optional import require


def require_onnx() -> Any:
    """The package onnx.

    Raises:
        MissingDependencyError: It is not installed.
    """
    return require("onnx", "an export to ONNX")


class Writer:
    """Collects operators and constants of a model.

    Args:
        onnx: The package.
    """

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.notes: dict[str, str] = {}
        """What is known of the graph's node whose operators are being emitted, for viewers."""

    def begin(self, graph: Graph, node: Node) -> None:
        """Say which node of the graph the next operators belong to."""
        kind = graph.types[node.name]
        grid = kind.grid
        self.notes = {
            "maqd.node": node.name,
            "maqd.operation": node.operation,
            "maqd.codes": f"{grid.low} .. {grid.high}",
            "maqd.exponent": str(grid.exponent),
        }
        if isinstance(node, Weighted):
            self.notes["maqd.weight_states"] = str(node.weight.states.count)
        if isinstance(node, Activation):
            self.notes["maqd.states"] = str(node.states.count)

    def emit(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One operator, named like its output."""
        made = self.onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        made.metadata_props.extend(
            self.onnx.StringStringEntryProto(key=key, value=text) for key, text in self.notes.items()
        )
        made.doc_string = ", ".join(f"{key.removeprefix('maqd.')} {value}" for key, value in self.notes.items())
        self.nodes.append(made)
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

    def assemble(self, graph: Graph, *, inputs: Any, outputs: Any, opsets: dict[str, int], ir: int) -> Any:
        """The model: what was collected, and what its outputs mean as metadata properties.

        Args:
            graph: Where it comes from.
            inputs, outputs: Its tensors; types and shapes of those in between are inferred.
            opsets: Version of each domain.
            ir: Version of the format.
        """
        helper = self.onnx.helper
        if ir < 10:  # nodes have no properties there
            for node in self.nodes:
                del node.metadata_props[:]
        body = helper.make_graph(self.nodes, "maqd", inputs, outputs, list(self.constants.values()))
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
        model.graph.value_info.extend(self._between(model))
        return model

    def _between(self, model: Any) -> list[Any]:
        """Type and shape of every tensor that is neither an input nor an output."""
        plain = self.onnx.ModelProto()
        plain.CopyFrom(model)
        for node in plain.graph.node:
            if node.domain:  # the operators of QONNX keep type and shape of their first input
                del node.input[1:], node.attribute[:]
                node.op_type, node.domain = "Identity", ""
        found = self.onnx.shape_inference.infer_shapes(plain, check_type=True, strict_mode=True, data_prop=True)
        return list(found.graph.value_info)

    # ---- the same elements in another shape, order or place: `name` is the output, of any type ----

    def permuted(self, node: Permute, source: str, name: str) -> str:
        """The dimensions in another order."""
        return self.emit("Transpose", [source], name, perm=[0, *(d + 1 for d in node.order)])

    def reshaped(self, node: Reshape, source: str, name: str) -> str:
        """Another shape; 0 keeps the number of samples."""
        shape = self.constant([0, *node.shape], np.int64, f"{node.name}/shape")
        return self.emit("Reshape", [source, shape], name)

    def gathered(
        self, node: Gather, source: str, name: str, shape: tuple[int, ...], fill: Any, dtype: type[np.number]
    ) -> str:
        """Elements along a dimension: padding and slices as such, anything else as indices.

        Args:
            node: Says which elements.
            source: The tensor.
            name: The output.
            shape: Of a sample of the source.
            fill: The value of padded elements.
            dtype: The tensor's type.
        """
        axis, indices, size = node.axis + 1, node.indices.astype(np.int64), shape[node.axis]
        pad = partial(self._padded, node, rank=len(shape) + 1, fill=fill, dtype=dtype)
        axes = self.constant([axis], np.int64, f"{node.name}/axes")
        inside = np.flatnonzero(indices >= 0)
        front, back = (0, len(indices)) if not len(inside) else (int(inside[0]), len(indices) - int(inside[-1]) - 1)
        middle = indices[front : len(indices) - back]
        if len(middle) and (np.diff(middle) == 1).all() and middle[0] >= 0:
            first, last = int(middle[0]), int(middle[-1]) + 1
            if (first, last) != (0, size):
                bounds = [
                    self.constant([first], np.int64, f"{node.name}/first"),
                    self.constant([last], np.int64, f"{node.name}/last"),
                ]
                padded = bool(front or back)
                source = self.emit("Slice", [source, *bounds, axes], f"{name}/slice" if padded else name)
            elif not front and not back:
                return self.emit("Identity", [source], name)
            return pad(source, name, (front, back)) if front or back else source
        if node.filled:  # the element that is added at the end stands for all of them
            source = pad(source, f"{name}/padded", (0, 1))
        places = self.constant(np.where(indices < 0, size, indices), np.int64, f"{node.name}/indices")
        return self.emit("Gather", [source, places], name, axis=axis)

    def _padded(
        self, node: Gather, source: str, name: str, ends: tuple[int, int], rank: int, fill: Any, dtype: type[np.number]
    ) -> str:
        amounts = np.zeros((2, rank), np.int64)
        amounts[:, node.axis + 1] = ends
        pads = self.constant(amounts.reshape(-1), np.int64, f"{node.name}/pads")
        return self.emit("Pad", [source, pads, self.constant(fill, dtype, f"{node.name}/fill")], name)
