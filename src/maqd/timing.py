"""Measuring: repeats in alternation, medians with their spread, the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and quartiles of repeats."""

    median: float
    low: float
    high: float
    repeats: int

    def __str__(self) -> str:
        return f"{self.median:.4g} [{self.low:.4g} .. {self.high:.4g}] (n={self.repeats})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return Spread(median=statistics.median(values), low=quartiles[0], high=quartiles[2], repeats=len(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def alternated(
    calls: Sequence[Callable[[], object]],
    *,
    repeats: int,
    warm_up: int = 3,
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Seconds of each call, over and over in turn, so that all of them meet the same disturbances.

    Args:
        calls: What to measure.
        repeats: How often each.
        warm_up: Calls of each before that are not measured.
        progress: Called with the number of repeats done.

    Returns:
        For each of `calls` its times in their order.
    """
    for _ in range(warm_up):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    for done in range(repeats):
        for call, mine in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            mine.append(time.perf_counter() - start)
        if progress is not None:
            progress(done + 1)
    return times


def ratios(ours: Sequence[float], peer: Sequence[float]) -> Spread:
    """How many times faster ours is: peer / ours of neighbouring repeats."""
    return spread([b / a for a, b in zip(ours, peer, strict=True)])


def cpu_name() -> str:
    """The processor, as far as the system says."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = info.read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Keeps this process on as many processors as it has threads, where the system can; yields which ones."""
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    before = os.sched_getaffinity(0)
    chosen = tuple(sorted(before)[:threads])
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)
