"""Rows of an experiment as jobs of a scheduler: one process a row, through submitit.

A job that is stopped (a time limit, a preemption) is queued again and goes on with its run; a job that fails leaves the
others alone. Rows are appended safely by any number of jobs on one file system (`maqd.experiment.lines`).
"""

import enum
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maqd.errors import ConfigError
from maqd.experiment.base import Experiment, Place, measure, rows, unmeasured
from maqd.experiment.table import find_experiment
from maqd.optional import require
from maqd.recipes import Budget
from maqd.training.progress import Output

MINUTES = 24 * 60
"""How long a job may take where nothing else is said; submitit's own limit is 5 minutes."""


class Executor(enum.Enum):
    """Who runs the jobs."""

    LOCAL = "local"
    """Processes of this machine."""
    SLURM = "slurm"
    """Slurm's sbatch."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How jobs are run.

    Args:
        executor: Who runs them.
        jobs: How many are queued or run at a time, at least 1.
        options: What submitit passes to the scheduler, such as "slurm_partition" and "timeout_min".
        patience: Seconds between two looks at the jobs.
    """

    executor: Executor
    jobs: int
    options: Mapping[str, str | int]
    patience: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """Measures one row when it is called, which submitit does in another process.

    Args:
        experiment: Name of the experiment.
        point, seed: What is measured.
        results, runs, data, cache, threads: As in `Place`.
    """

    experiment: str
    point: Any
    seed: int
    results: Path
    runs: Path
    data: str | None
    cache: str | None
    threads: int | None

    def __call__(self) -> None:
        """Measure the row, unless it is there; what was trained before is gone on with."""
        experiment = find_experiment(self.experiment)
        place = Place(
            results=self.results,
            runs=self.runs,
            data=self.data,
            cache=self.cache,
            threads=self.threads,
            output=Output(sys.stdout),
        )
        if unmeasured(experiment, [(self.point, self.seed)], self.results):
            measure(experiment, self.point, self.seed, place)

    def checkpoint(self) -> Any:
        """What submitit queues again when the job is stopped: the same, for its run resumes."""
        return require("submitit", "a job on a cluster").helpers.DelayedSubmission(self)


def measure_as_jobs(experiment: Experiment[Any], budget: Budget, place: Place, cluster: Cluster) -> int:
    """Measure what the results lack, each row as a job.

    Args:
        experiment: One of the table.
        budget: How much.
        place: Where to; the jobs must see the same files.
        cluster: How.

    Returns:
        How many measurements were made.

    Raises:
        MissingDependencyError: submitit is not installed.
        ConfigError: The scheduler is not there or refuses an option; or jobs failed, after all others have ended.
        DataError: The file of results cannot be read.
    """
    submitit = require("submitit", "maqd experiment --executor")
    missing = unmeasured(experiment, rows(experiment, budget), place.results)
    waiting = [
        Job(
            experiment=experiment.name, point=point, seed=seed, results=place.results.resolve(),
            runs=place.runs.resolve(), data=place.data, cache=place.cache, threads=place.threads,
        )
        for point, seed in missing
    ]  # fmt: skip
    if not waiting:
        return 0
    try:
        executor = submitit.AutoExecutor(folder=place.runs.resolve() / "jobs", cluster=cluster.executor.value)
        executor.update_parameters(**{"name": f"maqd-{experiment.name}", "timeout_min": MINUTES, **cluster.options})
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise ConfigError(f"--executor {cluster.executor.value} cannot be used: {error}") from error
    running: list[tuple[Job, Any]] = []
    failed: list[str] = []
    done = 0
    while waiting or running:
        while waiting and len(running) < cluster.jobs:
            job = waiting.pop(0)
            running.append((job, executor.submit(job)))
        ended = [entry for entry in running if entry[1].done()]
        running = [entry for entry in running if entry not in ended]
        for job, sent in ended:
            error = sent.exception()
            done += error is None
            failed += [] if error is None else [f"{job.point}, seed {job.seed}: see {sent.paths.stderr}"]
            told = f"job {sent.job_id} {'measured' if error is None else 'failed'}: {job.point}, seed {job.seed}"
            place.output.line(f"{experiment.name} {done}/{len(missing)}: {told}")
        if not ended:
            time.sleep(cluster.patience)
    if failed:
        told = "; ".join(failed)
        raise ConfigError(f"{len(failed)} of {len(missing)} jobs failed, run the command again for them: {told}")
    return done
