"""Accuracy of networks, schedules, methods and states over several seeds: what was measured, and how to measure it.

    python benchmarks/accuracy.py [--json]
    python benchmarks/accuracy.py --table
    python benchmarks/accuracy.py --measure --path DIR --runs DIR [--cases KEY ...] [--seeds N]
    python benchmarks/accuracy.py --costs --runs DIR [--cases KEY ...]

Without `--measure` it reads the results files in seconds and needs no data. `--json` prints one object with the keys
NET_SCHEDULE_METHOD_wWaA_accuracy, .._spread, .._seeds and .._gap (float of the same network and schedule minus this),
in percent. `--table` writes docs/accuracy.md and its pictures. `--measure` trains what the results file lacks: each
case is one or more phases, each a run of its own below `--runs`; cases share the phases that they have in common, and a
measurement that was interrupted goes on where it stopped. Rows are added as runs end.

`--costs` exports the trained ResNet-8s as C programs, counts their instructions on an emulated Cortex-M4 and adds a row
of costs for each. Keys of them: pareto_equal_accuracy, the best ResNet-8 of any width that takes no more flash, RAM and
instructions than int8 ResNet-8 of width 16; pareto_small_accuracy, the best at 0.3 of its flash and half of its
instructions; .._case names it. A key is missing while there is no such network.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl

from harness import options_parser
from maqd.bench import int8
from maqd.experiment.results import (
    Case,
    Cost,
    Limit,
    Row,
    Summary,
    append,
    best_within,
    figures,
    newest,
    read,
    read_costs,
    select,
    summarize,
)
from maqd.export.c99 import Target
from maqd.machine import revision
from maqd.recipes import recipe
from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.phases import Phase
from maqd.settings.quantization import ActMethod, Norm, Override, QuantConfig, WeightMethod, act_step
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "accuracy.jsonl"
COSTS = ROOT / "docs" / "results" / "costs.jsonl"
PAGE = ROOT / "docs" / "accuracy.md"
PICTURE = ROOT / "docs" / "images" / "accuracy.png"
FRONT = ROOT / "docs" / "images" / "pareto.png"


# ---- what there is to measure ---------------------------------------------------------------------------------------

METHODS = {
    "maqd": (WeightMethod.MAQD, ActMethod.MAQD),
    "lsq": (WeightMethod.LSQ, ActMethod.LSQ),
    "pact": (WeightMethod.DOREFA, ActMethod.PACT),
    "twn": (WeightMethod.TWN, ActMethod.LSQ),
    "absmean": (WeightMethod.ABSMEAN, ActMethod.LSQ),
    "std": (WeightMethod.STD, ActMethod.LSQ),
    "apot": (WeightMethod.APOT, ActMethod.APOT),
    "n2uq": (WeightMethod.N2UQ, ActMethod.N2UQ),
}
"""How weights and activations are quantized, by method; those of weights alone have LSQ's activations."""


def quantization(weight: int | None, act: int | None, method: str = "maqd") -> QuantConfig:
    """Batch normalization; first layer and head in 15 weight states, as for all methods."""
    if weight is None or act is None:
        return QuantConfig(weight_states=None, act_states=None, norm=Norm.BN)
    overrides = [Override(pattern=pattern, weight_states=max(15, weight)) for pattern in ("stem*", "head")]
    weights, activations = METHODS[method]
    return QuantConfig(
        weight_states=weight,
        act_states=act,
        act_step=act_step(act),
        norm=Norm.BN,
        weight_method=weights,
        act_method=activations,
        overrides=overrides,
    )


def vgg_narrow(quant: QuantConfig, *, epochs: int, lr: float) -> TrainConfig:
    """The narrow VGG on 25,600 images an epoch."""
    return TrainConfig(
        epochs=epochs,
        label_smoothing=0.1,
        model=ModelConfig(architecture=Architecture.VGG_NARROW, quant=quant),
        data=cifar10(batch_size=64, samples=25_600),
        optim=OptimConfig(lr=lr),
        compute=ComputeConfig(bf16=True),
    )


def cifar10(*, batch_size: int, samples: int | None) -> DataConfig:
    """CIFAR-10 with the usual random crop and flip, all training images, the test set whole."""
    return DataConfig(
        source=Source.CIFAR10,
        batch_size=batch_size,
        samples_per_epoch=samples,
        augment=AugmentConfig(crop_padding=4, flip=True),
    )


