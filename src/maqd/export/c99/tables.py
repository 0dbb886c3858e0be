"""Constant tables as C."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COLUMNS = 116
"""Of a line."""


class Tables:
    """The tables of a program, in their order."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.sizes: list[str] = []
        self.bytes = 0

    def add(self, name: str, kind: str, values: NDArray[np.integer]) -> str:
        """Declare a table of int8_t, uint8_t .. int64_t; its name."""
        flat = values.reshape(-1)
        words = [_word(value, kind) for value in flat.tolist()]
        lines, line = [], "   "
        for word in words:
            if len(line) + len(word) + 2 > COLUMNS:
                lines.append(line)
                line = "   "
            line += f" {word},"
        lines.append(line)
        self.declare(f"static const MAQD_FLASH {kind} {name}[{flat.size}] = {{\n" + "\n".join(lines) + "\n};")
        self.sizes.append(f"sizeof({name})")
        self.bytes += flat.size * int(kind.strip("uint_")) // 8
        return name

    def narrowest(self, name: str, values: NDArray[np.int64], widths: Sequence[int]) -> tuple[str, int]:
        """Declare a table of signed integers in the narrowest of some widths; its name and width."""
        reach = max(-int(values.min()) - 1, int(values.max()))
        width = next(bits for bits in widths if bits == widths[-1] or reach < 2 ** (bits - 1))
        return self.add(name, f"int{width}_t", values), width

    def declare(self, text: str) -> None:
        """Add something whose size does not count."""
        self.texts.append(text)


def _word(value: int, kind: str) -> str:
    if kind == "int64_t":
        return f"INT64_C({value})"
    if value == -(2**31):  # in C a minus before a number that does not fit
        return "(-2147483647 - 1)"
    return f"{value}u" if kind.startswith("u") else str(value)
