"""`maqd bench`."""

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maqd import __version__
from maqd.bench.conventional import Precision
from maqd.bench.microcontroller import BOARDS
from maqd.bench.peers import PEERS, Peer
from maqd.bench.timing import Spread, alternated, cpu_name, percentile, pinned, ratios, spread
from maqd.cli.emulated import emulated
from maqd.cli.options import Options, UsageError, take_prefixed
from maqd.cli.text import Counter, table
from maqd.cli.verify import test_images
from maqd.errors import MissingDependencyError
from maqd.export.c99 import Strategy, Target
from maqd.graph import Graph, container
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


def command(arguments: list[str]) -> int:
    """Run `maqd bench`; the exit status."""
    parser = Options(
        usage="maqd bench GRAPH [--batch N,..] [--threads N] [--peers | --target NAME [--strategy NAME]] "
        "[--against RUN] [--json] [--data.KEY VALUE ..]",
        description="Measure the native engine: latency, throughput, each layer; with --peers beside other runtimes. "
        "With --target the exported C program on an emulated microcontroller.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=Path, help="a .maqd file")
    parser.add_argument("--batch", metavar="N,..", default="1,64", help="images of a call (1,64)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of a call (1)")
    parser.add_argument("--repeats", metavar="N", type=int, help=f"turns of each ({REPEATS})")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also measure ONNX Runtime and OpenVINO with 8-bit and float networks of the same shapes, in alternation",
    )
    parser.add_argument(
        "--target", choices=[target.value for target in BOARDS], help="count the instructions of the C program in QEMU"
    )
    parser.add_argument(
        "--strategy", choices=[strategy.value for strategy in Strategy], help="of the C program (balanced)"
    )
    parser.add_argument("--against", metavar="RUN", type=Path, help="use the test images of this run; random ones else")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    data = take_prefixed(arguments, "--data.")
    options = parser.read(arguments)
    batches = _batches(options.batch)
    if data and options.against is None:
        raise UsageError(f"{data[0]} belongs to --against RUN: without a run the images are random")
    if options.repeats is not None and options.repeats < 2:
        raise UsageError(f"--repeats must be at least 2, got {options.repeats}")
    if options.strategy is not None and options.target is None:
        raise UsageError("--strategy belongs to --target")
    graph = container.load(options.graph)
    if options.target is not None:
        strategy = Strategy(options.strategy or Strategy.BALANCED.value)
        images = _images(graph, options.against, data, 1)
        return emulated(graph, Target(options.target), strategy, images, json_output=options.json)
    images = _images(graph, options.against, data, max(batches))
    with pinned(options.threads) as processors:
        engine = NativeEngine(graph, threads=options.threads)
        results = [_measure(engine, images, batch, peers=options.peers, repeats=options.repeats) for batch in batches]
        layers = engine.profile(images[:1])
    where = {
        "cpu": cpu_name(),
        "threads": options.threads,
        "processors": processors,
        "isa": engine.isa,
        "maqd": __version__,
        "python": platform.python_version(),
        "images": "random" if options.against is None else str(options.against),
    }
    if options.json:
        found = {
            "graph": str(options.graph),
            "machine": where,
            "results": [asdict(result) for result in results],
            "layers": [asdict(layer) for layer in layers],
            "constant_bytes": engine.constant_bytes,
            "working_bytes": engine.working_bytes,
        }
        print(json.dumps(found))
        return 0
    _print(engine, results, where)
    print(
        table(
            ("layer", "kernel", "us", "non-zero inputs", "multiply-adds", "G/s"),
            [
                (
                    step.nodes[-1] if step.nodes else "",
                    step.kernel,
                    1e6 * step.seconds,
                    step.density,
                    step.macs,
                    step.macs / max(step.seconds, 1e-9) / 1e9,
                )
                for step in layers
            ],
        )
    )
    if options.against is None:
        print("random images: activations are not as sparse as with real ones; --against RUN takes test images")
    return 0


def _batches(text: str) -> list[int]:
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError:
        batches = []
    if not batches or min(batches) < 1:
        raise UsageError(f"--batch must be positive numbers with commas between them, got {text!r}")
    return batches


def _images(graph: Graph, run: Path | None, data: list[str], count: int) -> NDArray[np.uint8]:
    if run is None:
        return np.random.default_rng(0).integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)
    found = np.concatenate(list(test_images(graph, run, data, count)))
    return np.resize(found, (count, *graph.input.shape))  # repeated where there are fewer


def _measure(
    engine: NativeEngine, images: NDArray[np.uint8], batch: int, *, peers: bool, repeats: int | None
) -> Result:
    mine = np.ascontiguousarray(images[:batch])
    first = _milliseconds(lambda: engine.run(mine), 1)[0]
    others = _peers(engine, batch) if peers else []
    calls = [lambda: engine.run(mine), *(_call(peer, peer.input(mine)) for peer in others)]
    counter = Counter(f"batch {batch}", sys.stderr)
    count = repeats or REPEATS
    try:
        times = alternated(calls, repeats=count, seconds=TURN, progress=lambda done: counter.show(done, count))
    finally:
        counter.clear()
    ours, *theirs = times
    warm = _thousand(ours.warm)
    singles = _milliseconds(calls[0], max(20, min(1000, int(1e3 * SECONDS / warm.median))))
    return Result(
        engine=Latency(
            batch=batch,
            first=first,
            cold=_thousand(ours.cold),
            warm=warm,
            p50=percentile(singles, 50),
            p90=percentile(singles, 90),
            p99=percentile(singles, 99),
            images_per_second=1e3 * batch / warm.median,
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
            for peer, times in zip(others, theirs, strict=True)
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


def _peers(engine: NativeEngine, batch: int) -> list[Peer]:
    """Those that are installed."""
    found: list[Peer] = []
    for kind in PEERS:
        for precision in (Precision.INT8, Precision.FLOAT):
            try:
                found.append(kind(engine.graph, precision, threads=engine.threads, batch=batch))
            except MissingDependencyError as error:
                print(f"maqd: {error}", file=sys.stderr)
                break
    return found


def _call(peer: Peer, images: NDArray[np.generic]) -> Callable[[], object]:
    return lambda: peer.run(images)


def _print(engine: NativeEngine, results: list[Result], where: dict[str, object]) -> None:
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    constant, working = engine.constant_bytes, engine.working_bytes
    print(f"{constant:,} bytes of weights and tables, {working:,} of activations and scratch memory")
    headings = ("batch", "first ms", "p50 ms", "p90 ms", "p99 ms", "images/s")
    latencies = [result.engine for result in results]
    print(table(headings, [(e.batch, e.first, e.p50, e.p90, e.p99, e.images_per_second) for e in latencies]))
    rows = [
        (
            result.engine.batch,
            f"{peer.name} {peer.version.partition('-')[0]}",
            str(peer.warm),
            str(peer.times_faster),
            peer.cold_times_faster.median,
        )
        for result in results
        for peer in result.peers
    ]
    if rows:
        print(table(("batch", "peer", "ms, warm", "maqd is so many times faster", "cold"), rows))
