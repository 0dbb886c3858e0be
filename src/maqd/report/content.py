"""What a report says of a network: the card on top and the sections below it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maqd.graph import Activation, Conv, FixedPoint, Graph, Node, Thresholds, Weighted
from maqd.graph.summary import LayerSummary, Summary, summarize
from maqd.report.charts import Line, bars, histogram, lines, matrix
from maqd.report.energy import DRAM_WORD, SRAM_WORD, Operations, Traffic
from maqd.report.image import data_uri
from maqd.report.network import Step, drawing
from maqd.report.observation import Mistake, Observation
from maqd.report.page import Photo, Section, Table

BINS = 80
"""Bars of a histogram at most."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Standardized weights of a layer.

    Args:
        name: Dotted name of the layer.
        middles: Of the bars, in standard deviations of a filter.
        counts: Weights in each bar.
        borders: Where the code changes.
    """

    name: str
    middles: Sequence[float]
    counts: Sequence[int]
    borders: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a run adds to its graph.

    Args:
        images: Which were evaluated: "test", or "validation" for held-out training images.
        result: The evaluation, as a person reads it; None in the middle of an epoch.
        entries: The lines of its metrics.
        weights: Its standardized weights.
    """

    images: str
    result: str | None
    entries: Sequence[Mapping[str, Any]]
    weights: Sequence[Spread]


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a network costs under the models of `maqd.report.energy`, for one sample.

    Args:
        work: Of each layer with weights.
        moved: The same.
    """

    work: Mapping[str, Operations]
    moved: Mapping[str, Traffic]

    @property
    def events(self) -> float:
        """Products of two numbers that are not zero."""
        return sum(one.events for one in self.work.values())

    @property
    def arithmetic(self) -> tuple[float, float]:
        """Picojoules of the float network, and of the integers."""
        work = self.work.values()
        return sum(one.float_picojoules for one in work), sum(one.picojoules for one in work)

    def with_traffic(self, weight_word: float) -> tuple[float, float]:
        """The same with what moves between memories; `weight_word` as in `Traffic.picojoules`."""
        floats, ours = self.arithmetic
        moved = self.moved.values()
        return (
            floats + sum(one.float_picojoules(weight_word) for one in moved),
            ours + sum(one.picojoules(weight_word) for one in moved),
        )


def account(graph: Graph, summary: Summary, seen: Observation) -> Account:
    """What a graph costs for the samples that were seen."""
    work: dict[str, Operations] = {}
    moved: dict[str, Traffic] = {}
    for layer in summary.layers:
        node = graph[layer.name]
        if not isinstance(node, Weighted) or not layer.weights:
            continue
        fed, kind = seen.ratio(node.inputs[0]), graph.types[node.inputs[0]]
        small = node.weight.states.magnitude <= 1
        work[layer.name] = Operations(
            macs=layer.macs,
            events=layer.macs * (1.0 if fed is None else fed) * layer.nonzero / layer.weights,
            products=not (small or kind.grid.magnitude <= 1),
        )
        moved[layer.name] = Traffic(
            weights=layer.weights,
            weight_states=node.weight.states.count,
            inputs=math.prod(kind.shape),
            input_states=kind.grid.high - kind.grid.low + 1,
        )
    return Account(work=work, moved=moved)


def content(graph: Graph, seen: Observation, training: Training | None) -> tuple[list[tuple[str, str]], list[Section]]:
    """The card and the sections.

    Args:
        graph: A valid graph.
        seen: What samples did in it.
        training: Of its run; None for a file alone.
    """
    summary = summarize(graph)
    cost = account(graph, summary, seen)
    floats, ours = cost.arithmetic
    card = [*_card(graph, training, summary), ("energy of float's arithmetic", percent(ours, floats))]
    sections = [
        *([] if training is None else [Section(title="Training", charts=list(_curves(training)))]),
        *_answers(graph, seen),
        _layers(graph, seen, summary, cost, tested=training is not None),
        Section(
            title="Network",
            text="From top to bottom, in the order of computing. Blue: layers with weights. Orange: activations. A "
            "line is a tensor, as long as it is needed.",
            wide=drawing(f"The {len(graph.nodes)} layers of the network", _steps(graph, summary)),
        ),
        _sparsity(graph, seen, summary),
        Section(
            title="Sums and thresholds",
            text="What an activation gets: the integer sums of the channel that varies most. Each dashed line is a "
            "threshold: the code changes by one there.",
            charts=[_sums(graph[name], *found) for name, found in seen.sums.items()],
        ),
        Section(
            title="Weights",
            text="How often each code occurs.",
            charts=[_codes(graph[layer.name]) for layer in summary.layers if layer.weights],
        ),
        *_standardized(training),
        _energy(cost),
    ]
    return card, [one for one in sections if one.table or one.wide or one.photos or any(svg for svg, _ in one.charts)]


def percent(part: float, whole: float) -> str:
    """A share as text."""
    return f"{100 * part / whole:.2f}%" if whole else "-"


def _card(graph: Graph, training: Training | None, summary: Summary) -> Iterator[tuple[str, str]]:
    states = sorted({node.weight.states.count for node in graph.nodes if isinstance(node, Weighted)})
    codes = sorted({node.states.count for node in graph.nodes if isinstance(node, Activation)})
    if training is not None and training.result is not None:
        yield training.images, training.result
    if graph.metadata.float_accuracy is not None:
        yield "float accuracy", f"{100 * graph.metadata.float_accuracy:.2f}%"
    yield "weights", f"{summary.weights:,}"
    yield "bytes of weights", f"{summary.weight_bytes:,} (float: {4 * summary.weights:,})"
    yield "weight states", ", ".join(map(str, states)) or "-"
    yield "activation states", ", ".join(map(str, codes)) or "-"
    yield "MACs a sample", f"{summary.macs:,}"
    if training is not None and training.result is not None:
        yield "proved for", "every sum that can occur"


def _curves(training: Training) -> Iterator[tuple[str, str]]:
    entries = [entry for entry in training.entries if entry["event"] in ("test", "validation")]
    for what in ("loss", "accuracy", "metric"):
        found = [
            Line(title=title, x=[x for x, _ in points], y=[y for _, y in points])
            for title in ("train", training.images)
            if (points := curve(entries, f"{title}_{what}"))
        ]
        if found and len(found[0].x) > 1:
            yield lines(f"{what} by epoch", found, x_title="epoch", y_title=what), ""


def curve(entries: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """The epochs at which a figure was written, and its values."""
    return [(entry["epoch"], entry[name]) for entry in entries if name in entry and "epoch" in entry]


def _answers(graph: Graph, seen: Observation) -> Iterator[Section]:
    if not seen.labels:
        return
    names = graph.labels(graph.outputs[0].key) or tuple(map(str, range(max(seen.labels + seen.answers) + 1)))
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (seen.labels, seen.answers), 1)
    wrong = [
        (int(counts[row, column]), names[row], names[column])
        for row in range(len(names))
        for column in range(len(names))
        if row != column and counts[row, column]
    ]
    most = sorted(wrong, key=lambda entry: -entry[0])[:5]
    told = ", ".join(f"{true} taken for {answer} ({count})" for count, true, answer in most)
    yield Section(
        title="Answers",
        text=f"{seen.right} of {len(seen.labels)} test samples right. {f'Most confused: {told}.' if told else ''}",
        charts=[(matrix("True classes in rows, answers in columns", names, counts.tolist()), "")],
    )
    if seen.mistakes:
        yield Section(
            title="Worst mistakes",
            text="The wrong answers with the largest lead over the true class, in units of the integer scores.",
            photos=[_photo(one, names) for one in seen.mistakes],
        )


def _photo(one: Mistake, names: Sequence[str]) -> Photo:
    text = f"{names[one.label]} taken for {names[one.answer]}"
    return Photo(address=data_uri(one.image), text=f"{text}, by {one.margin:,}", label=f"Image of class {text}")


def _layers(graph: Graph, seen: Observation, summary: Summary, cost: Account, *, tested: bool) -> Section:
    rows = []
    for layer in summary.layers:
        node, one = graph[layer.name], cost.work.get(layer.name)
        rows.append(
            (
                layer.name,
                layer.operation,
                "x".join(map(str, layer.shape)),
                layer.weight_states,
                layer.act_states,
                layer.nonzero / layer.weights if layer.weights else None,
                seen.ratio(layer.name) if isinstance(node, Activation) else None,
                layer.macs or None,
                None if one is None else round(one.events),
                layer.bytes or None,
                layer.accumulator,
                node.shift if isinstance(node, FixedPoint) else None,
            )
        )
    headings = ("layer", "operation", "output", "M_w", "M_a", "R_w", "R_a", "MACs", "events", "bytes", "fits", "K")
    kind = "test samples" if tested else "random samples, with which activations are less sparse"
    return Section(
        title="Layers",
        text=f"R_w and R_a are the fractions of weights and activations that are not zero, measured on {seen.samples} "
        f"{kind}. Events are multiplications of two numbers that are not zero, as MACs times both fractions. K is the "
        "shift of a fixed-point map; others compare with thresholds.",
        table=Table(headings=headings, rows=rows),
    )


def _steps(graph: Graph, summary: Summary) -> list[Step]:
    return [
        Step(
            name=layer.name,
            text=_told(graph[layer.name], layer),
            kind="weights" if layer.weights else "codes" if layer.act_states else "other",
            inputs=graph[layer.name].inputs,
        )
        for layer in summary.layers
    ]


def _told(node: Node, layer: LayerSummary) -> str:
    size = f" {'x'.join(map(str, node.weight.shape[2:]))}" if isinstance(node, Conv) else ""
    states = layer.weight_states or layer.act_states
    told = f", {states} states" if states else ""
    return f"{layer.operation}{size}{told}: {'x'.join(map(str, layer.shape))}"


def _sparsity(graph: Graph, seen: Observation, summary: Summary) -> Section:
    active = [name for name in seen.count if isinstance(graph[name], Activation)]
    weighted = [layer for layer in summary.layers if layer.weights]
    ratios = [layer.nonzero / layer.weights for layer in weighted]
    return Section(
        title="Sparsity",
        charts=[
            (
                bars(
                    "Fraction of weights that are not zero, by layer",
                    [layer.name for layer in weighted],
                    [("R_w", ratios)],
                ),
                "",
            ),
            (
                bars(
                    "Fraction of activations that are not zero, by layer",
                    active,
                    [("R_a", [seen.ratio(name) for name in active])],
                ),
                "",
            ),
        ],
    )


def _sums(node: Node, channel: int, parts: Sequence[Any]) -> tuple[str, str]:
    assert isinstance(node, Thresholds), "sums are kept of nodes with thresholds"
    values = np.concatenate(parts)
    low, high = int(values.min()), int(values.max())
    step = max(1, -(-(high - low + 1) // BINS))
    counts = np.bincount((values - low) // step)
    middles = [low + step * place + (step - 1) / 2 for place in range(len(counts))]
    sign = int(node.signs[channel])
    cuts = [sign * (int(row[channel]) - 0.5) for row in node.thresholds]
    title = f"{node.name}, channel {channel}"
    return histogram(f"Sums and thresholds of {title}", middles, counts.tolist(), cuts, x="integer sum"), title


def _codes(node: Node) -> tuple[str, str]:
    assert isinstance(node, Weighted), "the layer has weights"
    codes, counts = np.unique(node.weight.unpack(), return_counts=True)
    return histogram(f"Weight codes of {node.name}", codes.tolist(), counts.tolist(), [], x="code"), node.name


def _standardized(training: Training | None) -> Iterator[Section]:
    if training is not None and training.weights:
        yield Section(
            title="Standardized weights",
            text="What training keeps in float, filter by filter with mean 0 and deviation 1. Each dashed line is a "
            "border between two codes.",
            charts=[
                (
                    histogram(
                        f"Standardized weights of {one.name}", one.middles, one.counts, one.borders,
                        x="standard deviations",
                    ),
                    one.name,
                )
                for one in training.weights
            ],
        )  # fmt: skip


def _energy(cost: Account) -> Section:
    models = (
        ("arithmetic alone", cost.arithmetic),
        ("and traffic, weights on the chip", cost.with_traffic(SRAM_WORD)),
        ("and traffic, weights in DRAM", cost.with_traffic(DRAM_WORD)),
    )
    return Section(
        title="Energy, three models",
        text="Microjoules a sample, from figures for 45 nm at 0.9 V (Horowitz, ISSCC 2014; memory: Han et al., arXiv "
        "1506.02626). Arithmetic of float: a product and a sum in float32 for every multiplication. Of integers: a sum "
        "for every event, and a product where neither side is -1, 0 or 1. Traffic: each layer fetches its weights once "
        "and its input is written and read once, 32 bits a value in float, log2 M bits a code in integers. Control, "
        "idle time and what a cache cannot hold are left out.",
        table=Table(
            headings=("model", "float", "integers", "of float"),
            rows=[
                (name, f"{floats / 1e6:,.3f}", f"{ours / 1e6:,.4f}", percent(ours, floats))
                for name, (floats, ours) in models
            ],
        ),
    )
