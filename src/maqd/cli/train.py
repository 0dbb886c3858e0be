"""`maqd train`."""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maqd.cli.options import take_flag, take_values

if TYPE_CHECKING:
    from maqd.settings.training import TrainConfig


def command(arguments: list[str]) -> int:
    """Run `maqd train`; the exit status."""
    from maqd.cli.arguments import parse, read_yaml
    from maqd.settings.training import TrainConfig

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
        best = {}
        if result.best is not None:
            best = {f"best_{result.images}_accuracy": result.best.accuracy, "best_correct": result.best.correct}
        print(
            json.dumps(
                {
                    "run": str(result.run),
                    f"{result.images}_accuracy": result.evaluation.accuracy,
                    **asdict(result.evaluation),
                    **best,
                    "steps": result.steps,
                    "seconds": round(result.seconds, 3),
                }
            )
        )
    else:
        output.line(f"{result.images} accuracy {result.evaluation} in {result.run}")
    return 0
