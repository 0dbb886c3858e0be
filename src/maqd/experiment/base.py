"""What an experiment is, and how all of its points are measured: one after another, resumable anywhere."""

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from maqd.experiment.findings import Figure, Finding, Setting, append_finding, newest, of_point, read_findings
from maqd.machine import cpu_name, revision
from maqd.recipes import Budget
from maqd.settings.data import DataConfig, Source
from maqd.settings.phases import Phase
from maqd.settings.tree import to_plain
from maqd.training.checkpoint import Evaluation
from maqd.training.phases import train_phases
from maqd.training.progress import Output, duration
from maqd.training.runs import Run, open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an experiment reads and writes.

    Args:
        results: The file of measurements.
        runs: Directory of the run directories.
        data: Directory of the images of CIFAR; None fetches them.
        cache: Directory of decoded data sets; None takes the usual one.
        threads: Of a run; None keeps the configuration's.
        output: Where progress goes.
    """

    results: Path
    runs: Path
    data: str | None
    cache: str | None
    threads: int | None
    output: Output


PointT = TypeVar("PointT")


class Experiment(ABC, Generic[PointT]):
    """An experiment: points that are measured with several seeds, a table and a picture of them.

    Points are frozen dataclasses of names, numbers, booleans and enumerations.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    """What it repeats: paper and figure or table."""
    text: ClassVar[str]
    """What is measured, in a few sentences."""
    size: ClassVar[tuple[float, float]] = (10, 4.6)
    """Of the picture, inches."""

    @abstractmethod
    def points(self, budget: Budget) -> Sequence[PointT]:
        """What is measured."""

    def seeds(self, budget: Budget) -> int:
        """How many seeds, from 0."""
        return 1

    def phases(self, point: PointT) -> tuple[Phase, ...]:
        """What is trained for a point, one run after another; nothing by default. Names tell points apart."""
        return ()

    @abstractmethod
    def figures(self, point: PointT, seed: int, run: Run | None) -> Mapping[str, Figure]:
        """What is measured, by name.

        Args:
            point: The point.
            seed: Of everything random.
            run: The last phase's, finished; None without phases.
        """

    @abstractmethod
    def lines(self, found: "Found") -> Iterator[str]:
        """Lines of Markdown below the title and the text: tables."""

    @abstractmethod
    def draw(self, found: "Found", picture: "Picture") -> None:
        """Draw into an empty picture."""


@dataclass(frozen=True)
class Found:
    """The measurements of one experiment, the last one of each point and seed."""

    findings: Sequence[Finding]

    def of(self, point: Any) -> list[Finding]:
        """Those of a point, by seed."""
        return sorted(of_point(self.findings, settings_of(point)), key=lambda one: one.seed)

    def values(self, point: Any, name: str) -> list[float]:
        """A figure of a point for each seed; empty if the point is not measured."""
        return [one.number(name) for one in self.of(point)]

    def mean(self, point: Any, name: str) -> float | None:
        """Its mean over seeds; None if the point is not measured."""
        values = self.values(point, name)
        return statistics.fmean(values) if values else None

    def text(self, point: Any, name: str, digits: int = 2) -> str:
        """Mean and standard deviation over seeds, for a table."""
        values = self.values(point, name)
        if not values:
            return ""
        mean = f"{statistics.fmean(values):.{digits}f}"
        return f"{mean} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def settings_of(point: Any) -> dict[str, Setting]:
    """A point as its measurement records it."""
    return to_plain(point)


def found_in(path: Path, experiment: str) -> Found:
    """The measurements of an experiment in a file.

    Raises:
        DataError: The file cannot be read, or holds something else.
    """
    return Found(newest(read_findings(path), experiment))


def measure_all(experiment: Experiment[Any], budget: Budget, place: Place) -> int:
    """Measure what the results lack.

    Args:
        experiment: The experiment.
        budget: How much.
        place: Where to.

    Returns:
        How many measurements were made.

    Raises:
        MaqdError: As `Experiment.measure`; a file of results cannot be read or written.
    """
    missing = unmeasured(experiment, rows(experiment, budget), place.results)
    begun = time.monotonic()
    for number, (point, seed) in enumerate(missing):
        gone = time.monotonic() - begun
        left = f", about {duration(gone / number * (len(missing) - number))} left" if number else ""
        settings = ", ".join(f"{key} {value}" for key, value in settings_of(point).items())
        place.output.line(f"{experiment.name} {number + 1}/{len(missing)}: {settings}, seed {seed}{left}")
        measure(experiment, point, seed, place)
    return len(missing)


def rows(experiment: Experiment[PointT], budget: Budget) -> list[tuple[PointT, int]]:
    """All points and seeds: every point with the first seed comes first."""
    return [(point, seed) for seed in range(experiment.seeds(budget)) for point in experiment.points(budget)]


def unmeasured(
    experiment: Experiment[PointT], wanted: Sequence[tuple[PointT, int]], results: Path
) -> list[tuple[PointT, int]]:
    """Those points and seeds that a file of measurements lacks.

    Raises:
        DataError: The file cannot be read.
    """
    found = found_in(results, experiment.name)
    return [(point, seed) for point, seed in wanted if all(one.seed != seed for one in found.of(point))]


def measure(experiment: Experiment[PointT], point: PointT, seed: int, place: Place) -> None:
    """Measure a point and append it to the results. A run that was interrupted goes on.

    Raises:
        MaqdError: A training fails, or the file cannot be written.
    """
    started = time.monotonic()
    phases = [replace(phase, config=replace(phase.config, seed=seed)) for phase in experiment.phases(point)]
    figures = experiment.figures(point, seed, _trained(phases, seed, place))
    finding = Finding(
        experiment=experiment.name,
        point=settings_of(point),
        seed=seed,
        figures=figures,
        config=tuple(to_plain(phase.config) for phase in phases),
        revision=revision(),
        versions={name: version(name) for name in ("maqd", "torch", "numpy")},
        machine=cpu_name(),
        seconds=round(time.monotonic() - started, 2),
    )
    append_finding(place.results, finding)


def _trained(phases: Sequence[Phase], seed: int, place: Place) -> Run | None:
    """The run of the last phase, trained or gone on with below the directory of runs."""
    placed = [
        Phase(
            name=f"{phase.name}_s{seed}",
            config=replace(
                phase.config,
                data=_located(phase.config.data, place),
                compute=replace(phase.config.compute, threads=place.threads or phase.config.compute.threads),
            ),
        )
        for phase in phases
    ]
    return open_run(train_phases(placed, place.runs, output=place.output)[-1].run) if placed else None


def _located(data: DataConfig, place: Place) -> DataConfig:
    """Where its images are; those of the digits come with the package."""
    path = None if data.source is Source.DIGITS else place.data
    return replace(data, path=path, cache_dir=place.cache)


def tested(run: Run | None) -> tuple[Run, Evaluation]:
    """A finished run, and its result on the test set."""
    assert run is not None, "the point has phases"
    evaluation = run.header.evaluation
    assert evaluation is not None, "finished runs are evaluated"
    return run, evaluation


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
