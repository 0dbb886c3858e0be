"""`maqd experiment`."""

import json
import sys
from pathlib import Path

from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.cli.text import table
from maqd.errors import ConfigError
from maqd.io.outputs import make_directory
from maqd.recipes import Budget


def command(arguments: list[str]) -> int:
    """Run `maqd experiment`; the exit status."""
    parser = Options(
        usage="maqd experiment [NAME] [--budget {cpu,full}] [-o DIR] [--data DIR] [--threads N] [--table] "
        "[--executor {local,slurm} [--jobs N] [--scheduler NAME=VALUE ...]] [--json]",
        description="Repeat an experiment of the papers: measure what is missing, then write its table and picture. "
        "Without NAME, list the experiments. What was interrupted goes on where it stopped.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="an experiment")
    parser.add_argument(
        "--budget",
        choices=[budget.value for budget in Budget],
        default=Budget.CPU.value,
        help="minutes, or days on a GPU",
    )
    parser.add_argument(
        "-o", dest="output", metavar="DIR", type=some_path, default=Path("experiments"), help="results (experiments)"
    )
    parser.add_argument("--data", metavar="DIR", type=some_path, help="directory of CIFAR's images; fetched without")
    parser.add_argument("--cache", metavar="DIR", type=some_path, help="directory of decoded data sets")
    parser.add_argument("--threads", metavar="N", type=whole, help="CPU threads of a training")
    parser.add_argument("--executor", choices=["local", "slurm"], help="measure each row as a job of its own")
    parser.add_argument("--jobs", metavar="N", type=whole, default=1, help="jobs at a time (1)")
    parser.add_argument(
        "--scheduler",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an option of submitit, such as slurm_partition=gpu, gpus_per_node=1, timeout_min=600",
    )
    parser.add_argument("--table", action="store_true", help="measure nothing: write page and pictures anew")
    parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    options = parser.read(arguments)
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads must be at least 1, got {options.threads}")
    if options.executor is None and (options.jobs != 1 or options.scheduler):
        raise UsageError("--jobs and --scheduler belong to --executor local or slurm")
    if options.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {options.jobs}")
    scheduler = _scheduler(options.scheduler)

    from maqd.experiment.base import Place, measure_all
    from maqd.experiment.cluster import Cluster, Executor, measure_as_jobs
    from maqd.experiment.table import EXPERIMENTS, check_page, find_experiment, write_page
    from maqd.training.progress import Output

    if options.name is None:
        rows = [(one.name, one.title, one.source) for one in EXPERIMENTS]
        if options.json:
            print(json.dumps({"experiments": [{"name": name, "title": title} for name, title, _ in rows]}))
        else:
            print(table(("experiment", "what", "repeats"), rows))
        return 0
    try:
        experiment = find_experiment(options.name)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    folder: Path = options.output
    make_directory(folder)
    check_page(experiment, folder)
    place = Place(
        results=folder / "results.jsonl",
        runs=folder / "runs",
        data=None if options.data is None else str(options.data),
        cache=None if options.cache is None else str(options.cache),
        threads=options.threads,
        output=Output(sys.stderr if options.json else None),
    )
    budget = Budget(options.budget)
    if options.table:
        made = 0
    elif options.executor is None:
        made = measure_all(experiment, budget, place)
    else:
        cluster = Cluster(executor=Executor(options.executor), jobs=options.jobs, options=scheduler)
        made = measure_as_jobs(experiment, budget, place, cluster)
    page = write_page(experiment, place.results, folder)
    if options.json:
        print(json.dumps({"experiment": experiment.name, "measured": made, "page": str(page)}))
    else:
        print(f"{made} measurements made; {page}, with its picture beside it")
    return 0


def _scheduler(given: list[str]) -> dict[str, str | int]:
    """Options of submitit, numbers where they are numbers."""
    found: dict[str, str | int] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--scheduler takes NAME=VALUE, got {one!r}")
        found[name] = int(value) if value.isdecimal() else value
    return found
