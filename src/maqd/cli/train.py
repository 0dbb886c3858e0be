"""`maqd train`."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maqd.cli.arguments import configure, help_all, named_functions, take_settings
from maqd.cli.options import Options, UsageError, some_path
from maqd.errors import ConfigError
from maqd.io.files import write_atomically
from maqd.io.outputs import COMMENT, make_directory
from maqd.machine import rank
from maqd.recipes import Budget, recipe
from maqd.settings.functions import check_imports
from maqd.settings.phases import Phase, phases_to_plain, read_phases
from maqd.settings.training import TrainConfig
from maqd.settings.tree import dotted_keys, to_plain

if TYPE_CHECKING:
    from maqd.training.progress import Output
    from maqd.training.train import TrainResult

PHASES = "phases.yaml"
"""Name of the file with all phases, in the directory of a training in phases."""

EPILOG = """\
often used options of a run (--help-all lists every one, with its default):
  --run DIR                     directory of the run (runs/NAME)
  --epochs N  --seed N          passes over the training set; seed of everything random
  --data.path DIR               folder of the images; CIFAR is fetched without it
  --data.source NAME            digits, cifar10, cifar100, image_folder, hugging_face, arrays, text
  --data, --model, --loss, --metric PACKAGE.MODULE:FUNCTION
                                data, network, loss and metric of your own (docs/training.md)
  --data.batch_size N           images of a batch
  --data.validation N           hold out training images for choosing
  --model.architecture NAME     vgg16, preact_resnet18, digits, micro, ...
  --model.quant.weight_states N, --model.quant.act_states N
                                M_w and M_a; null for float
  --optim.lr X                  peak learning rate
  --compute.device NAME  --compute.threads N  --compute.devices N

example: maqd train cifar10-vgg16-w3a4 --budget cpu --data.path DIR --optim.lr 2e-3
"""


def command(arguments: list[str]) -> int:
    """Run `maqd train`; the exit status."""
    parser = Options(
        usage="maqd train [RECIPE] [--config FILE] [--run DIR] [--KEY VALUE ...]",
        description="Train a network into a run directory. Options override files, files override the recipe.",
        epilog=EPILOG,
        known=list(dotted_keys(TrainConfig)),
    )
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="one of `maqd recipes`")
    parser.add_argument("--budget", choices=[budget.value for budget in Budget], help="of the recipe")
    parser.add_argument(
        "--config", metavar="FILE", type=some_path, action="append", default=[], help="YAML file of options"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in the run directory")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the run directory")
    parser.add_argument("--print-config", action="store_true", help="print the options as YAML and train nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    parser.add_argument("--help-all", action="store_true", help="show all options of a run and exit")
    parser.add_allow_import()
    chosen = take_settings(arguments, TrainConfig)
    options = parser.read(arguments)
    if options.help_all:
        print(parser.format_help() + "\nall options:\n" + help_all(TrainConfig))
        return 0
    run, phases = _phases(options, chosen)
    configs = [config for _, config in phases]
    if options.print_config:
        import yaml

        whole = to_plain(replace(configs[0], run=run))
        if len(phases) > 1:
            whole = phases_to_plain([Phase(name=name, config=config) for name, config in phases])
        print(yaml.safe_dump(whole, sort_keys=False), end="")
        return 0
    where = str(options.config[-1]) if options.config else run
    for config in configs:
        check_imports(config.functions, named_functions(chosen), where=where, allow=options.allow_import)
    if len(phases) == 1:
        config = replace(configs[0], run=run)
        return _run_training(config, resume=options.resume, overwrite=options.overwrite, as_json=options.json)
    return _train_phases(
        Path(run),
        [Phase(name=name, config=config) for name, config in phases],
        resume=options.resume,
        overwrite=options.overwrite,
        as_json=options.json,
    )


def _phases(options: Any, chosen: Sequence[tuple[str, str]]) -> tuple[str, list[tuple[str, TrainConfig]]]:
    """The directory and the phases: from a recipe, files, a run to resume and options, in this order.

    Most trainings have one phase, without a name. Options hold for all phases.
    """
    stages: list[tuple[str, list[Mapping[str, Any]]]] = [("", [])]
    name = None
    if options.budget is not None and options.recipe is None:
        raise UsageError("--budget belongs to a RECIPE; name one of `maqd recipes`")
    try:
        if options.recipe is not None:
            variant = recipe(options.recipe).variant(None if options.budget is None else Budget(options.budget))
            single = not variant.before
            stages = [("" if single else phase.name, [to_plain(phase.config)]) for phase in variant.phases]
            name = options.recipe if options.budget is None else f"{options.recipe}-{options.budget}"
        for file in options.config:
            stages = _over(stages, file)
            name = file.stem
        run = next((value for key, value in reversed(chosen) if key == "run"), None)
        if run is None:
            bases = reversed([base for _, own in stages for base in own])
            run = next((str(base["run"]) for base in bases if base.get("run")), None)
        if run is None and name is not None:
            run = str(Path("runs") / name)
        if run == "":
            raise UsageError("--run needs the name of a directory, got ''")
        if options.resume and run is not None:
            for stored in (Path(run) / "config.yaml", Path(run) / PHASES):
                if stored.exists():
                    # After the files: the run may have been started with options that they do not have.
                    stages = _over(stages, stored)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    found = [(stage, configure(TrainConfig, bases, chosen)) for stage, bases in stages]
    if len(found) > 1:
        # The directory is that of all phases, and each starts from the one before it.
        found = [(stage, replace(config, run=None)) for stage, config in found]
    network = (found[-1][1].model.function or found[-1][1].model.architecture.value).rpartition(":")[2]
    return run or str(Path("runs") / network), found


def _over(stages: list[tuple[str, list[Mapping[str, Any]]]], file: Path) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The phases with a file's options over them.

    Raises:
        ConfigError: The file cannot be read.
        UsageError: The file has phases, and others are there already.
    """
    trees = read_phases(file)
    names = [name for name, _ in stages]
    if len(trees) == 1:
        return [(name, [*bases, trees[0][1]]) for name, bases in stages]
    if names not in ([""], [name for name, _ in trees]):
        raise UsageError(f"{file} has phases of its own; leave out the recipe or the other file")
    befores = [bases for _, bases in stages] * (len(trees) if names == [""] else 1)
    return [(name, [*before, tree]) for (name, tree), before in zip(trees, befores, strict=True)]


