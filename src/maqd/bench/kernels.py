"""What kernels cost on layers that several can compute: the measurements behind what exported programs take."""

import numpy as np

from maqd.bench.microcontroller import PLENTY, emulate
from maqd.bench.tiny import TinyStates, choice_layer
from maqd.errors import EngineError
from maqd.export.c99 import Strategy, Target, export_c99
from maqd.export.c99.choices import MEASURED, Choices, Kernel, Layer
from maqd.export.c99.operations import EventConv, FieldConv, Operation, PixelConv, PlainConv, PlaneConv, Weighted

KERNELS: dict[type[Weighted], Kernel] = {
    PlaneConv: Kernel.PLANES,
    PixelConv: Kernel.PIXELS,
    FieldConv: Kernel.FIELDS,
    EventConv: Kernel.EVENTS,
    PlainConv: Kernel.PLAIN,
}
"""What the operations of a program are."""


def measure_kernels(target: Target) -> dict[tuple[Layer, Kernel], float]:
    """Instructions of a multiplication and addition, of each layer with each kernel of the table.

    Args:
        target: A processor that QEMU has a board for.

    Raises:
        MissingDependencyError: A tool is not installed.
        EngineError: A program gives other integers, or a layer took another kernel.
    """
    found, known = {}, MEASURED.costs[Target.CORTEX_M4]
    for layer, kernel in known:
        graph, name = choice_layer(layer.name.lower(), TinyStates(activations=4))
        images = np.random.default_rng(1).integers(0, 256, (1, *graph.input.shape), dtype=np.uint8)
        program = export_c99(
            graph,
            strategy=Strategy.FAST,
            target=target,
            flash=PLENTY,
            ram=PLENTY,
            samples=[images],
            choices=Choices(costs={target: {**known, (layer, kernel): 0.0}}),
        )
        operations = program.program.operations
        place = next(at for at, one in enumerate(operations) if isinstance(one, Weighted) and name in _names(one))
        if KERNELS.get(type(operations[place])) is not kernel:  # type: ignore[arg-type]
            raise EngineError(f"{layer.value} was to take the kernel {kernel.value}, and took {operations[place]}")
        found[layer, kernel] = emulate(program, target).instructions[place] / graph.macs(name)
    return found


def _names(operation: Operation) -> tuple[str, ...]:
    return operation.step.links.nodes if isinstance(operation, Weighted) else ()
