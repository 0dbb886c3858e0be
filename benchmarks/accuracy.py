"""Accuracy of networks, schedules, methods and states over several seeds: what was measured, and how to measure it.

    python benchmarks/accuracy.py [--json]
    python benchmarks/accuracy.py --table
    python benchmarks/accuracy.py --measure --path DIR --runs DIR [--cases KEY ...] [--seeds N]

Without `--measure` it reads the results file in seconds and needs no data. `--json` prints one object with the keys
NET_SCHEDULE_METHOD_wWaA_accuracy, .._spread, .._seeds and .._gap (float of the same network and schedule minus this),
in percent. `--table` writes docs/accuracy.md and its picture. `--measure` trains what the results file lacks: each case
is one or more phases, each a run of its own below `--runs`; cases share the phases that they have in common, and a
measurement that was interrupted goes on where it stopped. Rows are added as runs end.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl

from maqd.experiment.results import Case, Row, Summary, append, figures, read, select, summarize
from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.phases import Phase
from maqd.settings.quantization import Norm, Override, QuantConfig
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "accuracy.jsonl"
PAGE = ROOT / "docs" / "accuracy.md"
PICTURE = ROOT / "docs" / "images" / "accuracy.png"


# ---- what there is to measure ---------------------------------------------------------------------------------------

STEPS = {2: 2.0, 4: 1.0, 8: 0.5, 16: 0.25}
"""Activation step by number of states."""


def quantization(weight: int | None, act: int | None) -> QuantConfig:
    """Batch normalization; first layer and head in 15 weight states, as for all methods."""
    if weight is None or act is None:
        return QuantConfig(weight_states=None, act_states=None, norm=Norm.BN)
    overrides = [Override(pattern=pattern, weight_states=max(15, weight)) for pattern in ("stem*", "head")]
    return QuantConfig(weight_states=weight, act_states=act, act_step=STEPS[act], norm=Norm.BN, overrides=overrides)


def vgg_narrow(weight: int | None, act: int | None, *, epochs: int, lr: float) -> TrainConfig:
    """The narrow VGG on 25,600 images an epoch."""
    return TrainConfig(
        epochs=epochs,
        label_smoothing=0.1,
        model=ModelConfig(architecture=Architecture.VGG_NARROW, quant=quantization(weight, act)),
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
    return Phase(name=f"vgg_narrow_float{epochs}", config=vgg_narrow(None, None, epochs=epochs, lr=2e-3))


def started_vgg(weight: int, act: int, *, floats: int, epochs: int, lr: float = 4e-3) -> tuple[Phase, ...]:
    """`floats` epochs in float, and the rest of `epochs` with few states; the learning rate has a cycle in each."""
    config = vgg_narrow(weight, act, epochs=epochs - floats, lr=lr)
    return (float_vgg(floats), Phase(name=f"vgg_narrow_w{weight}a{act}_{floats}of{epochs}", config=config))


def cases() -> dict[Case, tuple[Phase, ...]]:
    """Everything that `--measure` can train."""
    table: dict[Case, tuple[Phase, ...]] = {}
    for schedule, epochs in (("short", 4), ("distilled", 8)):
        table[Case(network="vgg_narrow", schedule=schedule, method="float")] = (float_vgg(epochs),)
        for weight, act in ((3, 4), (3, 2)):
            case = Case(network="vgg_narrow", schedule=schedule, method="maqd", weight_states=weight, act_states=act)
            table[case] = started_vgg(weight, act, floats=epochs // 4, epochs=epochs)
    return table


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


def revision() -> str:
    """The commit of the source, or "unknown" outside of a checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


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


def main() -> None:
    """Reads, or measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--table", action="store_true", help="write docs/accuracy.md and its picture")
    parser.add_argument("--measure", action="store_true", help="train what the results file lacks")
    parser.add_argument("--path", help="directory of the data set")
    parser.add_argument("--cache-dir", help="directory of decoded data sets")
    parser.add_argument("--runs", type=Path, help="directory of the run directories; needed to measure")
    parser.add_argument("--cases", nargs="+", help="keys of cases to measure; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to measure")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    if options.measure:
        if options.runs is None:
            parser.error("--measure needs --runs DIR, where run directories are kept to go on with")
        known = {case.key: (case, phases) for case, phases in cases().items()}
        for key in options.cases or known:
            if key not in known:
                parser.error(f"there is no case {key!r}; there are {', '.join(known)}")
        place = Place(
            path=options.path,
            cache=options.cache_dir,
            runs=options.runs,
            results=options.results,
            threads=options.threads,
        )
        for key in options.cases or known:
            case, phases = known[key]
            for seed in options.seeds:
                if all(row.seed != seed for row in select(read(options.results), case)):
                    measure(case, phases, seed, place)

    summaries = summarize(read(options.results))
    if options.table:
        PAGE.write_text("\n".join([INTRODUCTION, *tables(summaries)]).replace("\n\n\n", "\n\n") + "\n")
        picture(summaries, PICTURE)
    if options.json:
        print(json.dumps(figures(summaries)))
    elif not options.table:
        print("\n".join(tables(summaries)))


if __name__ == "__main__":
    main()
