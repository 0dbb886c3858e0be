"""The largest numbers that a network may hold, and why."""

INT32_LIMIT = 2**31 - 1
"""No integer of a tensor is larger in magnitude."""

EXACT_LIMIT = 2**24
"""Integers below this are exact in float32, whatever the order of a sum."""

WIDE_LIMIT = 2**20
"""Layers whose sums can reach this are evaluated in float64, so that sums of 16 others stay exact in float32."""

SAFE_EXPONENT = 96
"""Units stay this close to 1 in powers of two: then every integer below 2**24 is a normal float32."""

MAX_EXPONENT = 512
"""No unit is further from 1 than this power of two: values stay normal in float64."""

MAX_ELEMENTS = 2**28
"""No tensor of one sample has more elements: a damaged shape must not lead to wild allocations."""

MOST_THREADS = 4096
"""Of a process: beyond, no system starts them, and libraries end the process."""

MAX_RANK = 8
"""No tensor of one sample has more dimensions."""

MAX_BOUNDS = 2**20
"""A tensor has at most this many bounds; where there would be more it has one pair for all of its elements."""

MAX_WINDOW = 2**15
"""No kernel, stride, padding or dilation is larger."""

MAX_MULTIPLIER = 2**29
"""Factors of floats at a graph's border are smaller: times the 24 bits of a float32 they are exact in float64."""
