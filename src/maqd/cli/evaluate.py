"""`maqd eval`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maqd.cli.options import UsageError, take_flag, take_positional, take_values
from maqd.errors import ConfigError


def command(arguments: list[str]) -> int:
    """Run `maqd eval`; the exit status."""
    from maqd.cli.arguments import parse
    from maqd.settings.training import EvalConfig
    from maqd.settings.tree import parse_member, to_plain
    from maqd.training.checkpoint import read_checkpoint
    from maqd.training.evaluate import evaluate_run
    from maqd.training.run_directory import Which, checkpoint_path

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
