"""`train_phases`: runs that start from each other, as one training that can be interrupted and resumed anywhere."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from maqd.errors import ConfigError
from maqd.settings.phases import Phase
from maqd.training.progress import Output
from maqd.training.run_directory import RunDirectory
from maqd.training.train import TrainResult, train


def train_phases(
    phases: Sequence[Phase], directory: Path, *, overwrite: bool = False, output: Output | None = None
) -> list[TrainResult]:
    """Train phases one after another, each started from the one before it (`maqd.training.warm_start`).

    A phase is a run of its own in `directory / phase.name`. A phase that was begun is resumed, and a complete one
    is not repeated, so trainings that begin with the same phases share them.

    Args:
        phases: At least one, with different names.
        directory: Where their run directories are.
        overwrite: Train all of them anew.
        output: Where progress goes; standard output by default.

    Returns:
        What each phase came to; the last one's network is the result.

    Raises:
        ConfigError: There is no phase, two have the same name, or a run there has other options.
        MaqdError: As `maqd.training.train.train`.
    """
    names = [phase.name for phase in phases]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"a training needs at least one phase, and different names for all; got {names}")
    results: list[TrainResult] = []
    for phase in phases:
        run = RunDirectory(directory / phase.name)
        started = str(results[-1].run) if results else None
        config = replace(phase.config, run=str(run.path), init=replace(phase.config.init, run=started))
        resume = run.last.exists() and not overwrite
        results.append(
            train(
                config,
                resume=resume,
                overwrite=overwrite or (not resume and run.only_begun),
                output=output,
                label=phase.name,
            )
        )
    return results
