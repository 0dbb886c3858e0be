"""Latency and throughput of the native engine, alone or in alternation with other runtimes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.bench.conventional import Precision
from maqd.bench.peers import PEERS, Peer
from maqd.bench.timing import Spread, alternated, percentile, ratios, spread
from maqd.errors import MissingDependencyError
from maqd.graph import Graph
from maqd.runtime.native import NativeEngine

REPEATS = 31
"""Turns of the engine and of each peer."""

TURN = 0.03
"""Seconds of a turn."""

SECONDS = 1.0
"""About how long single calls are measured."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of a call.

    Args:
        batch: Images of a call.
        first: The first call.
        cold: A call after the peers have had the caches, if there are any.
        warm: A call after others of its own.
        p50, p90, p99: Percentiles of single warm calls.
        images_per_second: Throughput at the median.
    """

    batch: int
    first: float
    cold: Spread
    warm: Spread
    p50: float
    p90: float
    p99: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class PeerLatency:
    """How a peer did in alternation with the engine.

    Args:
        name: Runtime and numbers.
        version: Of the runtime.
        cold, warm: Milliseconds of a call.
        cold_times_faster, times_faster: The peer's time over the engine's, of neighbouring turns, cold and warm.
    """

    name: str
    version: str
    cold: Spread
    warm: Spread
    cold_times_faster: Spread
    times_faster: Spread


@dataclass(frozen=True, kw_only=True)
class Result:
    """One batch size."""

    engine: Latency
    peers: tuple[PeerLatency, ...]


def installed_peers(graph: Graph, *, threads: int, batch: int) -> tuple[list[Peer], list[MissingDependencyError]]:
    """Other runtimes on networks of the same shapes, in 8 bits and in float; and what is missing for the rest."""
    found: list[Peer] = []
    absent: list[MissingDependencyError] = []
    for kind in PEERS:
        try:
            found += [
                kind(graph, numbers, threads=threads, batch=batch) for numbers in (Precision.INT8, Precision.FLOAT)
            ]
        except MissingDependencyError as error:
            absent.append(error)
    return found, absent


def latency(
    engine: NativeEngine,
    images: NDArray[Any] | tuple[NDArray[Any], ...],
    *,
    peers: Sequence[Peer] = (),
    repeats: int = REPEATS,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Measure calls of an engine, in alternation with those of its peers.

    Args:
        engine: The engine.
        images: One call: for each input an array of its storage type, its shape with the batch in front; an array alone
            for one input.
        peers: Made for the same graph and batch.
        repeats: Turns of each, at least 2.
        progress: Called with the number of turns done.
    """
    given = images if isinstance(images, tuple) else (images,)
    first = _milliseconds(lambda: engine.run(*given), 1)[0]
    calls = [lambda: engine.run(*given), *(_call(peer, peer.input(given[0])) for peer in peers)]
    ours, *theirs = alternated(calls, repeats=repeats, seconds=TURN, progress=progress)
    warm = _thousand(ours.warm)
    singles = _milliseconds(calls[0], max(20, min(1000, int(1e3 * SECONDS / warm.median))))
    return Result(
        engine=Latency(
            batch=len(given[0]),
            first=first,
            cold=_thousand(ours.cold),
            warm=warm,
            p50=percentile(singles, 50),
            p90=percentile(singles, 90),
            p99=percentile(singles, 99),
            images_per_second=1e3 * len(given[0]) / warm.median,
        ),
        peers=tuple(
            PeerLatency(
                name=peer.name,
                version=peer.version,
                cold=_thousand(times.cold),
                warm=_thousand(times.warm),
                cold_times_faster=ratios(ours.cold, times.cold),
                times_faster=ratios(ours.warm, times.warm),
            )
            for peer, times in zip(peers, theirs, strict=True)
        ),
    )


def _milliseconds(call: Callable[[], object], count: int) -> list[float]:
    """Single calls."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _thousand(seconds: Sequence[float]) -> Spread:
    return spread([1e3 * second for second in seconds])


def _call(peer: Peer, images: NDArray[np.generic]) -> Callable[[], object]:
    return lambda: peer.run(images)
