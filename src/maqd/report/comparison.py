"""Networks beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from maqd.graph import Activation, Graph, Weighted
from maqd.graph.summary import summarize
from maqd.report.charts import Line, bars, lines
from maqd.report.content import Training, account, curve, percent
from maqd.report.energy import DRAM_WORD
from maqd.report.observation import Observation
from maqd.report.page import Section, Table


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network of a comparison.

    Args:
        name: What it is called.
        integers: The graph, and what samples did in it; None of a network in float.
        training: Of its run; None for a file alone.
    """

    name: str
    integers: tuple[Graph, Observation] | None
    training: Training | None


def comparison(subjects: Sequence[Subject]) -> list[Section]:
    """The sections of a page that compares networks.

    Args:
        subjects: At least two.
    """
    integers = [(one.name, *one.integers) for one in subjects if one.integers is not None]
    curves = [_curves(subjects, what) for what in ("loss", "accuracy")]
    sections = [
        Section(
            title="Networks",
            text="R_w and R_a are the fractions of weights and activations that are not zero, each value counting "
            "once, on test samples of a run, or on random ones of a file, with which activations are less sparse. "
            "Events are multiplications of two numbers that are not zero. Energy is a model of arithmetic alone, and "
            "of arithmetic with memory traffic, weights in DRAM: each as a share of the same network in float32.",
            table=Table(
                headings=(
                    "network", "result", "M_w", "M_a", "weights", "bytes", "MACs", "events", "R_w", "R_a", "energy",
                    "with traffic",
                ),
                rows=[_row(one) for one in subjects],
            ),
        ),
        Section(title="Training", charts=[chart for chart in curves if chart is not None]),
        Section(
            title="Sparsity",
            charts=[
                (
                    bars(
                        "Fractions that are not zero, by network",
                        [name for name, _, _ in integers],
                        [
                            ("R_w", [summarize(graph).nonzero_ratio for _, graph, _ in integers]),
                            ("R_a", [activity(graph, seen) for _, graph, seen in integers]),
                        ],
                    ),
                    "",
                )
            ] if integers else [],
        ),
    ]  # fmt: skip
    return [one for one in sections if one.table or one.charts]


def _row(one: Subject) -> tuple[str | float | None, ...]:
    result = None if one.training is None or one.training.result is None else one.training.result
    if one.integers is None:
        return (one.name, result, "float", "float", *([None] * 8))
    graph, seen = one.integers
    summary = summarize(graph)
    cost = account(graph, summary, seen)
    ours = [percent(mine, floats) for floats, mine in (cost.arithmetic, cost.with_traffic(DRAM_WORD))]
    return (
        one.name,
        result,
        _states({node.weight.states.count for node in graph.nodes if isinstance(node, Weighted)}),
        _states({node.states.count for node in graph.nodes if isinstance(node, Activation)}),
        summary.weights,
        summary.weight_bytes,
        summary.macs,
        round(cost.events),
        summary.nonzero_ratio,
        activity(graph, seen),
        *ours,
    )


def _states(found: set[int]) -> str:
    return ", ".join(map(str, sorted(found)))


def activity(graph: Graph, seen: Observation) -> float:
    """R_a: the fraction of activations that are not zero."""
    active = [name for name in seen.count if isinstance(graph[name], Activation)]
    return sum(seen.nonzero[name] for name in active) / (sum(seen.count[name] for name in active) or 1)


def _curves(subjects: Sequence[Subject], what: str) -> tuple[str, str] | None:
    found = []
    for one in subjects:
        if one.training is not None and (points := curve(one.training.entries, f"{one.training.images}_{what}")):
            found.append(Line(title=one.name, x=[x for x, _ in points], y=[y for _, y in points]))
    if not any(len(line.x) > 1 for line in found):
        return None
    return lines(f"Evaluated {what} by epoch", found, x_title="epoch", y_title=what), f"Evaluated {what}"
