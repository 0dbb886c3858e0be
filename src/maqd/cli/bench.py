"""`maqd bench`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.bench.latency import REPEATS, Result, installed_peers, latency
from maqd.bench.microcontroller import BOARDS
from maqd.bench.peers import Peer
from maqd.bench.timing import pinned
from maqd.cli.arguments import take_settings
from maqd.cli.emulated import emulated
from maqd.cli.graphs import load_graph
from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.cli.text import Counter, table
from maqd.cli.verify import samples_of
from maqd.export.c99 import Strategy, Target
from maqd.graph import Graph, Storage
from maqd.machine import machine
from maqd.numerics.limits import MOST_THREADS
from maqd.runtime import inputs
from maqd.runtime.native import NativeEngine
from maqd.settings.training import EvalConfig


def command(arguments: list[str]) -> int:
    """Run `maqd bench`; the exit status."""
    parser = Options(
        usage="maqd bench GRAPH [--batch N,..] [--threads N] [--peers | --target NAME [--strategy NAME]] "
        "[--against RUN] [--json] [--data.KEY VALUE ..]",
        description="Measure the native engine: latency, throughput, each layer; with --peers beside other runtimes. "
        "With --target the exported C program on an emulated microcontroller.",
    )
    parser.add_argument("graph", metavar="GRAPH", type=some_path, help="a .maqd file")
    parser.add_argument("--batch", metavar="N,..", default="1,64", help="images of a call (1,64)")
    parser.add_argument("--threads", metavar="N", type=whole, default=1, help="threads of a call (1)")
    parser.add_argument("--repeats", metavar="N", type=whole, help=f"turns of each ({REPEATS})")
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
    parser.add_argument(
        "--against", metavar="RUN", type=some_path, help="use the test images of this run; random ones else"
    )
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    data = take_settings(arguments, EvalConfig, "data.")
    options = parser.read(arguments)
    batches = _batches(options.batch)
    if data and options.against is None:
        raise UsageError(f"--{data[0][0]} belongs to --against RUN: without a run the images are random")
    if options.repeats is not None and options.repeats < 2:
        raise UsageError(f"--repeats must be at least 2, got {options.repeats}")
    if not 1 <= options.threads <= MOST_THREADS:
        raise UsageError(f"--threads must be in 1 .. {MOST_THREADS}, got {options.threads}")
    if options.strategy is not None and options.target is None:
        raise UsageError("--strategy belongs to --target")
    graph = load_graph(options.graph)
    if options.target is not None:
        strategy = Strategy(options.strategy or Strategy.BALANCED.value)
        images = _samples(graph, options.against, data, 1, allow_import=options.allow_import)
        return emulated(graph, Target(options.target), strategy, images, json_output=options.json)
    images = _samples(graph, options.against, data, max(batches), allow_import=options.allow_import)
    here = machine()
    with pinned(options.threads) as processors:
        engine = NativeEngine(graph, threads=options.threads)
        results = [
            _measure(engine, tuple(one[:batch] for one in images), peers=options.peers, repeats=options.repeats)
            for batch in batches
        ]
        layers = engine.profile(*(one[:1] for one in images))
    where = {
        **asdict(here),
        "threads": options.threads,
        "pinned": processors,
        "isa": engine.isa,
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
    if not batches or min(batches) < 1 or max(batches) >= 2**31:
        raise UsageError(f"--batch must be numbers in 1 .. 2^31 - 1 with commas between them, got {text!r}")
    return batches


def _samples(
    graph: Graph, run: Path | None, data: list[tuple[str, str]], count: int, *, allow_import: bool
) -> tuple[NDArray[Any], ...]:
    """An array for each input: random samples, or test samples of a run."""
    if run is None:
        if len(graph.inputs) == 1 and graph.input.storage is Storage.U8:
            return (np.random.default_rng(0).integers(0, 256, (count, *graph.input.shape), dtype=np.uint8),)
        return inputs.random(graph, count)
    found = samples_of(graph, run, data, count, allow_import=allow_import)
    return tuple(np.resize(one, (count, *one.shape[1:])) for one in found)  # repeated where there are fewer


def _measure(engine: NativeEngine, images: tuple[NDArray[Any], ...], *, peers: bool, repeats: int | None) -> Result:
    found: list[Peer] = []
    if peers:
        found, absent = installed_peers(engine.graph, threads=engine.threads, batch=len(images[0]))
        for error in absent:
            print(f"maqd: {error}", file=sys.stderr)
    counter, count = Counter(f"batch {len(images[0])}", sys.stderr), repeats or REPEATS
    try:
        return latency(
            engine,
            tuple(np.ascontiguousarray(one) for one in images),
            peers=found,
            repeats=count,
            progress=lambda done: counter.show(done, count),
        )
    finally:
        counter.clear()


def _print(engine: NativeEngine, results: list[Result], where: dict[str, object]) -> None:
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    constant, working = engine.constant_bytes, engine.working_bytes
    print(f"{constant:,} bytes of weights and tables, {working:,} of activations and scratch memory")
    headings = ("batch", "first us", "p50 us", "p90 us", "p99 us", "images/s")
    latencies = [result.engine for result in results]
    times = [[1e3 * value for value in (e.first, e.p50, e.p90, e.p99)] for e in latencies]
    print(table(headings, [(e.batch, *us, e.images_per_second) for e, us in zip(latencies, times, strict=True)]))
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
        print(table(("batch", "peer", "ms, warm", "maqd is faster by", "cold"), rows))