def float_vgg(epochs: int) -> Phase:
    """A float narrow VGG: a reference, or what others start from."""
    return Phase(name=f"vgg_narrow_float{epochs}", config=vgg_narrow(quantization(None, None), epochs=epochs, lr=2e-3))


def started_vgg(weight: int, act: int, method: str, *, floats: int, epochs: int, lr: float = 4e-3) -> tuple[Phase, ...]:
    """`floats` epochs in float, and the rest of `epochs` with few states; the learning rate has a cycle in each."""
    config = vgg_narrow(quantization(weight, act, method), epochs=epochs - floats, lr=lr)
    name = "vgg_narrow" if method == "maqd" else f"vgg_narrow_{method}"
    return (float_vgg(floats), Phase(name=f"{name}_w{weight}a{act}_{floats}of{epochs}", config=config))


RESNETS = {"resnet8": 16, "resnet8w26": 26, "resnet8w32": 32}
"""Width of the first stage of each ResNet-8."""


WHOLE = (6, 20)
"""Epochs of the schedule `e20` of ResNet-8: without rounding, and in all; each of all 50,000 images."""


def resnet8(network: str, states: str, schedule: str) -> tuple[Phase, ...]:
    """The phases of a recipe of ResNet-8 at a width: as they are (`short`), or of `WHOLE` lengths (`e20`)."""
    configs = [phase.config for phase in recipe(f"cifar10-resnet8-{states}").variant().phases]
    configs = [replace(one, model=replace(one.model, width=RESNETS[network] / 16)) for one in configs]
    name = f"{network}_{states}"
    if schedule == "e20":
        lengths = [WHOLE[1]] if len(configs) == 1 else [WHOLE[0], WHOLE[1] - WHOLE[0]]
        configs = [
            replace(one, epochs=epochs, data=replace(one.data, samples_per_epoch=None))
            for one, epochs in zip(configs, lengths, strict=True)
        ]
        name = f"{name}_whole"
    first, whole = configs[0].epochs, sum(one.epochs for one in configs)
    names = [f"{name}{whole}"] if len(configs) == 1 else [f"{name}_free{first}", f"{name}_{first}of{whole}"]
    return tuple(Phase(name=name, config=config) for name, config in zip(names, configs, strict=True))


def mixed() -> tuple[Phase, ...]:
    """The phases of recipe cifar10-resnet8-mixed; the first is that of (3,8) at this width."""
    first, last = resnet8("resnet8w32", "w3a8", "e20")
    phases = recipe("cifar10-resnet8-mixed").variant().phases
    return (replace(phases[0], name=first.name), replace(phases[1], name=f"{last.name}_mixed"))


