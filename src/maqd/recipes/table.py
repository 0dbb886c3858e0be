"""What a recipe is."""

import enum
from dataclasses import dataclass

from maqd.errors import ConfigError
from maqd.settings.phases import Phase
from maqd.settings.training import TrainConfig


class Budget(enum.Enum):
    """How much computing a run may take."""

    CPU = "cpu"
    """Minutes on two CPU cores."""
    FULL = "full"
    """Full length and width, for a GPU."""


LAST = "last"
"""Name of the phase after all others."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A recipe at one budget.

    Args:
        budget: The budget.
        config: The run; its directory is not set.
        before: Phases that come first; each starts from the one before it, and the run from the last of them.
        measured: Test accuracy (of text bits per character) that it reached, with seeds and data; None if it has not
            been run.
    """

    budget: Budget
    config: TrainConfig
    before: tuple[Phase, ...] = ()
    measured: str | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases, the run itself as the last one."""
        return (*self.before, Phase(name=LAST, config=self.config))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named training run.

    Args:
        name: DATA-NETWORK-STATES, such as cifar10-vgg16-w3a4.
        network: What is trained, in words.
        reason: Why it is set up this way.
        variants: At each budget that there is, the usual one first.
    """

    name: str
    network: str
    reason: str
    variants: tuple[Variant, ...]

    def variant(self, budget: Budget | None = None) -> Variant:
        """The recipe at a budget; None takes the usual one.

        Raises:
            ConfigError: There is none for this budget.
        """
        for variant in self.variants:
            if budget in (None, variant.budget):
                return variant
        budgets = " or ".join(variant.budget.value for variant in self.variants)
        raise ConfigError(f"recipe {self.name} has no budget {budget and budget.value}; use --budget {budgets}")
