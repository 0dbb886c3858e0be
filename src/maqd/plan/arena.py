"""Places for tensors in one block of memory, so that those alive at the same time never overlap.

Finding the smallest block is NP-hard; the largest tensor first, each at the lowest free place, is what comes close in
practice (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", arXiv 2001.03288).
"""

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """How large a tensor is, and in which steps it must exist.

    Args:
        size: Bytes.
        first: The step that writes it.
        last: The last step that reads it; not before `first`.
    """

    size: int
    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Whether there is a step in which both exist."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, kw_only=True)
class Arena:
    """A block of memory.

    Args:
        offsets: Where each tensor begins, a multiple of the alignment.
        size: Bytes in all.
    """

    offsets: tuple[int, ...]
    size: int


def place(lifetimes: Sequence[Lifetime], alignment: int = ALIGNMENT) -> Arena:
    """Offsets for tensors.

    Args:
        lifetimes: Of the tensors.
        alignment: Of every offset and of the size.
    """

    def aligned(size: int) -> int:
        return -(-size // alignment) * alignment

    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for index in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size, i)):
        mine = lifetimes[index]
        if mine.size == 0:
            continue
        taken = sorted((offsets[other], lifetimes[other].size) for other in placed if mine.overlaps(lifetimes[other]))
        offset = 0
        for begin, size in taken:
            if offset + mine.size <= begin:
                break
            offset = max(offset, aligned(begin + size))
        offsets[index] = offset
        placed.append(index)
    ends = (offset + mine.size for offset, mine in zip(offsets, lifetimes, strict=True))
    return Arena(offsets=tuple(offsets), size=aligned(max(ends, default=0)))