def cases() -> dict[Case, tuple[Phase, ...]]:
    """Everything that `--measure` can train."""
    table: dict[Case, tuple[Phase, ...]] = {}
    for schedule, epochs in (("short", 4), ("distilled", 8)):
        table[Case(network="vgg_narrow", schedule=schedule, method="float")] = (float_vgg(epochs),)
        for weight, act in ((3, 4), (3, 2)):
            for method in METHODS if schedule == "short" else ["maqd"]:
                case = Case(
                    network="vgg_narrow", schedule=schedule, method=method, weight_states=weight, act_states=act
                )
                table[case] = started_vgg(weight, act, method, floats=epochs // 4, epochs=epochs)
    for network in RESNETS:
        for schedule in ("short", "e20"):
            table[Case(network=network, schedule=schedule, method="float")] = resnet8(network, "float", schedule)
            for weight, act in ((3, 4), (3, 8), (3, 16)):
                case = Case(network=network, schedule=schedule, method="maqd", weight_states=weight, act_states=act)
                table[case] = resnet8(network, f"w{weight}a{act}", schedule)
    case = Case(network="resnet8w32", schedule="e20", method="mixed", weight_states=3, act_states=8)
    return {**table, case: mixed()}


# ---- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a measurement reads and writes.

    Args:
        path: Directory of the data set; None downloads it.
        cache: Directory of decoded data sets; None takes the usual one.
        runs: Directory of the run directories.
        results: The results file.
        threads: Threads of a run.
    """

    path: str | None
    cache: str | None
    runs: Path
    results: Path
    threads: int


def measure(case: Case, phases: tuple[Phase, ...], seed: int, place: Place) -> Row:
    """Train the phases of a case one after another, or go on with them, and add its row."""
    from maqd.machine import cpu_name
    from maqd.settings.tree import to_plain
    from maqd.training.phases import train_phases
    from maqd.training.progress import Output

    seeded = [replace(phase, config=replace(phase.config, seed=seed)) for phase in phases]
    placed = [
        Phase(
            name=f"{phase.name}_s{seed}",
            config=replace(
                phase.config,
                data=replace(phase.config.data, path=place.path, cache_dir=place.cache),
                compute=replace(phase.config.compute, threads=place.threads),
                evaluate_every=phase.config.epochs,
            ),
        )
        for phase in seeded
    ]
    results = train_phases(placed, place.runs, output=Output(sys.stderr))
    evaluation = results[-1].evaluation
    row = Row(
        case=case,
        seed=seed,
        images=results[-1].images,
        correct=evaluation.correct or 0,
        total=evaluation.total,
        config=tuple(to_plain(phase.config) for phase in seeded),
        revision=revision(),
        versions={name: version(name) for name in ("torch", "maqd")},
        machine=cpu_name(),
        seconds=round(sum(result.seconds for result in results), 1),
    )
    append(place.results, row)
    return row


def measure_costs(case: Case, run: Path, seed: int) -> Iterator[Cost]:
    """The C programs of a trained network, one for each strategy, on an emulated Cortex-M4, for one test image."""
    from maqd.bench.microcontroller import emulate
    from maqd.export.c99 import Strategy, export_c99
    from maqd.training.runs import open_run

    opened = open_run(run)
    sample = next(opened.test_inputs(1))
    plenty = 2**40
    for strategy in Strategy:
        exported = export_c99(
            opened.graph, strategy=strategy, target=Target.CORTEX_M4, flash=plenty, ram=plenty, samples=sample
        )
        found = emulate(exported, Target.CORTEX_M4)
        yield Cost(
            case=case,
            seed=seed,
            target=Target.CORTEX_M4.value,
            strategy=strategy.value,
            instructions=sum(found.instructions),
            flash=found.flash,
            ram=found.ram,
            revision=revision(),
            tools=(found.compiler, found.emulator, " ".join(found.flags)),
        )


# ---- reading --------------------------------------------------------------------------------------------------------


def tables(summaries: list[Summary]) -> Iterator[str]:
    """The lines of the page's tables, one for each network and schedule."""
    groups: dict[tuple[str, str], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary.case.network, summary.case.schedule), []).append(summary)
    for (network, schedule), members in groups.items():
        yield f"\n### {network}, {schedule}\n"
        yield "| method | states | accuracy, % | seeds | below float |"
        yield "|---|---|---|---|---|"
        for summary in members:
            case = summary.case
            states = "float" if case.act_states is None else f"({case.weight_states},{case.act_states})"
            spread = f" +- {summary.spread:.2f}" if summary.seeds > 1 else ""
            gap = "" if summary.gap is None else f"{summary.gap:.2f}"
            yield f"| {case.method} | {states} | {summary.mean:.2f}{spread} | {summary.seeds} | {gap} |"


