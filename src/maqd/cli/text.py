"""Text for terminals, in plain Python: tables and progress where nothing else is installed."""

import sys
from collections.abc import Sequence
from typing import TextIO


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns: numbers to the right, texts to the left, None as a dash, thousands with commas."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headings), *cells]) for column in range(len(headings))]
    right = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(headings))]
    lines = [
        "  ".join(
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [list(headings), *cells]
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def note(text: str) -> None:
    """Print a warning on standard error, such as that an input was used in part."""
    print(f"maqd: note: {' '.join(text.split())}", file=sys.stderr, flush=True)


class Counter:
    """One line that counts, on a terminal; nothing anywhere else.

    Args:
        label: Put before the count.
        stream: A text stream; standard error by default.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self.label = label
        self.stream = sys.stderr if stream is None else stream

    def show(self, done: int, total: int, what: str = "") -> None:
        """Write the line anew."""
        if self.stream.isatty():
            print(f"\r\033[K{self.label} {done}/{total} {what}".rstrip(), end="", file=self.stream, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self.stream.isatty():
            print("\r\033[K", end="", file=self.stream, flush=True)
