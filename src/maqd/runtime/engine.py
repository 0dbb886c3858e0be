"""What all engines have in common, and the one table of them."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.graph import Graph, Output, container
from maqd.numerics.limits import EXACT_LIMIT, MOST_THREADS
from maqd.runtime.inputs import Prepared, prepare

Codes = NDArray[np.int32]
Values = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Class:
    """An answer of a classifier.

    Args:
        index: Number of the class.
        label: Its name; the number where the file has no labels.
        logit: The integer.
        score: Its value.
    """

    index: int
    label: str
    logit: int
    score: float


class Engine(Protocol):
    """What can compute every tensor of a graph."""

    @property
    def name(self) -> str:
        """For people and options."""
        ...

    def layers(self, *inputs: Any) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Name and codes of every tensor that the engine computes, int64, N x the tensor's shape.

        Args:
            inputs: As `maqd.runtime.inputs.prepare` takes them.
        """
        ...


class BaseEngine(ABC):
    """A graph that can be run.

    Args:
        graph: A valid graph.
    """

    name: str

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @abstractmethod
    def compute(self, prepared: Prepared) -> tuple[Codes, ...]:
        """The codes of each output, int32, N x its shape."""

    @abstractmethod
    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Every tensor that the engine computes, as in `layers`."""

    def options(self) -> dict[str, Any]:
        """The arguments of the constructor beside the graph that make an equal engine."""
        return {}

    def run(self, *inputs: Any) -> Any:
        """The integer codes of the outputs.

        Args:
            inputs: An array for each input, or one mapping from keys to arrays; see `maqd.runtime.inputs.prepare`.

        Returns:
            int32, N x the output's shape, or without N for single samples; of several outputs a dict by key.

        Raises:
            EngineError: The inputs do not fit the network.
        """
        prepared = prepare(self.graph, *inputs)
        return self._results(prepared, self.compute(prepared))

    def scores(self, *inputs: Any) -> Any:
        """The values of the outputs, code * 2**exponent / divisor, as the network in PyTorch gives them.

        Arguments and result as in `run`; float32, or float64 where codes can reach 2**24 (`value_of`).
        """
        prepared = prepare(self.graph, *inputs)
        found = self.compute(prepared)
        values = [value_of(self.graph, node, codes) for node, codes in zip(self.graph.outputs, found, strict=True)]
        return self._results(prepared, values)

    def classify(self, *inputs: Any, top: int = 1, output: str | None = None) -> list[list[Class]]:
        """The best classes of each sample, the best one first; of equals the one with the lower number.

        Args:
            inputs: As in `run`; a single sample counts as a batch of one.
            top: How many classes.
            output: Key of the output, if there are several.

        Raises:
            EngineError: There is no such output, or it is no list of classes.
        """
        place = self._classes(output)
        node = self.graph.outputs[place]
        return best_classes(self.graph, node, self.compute(prepare(self.graph, *inputs))[place], top=top)

    def layers(self, *inputs: Any) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Every tensor that the engine computes: name and codes, int64, N x the tensor's shape.

        Arguments as in `run`; a single sample counts as a batch of one.
        """
        return self.tensors(prepare(self.graph, *inputs))

    def _classes(self, output: str | None) -> int:
        """The place of the output to classify by."""
        keys = [node.key for node in self.graph.outputs]
        if output is None and len(keys) != 1:
            raise EngineError(f"the network has the outputs {', '.join(keys)}; say which one to classify by")
        if output is not None and output not in keys:
            raise EngineError(f"the network has the outputs {', '.join(keys)}, got {output!r}")
        place = 0 if output is None else keys.index(output)
        shape = self.graph.types[self.graph.outputs[place].name].shape
        if len(shape) != 1:
            raise EngineError(f"output {keys[place]!r} has shape {shape} and is no list of classes; use run or scores")
        return place

    def _results(self, prepared: Prepared, found: Sequence[Any]) -> Any:
        values = [value[0] for value in found] if prepared.single else found
        if len(values) == 1:
            return values[0]
        return {node.key: value for node, value in zip(self.graph.outputs, values, strict=True)}

    def __repr__(self) -> str:
        inputs = ", ".join(f"{node.key} {node.storage.value}{list(node.shape)}" for node in self.graph.inputs)
        outputs = ", ".join(f"{node.key} {list(self.graph.types[node.name].shape)}" for node in self.graph.outputs)
        return f"<{type(self).__name__} {inputs} -> {outputs}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), container.to_bytes(self.graph), self.options())

    def __deepcopy__(self, memo: dict[int, object]) -> "BaseEngine":
        return type(self)(self.graph, **self.options())


