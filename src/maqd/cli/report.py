"""`maqd report`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maqd.cli.options import Options, UsageError, some_path
from maqd.errors import ConfigError
from maqd.graph import Activation, FixedPoint, Graph, Thresholds, Weighted, container
from maqd.graph.summary import summarize
from maqd.io.files import write_atomically
from maqd.io.outputs import Artefact, check_output
from maqd.runtime import default_engine, inputs
from maqd.runtime.engine import best_classes

if TYPE_CHECKING:
    from maqd.report.page import Section
    from maqd.training.runs import Run

BATCH = 50
"""Samples at a time: every tensor of all of them is in memory."""

BINS = 80
"""Bars of a histogram at most."""


def command(arguments: list[str]) -> int:
    """Run `maqd report`; the exit status."""
    parser = Options(
        usage="maqd report RUN|GRAPH [-o FILE.html] [--samples N] [--checkpoint {last,best}] [--allow-import] [--json]",
        description="Show what a network does, in one HTML page: layers, codes, thresholds, sparsity, energy, and of a "
        "run also its training and what it confuses.",
    )
    parser.add_argument("source", metavar="RUN|GRAPH", type=some_path, help="directory of a run, or a .maqd file")
    parser.add_argument("-o", "--output", metavar="FILE", type=some_path, help="the page (NAME.html)")
    parser.add_argument("--samples", metavar="N", type=int, default=200, help="samples that go through it (200)")
    parser.add_argument("--checkpoint", choices=["last", "best"], help="of a run (last)")
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    if options.samples < 1:
        raise UsageError(f"--samples must be at least 1, got {options.samples}")
    source: Path = options.source
    if source.is_file():
        for flag, given in (("--checkpoint", options.checkpoint is not None), ("--allow-import", options.allow_import)):
            if given:
                raise UsageError(f"{flag} belongs to a RUN, and {source} is a file")
    output = options.output or Path(f"{source.stem if source.is_file() else source.resolve().name}.html")
    check_output(output, Artefact.PAGE, inputs=[source])
    run = None
    if source.is_dir():
        run = _open(source, options.checkpoint or "last", allow_import=options.allow_import)
        graph, batches = run.graph, run.test_batches(options.samples, batch=BATCH)
    else:
        graph = container.load(source)
        batches = _random(graph, options.samples)
    seen = observe(graph, batches)

    from maqd.report.page import page

    card, sections = _content(graph, seen, run)
    title = source.resolve().name
    write_atomically(output, [page(title, card, sections).encode(errors="backslashreplace")])
    size = output.stat().st_size
    if options.json:
        print(json.dumps({"output": str(output), "bytes": size, "samples": seen.samples, **dict(card)}))
    else:
        print(f"{output}: {size:,} bytes, {seen.samples} {'test' if run else 'random'} samples")
    return 0


def _open(path: Path, checkpoint: str, *, allow_import: bool) -> "Run":
    from maqd.training.run_directory import Which
    from maqd.training.runs import open_run

    return open_run(path, checkpoint=Which(checkpoint), allow_import=allow_import)


def _random(graph: Graph, count: int) -> Iterator[tuple[tuple[NDArray[np.generic], ...], None]]:
    """Samples of a file whose data are not known."""
    for start in range(0, count, BATCH):
        yield inputs.random(graph, min(BATCH, count - start), seed=start), None


@dataclass
class Observation:
    """Counts of the tensors of a graph over some samples.

    Args:
        samples: How many there were.
        count, nonzero: Values of each tensor, and those that are not zero.
        sums: Of each activation with thresholds: the channel that is shown, and its sums.
        labels, answers: True class and answer of each sample, where they are known.
    """

    samples: int = 0
    count: dict[str, int] = field(default_factory=dict)
    nonzero: dict[str, int] = field(default_factory=dict)
    sums: dict[str, tuple[int, list[NDArray[np.int64]]]] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def ratio(self, name: str) -> float | None:
        """The fraction of a tensor's values that are not zero."""
        return self.nonzero[name] / self.count[name] if self.count.get(name) else None


