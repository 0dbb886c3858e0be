"""Results of training runs as JSON lines (`maqd.experiment.lines`): one run a line, with the fields of `Row`."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maqd.experiment.lines import append_line, no_row, read_fields, whole_lines


@dataclass(frozen=True, kw_only=True)
class Case:
    """What was trained, whatever the seed.

    Args:
        network: Short name of the network.
        schedule: Short name of the length of training, which counts every phase and teacher.
        method: Short name of the method; "float" for a network without quantization.
        weight_states: M_w of the hidden layers; None in float.
        act_states: M_a; None in float.
    """

    network: str
    schedule: str
    method: str
    weight_states: int | None = None
    act_states: int | None = None

    @property
    def key(self) -> str:
        """Its name in a flat table: NET_SCHEDULE_METHOD, and _wWaA if it is quantized."""
        states = "" if self.act_states is None else f"_w{self.weight_states}a{self.act_states}"
        return f"{self.network}_{self.schedule}_{self.method}{states}"

    @property
    def reference(self) -> "Case":
        """The float network of the same schedule."""
        return Case(network=self.network, schedule=self.schedule, method="float")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run and what it came to.

    Args:
        case: What was trained.
        seed: Of initialization, shuffling and augmentation.
        images: Which were evaluated: "test", or "validation" for held-out training images.
        correct: Images classified correctly.
        total: Images.
        config: Plain trees of the configurations, one for each phase in order, without paths.
        revision: Of the source, as `git describe --always --dirty` says it.
        versions: Of what computed: "python", "torch", "maqd".
        machine: Its processor.
        seconds: Wall time of what was trained for it: phases that were there already took none.
    """

    case: Case
    seed: int
    images: str
    correct: int
    total: int
    config: tuple[Mapping[str, Any], ...]
    revision: str
    versions: Mapping[str, str]
    machine: str
    seconds: float

    @property
    def accuracy(self) -> float:
        """Percent of the images classified correctly."""
        return 100 * self.correct / self.total


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the program of a trained network takes on a microcontroller.

    Args:
        case: What was trained.
        seed: Of the run whose network it is.
        target: The processor, such as "cortex-m4".
        strategy: Of the exported program, such as "fast".
        instructions: Of one image, counted.
        flash: Bytes of code and tables.
        ram: Bytes of static memory.
        revision: Of the source, as `git describe --always --dirty` says it.
        tools: Versions of the compiler and of the emulator, and the compiler's options.
    """

    case: Case
    seed: int
    target: str
    strategy: str
    instructions: int
    flash: int
    ram: int
    revision: str
    tools: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a program may take.

    Args:
        instructions, flash, ram: At most these.
    """

    instructions: float
    flash: float
    ram: float

    def holds(self, cost: Cost) -> bool:
        """Whether a program stays within it."""
        return cost.instructions <= self.instructions and cost.flash <= self.flash and cost.ram <= self.ram


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The rows of one case.

    Args:
        case: What was trained.
        mean: Of the accuracies, percent.
        spread: Their sample standard deviation, percent; 0 for one seed.
        seeds: How many.
        gap: Mean of the float network of the same network and schedule minus this one's, percent; None if there is
            none, or this is it.
    """

    case: Case
    mean: float
    spread: float
    seeds: int
    gap: float | None


def append(path: Path, row: "Row | Cost") -> None:
    """Add a row to a file, which is made if it is missing. Any number of processes may do so at once.

    Args:
        path: A file of rows of one kind.
        row: What was measured.

    Raises:
        DataError: The file cannot be written.
    """
    append_line(path, dataclasses.asdict(row))


def read(path: Path) -> list[Row]:
    """The rows of a file in order; none if it is missing. A last line that is cut short is passed over.

    Raises:
        DataError: A line is no row; the message names it.
    """
    return [_parse_row(line, where) for where, line in whole_lines(path)]


def read_costs(path: Path) -> list[Cost]:
    """The costs of a file in order; otherwise like `read`.

    Raises:
        DataError: A line is no row of costs; the message names it.
    """
    return [_parse_cost(line, where) for where, line in whole_lines(path)]


def select(rows: Iterable[Row], case: Case, *, images: str = "test") -> list[Row]:
    """The rows of an case, the last one of each seed, by seed."""
    found = {row.seed: row for row in rows if row.case == case and row.images == images}
    return [found[seed] for seed in sorted(found)]


def summarize(rows: Iterable[Row]) -> list[Summary]:
    """Mean, spread and gap of every case measured on the test set, in the order in which cases first occur."""
    rows = list(rows)
    cases = list(dict.fromkeys(row.case for row in rows if row.images == "test"))
    means = {case: statistics.fmean(row.accuracy for row in select(rows, case)) for case in cases}
    summaries = []
    for case in cases:
        accuracies = [row.accuracy for row in select(rows, case)]
        reference = means.get(case.reference) if case != case.reference else None
        summaries.append(
            Summary(
                case=case,
                mean=means[case],
                spread=statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                seeds=len(accuracies),
                gap=None if reference is None else reference - means[case],
            )
        )
    return summaries


def figures(summaries: Iterable[Summary]) -> dict[str, float]:
    """The flat table that scripts read: KEY_accuracy, KEY_spread, KEY_seeds and KEY_gap, in percent."""
    table: dict[str, float] = {}
    for summary in summaries:
        key = summary.case.key
        table[f"{key}_accuracy"] = round(summary.mean, 3)
        table[f"{key}_spread"] = round(summary.spread, 3)
        table[f"{key}_seeds"] = summary.seeds
        if summary.gap is not None:
            table[f"{key}_gap"] = round(summary.gap, 3)
    return table


def newest(costs: Iterable[Cost]) -> list[Cost]:
    """The last cost of each case and strategy, in the order in which they first occur."""
    return list({(cost.case, cost.strategy): cost for cost in costs}.values())


def best_within(summaries: Iterable[Summary], costs: Iterable[Cost], limit: Limit) -> tuple[Summary, Cost] | None:
    """The most accurate case with a program that stays within a limit, and that program's cost; None if there is none.

    Args:
        summaries: Of the cases that compete.
        costs: Of their programs; the last one of a case and a strategy counts, and cases without one do not compete.
        limit: What a program may take.
    """
    known = {summary.case: summary for summary in summaries}
    within = [(known[cost.case], cost) for cost in newest(costs) if cost.case in known and limit.holds(cost)]
    return max(within, key=lambda found: found[0].mean, default=None)


_ROW: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "images": (str,),
    "correct": (int,),
    "total": (int,),
    "config": (list,),
    "revision": (str,),
    "versions": (dict,),
    "machine": (str,),
    "seconds": (int, float),
}
_COST: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "target": (str,),
    "strategy": (str,),
    "instructions": (int,),
    "flash": (int,),
    "ram": (int,),
    "revision": (str,),
    "tools": (list,),
}


def _fields(line: bytes, where: str, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The fields of a line, checked; the case is made."""
    tree = read_fields(line, where, {**types, "case": (dict,)})
    try:
        case = Case(**tree["case"])
    except TypeError as error:
        raise no_row(where, error) from error
    for name, value in dataclasses.asdict(case).items():
        if type(value) not in ((int, type(None)) if name.endswith("states") else (str,)):
            raise no_row(where, f"{name} is {value!r}")
    return {**tree, "case": case}


def _parse_row(line: bytes, where: str) -> Row:
    fields = _fields(line, where, _ROW)
    if not 0 <= fields["correct"] <= fields["total"] or not fields["total"]:
        raise no_row(where, f"{fields['correct']} of {fields['total']} images")
    return Row(**{**fields, "config": tuple(fields["config"])})


def _parse_cost(line: bytes, where: str) -> Cost:
    fields = _fields(line, where, _COST)
    return Cost(**{**fields, "tools": tuple(fields["tools"])})
