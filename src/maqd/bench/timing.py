"""Measuring: repeats in alternation, medians with their spread."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


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
    """The smallest value that this percentage of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of a call, repeat by repeat.

    Args:
        cold: After the others have had the caches.
        warm: Mean of the calls that follow at once.
    """

    cold: tuple[float, ...]
    warm: tuple[float, ...]


def alternated(
    calls: Sequence[Callable[[], object]],
    *,
    repeats: int,
    seconds: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> list[Times]:
    """Time of each call, over and over in turn, so that all of them meet the same disturbances.

    Args:
        calls: What to measure.
        repeats: How often each has its turn.
        seconds: A turn takes about so long: one cold call and at least one warm one.
        progress: Called with the number of repeats done.

    Returns:
        The times of each of `calls`.
    """
    counts = []
    for call in calls:
        call()
        once = _seconds(call, 2)
        counts.append(min(1000, max(1, round(seconds / max(once, 1e-9)) - 1)))
    cold: list[list[float]] = [[] for _ in calls]
    warm: list[list[float]] = [[] for _ in calls]
    for done in range(repeats):
        for call, count, first, later in zip(calls, counts, cold, warm, strict=True):
            first.append(_seconds(call, 1))
            later.append(_seconds(call, count))
        if progress is not None:
            progress(done + 1)
    return [Times(cold=tuple(first), warm=tuple(later)) for first, later in zip(cold, warm, strict=True)]


def _seconds(call: Callable[[], object], count: int) -> float:
    """Mean time of a call among `count`."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def ratios(ours: Sequence[float], peer: Sequence[float]) -> Spread:
    """How many times faster ours is: peer / ours of neighbouring repeats."""
    return spread([b / a for a, b in zip(ours, peer, strict=True)])


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
