"""What a network costs in energy under two stated models: 45 nm, 0.9 V (Horowitz, ISSCC 2014, figure 1.1.9).

`Operations` is the arithmetic alone. `Traffic` adds what moves between memories, which often costs more; words of
memory cost what Han et al. state for the same process (arXiv 1506.02626, figure 1). Control and idle time are left out
of both.
"""

import math
from dataclasses import dataclass

FLOAT_MULTIPLY_ADD = 3.7 + 0.9
"""pJ of a product and a sum in float32."""
INTEGER_ADD = 0.1
"""pJ of a sum of 32-bit integers."""
BYTE_MULTIPLY = 0.2
"""pJ of a product of 8-bit integers."""
SRAM_WORD = 5.0
"""pJ of 32 bits from or to a memory of 32 KB on the chip."""
DRAM_WORD = 640.0
"""pJ of 32 bits from or to a memory of its own."""
WORD = 32
"""Bits of a word, and of a float."""


@dataclass(frozen=True, kw_only=True)
class Operations:
    """What a layer computes for one sample.

    Args:
        macs: Multiplications and additions of the dense layer.
        events: Those of them where neither weight nor input is zero.
        products: Whether both have more than the codes -1, 0 and 1: else an event is a sum without a product.
    """

    macs: int
    events: float
    products: bool

    @property
    def float_picojoules(self) -> float:
        """As float32, every multiplication done."""
        return self.macs * FLOAT_MULTIPLY_ADD

    @property
    def picojoules(self) -> float:
        """As integers, events only."""
        return self.events * (INTEGER_ADD + (BYTE_MULTIPLY if self.products else 0.0))


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a layer moves for one sample, each value once: its weights are fetched, its input is written and read.

    Args:
        weights: Number of weights.
        weight_states: M_w.
        inputs: Number of values that it reads.
        input_states: How many codes each of them can be.
    """

    weights: int
    weight_states: int
    inputs: int
    input_states: int

    def picojoules(self, weight_word: float) -> float:
        """As codes, log2 M bits each.

        Args:
            weight_word: pJ of 32 bits of weights, `SRAM_WORD` or `DRAM_WORD`; inputs are in SRAM.
        """
        moved = 2 * self.inputs * math.log2(self.input_states) * SRAM_WORD
        return (self.weights * math.log2(self.weight_states) * weight_word + moved) / WORD

    def float_picojoules(self, weight_word: float) -> float:
        """As float32."""
        return self.weights * weight_word + 2 * self.inputs * SRAM_WORD
