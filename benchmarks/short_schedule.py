"""Accuracy of recipes over several seeds: a distribution, with machine and time.

    python benchmarks/short_schedule.py --path DIR [--recipes NAME[:NORM] ...] [--seeds 3] [--json]

Trains each recipe at its CPU budget, with another normalization (lbn, levelled_lbn, bn) if asked, with each seed
through the same code as `maqd train`, evaluates the exact integer function on the whole test set, and prints the test
accuracies in percent with their mean and standard deviation. `--append FILE` adds one JSON line per run as it ends,
and skips the runs that FILE already holds.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from harness import machine, options_parser, print_json, print_machine
from maqd.recipes import Budget, recipe
from maqd.settings.quantization import Norm
from maqd.training.progress import Output
from maqd.training.train import train

DEFAULT = tuple(f"cifar10-vgg16-{states}" for states in ("float", "w3a4", "w3a2"))


def run(name: str, seed: int, *, path: str | None, cache: str | None, threads: int, runs: Path) -> dict[str, object]:
    """One training: its accuracy and what produced it."""
    known, _, norm = name.partition(":")
    config = recipe(known).variant(Budget.CPU).config
    if norm:
        quant = replace(config.model.quant, norm=Norm(norm))
        config = replace(config, model=replace(config.model, quant=quant))
    config = replace(
        config,
        seed=seed,
        run=str(runs / f"{known}_{norm or 'as_is'}_seed{seed}"),
        data=replace(config.data, path=path, cache_dir=cache),
        compute=replace(config.compute, threads=threads),
    )
    result = train(config, overwrite=True, output=Output(sys.stderr), label=f"{name} seed {seed}")
    return {
        "config": name,
        "seed": seed,
        "epochs": config.epochs,
        "samples_per_epoch": config.data.samples_per_epoch,
        "correct": result.evaluation.correct,
        "total": result.evaluation.total,
        "seconds": round(result.seconds, 1),
        "machine": asdict(machine()),
    }


def main() -> None:
    """Trains all recipes with all seeds."""
    parser = options_parser(__doc__, data=True, threads=True, seeds=True)
    parser.add_argument("--recipes", nargs="+", default=list(DEFAULT), help="NAME or NAME:NORM, of `maqd recipes`")
    parser.add_argument("--runs", type=Path, help="keep the run directories here")
    parser.add_argument("--append", type=Path, help="file of JSON lines, one per run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    done: dict[tuple[object, object], dict[str, object]] = {}
    if options.append is not None and options.append.exists():
        lines = [json.loads(line) for line in options.append.read_text().splitlines()]
        done = {(line["config"], line["seed"]): line for line in lines}
    figures: dict[str, object] = {"seeds": options.seeds}
    for name in options.recipes:
        accuracies = []
        for seed in range(options.seeds):
            line = done.get((name, seed))
            if line is None:
                with tempfile.TemporaryDirectory() as folder:
                    line = run(
                        name,
                        seed,
                        path=options.path,
                        cache=options.cache_dir,
                        threads=options.threads,
                        runs=options.runs or Path(folder),
                    )
                if options.append is not None:
                    with options.append.open("a") as file:
                        file.write(json.dumps(line) + "\n")
            accuracies.append(100 * int(str(line["correct"])) / int(str(line["total"])))
        mean = statistics.mean(accuracies)
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        figures[name] = {"accuracies": accuracies, "mean": mean, "standard_deviation": deviation}
        if not options.json:
            print(f"{name}: {mean:.2f} +- {deviation:.2f} ({', '.join(f'{a:.2f}' for a in accuracies)})", flush=True)
    if options.json:
        print_json(machine(), figures)
    else:
        print_machine(machine())


if __name__ == "__main__":
    main()
