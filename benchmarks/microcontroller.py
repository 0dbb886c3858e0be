"""The networks of MLPerf Tiny as C programs on emulated microcontrollers, beside CMSIS-NN in 8 bits.

    python benchmarks/microcontroller.py [--networks ic kws ..] [--cores m4 ..] [--states 4 2] [--depthwise 3 7 15]
        [--cmsis-nn CHECKOUT] [--picture FILE.png] [--json]
    python benchmarks/microcontroller.py --kernels [--json]

Nothing is trained: the networks of maqd.bench.tiny have random weights, and activations of the density stated there.
The yardstick is the recorded table of maqd.bench.int8, or with --cmsis-nn what a checkout of CMSIS-NN takes for the
same shapes here. Instructions are counted in QEMU for one random image, strategy `fast`; cycles are the model of
maqd.bench.qemu; flash and RAM are those of the linked network. All of it takes about ten minutes on two cores.

Ratios (ours over 8 bits), with M the activation states: NET_CORE_aM_instructions_ratio, ..._cycles_ratio,
..._flash_ratio, ..._ram_ratio; KIND_CORE_aM_ratio, the summed instructions of a kind's layers in ic, kws and vww
(dense: ad without its first layer); first_NET_CORE_aM_ratio. icp and icp26 have averages in their shortcuts, as
maqd.models has them, and are compared with ic. Networks with depthwise layers are measured with 3, 7 and 15 states in
them, and keys have d7 or d15 after aM. rv32 (a RISC-V RV32IMC) is counted without a yardstick, and so is
avr (an ATmega1284P in simavr, strategy balanced, networks that fit: its cycles are simavr's). Exit status 1 if a bound
of `BOUNDS` is missed. --kernels measures what the choice of kernels rests on, as LAYER_KERNEL_CORE_each and the ratio
to the recorded cost, LAYER_KERNEL_CORE_recorded_ratio; exit status 1 if any is off by more than a tenth.
"""

import json
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import options_parser
from maqd.bench import int8
from maqd.bench.avr import measure_avr
from maqd.bench.cmsis import measure_int8
from maqd.bench.kernels import measure_kernels
from maqd.bench.microcontroller import Layer, Measurement, measure
from maqd.bench.qemu import Tally, cycles
from maqd.bench.tiny import DENSITIES, tiny_network
from maqd.cli.emulated import layers_table
from maqd.errors import EngineError, MissingDependencyError
from maqd.export.c99 import Strategy, Target
from maqd.export.c99.choices import MEASURED

CORES = {"m4": Target.CORTEX_M4, "m3": Target.CORTEX_M3, "m0plus": Target.CORTEX_M0PLUS, "rv32": Target.RV32}
STICKS = {**{network: network for network in int8.NETWORKS}, "icp": "ic", "icp26": "ic"}
"""The network in 8 bits that each is compared with: ResNet-8 with averages in its shortcuts with that of width 16."""

DEPTHWISE = (3, 7, 15)
"""States in depthwise layers."""

SEPARABLE = ("kws", "vww")
"""Networks that have them."""

ON_AVR = ("kws", "ic")
"""What an AVR holds: tables below 64 KB, and in RAM the arena and an image."""

NETWORKS = ("ic", "kws", "vww")
"""Whose layers are summed by kind."""

