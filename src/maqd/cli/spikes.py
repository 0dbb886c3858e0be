"""`maqd spikes`."""

import enum
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from maqd.cli.arguments import take_settings
from maqd.cli.graphs import load_graph
from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.cli.text import table
from maqd.cli.verify import batches_of, open_against, random_inputs
from maqd.errors import ConfigError
from maqd.graph import interpreter
from maqd.io.outputs import Artefact, check_output
from maqd.runtime import inputs
from maqd.settings.training import EvalConfig
from maqd.spiking import Dynamics, LayerSpikes, Reset, SpikingNetwork, compare, run_drained, run_free
from maqd.spiking.picture import draw, sweep

Batch = tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]
"""Inputs, and the target of a run's test set."""

SWEPT = 20
"""Samples of the first batch that a picture's curves are of."""


class Mode(enum.Enum):
    """When neurons fire."""

    DRAIN = "drain"
    FREE = "free"


def command(arguments: list[str]) -> int:
    """Run `maqd spikes`; the exit status: 1 if draining neurons give a wrong integer."""
    from maqd.report.energy import INTEGER_ADD

    parser = Options(
        usage="maqd spikes GRAPH [--mode {drain,free} [--steps T] [--reset {soft,hard}] [--leak BITS]] [--against RUN] "
        "[--images N] [--picture PATH] [--json] [--data.KEY VALUE ...]",
        description="Run a graph as a spiking network, step by step, and compare its spikes with the graph's integers.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.DRAIN.value,
        help="drain: integrate a window, then fire, exact (the default); free: integrate and fire in every step",
    )
    parser.add_argument("--steps", metavar="T", type=whole, help="of free: steps (a multiple of every M-1)")
    parser.add_argument(
        "--reset", choices=[reset.value for reset in Reset], help="of free: subtract the threshold (soft), or to zero"
    )
    parser.add_argument("--leak", metavar="BITS", type=whole, help="of free: potentials lose 2^-BITS a step (no leak)")
    parser.add_argument("--against", metavar="RUN", type=some_path, help="test images of this run; random samples else")
    parser.add_argument("--images", metavar="N", type=whole, default=100, help="at most N images (100)")
    parser.add_argument(
        "--picture",
        metavar="PATH",
        type=some_path,
        help="draw which neurons fire when, and wrong counts against steps, as PNG",
    )
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    data = take_settings(arguments, EvalConfig, "data.")
    options = parser.read(arguments)
    mode = Mode(options.mode)
    for name in ("steps", "reset", "leak"):
        if mode is Mode.DRAIN and getattr(options, name) is not None:
            raise UsageError(f"--{name} belongs to --mode free: draining neurons follow a schedule")
    for name in ("images", "steps"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if data and options.against is None:
        raise UsageError(f"--{data[0][0]} belongs to --against RUN: without a run the images are random")
    try:
        dynamics = Dynamics(reset=Reset(options.reset or Reset.SOFT.value), leak=options.leak)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    if options.picture is not None:
        check_output(options.picture, Artefact.PICTURE, inputs=[options.graph])
    graph = load_graph(options.graph)
    network = SpikingNetwork(graph)
    if options.against is None:
        batches: Iterable[Batch] = ((some, None) for some in random_inputs(graph, options.images))
    else:
        run = open_against(graph, options.against, allow_import=options.allow_import)
        batches = batches_of(run, data, options.images, allow_import=options.allow_import)
    found: list[tuple[LayerSpikes, ...]] = []
    samples = steps = same = right = 0
    labelled = options.against is not None and len(graph.outputs) == 1
    for batch, target in batches:
        codes = inputs.prepare(graph, *batch).codes
        if mode is Mode.DRAIN:
            simulation = run_drained(network, *codes)
        else:
            simulation = run_free(network, *codes, steps=options.steps, dynamics=dynamics)
        if options.picture is not None and not found:
            some = tuple(one[:SWEPT] for one in codes)
            kind = "integrate, then drain" if mode is Mode.DRAIN else f"free-running, {dynamics.reset.value} reset"
            title = f"{options.graph.name}, {kind}: spikes of one sample"
            labels = target[:SWEPT] if labelled and _are_labels(target) else None
            points = sweep(network, *some, dynamics=dynamics, labels=labels)
            draw(options.picture, network, simulation, points, title=title)
        found.append(compare(network, simulation, *codes))
        samples, steps = samples + len(codes[0]), simulation.steps
        pairs = zip(graph.outputs, interpreter.run(graph, *codes), strict=True)
        agree = [_largest(simulation.tensors[node.name]) == _largest(wanted) for node, wanted in pairs]
        same += int(np.count_nonzero(np.logical_and.reduce(agree)))
        labelled = labelled and _are_labels(target)
        if labelled:
            right += int(np.count_nonzero(_largest(simulation.tensors[graph.outputs[0].name]) == target))
    rows = [_sum(layer) for layer in zip(*found, strict=True)]
    wrong, additions = sum(row.wrong for row in rows), sum(row.additions or 0 for row in rows) / samples
    picojoules = additions * INTEGER_ADD
    if options.json:
        layers = [asdict(row) for row in rows]
        print(json.dumps({"graph": str(options.graph), "mode": mode.value, "steps": steps, "samples": samples,
                          "layers": layers, "wrong": wrong, "same_class": same,
                          "right": right if labelled else None,
                          "additions_a_sample": additions, "picojoules_a_sample": picojoules}))  # fmt: skip
    else:
        _print(network, mode, rows, samples)
        print(
            f"{samples} samples, {steps} steps each: {wrong:,} of {sum(row.values for row in rows):,} integers differ; "
            f"{same} of {samples} have the same largest output" + (f", {right} are right" if labelled else "")
        )
        print(
            f"{additions:,.0f} additions over connections a sample, {picojoules / 1000:,.2f} nJ at {INTEGER_ADD} pJ "
            "each (45 nm); currents of the input, memory and idle neurons are not counted"
        )
    return 1 if wrong and mode is Mode.DRAIN else 0


def _print(network: SpikingNetwork, mode: Mode, rows: list[LayerSpikes], samples: int) -> None:
    counted = ("values", "wrong", "spikes a sample", "additions a sample", "not as charged")
    headings = ("tensor", "operation", "window", *counted)
    lines = []
    for row in rows:
        one = network.populations.get(row.name)
        window = None if one is None or mode is Mode.FREE else f"{one.start}..{one.stop - 1}"
        spikes = None if row.spikes is None else row.spikes / samples
        additions = None if row.additions is None else row.additions / samples
        lines.append((row.name, row.operation, window, row.values, row.wrong, spikes, additions, row.unsettled))
    print(table(headings, lines))


def _are_labels(target: NDArray[Any] | None) -> TypeGuard[NDArray[np.integer]]:
    return target is not None and target.ndim == 1 and np.issubdtype(target.dtype, np.integer)


def _largest(values: NDArray[np.int64]) -> NDArray[np.intp]:
    return values.reshape(len(values), -1).argmax(1)


def _sum(layer: tuple[LayerSpikes, ...]) -> LayerSpikes:
    first = layer[0]
    return LayerSpikes(
        name=first.name,
        operation=first.operation,
        values=sum(one.values for one in layer),
        wrong=sum(one.wrong for one in layer),
        spikes=None if first.spikes is None else sum(one.spikes or 0 for one in layer),
        additions=None if first.additions is None else sum(one.additions or 0 for one in layer),
        unsettled=None if first.unsettled is None else sum(one.unsettled or 0 for one in layer),
    )
