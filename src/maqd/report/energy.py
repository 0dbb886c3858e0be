"""What a network costs in energy under a stated model: 45 nm, 0.9 V (Horowitz, ISSCC 2014, figure 1.1.9).

A model of arithmetic alone: it counts operations, and leaves out memory, control and idle time, which often cost more.
"""

from dataclasses import dataclass

FLOAT_MULTIPLY_ADD = 3.7 + 0.9
"""pJ of a product and a sum in float32."""
INTEGER_ADD = 0.1
"""pJ of a sum of 32-bit integers."""
BYTE_MULTIPLY = 0.2
"""pJ of a product of 8-bit integers."""


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
