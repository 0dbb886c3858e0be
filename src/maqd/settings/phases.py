"""Training in phases, such as a part of the epochs in float and the rest with few states. Values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maqd.errors import ConfigError
from maqd.settings.training import TrainConfig
from maqd.settings.tree import check_keys, read_tree, to_plain

KEY = "phases"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One run of several that make up a training.

    Args:
        name: Of its run directory, in the directory of the training.
        config: The run. `run` and `init.run` must not be set: the phases before say what they are.
    """

    name: str
    config: TrainConfig

    def __post_init__(self) -> None:
        check_name(self.name)
        for key, value in (("run", self.config.run), ("init.run", self.config.init.run)):
            if value is not None:
                raise ConfigError(
                    f"phase {self.name!r} sets {key} to {value!r}; leave it unset, the phases set it themselves"
                )


def check_name(name: str) -> None:
    """Whether a phase's name is that of a directory in the directory of the training, and no way out of it.

    Raises:
        ConfigError: It is not.
    """
    if name in ("", ".", "..") or any(part in name for part in ("/", "\\", "\0")):
        raise ConfigError(f"a phase is called as a directory is, without slashes, got {name!r}; rename it")


def phases_to_plain(phases: Sequence[Phase]) -> dict[str, Any]:
    """What a YAML file of a training in phases holds."""
    return {KEY: [{"name": phase.name, **to_plain(phase.config)} for phase in phases]}


def read_phases(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The phases of a YAML file: names and trees of options. A file without phases is one, without a name.

    Raises:
        ConfigError: The file cannot be read, is no YAML, or has a key that is no option.
    """
    tree = read_tree(path, TrainConfig, also=(KEY,))
    if KEY not in tree:
        return [("", tree)]
    entries = tree[KEY]
    if len(tree) > 1 or not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"{path}: {KEY} must be a list of mappings, each with a name and options, and nothing beside")
    found: list[tuple[str, Mapping[str, Any]]] = [
        (str(entry.get("name", "")), {key: entry[key] for key in entry if key != "name"}) for entry in entries
    ]
    names = [name for name, _ in found]
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"{path}: each of its phases needs a name of its own, got {names}")
    for name, options in found:
        check_name(name)
        check_keys(TrainConfig, options, str(path))
    return found
