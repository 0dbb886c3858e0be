"""What a file says of the training that its integers come from."""

from dataclasses import replace
from pathlib import Path

from maqd import __version__
from maqd.errors import CheckpointError, ConfigError
from maqd.graph import Metadata
from maqd.settings.training import TrainConfig
from maqd.settings.tree import differences, to_plain
from maqd.training.checkpoint import Header, read_checkpoint
from maqd.training.run_directory import RunDirectory

PLACES = ("run", "data.path", "data.cache_dir", "init.run")
"""Options that name places of one machine: they stay out of files that are passed on."""


def with_provenance(
    metadata: Metadata, header: Header, *, float_run: Path | None, licence: str = "", note: str = ""
) -> Metadata:
    """Metadata with the accuracy of the float network, the licence, and the options of the run.

    Args:
        metadata: What is known already.
        header: Of the lowered checkpoint.
        float_run: The run of the float network; None for the one that the run started from, if that was in float and
            is still there.
        licence: Of the weights.
        note: Put after the options: a revision, say.

    Raises:
        CheckpointError: `float_run` holds no checkpoint.
        ConfigError: It is not in float, was trained on other data, or counts no right answers.
    """
    accuracy = metadata.float_accuracy
    if float_run is not None:
        accuracy = _float_accuracy(float_run, header)
    elif header.config.init.run is not None:
        try:
            accuracy = _float_accuracy(Path(header.config.init.run), header)
        except (CheckpointError, ConfigError, OSError):
            accuracy = None  # gone since, or a phase of few states
    return replace(
        metadata, float_accuracy=accuracy, licence=licence, provenance=_options(header) + (f"; {note}" if note else "")
    )


def _float_accuracy(path: Path, header: Header) -> float:
    """Share of right answers of a float run."""
    found = read_checkpoint(RunDirectory(path).last if path.is_dir() else path).header
    quant = found.config.model.quant
    if quant.weight_states is not None or quant.act_states is not None:
        raise ConfigError(
            f"{path} is no float run: it has {quant.weight_states} weight states and {quant.act_states} activation "
            "states; name a run with model.quant.weight_states and act_states null"
        )
    if (found.data.takes, found.data.num_classes) != (header.data.takes, header.data.num_classes):
        raise ConfigError(
            f"{path} was trained on {found.data.takes}, and this network on {header.data.takes}; name a run on its data"
        )
    result = found.evaluation
    if result is None or result.correct is None:
        raise ConfigError(f"{path} counts no right answers; name a finished run of a classifier")
    return result.accuracy


def _options(header: Header) -> str:
    """One line: version, steps, and the options that are not the defaults."""
    changed = differences(to_plain(TrainConfig()), to_plain(header.config))
    options = [f"{key}={value}" for key, (_, value) in changed.items() if key not in PLACES]
    return f"maqd {__version__}, {header.position.step} steps; {', '.join(options) or 'the default options'}"