def _train_phases(run: Path, phases: Sequence[Phase], *, resume: bool, overwrite: bool, as_json: bool) -> int:
    """A training in phases, each in a directory of its own below that of the training."""
    from maqd.training.phases import train_phases
    from maqd.training.run_directory import RunDirectory, stored_options

    if any(phase.config.compute.devices * phase.config.compute.nodes > 1 for phase in phases):
        raise ConfigError("phases are trained by one process; leave compute.devices and compute.nodes at 1")
    stored = run / PHASES
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: continue the training or replace it")
    if resume != stored.exists() and not overwrite:
        remedy = "start it without --resume" if resume else "continue it with --resume or replace it with --overwrite"
        raise ConfigError(f"{run} holds {'no' if resume else 'a'} training in phases; {remedy}")
    make_directory(run)
    if stored.exists():
        # Earlier versions wrote no comment, but the directories of the phases at once.
        began = any(RunDirectory(run / phase.name).holds() for phase in phases)
        if not (stored.read_text(errors="replace").startswith(COMMENT) or began):
            raise ConfigError(
                f"{stored} was not written by maqd: it is not replaced; choose another directory with --run DIR, or "
                "rename the file"
            )
    write_atomically(stored, [stored_options(phases_to_plain(phases))])

    def train_all(output: "Output") -> "TrainResult":
        return train_phases(phases, run, overwrite=overwrite, output=output)[-1]

    return _report(train_all, str(run), as_json=as_json)


def _run_training(config: TrainConfig, *, resume: bool, overwrite: bool, as_json: bool) -> int:
    from maqd.training.train import train

    def train_one(output: "Output") -> "TrainResult":
        return train(config, resume=resume, overwrite=overwrite, output=output)

    return _report(train_one, str(config.run), as_json=as_json)


def _report(train: "Callable[[Output], TrainResult]", run: str, *, as_json: bool) -> int:
    """Train, and say what came of it; the exit status."""
    from maqd.training.interrupt import Interrupted
    from maqd.training.progress import Output

    first = rank() == 0
    output = Output(sys.stderr if as_json else sys.stdout, silent=not first)
    try:
        result = train(output)
    except Interrupted as stop:
        if stop.saved:
            output.line(f"stopped and saved; continue with: maqd train --run {run} --resume")
        else:
            output.line("stopped at once; a resumed run starts from its last checkpoint")
        # If a process that Lightning started ends with another status than 0, Lightning kills the first one.
        return 128 + stop.signum if first else 0
    if not first:
        return 0
    if as_json:
        best = {}
        if result.best is not None:
            best = result.best.figures(f"best_{result.images}_") | {"best_correct": result.best.correct}
        print(
            json.dumps(
                {
                    "run": str(result.run),
                    "images": result.images,
                    **result.evaluation.figures(f"{result.images}_"),
                    **asdict(result.evaluation),
                    **best,
                    "steps": result.steps,
                    "seconds": round(result.seconds, 3),
                }
            )
        )
    else:
        what = "" if result.evaluation.correct is None else " accuracy"
        output.line(f"{result.images}{what} {result.evaluation} in {result.run}")
    if result.losses is not None and not result.learned:
        began, ended = result.losses
        print(
            f"maqd: warning: the training loss ended at {ended:.4g} and began at {began:.4g}: nothing was learned; "
            "lower optim.lr or set optim.gradient_clip and train again with --overwrite",
            file=sys.stderr,
        )
        return 1
    return 0
