"""Training in phases, such as a part of the epochs in float and the rest with few states. Values only."""

from dataclasses import dataclass

from maqd.errors import ConfigError
from maqd.settings.training import TrainConfig


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
        for key, value in (("run", self.config.run), ("init.run", self.config.init.run)):
            if value is not None:
                raise ConfigError(
                    f"phase {self.name!r} sets {key} to {value!r}; leave it unset, the phases set it themselves"
                )