def states_of(case: Case) -> str:
    """For the picture."""
    return f"({case.weight_states},{case.act_states})" + ("" if case.method == "maqd" else f" {case.method}")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A network on the fronts: its accuracy and what it takes.

    Args:
        label: For the picture.
        schedule: How long it was trained.
        accuracy: Percent.
        instructions, flash, ram: On a Cortex-M4.
    """

    label: str
    schedule: str
    accuracy: float
    instructions: int
    flash: int
    ram: int


INT8 = {"resnet8": int8.NETWORKS["ic"], "resnet8w26": int8.NETWORKS["ic26"]}
"""What ResNet-8s of MLPerf Tiny take in 8 bits, by the network whose accuracy in float they are taken to have."""


def within(flash: float, ram: float, instructions: float) -> Limit:
    """Shares of what int8 ResNet-8 of width 16 takes."""
    known = INT8["resnet8"]
    return Limit(
        flash=flash * known.flash,
        ram=ram * known.ram,
        instructions=instructions * known.instructions[Target.CORTEX_M4],
    )


LIMITS = {"equal": within(1, 1, 1), "small": within(0.3, math.inf, 0.5)}
"""Where few states are asked to win."""


def fronts(summaries: list[Summary], costs: list[Cost]) -> dict[str, float | str]:
    """The keys pareto_equal_accuracy, pareto_equal_case, pareto_small_accuracy and pareto_small_case."""
    few = [summary for summary in summaries if summary.case.network in RESNETS and summary.case.method != "float"]
    table: dict[str, float | str] = {}
    for name, limit in LIMITS.items():
        best = best_within(few, costs, limit)
        if best is not None:
            table[f"pareto_{name}_accuracy"] = round(best[0].mean, 3)
            table[f"pareto_{name}_case"] = f"{best[0].case.key} {best[1].strategy}"
    return table


def points(summaries: list[Summary], costs: list[Cost]) -> tuple[list[Point], list[Point]]:
    """Networks of few states, and in 8 bits with the accuracy of float."""
    known = {summary.case: summary.mean for summary in summaries}
    few = [
        Point(
            label=f"{RESNETS[case.network]} {states_of(case)} {cost.strategy}",
            schedule=case.schedule,
            accuracy=known[case],
            instructions=cost.instructions,
            flash=cost.flash,
            ram=cost.ram,
        )
        for cost in newest(costs)
        if (case := cost.case) in known
    ]
    eight = [
        Point(
            label=f"{RESNETS[case.network]} int8",
            schedule=case.schedule,
            accuracy=summary.mean,
            instructions=INT8[case.network].instructions[Target.CORTEX_M4],
            flash=INT8[case.network].flash,
            ram=INT8[case.network].ram,
        )
        for summary in summaries
        if (case := summary.case).network in INT8 and case.method == "float"
    ]
    return few, eight


def front_lines(few: list[Point], eight: list[Point], best: dict[str, float | str]) -> Iterator[str]:
    """The page's section on microcontrollers."""
    yield FRONT_INTRODUCTION
    yield "| width, states, strategy | schedule | accuracy, % | M4 instructions, M | flash, KB | RAM, KB |"
    yield "|---|---|---|---|---|---|"
    for point in sorted(few + eight, key=lambda point: (point.schedule, point.instructions)):
        yield (
            f"| {point.label} | {point.schedule} | {point.accuracy:.2f} | {point.instructions / 1e6:.1f} "
            f"| {point.flash / 1000:.1f} | {point.ram / 1000:.1f} |"
        )
    yield ""
    for name, text in (
        ("equal", "No more flash, RAM and instructions than int8 at width 16"),
        ("small", "At most 0.3 of its flash and half of its instructions"),
    ):
        found = best.get(f"pareto_{name}_accuracy")
        yield f"- {text}: " + ("none yet." if found is None else f"{found:.2f}% ({best[f'pareto_{name}_case']}).")


FRONT_INTRODUCTION = """
## ResNet-8 on a Cortex-M4

Trained networks exported as C (with every strategy), instructions counted in QEMU for one test image
(`docs/results/costs.jsonl`). Beside them CMSIS-NN's int8 (`maqd.bench.int8`), taken to be as accurate as the float
network of the same width and schedule. The rows of (3,4) at width 16 are older than programs that take their input row
by row: with random weights such a program takes 11.7 KB of RAM. Schedules: `short` is 16 epochs of 25,600 images, `e20`
20 epochs of all 50,000.

![Accuracy against instructions, flash and RAM](images/pareto.png)
"""


def front_picture(few: list[Point], eight: list[Point], path: Path) -> None:
    """Accuracy against instructions, flash and RAM."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, constrained_layout=True)
    columns = (("instructions", 1e6, "M4 instructions, M"), ("flash", 1e3, "flash, KB"), ("ram", 1e3, "RAM, KB"))
    for axis, (name, scale, unit) in zip(axes, columns, strict=True):
        for members, marker, color, label in ((few, "o", "C0", "few states"), (eight, "s", "C1", "int8 as float")):
            for schedule in dict.fromkeys(point.schedule for point in members):
                own = [point for point in members if point.schedule == schedule]
                fill = "none" if schedule == "short" else color
                axis.plot(
                    [getattr(point, name) / scale for point in own],
                    [point.accuracy for point in own],
                    marker,
                    mec=color,
                    mfc=fill,
                    label=f"{label}, {schedule}",
                )
                for network in dict.fromkeys(point.label.rsplit(" ", 1)[0] for point in own):
                    same = [point for point in own if point.label.rsplit(" ", 1)[0] == network]
                    rightmost = max(getattr(point, name) for point in same) / scale
                    axis.annotate(
                        network, (rightmost, same[0].accuracy), (5, 3), textcoords="offset points", fontsize=8
                    )
        axis.axvline(getattr(LIMITS["equal"], name) / scale, ls=":", color="gray", label="int8, width 16")
        axis.set_xlabel(unit)
        axis.set_xlim(0, 1.15 * axis.get_xlim()[1])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %")
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


INTRODUCTION = """\
# Accuracy

