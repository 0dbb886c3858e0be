"""What a program takes and gives: the arguments of its function, their types and what their integers mean."""

import re
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Graph, Input, Output, Storage
from maqd.numerics.states import PIXELS
from maqd.plan import Buffer, Element, Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """An input.

    Args:
        node: Of the graph.
        buffer: Of the plan.
        argument: Name of the array that the caller hands over.
        dtype: Its type.
        zero: The integer of code 0 in that array.
    """

    node: Input
    buffer: Buffer
    argument: str
    dtype: np.dtype[np.integer]
    zero: int

    @property
    def copied(self) -> bool:
        """Whether steps read a copy in the arena, since the plan stores other integers than the caller."""
        return self.dtype != self.buffer.element.dtype or self.zero != self.buffer.zero

    @property
    def type(self) -> str:
        """The type in C."""
        return f"{self.dtype.name}_t"

    @property
    def declaration(self) -> str:
        """The parameter."""
        return f"const {self.type} *{self.argument}"

    @property
    def pixels(self) -> bool:
        """Whether it is an image of plain pixels."""
        return self.node.storage is Storage.U8 and self.node.grid == PIXELS

    def codes(self, samples: NDArray[np.generic]) -> NDArray[np.int64]:
        """The codes of N samples of the graph's type, N x the input's shape."""
        if self.node.border is not None:
            return self.node.border.codes(samples.astype(np.float32), self.node.grid)
        return samples.astype(np.int64) - self.node.zero


@dataclass(frozen=True, kw_only=True, eq=False)
class Exit:
    """An output: int32 codes.

    Args:
        node: Of the graph.
        buffer: Of the plan.
        argument: Name of the array that the caller hands over.
    """

    node: Output
    buffer: Buffer
    argument: str

    @property
    def declaration(self) -> str:
        """The parameter."""
        return f"int32_t *{self.argument}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ends:
    """All inputs and outputs of a program, in the graph's order.

    Args:
        inputs, outputs: They.
        plain: Whether an image of pixels becomes one vector or map: the arguments are `image` and `logits` then.
    """

    inputs: tuple[Entry, ...]
    outputs: tuple[Exit, ...]
    plain: bool

    def function(self, name: str, *more: str) -> str:
        """The head of a function of all arguments, and more parameters."""
        parameters = (*(end.declaration for end in (*self.inputs, *self.outputs)), *more)
        return f"int {name}({(', ' if self.plain else f',{chr(10)}        ').join(parameters)})"

    def sized(self, name: str) -> str:
        """The head of a function of all arguments, each with its bytes."""
        parameters = (f"{end.declaration}, uint32_t {end.argument}_bytes" for end in (*self.inputs, *self.outputs))
        return f"int {name}({(', ' if self.plain else f',{chr(10)}        ').join(parameters)})"

    def sizes(self) -> list[tuple[str, int]]:
        """The bytes that each argument must have, by its name."""
        return [
            *((end.argument, prod(end.node.shape) * end.dtype.itemsize) for end in self.inputs),
            *((end.argument, end.buffer.size * 4) for end in self.outputs),
        ]

    @property
    def arguments(self) -> str:
        """Their names."""
        return ", ".join(end.argument for end in (*self.inputs, *self.outputs))


def make_ends(graph: Graph, plan: Plan) -> Ends:
    """The arguments of a graph's program.

    Integers have the type that the graph says; those that floats become have the smallest type that takes all codes.

    Args:
        graph: A valid graph.
        plan: Its plan.
    """
    plain = (
        [(node.storage, node.grid, len(node.shape)) for node in graph.inputs] == [(Storage.U8, PIXELS, 3)]
        and [node.divisor for node in graph.outputs] == [1]
    )  # fmt: skip
    into = ["image"] if plain else identifiers("in", [node.key for node in graph.inputs])
    out = ["logits"] if plain else identifiers("out", [node.key for node in graph.outputs])
    inputs = []
    for node, buffer, argument in zip(graph.inputs, plan.inputs, into, strict=True):
        dtype, zero = (
            (buffer.element.dtype, buffer.zero)
            if node.storage is Storage.F32
            else (np.dtype(node.storage.value), node.zero)
        )
        inputs.append(Entry(node=node, buffer=buffer, argument=argument, dtype=dtype, zero=zero))
    outputs = [
        Exit(node=node, buffer=buffer, argument=argument)
        for node, buffer, argument in zip(graph.outputs, plan.outputs, out, strict=True)
    ]
    return Ends(inputs=tuple(inputs), outputs=tuple(outputs), plain=plain)


def identifiers(prefix: str, keys: list[str]) -> list[str]:
    """Keys as C identifiers that begin with `<prefix>_` and differ even without regard to case."""
    found: list[str] = []
    taken: set[str] = set()
    for key in keys:
        name = first = f"{prefix}_{re.sub('[^A-Za-z0-9]', '_', key)}"
        count = 1
        while name.lower() in taken:
            count += 1
            name = f"{first}_{count}"
        taken.add(name.lower())
        found.append(name)
    return found


def shape_in_memory(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A sample's shape with the channels innermost."""
    return (*shape[1:], shape[0])


def direct(ends: Ends) -> dict[int, str]:
    """The storages that are the caller's arrays, and the arguments' names."""
    return {end.buffer.storage: end.argument for end in ends.inputs if not end.copied}


def image_storages(ends: Ends) -> set[int]:
    """The storages that are the caller's arrays of bytes, for kernels that read those."""
    return {end.buffer.storage for end in ends.inputs if not end.copied and end.buffer.element is Element.U8}