def observe(graph: Graph, batches: Iterator[tuple[tuple[NDArray[np.generic], ...], Any]]) -> Observation:
    """Run samples through a graph, tensor by tensor.

    Args:
        graph: A valid graph.
        batches: Inputs, and targets or None.
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
                answers = best_classes(graph, classes[0], codes.astype(np.int32), top=1)
                seen.answers += [best[0].index for best in answers]
                seen.labels += targets.astype(int).tolist()
    return seen


def _content(graph: Graph, seen: Observation, run: "Run | None") -> tuple[list[tuple[str, str]], list["Section"]]:
    from maqd.report.charts import bars, matrix
    from maqd.report.energy import Operations
    from maqd.report.page import Section, Table

    summary = summarize(graph)
    work: dict[str, Operations] = {}
    for layer in summary.layers:
        node = graph[layer.name]
        if isinstance(node, Weighted) and layer.weights:
            fed = seen.ratio(node.inputs[0])
            small = node.weight.states.magnitude <= 1
            grid = graph.types[node.inputs[0]].grid
            work[layer.name] = Operations(
                macs=layer.macs,
                events=layer.macs * (1.0 if fed is None else fed) * layer.nonzero / layer.weights,
                products=not (small or grid.magnitude <= 1),
            )
    floats, ours = (sum(getattr(one, what) for one in work.values()) for what in ("float_picojoules", "picojoules"))
    card = _card(graph, run, summary.weights, summary.weight_bytes, summary.macs)
    card.append(("energy model, of float", f"{100 * ours / floats:.2f}%" if floats else "-"))
    rows = []
    for layer in summary.layers:
        node, one = graph[layer.name], work.get(layer.name)
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
    active = [name for name in seen.count if isinstance(graph[name], Activation)]
    weighted = [layer for layer in summary.layers if layer.weights]
    kind = "test samples" if run is not None else "random samples, with which activations are less sparse"
    sections = [
        *_curves(run),
        Section(
            title="Layers",
            text=f"R_w and R_a are the fractions of weights and activations that are not zero, measured on "
            f"{seen.samples} {kind}. Events are multiplications of two numbers that are not zero, as MACs times both "
            "fractions. K is the shift of a fixed-point map; others compare with thresholds.",
            table=Table(headings=headings, rows=rows),
        ),
        Section(
            title="Sparsity",
            charts=[
                (
                    bars(
                        "Fraction of weights that are not zero, by layer",
                        [layer.name for layer in weighted],
                        [("R_w", [layer.nonzero / layer.weights for layer in weighted])],
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
        ),
        Section(
            title="Sums and thresholds",
            text="What an activation gets: the integer sums of the channel that varies most. Each dashed line is a "
            "threshold: the code changes by one there.",
            charts=[_sums(graph, name, *found) for name, found in seen.sums.items()],
        ),
        Section(
            title="Weights",
            text="How often each code occurs.",
            charts=[_weights(graph, layer.name) for layer in weighted],
        ),
        Section(
            title="Energy of the arithmetic, a model",
            text=f"Float: a product and a sum in float32 for every multiplication, {floats / 1e6:,.2f} microjoules a "
            f"sample. Integers: a sum for every event, and a product where neither side is -1, 0 or 1, "
            f"{ours / 1e6:,.3f} microjoules. From figures for 45 nm at 0.9 V (Horowitz, ISSCC 2014); memory, control "
            "and idle time are left out, and often cost more.",
        ),
    ]
    if seen.labels:
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
        right = sum(label == answer for label, answer in zip(seen.labels, seen.answers, strict=True))
        sections.insert(
            1 if run is not None else 0,
            Section(
                title="Answers",
                text=f"{right} of {len(seen.labels)} test samples right. {f'Most confused: {told}.' if told else ''}",
                charts=[(matrix("True classes in rows, answers in columns", names, counts.tolist()), "")],
            ),
        )
    return card, [one for one in sections if one.table or one.text or any(svg for svg, _ in one.charts)]


def _card(graph: Graph, run: "Run | None", weights: int, size: int, macs: int) -> list[tuple[str, str]]:
    states = sorted({node.weight.states.count for node in graph.nodes if isinstance(node, Weighted)})
    codes = sorted({node.states.count for node in graph.nodes if isinstance(node, Activation)})
    card = [
        ("weights", f"{weights:,}"),
        ("bytes of weights", f"{size:,} (float: {4 * weights:,})"),
        ("weight states", ", ".join(map(str, states)) or "-"),
        ("activation states", ", ".join(map(str, codes)) or "-"),
        ("MACs a sample", f"{macs:,}"),
    ]
    if graph.metadata.float_accuracy is not None:
        card.append(("float accuracy", f"{100 * graph.metadata.float_accuracy:.2f}%"))
    if run is not None and run.header.evaluation is not None:
        card.insert(0, (run.header.evaluated, str(run.header.evaluation)))
        card.append(("proved for", "every sum that can occur"))
    return card


def _curves(run: "Run | None") -> list["Section"]:
    from maqd.report.charts import Line, lines
    from maqd.report.page import Section

    if run is None:
        return []
    entries = [entry for entry in run.metrics if entry["event"] in ("test", "validation")]
    charts = []
    for what, name in (("loss", "loss"), ("accuracy", "accuracy"), ("metric", "metric")):
        found = []
        for title in ("train", run.header.evaluated):
            points = [(entry["epoch"], entry[f"{title}_{what}"]) for entry in entries if f"{title}_{what}" in entry]
            if points:
                found.append(Line(title=title, x=[x for x, _ in points], y=[y for _, y in points]))
        if found and len(found[0].x) > 1:
            charts.append((lines(f"{name} by epoch", found, x_title="epoch", y_title=name), ""))
    return [Section(title="Training", charts=charts)] if charts else []


def _sums(graph: Graph, name: str, channel: int, parts: Sequence[NDArray[np.int64]]) -> tuple[str, str]:
    from maqd.report.charts import histogram

    node, values = graph[name], np.concatenate(parts)
    if not isinstance(node, Thresholds):
        raise ConfigError(f"{name} has no thresholds; show those that have")
    low, high = int(values.min()), int(values.max())
    step = max(1, -(-(high - low + 1) // BINS))
    counts = np.bincount((values - low) // step)
    middles = [low + step * place + (step - 1) / 2 for place in range(len(counts))]
    sign = int(node.signs[channel])
    cuts = [sign * (int(row[channel]) - 0.5) for row in node.thresholds]
    title = f"{name}, channel {channel}"
    return histogram(f"Sums and thresholds of {title}", middles, counts.tolist(), cuts, x="integer sum"), title


def _weights(graph: Graph, name: str) -> tuple[str, str]:
    from maqd.report.charts import histogram

    node = graph[name]
    if not isinstance(node, Weighted):
        raise ConfigError(f"{name} has no weights; show those that have")
    codes, counts = np.unique(node.weight.unpack(), return_counts=True)
    return histogram(f"Weight codes of {name}", codes.tolist(), counts.tolist(), [], x="code"), name
