"""What experiments found, as JSON lines (`maqd.experiment.lines`): one measured point and seed a line."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maqd.experiment.lines import append_line, no_row, read_fields, whole_lines

VERSION = 1
"""Of the fields of a line."""

Setting = str | int | float | bool | None
Figure = float | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One measurement of an experiment.

    Args:
        experiment: Its name.
        point: What was varied, by name.
        seed: Of everything random.
        figures: What was measured, by name: numbers, or lists of numbers.
        config: Plain trees of the configurations that were trained, one for each phase in order, without paths.
        revision: Of the source, as `git describe --always --dirty` says it.
        versions: Of what computed.
        machine: Its processor.
        seconds: Wall time.
    """

    experiment: str
    point: Mapping[str, Setting]
    seed: int
    figures: Mapping[str, Figure]
    config: Sequence[Mapping[str, Any]]
    revision: str
    versions: Mapping[str, str]
    machine: str
    seconds: float

    def number(self, name: str) -> float:
        """A figure that is one number."""
        value = self.figures[name]
        if not isinstance(value, int | float):
            raise TypeError(f"figure {name} of {self.experiment} is a list")
        return value

    def numbers(self, name: str) -> Sequence[float]:
        """A figure that is a list of numbers."""
        value = self.figures[name]
        if isinstance(value, int | float):
            raise TypeError(f"figure {name} of {self.experiment} is one number")
        return value


_TYPES: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "experiment": (str,),
    "point": (dict,),
    "seed": (int,),
    "figures": (dict,),
    "config": (list,),
    "revision": (str,),
    "versions": (dict,),
    "machine": (str,),
    "seconds": (int, float),
}


def append_finding(path: Path, finding: Finding) -> None:
    """Add a measurement to a file, which is made if it is missing. Any number of processes may do so at once.

    Raises:
        DataError: The file cannot be written.
    """
    append_line(path, {"version": VERSION, **dataclasses.asdict(finding)})


def read_findings(path: Path) -> list[Finding]:
    """The measurements of a file in order; none if it is missing. A last line that is cut short is passed over.

    Raises:
        DataError: A line is no measurement, or of another version; the message names it.
    """
    return [_parse(line, where) for where, line in whole_lines(path)]


def _parse(line: bytes, where: str) -> Finding:
    tree = read_fields(line, where, _TYPES)
    version = tree.pop("version")
    if version != VERSION:
        raise no_row(where, f"its version is {version}, this program reads {VERSION}")
    for name, value in tree["figures"].items():
        values = value if isinstance(value, list) else [value]
        if not all(type(one) in (int, float) for one in values):
            raise no_row(where, f"figure {name} is {value!r}")
    return Finding(**tree)


def newest(findings: Iterable[Finding], experiment: str) -> list[Finding]:
    """The last measurement of each point and seed of an experiment, in the order in which they first occur."""
    return list({(_key(one.point), one.seed): one for one in findings if one.experiment == experiment}.values())


def of_point(findings: Iterable[Finding], point: Mapping[str, Setting]) -> list[Finding]:
    """The measurements of a point, one a seed."""
    return [one for one in findings if _key(one.point) == _key(point)]


def _key(point: Mapping[str, Setting]) -> tuple[tuple[str, Setting], ...]:
    return tuple(sorted(point.items()))
