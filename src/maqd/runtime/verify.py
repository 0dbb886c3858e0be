"""Comparing engines with the interpreter: every tensor, every value, for equality."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.graph import Graph, interpreter
from maqd.runtime.engine import Engine
from maqd.runtime.inputs import prepare


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that an engine got wrong.

    Args:
        tensor: Name of the tensor.
        sample: Number of the sample.
        index: Place in the tensor of one sample, the channel first.
        expected: The interpreter's code.
        got: The engine's.
    """

    tensor: str
    sample: int
    index: tuple[int, ...]
    expected: int
    got: int

    def __str__(self) -> str:
        channel, *position = self.index
        where = f"channel {channel}" + (f" at {tuple(position)}" if position else "")
        return f"{self.tensor}, {where}, sample {self.sample}: {self.got} instead of {self.expected}"


@dataclass(frozen=True, kw_only=True)
class EngineResult:
    """How an engine did.

    Args:
        name: The engine.
        tensors: How many tensors of the graph it computed.
        values: How many values were compared.
        different: How many of them differ.
        first: The first of those in the order of the graph, among the first samples with any.
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
        samples: How many samples.
        engines: One result an engine.
    """

    samples: int
    engines: tuple[EngineResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no value differs."""
        return all(engine.different == 0 for engine in self.engines)


def verify(
    graph: Graph,
    engines: Sequence[Engine],
    batches: Iterable[tuple[NDArray[np.generic], ...] | NDArray[np.generic]],
    progress: Callable[[int], None] | None = None,
) -> Verification:
    """Compare engines with the interpreter, tensor by tensor.

    Args:
        graph: A valid graph.
        engines: What to compare.
        batches: An array for each input, as engines take them; an array alone for one input.
        progress: Called with the number of samples done, after each batch.

    Raises:
        EngineError: There are no samples, they do not fit, or an engine leaves out an output.
    """
    tallies = [_Tally(engine) for engine in engines]
    samples = 0
    for given in batches:
        batch = given if isinstance(given, tuple) else (given,)
        prepared = prepare(graph, *batch)
        expected = dict(interpreter.layers(graph, *prepared.codes))
        for tally in tallies:
            tally.compare(graph, batch, expected, samples)
        samples += prepared.count
        if progress is not None:
            progress(samples)
    if samples == 0:
        raise EngineError("a comparison needs at least one sample, got none")
    return Verification(samples=samples, engines=tuple(tally.result() for tally in tallies))


class _Tally:
    """Counts the differences of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tensors: set[str] = set()
        self.values = self.different = 0
        self.first: Difference | None = None

    def compare(
        self, graph: Graph, batch: tuple[NDArray[np.generic], ...], expected: dict[str, NDArray[np.int64]], done: int
    ) -> None:
        found = dict(self.engine.layers(*batch))
        outputs = {node.name for node in graph.outputs}
        if not outputs <= found.keys() <= expected.keys():
            raise EngineError(
                f"{self.engine.name} must compute tensors of the graph up to {sorted(outputs)}, got {sorted(found)}"
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
                sample, *index = (int(i) for i in np.argwhere(got != wanted)[0])
                self.first = Difference(
                    tensor=name,
                    sample=done + sample,
                    index=tuple(index),
                    expected=int(wanted[sample, *index]),
                    got=int(got[sample, *index]),
                )

    def result(self) -> EngineResult:
        return EngineResult(
            name=self.engine.name,
            tensors=len(self.tensors),
            values=self.values,
            different=self.different,
            first=self.first,
        )
