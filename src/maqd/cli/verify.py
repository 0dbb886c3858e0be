"""`maqd verify`."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maqd.cli.arguments import configure, named_functions, take_settings
from maqd.cli.graphs import load_graph
from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.cli.text import Counter, table
from maqd.errors import ConfigError, MissingDependencyError
from maqd.graph import Graph
from maqd.runtime import ENGINES, Engine, inputs
from maqd.runtime.verify import verify
from maqd.settings.functions import check_imports
from maqd.settings.training import EvalConfig
from maqd.settings.tree import to_plain

if TYPE_CHECKING:
    from maqd.training.runs import Run

DEFAULT_ENGINES = ("numpy", "native", "onnxruntime")
"""The exported C program, "c99", is compiled first, which takes long for large networks."""

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
        "--engines",
        metavar="NAME,..",
        help=f"of {', '.join(ENGINES)}; by default {', '.join(DEFAULT_ENGINES)} where installed",
    )
    parser.add_argument("--images", metavar="N", type=whole, default=1000, help="at most N images (1000)")
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last", help="of the run (last)")
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    data = take_settings(arguments, EvalConfig, "data.")
    options = parser.read(arguments)
    if options.images < 1:
        raise UsageError(f"--images must be at least 1, got {options.images}")
    if data and options.against is None:
        raise UsageError(f"--{data[0][0]} belongs to --against RUN: without a run the images are random")
    graph = load_graph(options.graph)
    engines = _engines(graph, options.engines)
    if options.against is None:
        batches: Iterable[tuple[NDArray[np.generic], ...] | NDArray[np.generic]] = random_inputs(graph, options.images)
    else:
        against = open_against(graph, options.against, options.checkpoint, allow_import=options.allow_import)
        batches = inputs_of(against, data, options.images, allow_import=options.allow_import)
        engine = _pytorch(against, graph)
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


def random_inputs(graph: Graph, count: int) -> Iterator[tuple[NDArray[np.generic], ...]]:
    """Random samples for a graph, `count` in all, up to `BATCH` at a time."""
    for start in range(0, count, BATCH):
        yield inputs.random(graph, min(BATCH, count - start), seed=start)


def _pytorch(run: "Run", graph: Graph) -> Engine:
    from maqd.lowering import TorchEngine

    return TorchEngine(run.network, graph)


def open_against(graph: Graph, path: Path, checkpoint: str = "last", *, allow_import: bool = False) -> "Run":
    """A run whose test set goes into a graph.

    Args:
        graph: The graph.
        path: Directory of the run.
        checkpoint: "last" or "best".
        allow_import: Whether functions that it names may be imported.

    Raises:
        ConfigError: Its inputs do not fit the graph.
    """
    from maqd.training.run_directory import Which
    from maqd.training.runs import open_run

    run = open_run(path, checkpoint=Which(checkpoint), allow_import=allow_import)
    shapes = tuple(one.shape for one in run.header.data.inputs)
    wanted = tuple(node.shape for node in graph.inputs)
    if shapes != wanted:
        raise ConfigError(
            f"{path}: its test samples have the shapes {shapes}, and the graph takes {wanted}; "
            "name the graph that was lowered from this run"
        )
    return run


def samples_of(
    graph: Graph, path: Path, options: list[tuple[str, str]], count: int, *, allow_import: bool = False
) -> tuple[NDArray[Any], ...]:
    """Test samples of a run: an array for each input of a graph, at most `count` x its shape; arguments as in
    `inputs_of`.
    """
    run = open_against(graph, path, allow_import=allow_import)
    batches = list(inputs_of(run, options, count, allow_import=allow_import))
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def inputs_of(
    run: "Run", options: list[tuple[str, str]], count: int, *, allow_import: bool = False
) -> Iterator[tuple[NDArray[np.generic], ...]]:
    """Inputs of a run's test set, as `batches_of` without its targets."""
    return (inputs for inputs, _ in batches_of(run, options, count, allow_import=allow_import))


def batches_of(
    run: "Run", options: list[tuple[str, str]], count: int, *, allow_import: bool = False
) -> Iterator[tuple[tuple[NDArray[np.generic], ...], NDArray[np.generic] | None]]:
    """A run's test set.

    Args:
        run: From `open_against`.
        options: Names and values that replace those of the run's own data.
        count: At most this many samples.
        allow_import: Whether a function that the run names may be imported for its data.

    Yields:
        An array for each input, up to `BATCH` x its shape; and the target, None where there are several.

    Raises:
        ConfigError: The samples do not fit the run.
    """
    base = {"data": to_plain(run.config.data)}
    data = configure(EvalConfig, [base], options).data
    if data.function is not None:
        named = {"data.function": data.function}
        check_imports(named, named_functions(options), where=str(run.path), allow=allow_import)
    return run.test_batches(count, data=data, batch=BATCH)
