"""Writes an integer model: each tensor of the graph as bytes, as int32, or as both."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from maqd.export.onnx.writer import Writer
from maqd.graph import Geometry, Graph, Node
from maqd.numerics.bounds import byte_zero


class Profile(enum.Enum):
    """Which ONNX a model needs."""

    COMPATIBLE = "compatible"
    """Opset 21; a byte a weight."""
    COMPACT = "compact"
    """Opset 25; weights of up to 4 states in 2 bits, of up to 16 states in 4."""


@dataclass(frozen=True)
class Bytes:
    """A tensor in bytes: code = factor * (value - zero).

    Args:
        name: A uint8 tensor.
        zero: 0 .. 255.
        factor: A power of 256, where a wide tensor is a sum of several.
    """

    name: str
    zero: int
    factor: int = 1


class IntegerEmitter(Writer):
    """Each tensor of the graph exists as bytes, as int32, or as both, whichever are asked for.

    Args:
        graph: A valid graph with unique names.
        profile: Which ONNX it may use.
        onnx: The package.
    """

    def __init__(self, graph: Graph, profile: Profile, onnx: Any) -> None:
        super().__init__(onnx)
        self.graph = graph
        self.types = graph.types
        self.profile = profile
        self.words: dict[str, str] = {}
        self.bytes: dict[str, Bytes] = {}
        self.parts: dict[str, list[Bytes]] = {}

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

    def as_bytes(self, name: str) -> list[Bytes]:
        """The codes of a tensor as a sum of tensors of bytes; one where they fit."""
        if name in self.bytes:
            return [self.bytes[name]]
        if name in self.parts:
            return self.parts[name]
        grid = self.types[name].grid
        word, low, high = self.int32(name), grid.low, grid.high
        parts: list[Bytes] = []
        while (zero := byte_zero(low, high)) is None:
            # floor division: word = 256 * high part + low byte, whatever the sign.
            place = len(parts)
            base = self.constant(256, np.int32, f"{name}/base{place}")
            byte = self.emit("Mod", [word, base], f"{name}/byte{place}/int32")
            rest = self.emit("Sub", [word, byte], f"{name}/rest{place}/shifted")
            parts.append(Bytes(self.to_uint8(byte, f"{name}/byte{place}"), 0, 256**place))
            word = self.emit("Div", [rest, base], f"{name}/rest{place}")
            low, high = low >> 8, high >> 8
        place = len(parts)
        if zero:
            offset = self.constant(zero, np.int32, f"{name}/offset{place}")
            word = self.emit("Add", [word, offset], f"{name}/byte{place}/int32")
        last = Bytes(self.to_uint8(word, f"{name}/byte{place}"), zero, 256**place)
        if not parts:
            self.bytes[name] = last
        self.parts[name] = [*parts, last]
        return self.parts[name]

    def padded(self, source: str, output: str, geometry: Geometry, fill: int, dtype: type[np.number]) -> str:
        """The positions that windows add around a tensor, as an operator of their own.

        Args:
            source: N x C x space, of the type.
            output: The name of the result.
            geometry: Of the windows.
            fill: The value of added positions.
            dtype: Of the tensor.
        """
        pads = self.constant([0, 0, *geometry.padding, 0, 0, *geometry.trailing], np.int64, f"{output}/pads")
        return self.emit("Pad", [source, pads, self.constant(fill, dtype, f"{output}/fill")], output)

    def to_uint8(self, source: str, output: str) -> str:
        """A cast that loses nothing."""
        return self.emit("Cast", [source], output, to=self.onnx.TensorProto.UINT8)

    def column(self, node: Node, axis: int) -> tuple[int, ...]:
        """Shape of one value a channel that can be broadcast to a batch; `axis` is that of a sample."""
        rank = len(self.types[node.inputs[0]].shape)
        return (1, *(-1 if d == axis else 1 for d in range(rank)))

    def same(self, node: Node, emit: Callable[[str, str], str]) -> None:
        """Operators that keep codes as they are, on bytes where there are bytes.

        Args:
            node: With one input.
            emit: Emits them, given the names of their input and of their output.
        """
        (source,) = node.inputs
        if source in self.bytes:
            given = self.bytes[source]
            self.bytes[node.name] = Bytes(emit(given.name, f"{node.name}/bytes"), given.zero)
        else:
            self.words[node.name] = emit(self.int32(source), f"{node.name}/codes")
