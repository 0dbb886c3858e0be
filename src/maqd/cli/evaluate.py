"""`maqd eval`."""

import json
from dataclasses import asdict

from maqd.cli.arguments import configure, named_functions, take_settings
from maqd.cli.options import Options, some_path
from maqd.settings.functions import check_imports
from maqd.settings.training import EvalConfig
from maqd.settings.tree import dotted_keys, to_plain


def command(arguments: list[str]) -> int:
    """Run `maqd eval`; the exit status."""
    parser = Options(
        usage="maqd eval RUN [--checkpoint {last,best}] [--json] [--data.KEY VALUE ...] [--compute.KEY VALUE ...]",
        description="Repeat the test accuracy of a run, or its loss and metric.",
        known=list(dotted_keys(EvalConfig)),
    )
    parser.add_argument("run", metavar="RUN", type=some_path, help="directory of a run")
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last", help="which checkpoint (last)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_allow_import()
    chosen = take_settings(arguments, EvalConfig)
    options = parser.read(arguments)

    from maqd.training.evaluate import evaluate_run
    from maqd.training.run_directory import Which
    from maqd.training.runs import open_run

    run = open_run(options.run, checkpoint=Which(options.checkpoint), allow_import=options.allow_import)
    base = {"data": to_plain(run.config.data), "compute": to_plain(run.config.compute)}
    config = configure(EvalConfig, [base], chosen)
    if config.data.function is not None:
        named = {"data.function": config.data.function}
        check_imports(named, named_functions(chosen), where=str(run.path), allow=options.allow_import)
    result = evaluate_run(config.data, config.compute, run)
    if options.json:
        found = {"run": str(run.path), "checkpoint": options.checkpoint, "images": "test", **result.figures("test_")}
        print(json.dumps({**found, **asdict(result)}))
    else:
        print(f"test{'' if result.correct is None else ' accuracy'} {result} in {run.path}")
    return 0
