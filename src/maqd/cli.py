"""The command line: `maqd COMMAND ...`. Importing this, and `maqd --help`, needs nothing but Python."""

import enum
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maqd.errors import MaqdError, MissingDependencyError

if TYPE_CHECKING:
    from maqd.training.config import TrainConfig

HELP = """\
usage: maqd COMMAND [OPTIONS]

Very low-bit neural networks, trained in PyTorch and run as the same integers everywhere.

commands:
  demo    train the digits networks, print a table, save a picture
  train   train a network from a YAML configuration into a run directory
  eval    repeat the test accuracy of a run

`maqd COMMAND --help` shows a command's options.
"""

OPTIONAL = (
    "torch",
    "lightning",
    "jsonargparse",
    "yaml",
    "rich",
    "tensorboard",
    "matplotlib",
    "sklearn",
    "PIL",
    "datasets",
)
"""Modules that come with `maqd[train]`."""


class Command(enum.Enum):
    """What `maqd` can do."""

    DEMO = "demo"
    TRAIN = "train"
    EVAL = "eval"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit status: 0, 1 after an error, 2 after a wrong option, 128 + the signal that stopped a run.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if given else 2
    if given[0] == "--version":
        from maqd import __version__

        print(f"maqd {__version__}")
        return 0
    try:
        return _dispatch(given[0], given[1:])
    except MaqdError as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
        return _fail(str(MissingDependencyError(f'{error.name} is not installed; pip install "maqd[train]"')), 1)
    except BrokenPipeError:
        # Who reads our output has gone; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return 130


def _dispatch(name: str, arguments: list[str]) -> int:
    from maqd.training.plain import unknown_key

    commands = {command.value: command for command in Command}
    if name not in commands:
        return _fail(unknown_key(name, list(commands)).replace("option", "command", 1), 2)
    from maqd.training.arguments import UsageError

    try:
        match commands[name]:
            case Command.DEMO:
                return _demo(arguments)
            case Command.TRAIN:
                return _train(arguments)
            case Command.EVAL:
                return _eval(arguments)
    except UsageError as error:
        return _fail(f"{error} (see maqd {name} --help)", 2)


def _fail(message: str, status: int) -> int:
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    place = f"[process {rank}] " if rank else ""
    print(f"maqd: error: {place}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


def _train(arguments: list[str]) -> int:
    from maqd.training.arguments import parse, read_yaml, take_flag, take_values
    from maqd.training.config import TrainConfig

    flags = {
        "--config FILE": "YAML file of options; may be repeated, the last one wins.",
        "--resume": "Continue the run in the run directory, with its own options.",
        "--overwrite": "Replace the run in the run directory.",
        "--json": "Print one JSON object at the end; progress goes to standard error.",
    }
    resume, overwrite, as_json = (take_flag(arguments, flag) for flag in ("--resume", "--overwrite", "--json"))
    files = [Path(value) for value in take_values(arguments, "--config")]
    bases = [read_yaml(file, TrainConfig) for file in files]
    runs = take_values(arguments, "--run")
    run = runs[-1] if runs else next((base["run"] for base in reversed(bases) if base.get("run")), None)
    if run is None and files:
        run = str(Path("runs") / files[-1].stem)
    if resume and run is not None and (stored := Path(run) / "config.yaml").exists():
        # After the files: the run may have been started with options that they do not have.
        bases.append(read_yaml(stored, TrainConfig))
    config = parse(
        TrainConfig,
        arguments,
        bases=bases,
        flags=flags,
        usage="maqd train [--config FILE] [--run DIR] [--resume | --overwrite] [--json] [--KEY VALUE ...]",
        description="Train a network into a run directory.",
    )
    config = replace(config, run=run or str(Path("runs") / config.model.architecture.value))
    return _run_training(config, resume=resume, overwrite=overwrite, as_json=as_json)


def _run_training(config: "TrainConfig", *, resume: bool, overwrite: bool, as_json: bool) -> int:
    from maqd.training.interrupt import Interrupted
    from maqd.training.progress import Output
    from maqd.training.train import train

    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    output = Output(sys.stderr if as_json else sys.stdout, silent=rank != 0)
    try:
        result = train(config, resume=resume, overwrite=overwrite, output=output)
    except Interrupted as stop:
        if stop.saved:
            output.line(f"stopped and saved; continue with: maqd train --run {config.run} --resume")
        else:
            output.line("stopped at once; a resumed run starts from its last checkpoint")
        # A process that Lightning started must not look as if it had failed, or the first one is killed.
        return 0 if rank else 128 + stop.signum
    if rank:
        return 0
    if as_json:
        evaluation, best = asdict(result.evaluation), asdict(result.best)
        print(
            json.dumps(
                {
                    "run": str(result.run),
                    "test_accuracy": result.evaluation.accuracy,
                    **evaluation,
                    "best_test_accuracy": result.best.accuracy,
                    "best_correct": best["correct"],
                    "steps": result.steps,
                    "seconds": round(result.seconds, 3),
                }
            )
        )
    else:
        output.line(f"test accuracy {result.evaluation} in {result.run}")
    return 0


def _eval(arguments: list[str]) -> int:
    from maqd.errors import ConfigError
    from maqd.training.arguments import UsageError, parse, take_flag, take_positional, take_values
    from maqd.training.checkpoint import read_checkpoint
    from maqd.training.config import EvalConfig
    from maqd.training.evaluate import Which, checkpoint_path, evaluate_run
    from maqd.training.plain import parse_member, to_plain

    flags = {
        "--checkpoint {last,best}": "Which checkpoint; the last one by default.",
        "--json": "Print one JSON object.",
    }
    as_json = take_flag(arguments, "--json")
    whiches = take_values(arguments, "--checkpoint")
    try:
        which = parse_member(Which, whiches[-1], "--checkpoint") if whiches else Which.LAST
    except ConfigError as error:
        raise UsageError(str(error)) from error
    run = take_positional(arguments)
    base: dict[str, Any] = {}
    path = None
    if run is not None:
        path = checkpoint_path(Path(run), which)
        header = read_checkpoint(path).header
        base = {"data": to_plain(header.config.data), "compute": to_plain(header.config.compute)}
    options = parse(
        EvalConfig,
        arguments,
        bases=[base],
        flags=flags,
        usage="maqd eval RUN [--checkpoint {last,best}] [--json] [--data.KEY VALUE ...] [--compute.KEY VALUE ...]",
        description="Repeat the test accuracy of a run.",
    )
    if path is None:
        raise UsageError("eval needs the directory of a run")
    result = evaluate_run(options.data, options.compute, path)
    if as_json:
        print(json.dumps({"run": run, "checkpoint": which.value, "test_accuracy": result.accuracy, **asdict(result)}))
    else:
        print(f"test accuracy {result} in {run}")
    return 0


def _demo(arguments: list[str]) -> int:
    from maqd.demo import command

    return command(arguments)


if __name__ == "__main__":
    sys.exit(main())
