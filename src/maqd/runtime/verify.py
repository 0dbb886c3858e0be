"""Comparing engines with the interpreter: every tensor, every value, for equality."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.graph import Graph, interpreter


class Engine(Protocol):
    """What can compute a graph."""

    @property
    def name(self) -> str:
        """For people and options."""
        ...

    def layers(self, images: NDArray[np.uint8]) -> Iterable[tuple[str, NDArray[np.int64]]]:
        """Name and codes of every tensor that the engine computes, int64, N x the tensor's shape.

        Args:
            images: uint8, N x the input's shape.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that an engine got wrong.

    Args:
        tensor: Name of the tensor.
        image: Number of the image.
        index: Place in the tensor of one sample, the channel first.
        expected: The interpreter's code.
        got: The engine's.
    """

    tensor: str
    image: int
    index: tuple[int, ...]
    expected: int
    got: int

    def __str__(self) -> str:
        channel, *position = self.index
        where = f"channel {channel}" + (f" at {tuple(position)}" if position else "")
        return f"{self.tensor}, {where}, image {self.image}: {self.got} instead of {self.expected}"


@dataclass(frozen=True, kw_only=True)
class EngineResult:
    """How an engine did.

    Args:
        name: The engine.
        tensors: How many tensors of the graph it computed.
        values: How many values were compared.
        different: How many of them differ.
        first: The first of those in the order of the graph, among the first images with any.
    """

    name: str
    tensors: int
    values: int
    different: int
    first: Difference | None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A comparison of engines.

    Args:
        images: How many images.
        engines: One result an engine.
    """

    images: int
    engines: tuple[EngineResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no value differs."""
        return all(engine.different == 0 for engine in self.engines)


def verify(
    graph: Graph,
    engines: Sequence[Engine],
    batches: Iterable[NDArray[np.uint8]],
    progress: Callable[[int], None] | None = None,
) -> Verification:
    """Compare engines with the interpreter, tensor by tensor.

    Args:
        graph: A valid graph.
        engines: What to compare.
        batches: uint8, N x the input's shape each.
        progress: Called with the number of images done, after each batch.

    Raises:
        EngineError: There are no images, they do not fit, or an engine leaves out the logits.
    """
    tallies = [_Tally(engine) for engine in engines]
    images = 0
    for batch in batches:
        expected = dict(interpreter.layers(graph, batch))
        for tally in tallies:
            tally.compare(graph, batch, expected, images)
        images += len(batch)
        if progress is not None:
            progress(images)
    if images == 0:
        raise EngineError("a comparison needs at least one image, got none")
    return Verification(images=images, engines=tuple(tally.result() for tally in tallies))


class _Tally:
    """Counts the differences of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tensors: set[str] = set()
        self.values = self.different = 0
        self.first: Difference | None = None

    def compare(
        self, graph: Graph, batch: NDArray[np.uint8], expected: dict[str, NDArray[np.int64]], done: int
    ) -> None:
        found = dict(self.engine.layers(batch))
        if graph.logits.name not in found or not found.keys() <= expected.keys():
            raise EngineError(
                f"{self.engine.name} must compute tensors of the graph up to {graph.logits.name!r}, got {sorted(found)}"
            )
        clean = self.first is None
        for name in (node.name for node in graph.nodes if node.name in found):
            self.tensors.add(name)
            wanted, got = expected[name], found[name]
            if got.shape != wanted.shape:
                raise EngineError(f"{self.engine.name}: {name} must have shape {wanted.shape}, got {got.shape}")
            self.values += wanted.size
            wrong = int(np.count_nonzero(got != wanted))
            self.different += wrong
            if wrong and clean:
                clean = False
                image, *index = (int(i) for i in np.argwhere(got != wanted)[0])
                self.first = Difference(
                    tensor=name,
                    image=done + image,
                    index=tuple(index),
                    expected=int(wanted[image, *index]),
                    got=int(got[image, *index]),
                )

    def result(self) -> EngineResult:
        return EngineResult(
            name=self.engine.name,
            tensors=len(self.tensors),
            values=self.values,
            different=self.different,
            first=self.first,
        )
