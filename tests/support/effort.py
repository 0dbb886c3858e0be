"""How much the tests do: `make test` takes minutes, `make test-all` (MAQD_LONG=1) whatever it needs."""

import os

import pytest

LONG = bool(os.environ.get("MAQD_LONG"))

GRAPHS = int(os.environ.get("MAQD_GRAPHS", "150"))
"""Random graphs that every engine and export is compared on; `make graphs` takes 1,000."""

long = pytest.mark.skipif(not LONG, reason="long: make test-all runs it")
"""Marks a test that only `make test-all` runs."""


def examples(count: int) -> int:
    """How many examples of `count` a property is tried on: all in `make test-all`, an eighth otherwise."""
    return count if LONG else max(10, count // 8)


MUTATIONS = int(os.environ.get("MAQD_MUTATIONS", "400"))
"""Damaged files that the readers are fed with; `make campaigns` takes 10,000."""

KILLS = int(os.environ.get("MAQD_KILLS", "4"))
"""Moments at which runs are ended; `make campaigns` takes 100 of each kind."""

EXPORTS = int(os.environ.get("MAQD_EXPORTS", "6"))
"""Random graphs whose exports are read by every other tool; `make campaigns` takes 200."""