BOUNDS = {
    **{
        f"{network}_{core}_a{states}_instructions_ratio": bound
        for core, rows in {
            "m4": {"ic": (0.25, 0.18), "kws": (0.33, 0.23), "vww": (0.30, 0.22), "ad": (0.35, 0.32)},
            "m3": {"ic": (0.18, 0.13), "kws": (0.25, 0.18), "vww": (0.22, 0.16), "ad": (0.25, 0.22)},
            "m0plus": {"ic": (0.14, 0.10), "kws": (0.15, 0.10), "vww": (0.15, 0.11), "ad": (0.25, 0.22)},
        }.items()
        for network, pair in rows.items()
        for states, bound in zip((4, 2), pair, strict=True)
    },
    "depthwise_m4_a4_ratio": 0.25,
    "depthwise_m4_a2_ratio": 0.12,
    "pointwise_m4_a4_ratio": 0.30,
    "pointwise_m4_a2_ratio": 0.22,
    "conv3x3_m4_a4_ratio": 0.22,
    "conv3x3_m4_a2_ratio": 0.15,
    "dense_m4_a4_ratio": 0.18,
    "first_ic_m4_a4_ratio": 0.60,
    "first_kws_m4_a4_ratio": 0.60,
    "first_vww_m4_a4_ratio": 0.40,
    **{f"{network}_m4_a4_flash_ratio": 0.35 for network in NETWORKS},
    "kws_m4_a4_ram_ratio": 0.35,
    "vww_m4_a4_ram_ratio": 0.35,
    "ic_m4_a4_ram_ratio": 0.45,
    "kws_m4_a4_cycles_ratio": 0.45,
    "vww_m4_a4_cycles_ratio": 0.45,
    "kws_m4_a4d7_instructions_ratio": 0.55,
    "vww_m4_a4d7_instructions_ratio": 0.55,
    "kws_m4_a4d15_instructions_ratio": 0.75,
    "vww_m4_a4d15_instructions_ratio": 0.75,
}
"""What must hold, by key; and ad's RAM at M_a=4 is at most 2 KB."""


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """A network in 8 bits on a core.

    Args:
        instructions, cycles: Of the whole network.
        layers: Instructions by layer; empty if they were not measured here.
    """

    instructions: int
    cycles: int
    layers: dict[str, int]


def yardstick(network: str, core: str, depthwise: int, sources: Path | None) -> Yardstick | None:
    """The recorded one, or measured with CMSIS-NN's sources."""
    target, known = CORES[core], int8.NETWORKS[STICKS[network]]
    if target not in known.instructions:
        return None
    if sources is None:
        return Yardstick(instructions=known.instructions[target], cycles=known.cycles[target], layers={})
    found = measure_int8(tiny_network(STICKS[network], activations=2, depthwise=depthwise), target, sources)
    return Yardstick(
        instructions=sum(one.instructions for one in found.values()),
        cycles=sum(_cycles(one, target) for one in found.values()),
        layers={name: one.instructions for name, one in found.items()},
    )


def _cycles(tally: Tally, target: Target) -> int:
    return cycles(tally, target) or 0


def eight(layer: Layer, known: Yardstick) -> float | None:
    """Instructions of a layer in 8 bits."""
    if known.layers:
        return float(sum(known.layers.get(name, 0) for name in layer.names))
    return None if layer.int8 is None else layer.int8 * layer.macs


def suffix_of(depthwise: int) -> str:
    """The suffix of keys for depthwise layers with this number of states."""
    return "" if depthwise == 3 else f"d{depthwise}"


