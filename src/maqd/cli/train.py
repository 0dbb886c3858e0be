"""`maqd train`."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from maqd.cli.arguments import configure, help_all, named_functions, take_settings
from maqd.cli.options import Options, UsageError, some_path
from maqd.errors import ConfigError
from maqd.machine import rank
from maqd.recipes import Budget, recipe
from maqd.settings.functions import check_imports
from maqd.settings.training import TrainConfig
from maqd.settings.tree import dotted_keys, read_tree, to_plain

EPILOG = """\
often used options of a run (--help-all lists every one, with its default):
  --run DIR                     directory of the run (runs/NAME)
  --epochs N  --seed N          passes over the training set; seed of everything random
  --data.path DIR               folder of the images; CIFAR is fetched without it
  --data.source NAME            digits, cifar10, cifar100, image_folder, hugging_face, arrays
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
    config = _config(options, chosen)
    if options.print_config:
        import yaml

        print(yaml.safe_dump(to_plain(config), sort_keys=False), end="")
        return 0
    return _run_training(config, resume=options.resume, overwrite=options.overwrite, as_json=options.json)


def _config(options: Any, chosen: Sequence[tuple[str, str]]) -> TrainConfig:
    """The configuration of a recipe, files, a run to resume and options, in this order."""
    bases: list[Mapping[str, Any]] = []
    name = None
    if options.budget is not None and options.recipe is None:
        raise UsageError("--budget belongs to a RECIPE; name one of `maqd recipes`")
    try:
        if options.recipe is not None:
            variant = recipe(options.recipe).variant(None if options.budget is None else Budget(options.budget))
            bases.append(to_plain(variant.config))
            name = options.recipe if options.budget is None else f"{options.recipe}-{options.budget}"
        for file in options.config:
            bases.append(read_tree(file, TrainConfig))
            name = file.stem
    except ConfigError as error:
        raise UsageError(str(error)) from error
    runs = [value for key, value in chosen if key == "run"]
    run = runs[-1] if runs else next((base["run"] for base in reversed(bases) if base.get("run")), None)
    if run is None and name is not None:
        run = str(Path("runs") / name)
    if run == "":
        raise UsageError("--run needs the name of a directory, got ''")
    if options.resume and run is not None and (stored := Path(run) / "config.yaml").exists():
        # After the files: the run may have been started with options that they do not have.
        bases.append(read_tree(stored, TrainConfig))
    config = configure(TrainConfig, bases, chosen)
    if not options.print_config:
        where = str(options.config[-1]) if options.config else f"{run or 'the configuration'}"
        check_imports(config.functions, named_functions(chosen), where=where, allow=options.allow_import)
    name = (config.model.function or config.model.architecture.value).rpartition(":")[2]
    return replace(config, run=run or str(Path("runs") / name))


def _run_training(config: TrainConfig, *, resume: bool, overwrite: bool, as_json: bool) -> int:
    from maqd.training.interrupt import Interrupted
    from maqd.training.progress import Output
    from maqd.training.train import train

    first = rank() == 0
    output = Output(sys.stderr if as_json else sys.stdout, silent=not first)
    try:
        result = train(config, resume=resume, overwrite=overwrite, output=output)
    except Interrupted as stop:
        if stop.saved:
            output.line(f"stopped and saved; continue with: maqd train --run {config.run} --resume")
        else:
            output.line("stopped at once; a resumed run starts from its last checkpoint")
        # A process that Lightning started must not look as if it had failed, or the first one is killed.
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
