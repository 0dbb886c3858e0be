"""`maqd verify`."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maqd.cli.arguments import configure, take_settings
from maqd.cli.options import Options, UsageError, some_path
from maqd.cli.text import Counter, table
from maqd.errors import ConfigError, MissingDependencyError
from maqd.graph import Graph, container
from maqd.runtime import ENGINES, Engine, inputs
from maqd.runtime.verify import verify
from maqd.settings.training import EvalConfig
from maqd.settings.tree import to_plain

DEFAULT_ENGINES = ("numpy", "native", "onnxruntime")
"""The exported C program, "c99", is compiled first, which takes its time with large networks."""

BATCH = 50
"""Images at a time: every tensor of all of them is in memory, once for each engine."""


def command(arguments: list[str]) -> int:
    """Run `maqd verify`; the exit status: 1 if a value differs."""
    parser = Options(
        usage="maqd verify GRAPH [--against RUN] [--engines NAME,..] [--images N] [--json] [--data.KEY VALUE ...]",
        description="Compare engines with the NumPy interpreter, every tensor, for equality; status 1 on a difference.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument(
        "--against",
        metavar="RUN",
        type=some_path,
        help="compare with the trained network of this run, on its test images",
    )
    parser.add_argument(
        "--engines", metavar="NAME,..", help=f"of {', '.join(ENGINES)}; by default all that are installed, but for c99"
    )
    parser.add_argument("--images", metavar="N", type=int, default=1000, help="at most N images (1000)")
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last", help="of the run (last)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    data = take_settings(arguments, EvalConfig, "data.")
    options = parser.read(arguments)
    if options.images < 1:
        raise UsageError(f"--images must be at least 1, got {options.images}")
    if data and options.against is None:
        raise UsageError(f"--{data[0][0]} belongs to --against RUN: without a run the images are random")
    graph = container.load(options.graph)
    engines = _engines(graph, options.engines)
    if options.against is None:
        batches: Iterable[tuple[NDArray[np.generic], ...] | NDArray[np.generic]] = _random(graph, options.images)
    else:
        engine, batches = _against(graph, options.against, options.checkpoint, data, options.images)
        engines.insert(0, engine)
    counter = Counter("comparing", sys.stderr)
    try:
        result = verify(graph, engines, batches, lambda done: counter.show(done, options.images, "images"))
    finally:
        counter.clear()
    if options.json:
        found = {**asdict(result), "graph": str(options.graph), "ok": result.ok, "random": options.against is None}
        print(json.dumps(found))
    else:
        print(
            table(
                ("engine", "tensors", "values compared", "different"),
                [(engine.name, engine.tensors, engine.values, engine.different) for engine in result.engines],
            )
        )
        for engine in result.engines:
            if engine.first is not None:
                print(f"{engine.name}: first difference in {engine.first}")
        first, *others = result.engines
        if options.against is not None and first.different and not any(engine.different for engine in others):
            print(
                f"the graph may be of another run or checkpoint; lower it again: maqd lower {options.against} -o FILE"
            )
        kind = "random samples" if options.against is None else "test images"
        print(f"{result.samples} {kind}: {'all integers are the same' if result.ok else 'NOT the same integers'}")
    return 0 if result.ok else 1


def _engines(graph: Graph, names: str | None) -> list[Engine]:
    chosen = DEFAULT_ENGINES if names is None else tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    engines: list[Engine] = []
    for name in chosen:
        if name not in ENGINES:
            raise UsageError(f"--engines must be of {', '.join(ENGINES)}, got {name!r}")
        try:
            engines.append(ENGINES[name].make(graph))
        except MissingDependencyError:
            if names is not None:
                raise
    return engines


def _random(graph: Graph, count: int) -> Iterator[tuple[NDArray[np.generic], ...]]:
    for start in range(0, count, BATCH):
        yield inputs.random(graph, min(BATCH, count - start), seed=start)


def _against(
    graph: Graph, run: Path, checkpoint: str, options: list[tuple[str, str]], count: int
) -> tuple[Engine, Iterator[NDArray[np.uint8]]]:
    """The network of a run, and its test images."""
    from maqd.lowering import TorchEngine
    from maqd.training.run_directory import Which
    from maqd.training.runs import open_run

    opened = open_run(run, checkpoint=Which(checkpoint))
    return TorchEngine(opened.network, graph), test_images(graph, run, options, count)


def test_images(graph: Graph, run: Path, options: list[tuple[str, str]], count: int) -> Iterator[NDArray[np.uint8]]:
    """Test images of a run's data set.

    Args:
        graph: What they must fit.
        run: Directory of the run.
        options: Names and values that replace those of the run's own data.
        count: At most this many.

    Yields:
        uint8, up to `BATCH` x the input's shape.

    Raises:
        ConfigError: The images do not fit the graph.
    """
    from maqd.training.runs import open_run

    opened = open_run(run)
    if opened.header.data.shape != graph.input.shape:
        raise ConfigError(
            f"{run}: its test images have shape {opened.header.data.shape}, and the graph takes {graph.input.shape}; "
            "verify the graph that was lowered from this run"
        )
    base = {"data": to_plain(opened.config.data)}
    parsed = configure(EvalConfig, [base], options)
    return opened.test_images(count, data=parsed.data, batch=BATCH)