def _rebuilt(kind: type[BaseEngine], data: bytes, options: dict[str, Any]) -> BaseEngine:
    return kind(container.from_bytes(data), **options)


def value_of(graph: Graph, node: Output, codes: NDArray[np.integer]) -> Values:
    """Code * 2**exponent / divisor, with one division at the most, as the network in PyTorch gives it.

    Returns:
        float32; float64 where codes can reach 2**24, which float32 does not hold. PyTorch's own float64 of layers that
        only come near 2**24, rounded to float32, is the same: a quotient of integers of 24 bits that is rounded to 53
        bits first (docs/numerics.md).
    """
    kind = graph.types[node.name]
    dtype = np.float64 if kind.interval.magnitude >= EXACT_LIMIT else np.float32
    values = np.ldexp(codes.astype(np.float64), kind.exponent).astype(dtype)
    return values if node.divisor == 1 else values / dtype(node.divisor)


def best_classes(graph: Graph, node: Output, logits: Codes, *, top: int) -> list[list[Class]]:
    """The best classes of each sample, as `BaseEngine.classify` gives them.

    Args:
        graph: The graph.
        node: Its output.
        logits: What the output gave, int32 N x classes.
        top: How many classes, at least 1; all of them where there are fewer.

    Raises:
        EngineError: `top` is no such number.
    """
    if type(top) is not int or top < 1:
        raise EngineError(f"top must be an integer of at least 1, got {top!r}; pass how many classes are wanted")
    scores = value_of(graph, node, logits)
    labels = graph.labels(node.key) or tuple(map(str, range(logits.shape[1])))
    best = np.argsort(-logits.astype(np.int64), axis=1, kind="stable")[:, :top]
    return [
        [Class(index=at, label=labels[at], logit=int(row[at]), score=float(values[at])) for at in order.tolist()]
        for order, row, values in zip(best, logits, scores, strict=True)
    ]


def check_threads(threads: object) -> int:
    """The number of threads.

    Raises:
        EngineError: It is no integer from 1 to what systems start.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise EngineError(f"an engine needs an integer in 1 .. {MOST_THREADS} for its threads, got {threads!r}")
    return threads


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where an engine is.

    Args:
        module: Imported when the engine is asked for.
        attribute: Its class in there, or a function that makes it for a graph.
        threaded: Whether it takes a number of threads.
    """

    module: str
    attribute: str
    threaded: bool = False

    def make(self, graph: Graph, *, threads: int = 1) -> BaseEngine:
        """The engine for a graph."""
        kind = getattr(importlib.import_module(self.module), self.attribute)
        return kind(graph, threads=threads) if self.threaded else kind(graph)


ENGINES = {
    "numpy": Entry(module="maqd.runtime.numpy", attribute="NumpyEngine"),
    "native": Entry(module="maqd.runtime.native", attribute="NativeEngine", threaded=True),
    "onnxruntime": Entry(module="maqd.runtime.onnxruntime", attribute="OnnxRuntime", threaded=True),
    "c99": Entry(module="maqd.runtime.c99", attribute="CEngine"),
    "snntorch": Entry(module="maqd.runtime.simulators", attribute="snntorch_engine"),
    "spikingjelly": Entry(module="maqd.runtime.simulators", attribute="spikingjelly_engine"),
    "norse": Entry(module="maqd.runtime.simulators", attribute="norse_engine"),
    "sinabs": Entry(module="maqd.runtime.simulators", attribute="sinabs_engine"),
}
"""Every engine by its name in options and arguments."""


def find_engine(name: object) -> Entry:
    """The entry of the table.

    Raises:
        EngineError: There is none of that name.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise EngineError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    return ENGINES[name]
