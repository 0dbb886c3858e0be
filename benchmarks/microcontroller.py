"""The networks of MLPerf Tiny as C programs on emulated microcontrollers, beside CMSIS-NN in 8 bits.

    python benchmarks/microcontroller.py [--networks ic kws ..] [--cores m4 ..] [--states 4 2] [--depthwise 3] [--json]

Nothing is trained: the networks of maqd.bench.tiny have random weights, and activations of the density stated there.
The yardstick is the recorded table of maqd.bench.int8. Instructions are counted in QEMU for one random image, strategy
`fast`; flash and RAM are those of the network's compiled program. All of it takes about ten minutes on two cores.

Ratios (ours over 8 bits), with M the activation states: NET_CORE_aM_instructions_ratio, ..._flash_ratio, ..._ram_ratio;
KIND_CORE_aM_ratio, the summed instructions of a kind's layers in ic, kws and vww (dense: ad without its first layer);
first_NET_CORE_aM_ratio. With --depthwise 7 or 15, kws and vww are measured with so many states in depthwise layers, and
keys have dN after aM.
"""

import argparse
import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from maqd.bench import int8
from maqd.bench.microcontroller import Emulation, emulate
from maqd.bench.tiny import DENSITIES, tiny_network
from maqd.cli.text import table
from maqd.export.c99 import Exported, Strategy, Target, export_c99
from maqd.export.c99.operations import Weighted
from maqd.graph import Graph
from maqd.runtime.numpy import NumpyEngine

CORES = {"m4": Target.CORTEX_M4, "m3": Target.CORTEX_M3, "m0plus": Target.CORTEX_M0PLUS}
PLENTY = 2**40
"""No limit of memory: boards of the emulator have enough."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a layer took."""

    name: str
    kind: int8.Kind | None
    kernel: str
    macs: int
    density: float
    instructions: int
    yardstick: float | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A network on a processor."""

    network: str
    core: str
    states: int
    graph: Graph
    exported: Exported
    densities: dict[str, float]


def prepare(network: str, core: str, states: int, depthwise: int) -> Job:
    """A network, its program, and the share of codes that are not 0 in each tensor of the self-test's image."""
    graph = tiny_network(network, activations=states, depthwise=depthwise)
    images = np.random.default_rng(1).integers(0, 256, (1, *graph.input.shape), dtype=np.uint8)
    exported = export_c99(graph, strategy=Strategy.FAST, target=CORES[core], flash=PLENTY, ram=PLENTY, images=images)
    densities = {name: float((x != 0).mean()) for name, x in NumpyEngine(graph).layers(images)}
    return Job(network=network, core=core, states=states, graph=graph, exported=exported, densities=densities)


def layers(job: Job, found: Emulation) -> list[Layer]:
    """What each operation took."""
    rows = []
    for operation, count in zip(job.exported.program.operations, found.instructions, strict=True):
        step = operation.step if isinstance(operation, Weighted) else operation
        name = step.links.nodes[0] if step.links.nodes else "reorder"
        source = job.graph[name].inputs[0]
        kind = None
        if isinstance(operation, Weighted):
            _, _, high, wide = operation.step.weight.shape
            kind = int8.kind_of(
                first=source == job.graph.input.name,
                groups=operation.step.groups,
                kernel=(high, wide),
                pixels=step.links.outputs[0].rows * step.links.outputs[0].columns,
            )
        rows.append(
            Layer(
                name=name,
                kind=kind,
                kernel=type(operation).__name__,
                macs=sum(job.graph.macs(node) for node in step.links.nodes),
                density=job.densities[source],
                instructions=count,
                yardstick=None if kind is None else int8.each(kind, CORES[job.core], job.network),
            )
        )
    return rows


def main() -> None:
    """Measures networks, processors and states."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(int8.NETWORKS), choices=list(int8.NETWORKS))
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=list(CORES))
    parser.add_argument("--states", nargs="+", type=int, default=sorted(DENSITIES, reverse=True), choices=DENSITIES)
    parser.add_argument("--depthwise", type=int, default=3, choices=(3, 7, 15), help="states in depthwise layers")
    parser.add_argument("--json", action="store_true", help="one JSON object, and nothing else")
    options = parser.parse_args()
    suffix = "" if options.depthwise == 3 else f"d{options.depthwise}"
    figures: dict[str, object] = {"yardstick": int8.SOURCE}
    ours, theirs = defaultdict[str, float](float), defaultdict[str, float](float)
    for network in options.networks:
        for states in options.states:
            jobs = [prepare(network, core, states, options.depthwise) for core in options.cores]
            with ThreadPoolExecutor(2) as pool:
                results = list(pool.map(lambda job: emulate(job.exported, CORES[job.core]), jobs))
            for job, found in zip(jobs, results, strict=True):
                known, total = int8.NETWORKS[network], sum(found.instructions)
                key = f"{network}_{job.core}_a{states}{suffix}"
                figures["tools"] = [found.compiler, found.emulator, " ".join(found.flags)]
                figures[f"{key}_instructions"] = total
                figures[f"{key}_instructions_ratio"] = total / known.instructions[CORES[job.core]]
                figures[f"{key}_flash_ratio"] = found.flash / known.flash
                figures[f"{key}_ram_ratio"] = found.ram / known.ram
                figures[f"{key}_ram"] = found.ram
                rows = layers(job, found)
                for row in rows:
                    if row.kind is None or row.yardstick is None:
                        continue
                    by_kind = network in ("ic", "kws", "vww") if row.kind is not int8.Kind.DENSE else network == "ad"
                    if by_kind and not (network == "ad" and row.name == "dense0"):
                        one = f"{row.kind.value}_{job.core}_a{states}{suffix}"
                        ours[one] += row.instructions
                        theirs[one] += row.yardstick * row.macs
                    if row.kind is int8.Kind.FIRST and network in ("ic", "kws", "vww"):
                        ratio = row.instructions / (row.yardstick * row.macs)
                        figures[f"first_{network}_{job.core}_a{states}{suffix}_ratio"] = ratio
                if not options.json:
                    show(key, rows, figures, found)
    for one, count in ours.items():
        figures[f"{one}_ratio"] = count / theirs[one]
        if not options.json:
            print(f"{one:24s} {count / theirs[one]:.3f} of the instructions of 8 bits")
    if options.json:
        print(json.dumps(figures))


def show(key: str, rows: list[Layer], figures: dict[str, object], found: Emulation) -> None:
    """Prints a network on a processor."""
    ratios = ", ".join(f"{what} {figures[f'{key}_{what}_ratio']:.3f}" for what in ("instructions", "flash", "ram"))
    print(
        f"{key}: {sum(found.instructions):,} instructions, flash {found.flash:,}, RAM {found.ram:,}; ratios: {ratios}"
    )
    lines = [
        (
            row.name,
            row.kernel,
            f"{row.density:.2f}",
            row.instructions,
            row.macs,
            row.instructions / row.macs if row.macs else None,
            row.yardstick,
        )
        for row in rows
    ]
    print(table(("layer", "kernel", "density", "instructions", "multiply-adds", "each", "8 bits"), lines), flush=True)


if __name__ == "__main__":
    main()