Written by `python benchmarks/accuracy.py --table` from `docs/results/accuracy.jsonl`, which holds every run with its
configuration, seed, revision, versions, machine and time. All networks are evaluated as exact integers on the whole
CIFAR-10 test set, which selects nothing; hyperparameters were chosen on 5,000 held-out training images
([recipes.md](recipes.md) has every trial). "Below float" compares with the float network of the same length of
training, every phase counted. Spread is the standard deviation over seeds.

![Accuracy by network, schedule and states](images/accuracy.png)
"""


def picture(summaries: list[Summary], path: Path) -> None:
    """A dot for each case with the spread of its seeds, grouped by network and schedule."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys((s.case.network, s.case.schedule) for s in summaries))
    states = list(dict.fromkeys((s.case.weight_states, s.case.act_states) for s in summaries))
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.7 * len(groups)), constrained_layout=True)
    for place, (weight, act) in enumerate(states):
        own = [s for s in summaries if (s.case.weight_states, s.case.act_states) == (weight, act)]
        axis.errorbar(
            [s.mean for s in own],
            [groups.index((s.case.network, s.case.schedule)) + 0.12 * (place - (len(states) - 1) / 2) for s in own],
            xerr=[s.spread for s in own],
            fmt="o",
            capsize=3,
            label="float" if act is None else f"({weight},{act})",
        )
    axis.set_yticks(range(len(groups)), [f"{network}, {schedule}" for network, schedule in groups])
    axis.invert_yaxis()
    axis.set_xlabel("accuracy on the CIFAR-10 test set, %")
    axis.grid(axis="x", alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Reads, or measures."""
    parser = options_parser(__doc__, data=True, threads=True)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--costs-file", type=Path, default=COSTS, help="the file of costs")
    parser.add_argument("--table", action="store_true", help="write docs/accuracy.md and its picture")
    parser.add_argument("--measure", action="store_true", help="train what the results file lacks")
    parser.add_argument("--costs", action="store_true", help="measure the programs of trained ResNet-8s")
    parser.add_argument("--runs", type=Path, help="directory of the run directories; needed to measure")
    parser.add_argument("--cases", nargs="+", help="keys of cases to measure; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to measure")
    options = parser.parse_args()

    known = {case.key: (case, phases) for case, phases in cases().items()}
    for key in options.cases or ():
        if key not in known:
            parser.error(f"there is no case {key!r}; there are {', '.join(known)}")
    chosen = [known[key] for key in options.cases or known]
    if (options.measure or options.costs) and options.runs is None:
        parser.error("--measure and --costs need --runs DIR, where run directories are kept to go on with")
    if options.measure:
        place = Place(
            path=options.path,
            cache=options.cache_dir,
            runs=options.runs,
            results=options.results,
            threads=options.threads,
        )
        for case, phases in chosen:
            for seed in options.seeds:
                if all(row.seed != seed for row in select(read(options.results), case)):
                    measure(case, phases, seed, place)
    if options.costs:
        seed = options.seeds[0]
        for case, phases in chosen:
            trained = any(row.seed == seed for row in select(read(options.results), case))
            if case.network in RESNETS and case.method != "float" and trained:
                for cost in measure_costs(case, options.runs / f"{phases[-1].name}_s{seed}", seed):
                    append(options.costs_file, cost)

    summaries, costs = summarize(read(options.results)), read_costs(options.costs_file)
    few, eight = points(summaries, costs)
    best = fronts(summaries, costs)
    if options.table:
        lines = [INTRODUCTION, *tables(summaries), *(front_lines(few, eight, best) if few else ())]
        PAGE.write_text("\n".join(lines).replace("\n\n\n", "\n\n") + "\n")
        picture(summaries, PICTURE)
        if few:
            front_picture(few, eight, FRONT)
    if options.json:
        print(json.dumps({**figures(summaries), **best}))
    elif not options.table:
        print("\n".join(tables(summaries)))


if __name__ == "__main__":
    main()
