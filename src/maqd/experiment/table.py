"""The one table of experiments, and the page and pictures that are written from their measurements."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maqd.errors import ConfigError, OutputError
from maqd.experiment.ablation import Ablation
from maqd.experiment.base import Experiment, Found, found_in, rows
from maqd.experiment.batch_size import BatchSize
from maqd.experiment.fixed_point import BatchNormFixedPoint
from maqd.experiment.functions import Functions
from maqd.experiment.single_step import SingleStep
from maqd.experiment.sparsity import Sparsity
from maqd.experiment.states import StateGrid
from maqd.io.files import write_atomically
from maqd.io.outputs import make_directory
from maqd.recipes import Budget

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Functions(),
    BatchSize(),
    StateGrid(),
    Sparsity(),
    Ablation(),
    BatchNormFixedPoint(),
    SingleStep(),
)
"""All experiments."""

FORMATS = ("svg", "png")


def find_experiment(name: str) -> Experiment[Any]:
    """The experiment of a name.

    Raises:
        ConfigError: There is none.
    """
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    names = ", ".join(experiment.name for experiment in EXPERIMENTS)
    raise ConfigError(f"there is no experiment {name!r}; the experiments are {names}")


def check_page(experiment: Experiment[Any], folder: Path) -> None:
    """Check that page and pictures replace none but the experiment's own, before days of work.

    Args:
        experiment: The experiment.
        folder: Where to.

    Raises:
        OutputError: Something else is there.
    """
    page = _files(experiment, folder)[0]
    try:
        ours = _written_by(experiment) in page.read_text(errors="replace")
    except OSError:
        ours = False
    if ours:
        return
    for path in _files(experiment, folder):
        if path.exists() or path.is_symlink():
            raise OutputError(
                f"the output {path} was not written by maqd experiment {experiment.name}; name another directory with "
                "-o DIR, or remove it"
            )


def _files(experiment: Experiment[Any], folder: Path) -> list[Path]:
    """The page, and the pictures that belong to it."""
    return [folder / f"{experiment.name}.{kind}" for kind in ("md", *FORMATS)]


def _written_by(experiment: Experiment[Any]) -> str:
    return f"Written by `maqd experiment {experiment.name}`."


def write_page(experiment: Experiment[Any], results: Path, folder: Path) -> Path:
    """Write what was measured: NAME.md with tables, NAME.svg and NAME.png.

    Args:
        experiment: The experiment.
        results: The file of measurements.
        folder: Where to; made if it is missing.

    Returns:
        The page.

    Raises:
        ConfigError: Nothing of the experiment is measured.
        DataError: The file of measurements cannot be read.
        OutputError: The directory cannot be made, or other files are in the way.
    """
    found = found_in(results, experiment.name)
    if not found.findings:
        raise ConfigError(f"{results} holds no measurement of {experiment.name}; run maqd experiment {experiment.name}")
    make_directory(folder)
    check_page(experiment, folder)
    page, *pictures = _files(experiment, folder)
    # The page first: it says whose the pictures are.
    write_atomically(page, [("\n".join(_page(experiment, found)) + "\n").encode()])
    for path, kind in zip(pictures, FORMATS, strict=True):
        write_atomically(path, [_picture(experiment, found, kind)])
    return page


def _page(experiment: Experiment[Any], found: Found) -> Iterator[str]:
    yield f"# {experiment.title}\n"
    yield f"{_written_by(experiment)} It repeats: {experiment.source}.\n"
    yield experiment.text
    yield f"\n![{experiment.title}]({experiment.name}.svg)\n"
    yield from experiment.lines(found)
    machines = ", ".join(sorted({one.machine for one in found.findings}))
    seconds = sum(one.seconds for one in found.findings)
    yield f"\n{len(found.findings)} measurements, {seconds / 60:.1f} minutes in all, on {machines}."
    wanted = rows(experiment, Budget.CPU)
    lacking = sum(all(one.seed != seed for one in found.of(point)) for point, seed in wanted)
    if 0 < lacking < len(wanted):
        yield f"Not made yet: {lacking} of the {len(wanted)} measurements of the CPU's budget."


def _picture(experiment: Experiment[Any], found: Found, kind: str) -> memoryview:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Text stays text, and nothing depends on the time: the same measurements give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": experiment.name}):
        figure = Figure(figsize=experiment.size, layout="constrained")
        FigureCanvasAgg(figure)
        experiment.draw(found, figure)
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return data.getbuffer()
