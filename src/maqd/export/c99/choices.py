"""Which kernel a layer takes where several can compute it: the one that was measured to take fewest instructions."""

import enum
from dataclasses import dataclass

from maqd.export.c99.targets import Target


class Layer(enum.Enum):
    """Layers that several kernels can compute."""

    DEPTHWISE = "depthwise"
    """Of packed codes."""
    FIRST = "first convolution"
    """Of an image of bytes."""
    IMAGE_DENSE = "dense on the image"
    """Of 2 to 4 weight states."""


class Kernel(enum.Enum):
    """Kernels of convolutions and dense layers; docs/microcontroller.md describes them."""

    PLANES = "planes"
    PIXELS = "pixels"
    FIELDS = "fields"
    EVENTS = "events"
    PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What kernels cost.

    Args:
        costs: Instructions of a multiplication and addition, by processor; of processors that are not here, those of
            the first one.
    """

    costs: dict[Target, dict[tuple[Layer, Kernel], float]]

    def best(self, layer: Layer, target: Target) -> Kernel:
        """The kernel that costs least.

        Args:
            layer: The kind of layer.
            target: The processor.
        """
        known = self.costs.get(target, next(iter(self.costs.values())))
        return min((cost, kernel.value, kernel) for (one, kernel), cost in known.items() if one is layer)[-1]


MEASURED = Choices(
    costs={
        Target.CORTEX_M4: {
            (Layer.DEPTHWISE, Kernel.PLANES): 0.99,
            (Layer.DEPTHWISE, Kernel.PLAIN): 8.08,
            (Layer.FIRST, Kernel.PIXELS): 1.58,
            (Layer.FIRST, Kernel.EVENTS): 3.08,
            (Layer.IMAGE_DENSE, Kernel.FIELDS): 1.52,
            (Layer.IMAGE_DENSE, Kernel.EVENTS): 1.6,
        },
        Target.CORTEX_M0PLUS: {
            (Layer.DEPTHWISE, Kernel.PLANES): 1.33,
            (Layer.DEPTHWISE, Kernel.PLAIN): 10.52,
            (Layer.FIRST, Kernel.PIXELS): 3.52,
            (Layer.FIRST, Kernel.EVENTS): 5.91,
            (Layer.IMAGE_DENSE, Kernel.FIELDS): 4.01,
            (Layer.IMAGE_DENSE, Kernel.EVENTS): 2.78,
        },
    }
)
"""Printed and checked by `benchmarks/microcontroller.py --kernels`. A Cortex-M0+ has eight registers that all
instructions can use, which fields do not fit."""
