"""What a backend does with each kind of node or step: one table a backend, which tests and docs walk through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from maqd.errors import MaqdError

Rule = Callable[..., Any]
"""What handles a node or a step; its arguments are the backend's."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a backend does not take a kind of node, and what to do instead."""

    reason: str
    remedy: str


Table = Mapping[type, Rule | Refused]
"""Rules of a family of nodes or steps."""


class Rules:
    """The rules of a backend.

    Args:
        backend: Its name, for messages and docs.
        error: Its class of errors.
        tables: Rules by kind; a kind that inherits from another one has the rule of that unless it has its own.
    """

    def __init__(self, backend: str, error: type[MaqdError], *tables: Table) -> None:
        self.backend = backend
        self.error = error
        self._entries = {kind: entry for table in tables for kind, entry in table.items()}

    def entry(self, kind: type) -> Rule | Refused | None:
        """What is known of a kind."""
        return next((self._entries[base] for base in kind.__mro__ if base in self._entries), None)

    def find(self, one: object, what: str) -> Rule:
        """The rule for a node or a step.

        Args:
            one: The node or the step.
            what: What messages call it.

        Raises:
            MaqdError: Of the backend's class: it refuses the kind, or has no rule for it.
        """
        entry = self.entry(type(one))
        if entry is None:
            raise self.error(
                f"{what}: {self.backend} has no rule for {type(one).__name__}; use another engine or export"
            )
        if isinstance(entry, Refused):
            raise self.error(f"{what}: {entry.reason}; {entry.remedy}")
        return entry
