"""`maqd report`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.graph import Graph, container
from maqd.io.files import write_atomically
from maqd.io.outputs import Artefact, check_output
from maqd.runtime import inputs

if TYPE_CHECKING:
    from maqd.report.comparison import Subject
    from maqd.report.content import Training
    from maqd.report.observation import Observation
    from maqd.training.runs import Run

BATCH = 50
"""Samples at a time: every tensor of all of them is in memory."""
SAMPLES = 200
"""Samples that go through a network."""


def command(arguments: list[str]) -> int:
    """Run `maqd report`; the exit status."""
    parser = Options(
        usage="maqd report RUN|GRAPH [--compare RUN|GRAPH ...] [-o FILE.html] [--samples N] [--checkpoint {last,best}] "
        "[--allow-import] [--json]",
        description="Show what a network does, in one HTML page: layers, codes, thresholds, sparsity, energy, and of a "
        "run also its training and what it confuses. Or compare several.",
    )
    parser.add_argument(
        "sources", metavar="RUN|GRAPH", type=some_path, nargs="+", help="directory of a run, or a .maqd file"
    )
    parser.add_argument("--compare", action="store_true", help="a page of two or more beside each other")
    parser.add_argument("-o", "--output", metavar="FILE", type=some_path, help="the page (NAME.html, or compared.html)")
    parser.add_argument(
        "--samples", metavar="N", type=whole, default=SAMPLES, help=f"samples that go through it ({SAMPLES})"
    )
    parser.add_argument("--checkpoint", choices=["last", "best"], help="of a run (last)")
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    if options.samples < 1:
        raise UsageError(f"--samples must be at least 1, got {options.samples}")
    sources: list[Path] = options.sources
    if options.compare and len(sources) < 2:
        raise UsageError(f"--compare needs at least two runs or files, got {sources[0]} alone")
    if not options.compare and len(sources) > 1:
        raise UsageError(f"one page is of one network, got {len(sources)}; pass --compare for a page of all")
    for flag, given in (("--checkpoint", options.checkpoint is not None), ("--allow-import", options.allow_import)):
        if given and all(source.is_file() for source in sources):
            raise UsageError(f"{flag} belongs to a RUN, and {sources[0]} is a file")
    output = options.output or _page_of(sources, compare=options.compare)
    check_output(output, Artefact.PAGE, inputs=sources)

    opened = partial(_open, checkpoint=options.checkpoint or "last", allow_import=options.allow_import)
    found, told = (_compare if options.compare else _show)(sources, output, options.samples, opened)
    size = output.stat().st_size
    if options.json:
        print(json.dumps({"output": str(output), "bytes": size, **found}))
    else:
        print(f"{output}: {size:,} bytes, {told}")
    return 0


def _show(
    sources: Sequence[Path], output: Path, samples: int, opened: Callable[[Path], "Run"]
) -> tuple[Mapping[str, object], str]:
    """Write the page of one network; what is said of it, for a machine and for a person."""
    (source,) = sources
    run = None if source.is_file() else opened(source)
    integers = _of_file(source, samples) if run is None else observed(run, samples)
    card = write_report(source.resolve().name, integers, None if run is None else training_of(run), output)
    taken = integers[1].samples
    return {"samples": taken, **dict(card)}, f"{taken} {'random' if run is None else 'test'} samples"


def _compare(
    sources: Sequence[Path], output: Path, samples: int, opened: Callable[[Path], "Run"]
) -> tuple[Mapping[str, object], str]:
    """Write the page of several, likewise."""
    from maqd.report.comparison import Subject

    subjects: list[Subject] = []
    for source, name in zip(sources, _names(sources), strict=True):
        if source.is_file():
            subjects.append(Subject(name=name, integers=_of_file(source, samples), training=None))
            continue
        subjects.append(compared(opened(source), name, samples))
    write_comparison(subjects, output)
    return {"networks": [one.name for one in subjects]}, f"{len(subjects)} networks"


def observed(run: "Run", samples: int) -> tuple[Graph, "Observation"]:
    """The graph of a run, and what its test samples do in it.

    Args:
        run: The run.
        samples: How many.

    Raises:
        MaqdError: It cannot be lowered, or its data cannot be read.
    """
    from maqd.report.observation import observe

    return run.graph, observe(run.graph, run.test_batches(samples, batch=BATCH))


def training_of(run: "Run") -> "Training":
    """What a run adds to its graph."""
    from maqd.report.content import Training
    from maqd.report.standardized import spreads

    evaluation = run.header.evaluation
    return Training(
        images=run.header.evaluated,
        result=None if evaluation is None else str(evaluation),
        entries=run.metrics,
        weights=spreads(run.network),
    )


def write_report(
    name: str, integers: tuple[Graph, "Observation"], training: "Training | None", output: Path
) -> list[tuple[str, str]]:
    """Write the page of a network.

    Args:
        name: What it is called.
        integers: The graph, and what samples did in it.
        training: Of its run; None for a file alone.
        output: The file.

    Returns:
        Names and values of the card on top.
    """
    from maqd.report.content import content
    from maqd.report.page import page

    card, sections = content(*integers, training)
    write_atomically(output, [page(name, card, sections).encode(errors="backslashreplace")])
    return card


def _of_file(source: Path, samples: int) -> tuple[Graph, "Observation"]:
    from maqd.report.observation import observe

    graph = container.load(source)
    return graph, observe(graph, _random(graph, samples))


def compared(run: "Run", name: str, samples: int) -> "Subject":
    """A run of a comparison, where a network in float has a place as well.

    Args:
        run: The run.
        name: What it is called.
        samples: How many test samples go through its integers.

    Raises:
        MaqdError: As `observed`.
    """
    from maqd.report.comparison import Subject

    quant = run.config.model.quant
    in_float = run.config.model.function is None and quant.weight_states is quant.act_states is None
    integers = None if in_float else observed(run, samples)
    return Subject(name=name, integers=integers, training=training_of(run))


def write_comparison(subjects: Sequence["Subject"], output: Path) -> None:
    """Write the page of several networks.

    Args:
        subjects: At least two.
        output: The file.
    """
    from maqd.report.comparison import comparison
    from maqd.report.page import page

    text = page(f"{len(subjects)} networks compared", [], comparison(subjects))
    write_atomically(output, [text.encode(errors="backslashreplace")])


def _page_of(sources: Sequence[Path], *, compare: bool) -> Path:
    if compare:
        return Path("compared.html")
    source = sources[0]
    return Path(f"{source.stem if source.is_file() else source.resolve().name}.html")


def _names(sources: Sequence[Path]) -> list[str]:
    """The last part of each path; the whole paths where two are the same."""
    short = [source.resolve().name for source in sources]
    return short if len(set(short)) == len(short) else [str(source) for source in sources]


def _open(path: Path, checkpoint: str, *, allow_import: bool) -> "Run":
    from maqd.training.run_directory import Which
    from maqd.training.runs import open_run

    return open_run(path, checkpoint=Which(checkpoint), allow_import=allow_import)


def _random(graph: Graph, count: int) -> Iterator[tuple[tuple[NDArray[np.generic], ...], None]]:
    """Samples of a file whose data are not known."""
    for start in range(0, count, BATCH):
        yield inputs.random(graph, min(BATCH, count - start), seed=start), None
