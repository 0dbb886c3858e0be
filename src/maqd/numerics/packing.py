"""Codes of any number of states in nearly as few bytes as the information in them.

A row of codes (one filter, say) is a sequence of *groups*; a group is `digits` state indices written as one number of
`bytes` bytes in base M, the first index least significant, the number little-endian. For M = 2, 4, 16 and 256 these are
plain bit fields. Rows start on a whole group; the indices that fill up the last one are 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Self

import numpy as np
from numpy.typing import NDArray

from maqd.errors import GraphError
from maqd.numerics.states import FEW_STATES, States

CHUNK = 2**17
"""Bytes that are looked at together: NumPy's temporaries are several times larger."""

PART = 2**12
"""Numbers whose digits are looked up in a table: dividing by a power of M that is not larger gives several at once."""

WASTE = 1.02
"""A group this close to log2(M) bits per code is good enough: a larger one costs more padding at the ends of rows."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """How many indices in base M share how many bytes."""

    digits: int
    bytes: int


@cache
def group(count: int) -> Group:
    """The group for M = `count` states: the smallest one of 1 .. 8 bytes within 2% of log2(M) bits per code.

    Where there is none (M = 6, 7 bytes at best 3.2% off), the one with the fewest bits per code, the smallest first.
    """
    candidates = []
    for size in range(1, 9):
        digits = 0
        while count ** (digits + 1) <= 256**size:
            digits += 1
        candidates.append(Group(digits=digits, bytes=size))
    bits = States(count=count, signed=False).bits
    good = [g for g in candidates if 8 * g.bytes <= WASTE * bits * g.digits]
    return good[0] if good else min(candidates, key=lambda g: (g.bytes / g.digits, g.bytes))


def row_bytes(count: int, length: int) -> int:
    """Bytes of a row of `length` codes of M = `count` states."""
    layout = group(count)
    return -(-length // layout.digits) * layout.bytes


@cache
def _digit_codes(states: States, digits: int) -> NDArray[np.signedinteger]:
    """The codes of every number of some digits in base M, M**digits x digits."""
    powers = states.count ** np.arange(digits)
    codes = np.arange(states.count**digits)[:, None] // powers % states.count * states.spacing + states.low
    return codes.astype(code_type(states))


def code_type(states: States) -> np.dtype[np.signedinteger]:
    """int8 if the codes fit, else int16."""
    return np.dtype(np.int8) if states.low >= -128 and states.high <= 127 else np.dtype(np.int16)


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedCodes:
    """An array of codes, packed row by row.

    Args:
        states: The states of the codes.
        shape: Shape of the array; a row is everything after the first dimension.
        data: uint8, rows x bytes of a row; read-only.

    Raises:
        GraphError: The shape is empty, or `data` does not fit it or holds what is no code.
    """

    states: States
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if not self.states.few:
            raise GraphError(f"packed codes have at most {FEW_STATES} states, got {self.states.count}")
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise GraphError(f"packed codes need at least two dimensions, none of them empty, got shape {self.shape}")
        expected = (self.shape[0], row_bytes(self.states.count, self.length))
        if self.data.dtype != np.uint8 or self.data.shape != expected:
            raise GraphError(
                f"codes of {self.states.count} states and shape {self.shape} take uint8 {expected[0]} x {expected[1]}, "
                f"got {self.data.dtype} {' x '.join(map(str, self.data.shape))}"
            )
        self.data.flags.writeable = False
        self._check_groups()

    @property
    def length(self) -> int:
        """Codes in a row."""
        return prod(self.shape[1:])

    @property
    def size(self) -> int:
        """Codes in all."""
        return prod(self.shape)

    def reshaped(self, *shape: int) -> "PackedCodes":
        """The same rows as an array of another shape with as many codes in a row."""
        return PackedCodes(states=self.states, shape=shape, data=self.data)

    @classmethod
    def pack(cls, codes: NDArray[np.integer], states: States) -> Self:
        """Pack an array of codes.

        Raises:
            GraphError: A value is none of the codes.
        """
        index, rest = np.divmod(codes.astype(np.int64) - states.low, states.spacing)
        if rest.any() or index.min(initial=0) < 0 or index.max(initial=0) >= states.count:
            raise GraphError(f"codes must be among those of {states}, got values {codes.min()} .. {codes.max()}")
        layout = group(states.count)
        rows = codes.shape[0]
        index = index.reshape(rows, -1)
        padding = -index.shape[1] % layout.digits
        digits = np.pad(index, ((0, 0), (0, padding))).astype(np.uint64).reshape(rows, -1, layout.digits)
        numbers = np.zeros(digits.shape[:2], np.uint64)
        for place in reversed(range(layout.digits)):
            numbers = numbers * np.uint64(states.count) + digits[..., place]
        little = numbers.astype("<u8").view(np.uint8).reshape(*numbers.shape, 8)[..., : layout.bytes]
        return cls(states=states, shape=codes.shape, data=np.ascontiguousarray(little.reshape(rows, -1)))

    def unpack(self) -> NDArray[np.signedinteger]:
        """The codes, int8 if they fit, else int16, of `shape`."""
        return self._codes(self.data)[:, : self.length].reshape(self.shape)

    def _codes(self, data: NDArray[np.uint8]) -> NDArray[np.signedinteger]:
        """The codes in some rows, those that fill up the last groups included."""
        found = [np.take(table, part, axis=0) for table, part in self._parts(data)]
        return np.concatenate(found, axis=-1).reshape(len(data), -1)

    def _parts(
        self, data: NDArray[np.uint8]
    ) -> Iterator[tuple[NDArray[np.signedinteger], NDArray[np.unsignedinteger]]]:
        """The groups of some rows cut into parts of a few digits, the first ones first.

        Yields:
            The codes of every number that a part may be, numbers x digits, and the part of each group, rows x groups.
        """
        layout, base = group(self.states.count), self.states.count
        if layout.bytes == 1:
            yield _digit_codes(self.states, layout.digits), data
            return
        width = 1
        while base ** (width + 1) <= PART:
            width += 1
        numbers = _numbers(data, layout.bytes)
        for start in range(0, layout.digits, width):
            digits = min(width, layout.digits - start)
            power = np.uint64(base**digits)
            rest = numbers // power
            yield _digit_codes(self.states, digits), (numbers - rest * power).astype(np.uint16)
            numbers = rest

    def row_sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each row the sum of its positive codes and the sum of the absolute values of its negative ones."""
        total, absolute = np.zeros((2, self.shape[0]), np.int64)
        step = max(1, CHUNK // self.data.shape[1])
        for start in range(0, self.shape[0], step):
            rows = slice(start, start + step)
            total[rows], absolute[rows] = self._sums(self.data[rows])
        return (absolute + total) // 2, (absolute - total) // 2

    def _sums(self, data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sum and sum of absolute values of some rows."""
        total, absolute = np.zeros((2, len(data)), np.int64)
        for table, part in self._parts(data):
            total += np.take(table.sum(1, dtype=np.int32), part).sum(1)
            absolute += np.take(np.abs(table, dtype=np.int32).sum(1, dtype=np.int32), part).sum(1)
        layout = group(self.states.count)
        filled = data.shape[1] // layout.bytes * layout.digits - self.length  # indices 0 at the end, the lowest code
        return total - filled * self.states.low, absolute - filled * abs(self.states.low)

    def nonzero(self) -> int:
        """How many codes are not zero."""
        return int(np.count_nonzero(self.unpack()))

    def _check_groups(self) -> None:
        layout, base = group(self.states.count), self.states.count
        numbers = self.data if layout.bytes == 1 else _numbers(self.data, layout.bytes)
        used = self.length - (numbers.shape[1] - 1) * layout.digits  # in the last group of each row
        for part, digits in ((numbers[:, :-1], layout.digits), (numbers[:, -1:], used)):
            largest = int(part.max(initial=0))
            if largest >= base**digits:
                raise GraphError(
                    f"a group of {digits} codes of {base} states is a number below {base**digits}, got {largest}; "
                    "the data are damaged"
                )


def _numbers(data: NDArray[np.uint8], size: int) -> NDArray[np.uint64]:
    """Groups of `size` bytes as numbers, rows x groups."""
    wide = np.zeros((len(data), data.shape[1] // size, 8), np.uint8)
    wide[..., :size] = data.reshape(len(data), -1, size)
    return wide.reshape(len(data), -1).view("<u8").astype(np.uint64, copy=False)