def main() -> int:
    """Measures networks, processors and states; the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(STICKS), choices=list(STICKS))
    parser.add_argument("--cores", nargs="+", default=[*CORES, "avr"], choices=[*CORES, "avr"])
    parser.add_argument("--states", nargs="+", type=int, default=sorted(DENSITIES, reverse=True), choices=DENSITIES)
    parser.add_argument(
        "--depthwise", nargs="+", type=int, default=DEPTHWISE, choices=DEPTHWISE, help="states in depthwise layers"
    )
    parser.add_argument(
        "--cmsis-nn", type=Path, metavar="CHECKOUT", help="measure CMSIS-NN's sources in this directory"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw instructions of a multiplication by layer")
    parser.add_argument("--kernels", action="store_true", help="measure the kernels that layers can choose from")
    options = parser.parse_args()
    if options.kernels:
        return compare_kernels(json_output=options.json)
    figures: dict[str, object] = {"yardstick": int8.SOURCE if options.cmsis_nn is None else str(options.cmsis_nn)}
    ours, theirs = defaultdict[str, float](float), defaultdict[str, float](float)
    drawn: dict[str, tuple[Measurement, Yardstick]] = {}

    def run(job: tuple[str, str, int, int]) -> Measurement:
        network, core, states, depthwise = job
        graph = tiny_network(network, activations=states, depthwise=depthwise)
        images = np.random.default_rng(1).integers(0, 256, (1, *graph.input.shape), dtype=np.uint8)
        return measure(graph, CORES[core], Strategy.FAST, images, network=network)

    jobs = [
        (network, core, states, depthwise)
        for depthwise in options.depthwise
        for network in options.networks
        for core in options.cores
        for states in options.states
        if core != "avr" and (depthwise == min(options.depthwise) or network in SEPARABLE)
    ]
    known = {
        (network, core): yardstick(network, core, min(options.depthwise), options.cmsis_nn)
        for network in options.networks
        for core in options.cores
        if core != "avr"
    }
    with ThreadPoolExecutor(2) as pool:
        for (network, core, states, depthwise), found in zip(jobs, pool.map(run, jobs), strict=True):
            other, suffix = known[network, core], suffix_of(depthwise)
            add_network(figures, f"{network}_{core}_a{states}{suffix}", found, network, other)
            if other is not None:
                add_layers(figures, ours, theirs, (network, core, f"a{states}{suffix}"), found, other)
            if other is not None and core == "m4" and states == 4 and depthwise == min(options.depthwise):
                drawn[network] = found, other
            if not options.json:
                show(f"{network}_{core}_a{states}{suffix}", figures, found)
    if "avr" in options.cores:
        add_avr(figures, options.networks, options.states, min(options.depthwise), show=not options.json)
    for one, count in ours.items():
        figures[f"{one}_ratio"] = count / theirs[one]
    missed = [
        f"{key} is {figures[key]:.3f}, and must be at most {bound}"
        for key, bound in BOUNDS.items()
        if key in figures and float(str(figures[key])) > bound
    ]
    if int(str(figures.get("ad_m4_a4_ram", 0))) > 2048:
        missed.append(f"ad_m4_a4_ram is {figures['ad_m4_a4_ram']}, and must be at most 2048")
    figures["missed"] = missed
    if options.picture is not None:
        draw(drawn, options.picture)
    if options.json:
        print(json.dumps(figures))
    else:
        for one in ours:
            print(f"{one:24s} {figures[f'{one}_ratio']:.3f} of the instructions of 8 bits")
        print("\n".join(missed) or "all bounds hold")
    return int(bool(missed))


def compare_kernels(*, json_output: bool) -> int:
    """Measures what the choice of kernels rests on; the exit status."""
    figures: dict[str, float] = {}
    for core in ("m4", "m0plus"):
        for (layer, kernel), cost in measure_kernels(CORES[core]).items():
            key = f"{layer.name.lower()}_{kernel.value}_{core}"
            figures[f"{key}_each"] = cost
            figures[f"{key}_recorded_ratio"] = cost / MEASURED.costs[CORES[core]][layer, kernel]
    if json_output:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{key:50s} {value:.3f}" for key, value in figures.items()))
    return int(any(abs(value - 1) > 0.1 for key, value in figures.items() if key.endswith("_ratio")))


def add_network(
    figures: dict[str, object], key: str, found: Measurement, network: str, other: Yardstick | None
) -> None:
    """Figures of a whole network."""
    emulation, known = found.emulation, int8.NETWORKS[STICKS[network]]
    figures["tools"] = [emulation.compiler, emulation.emulator, " ".join(emulation.flags)]
    figures[f"{key}_instructions"] = found.instructions
    figures[f"{key}_cycles"] = found.cycles
    figures[f"{key}_flash"] = emulation.flash
    figures[f"{key}_ram"] = emulation.ram
    if other is None:
        return
    figures[f"{key}_instructions_ratio"] = found.instructions / other.instructions
    if found.cycles is not None:
        figures[f"{key}_cycles_ratio"] = found.cycles / other.cycles
    figures[f"{key}_flash_ratio"] = emulation.flash / known.flash
    figures[f"{key}_ram_ratio"] = emulation.ram / known.ram


def add_avr(figures: dict[str, object], networks: list[str], states: list[int], depthwise: int, *, show: bool) -> None:
    """Figures of the networks that an AVR holds."""
    for network in (one for one in networks if one in ON_AVR):
        for count in states:
            graph = tiny_network(network, activations=count, depthwise=depthwise)
            images = np.random.default_rng(1).integers(0, 256, (1, *graph.input.shape), dtype=np.uint8)
            key = f"{network}_avr_a{count}{suffix_of(depthwise)}"
            try:
                found = measure_avr(graph, Strategy.BALANCED, images)
            except (EngineError, MissingDependencyError) as error:
                figures[f"{key}_missing"] = str(error)
                continue
            figures[f"{key}_instructions"], figures[f"{key}_cycles"] = sum(found.instructions), sum(found.cycles)
            figures[f"{key}_flash"], figures[f"{key}_ram"] = found.flash, found.ram
            if show:
                numbers = f"{sum(found.instructions):,} instructions, {sum(found.cycles):,} cycles"
                print(f"{key}: {numbers}, flash {found.flash:,}, RAM {found.ram:,}", flush=True)


def add_layers(
    figures: dict[str, object],
    ours: dict[str, float],
    theirs: dict[str, float],
    where: tuple[str, str, str],
    found: Measurement,
    other: Yardstick,
) -> None:
    """Figures of first layers, and sums of the others by kind."""
    network, core, states = where
    for layer in found.layers:
        count = eight(layer, other)
        if layer.kind is None or count is None:
            continue
        dense = layer.kind is int8.Kind.DENSE
        if (network == "ad" and layer.names[0] != "dense0") if dense else network in NETWORKS:
            ours[f"{layer.kind.value}_{core}_{states}"] += layer.instructions
            theirs[f"{layer.kind.value}_{core}_{states}"] += count
        if layer.kind is int8.Kind.FIRST and network in NETWORKS:
            figures[f"first_{network}_{core}_{states}_ratio"] = layer.instructions / count


def show(key: str, figures: dict[str, object], found: Measurement) -> None:
    """Prints a network on a processor."""
    ratios = ", ".join(
        f"{what} {figures[f'{key}_{what}_ratio']:.3f}"
        for what in ("instructions", "cycles", "flash", "ram")
        if f"{key}_{what}_ratio" in figures
    )
    emulation = found.emulation
    memory = f"flash {emulation.flash:,}, RAM {emulation.ram:,}"
    print(f"{key}: {found.instructions:,} instructions, {memory}; ratios: {ratios}")
    print(layers_table(found), flush=True)


def draw(drawn: dict[str, tuple[Measurement, Yardstick]], file: Path) -> None:
    """Instructions of a multiplication and addition, layer by layer, ours and those of 8 bits."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = {name: [layer for layer in one.layers if layer.macs] for name, (one, _) in drawn.items()}
    figure, axes = plt.subplots(
        1,
        len(drawn),
        figsize=(3 + 0.24 * sum(map(len, rows.values())), 4.2),
        width_ratios=[len(one) + 2 for one in rows.values()],
        sharey=True,
        squeeze=False,
        constrained_layout=True,
    )
    for axis, (name, layers) in zip(axes[0], rows.items(), strict=True):
        other = drawn[name][1]
        place = np.arange(len(layers))
        theirs = [(eight(layer, other) or 0) / layer.macs for layer in layers]
        axis.bar(place - 0.21, theirs, 0.42, color="#b8b8b8", label="8 bits, CMSIS-NN")
        axis.bar(
            place + 0.21, [one.instructions / one.macs for one in layers], 0.42, color="#20639b", label="maqd, M_a=4"
        )
        axis.set_xticks(place, [layer.names[0] for layer in layers], rotation=90, fontsize=7)
        axis.set_title(name)
        axis.set_yscale("log")
        axis.set_ylim(0.1, 10)
        axis.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel("instructions of a multiply-add, Cortex-M4")
    axes[0][0].legend(loc="upper right", fontsize=8)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
