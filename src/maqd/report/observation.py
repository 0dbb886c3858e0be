"""What samples do inside a graph: counts of every tensor, sums at thresholds, answers, and the worst mistakes."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Graph, Thresholds
from maqd.runtime import default_engine
from maqd.runtime.engine import best_classes

MISTAKES = 12
"""Most wrong answers that are kept with their images."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A sample with a wrong answer.

    Args:
        label, answer: True class, and the one that was answered.
        margin: By how much the answer's integer score is larger than the true class's.
        image: uint8 C x H x W.
    """

    label: int
    answer: int
    margin: int
    image: NDArray[np.uint8]


@dataclass
class Observation:
    """Counts of the tensors of a graph over some samples.

    Args:
        samples: How many there were.
        count, nonzero: Values of each tensor, and those that are not zero.
        sums: Of each activation with thresholds: the channel that is shown, and its sums.
        labels, answers: True class and answer of each sample, where they are known.
        mistakes: The wrong answers with the largest margins, where samples are images; the worst first.
    """

    samples: int = 0
    count: dict[str, int] = field(default_factory=dict)
    nonzero: dict[str, int] = field(default_factory=dict)
    sums: dict[str, tuple[int, list[NDArray[np.int64]]]] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    def ratio(self, name: str) -> float | None:
        """The fraction of a tensor's values that are not zero."""
        return self.nonzero[name] / self.count[name] if self.count.get(name) else None

    @property
    def right(self) -> int:
        """How many answers are the true class."""
        return sum(label == answer for label, answer in zip(self.labels, self.answers, strict=True))


Batches = Iterable[tuple[tuple[NDArray[np.generic], ...], NDArray[np.generic] | None]]
"""An array for each input, and targets or None, as `maqd.training.runs.Run.test_batches` yields them."""


def observe(graph: Graph, batches: Batches) -> Observation:
    """Run samples through a graph, tensor by tensor.

    Args:
        graph: A valid graph.
        batches: Inputs, and targets or None; every tensor of a whole batch is in memory at a time.
    """
    seen = Observation()
    engine = default_engine().make(graph)
    cuts = {node.inputs[0]: node.name for node in graph.nodes if isinstance(node, Thresholds)}
    classes = [node for node in graph.outputs if len(graph.types[node.name].shape) == 1 and graph.labels(node.key)]
    for given, targets in batches:
        seen.samples += len(given[0])
        for name, codes in engine.layers(*given):
            seen.count[name] = seen.count.get(name, 0) + codes.size
            seen.nonzero[name] = seen.nonzero.get(name, 0) + int(np.count_nonzero(codes))
            if name in cuts:
                flat = np.moveaxis(codes, 1, 0).reshape(codes.shape[1], -1)
                channel, kept = seen.sums.setdefault(cuts[name], (int(flat.std(axis=1).argmax()), []))
                kept.append(flat[channel])
            if classes and name == classes[0].name and isinstance(targets, np.ndarray) and targets.ndim == 1:
                logits = codes.astype(np.int32)
                answers = [best[0].index for best in best_classes(graph, classes[0], logits, top=1)]
                labels = targets.astype(int).tolist()
                seen.answers += answers
                seen.labels += labels
                if _pictures(given):
                    seen.mistakes += _mistakes(given[0], logits, labels, answers)
                    seen.mistakes = sorted(seen.mistakes, key=lambda one: -one.margin)[:MISTAKES]
    return seen


def _pictures(given: tuple[NDArray[np.generic], ...]) -> bool:
    """Whether samples are images: one input, bytes, one or three channels."""
    return len(given) == 1 and given[0].dtype == np.uint8 and given[0].ndim == 4 and given[0].shape[1] in (1, 3)


def _mistakes(
    images: NDArray[np.generic], logits: NDArray[np.int32], labels: list[int], answers: list[int]
) -> list[Mistake]:
    return [
        Mistake(
            label=label,
            answer=answer,
            margin=int(logits[place, answer]) - int(logits[place, label]),
            image=images[place].astype(np.uint8),
        )
        for place, (label, answer) in enumerate(zip(labels, answers, strict=True))
        if label != answer
    ]
