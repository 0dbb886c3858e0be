"""Which kernel a layer takes: the cheapest of a table that was measured."""

import shutil
from dataclasses import replace

import pytest
from effort import long

from maqd.bench.kernels import KERNELS, measure_kernels
from maqd.bench.tiny import TinyStates, choice_layer
from maqd.export.c99 import Strategy, Target
from maqd.export.c99.choices import MEASURED, Choices, Kernel, Layer
from maqd.export.c99.operations import Weighted
from maqd.export.c99.program import make_program

CASES = [(layer, kernel) for layer, kernel in MEASURED.costs[Target.CORTEX_M4]]


def taken(layer: Layer, target: Target, choices: Choices = MEASURED) -> Kernel:
    graph, name = choice_layer(layer.name.lower(), TinyStates(activations=4))
    program = make_program(graph, Strategy.FAST, target, choices=choices)
    return next(
        KERNELS[type(one)] for one in program.operations if isinstance(one, Weighted) and name in one.step.links.nodes
    )


@pytest.mark.parametrize(("layer", "kernel"), CASES)
def test_layers_take_the_cheapest_kernel(layer: Layer, kernel: Kernel) -> None:
    costs = MEASURED.costs[Target.CORTEX_M4]
    assert (
        taken(layer, Target.CORTEX_M4, replace(MEASURED, costs={Target.CORTEX_M4: {**costs, (layer, kernel): 0.0}}))
        is kernel
    )


def test_what_was_measured_decides() -> None:
    best = {layer: MEASURED.best(layer, Target.CORTEX_M4) for layer in Layer}
    assert best == {Layer.DEPTHWISE: Kernel.PLANES, Layer.FIRST: Kernel.PIXELS, Layer.IMAGE_DENSE: Kernel.FIELDS}
    assert MEASURED.best(Layer.IMAGE_DENSE, Target.CORTEX_M0PLUS) is Kernel.EVENTS
    assert MEASURED.best(Layer.IMAGE_DENSE, Target.RV32) is Kernel.FIELDS, "as on the first processor of the table"
    assert taken(Layer.IMAGE_DENSE, Target.CORTEX_M0PLUS) is Kernel.EVENTS


@long
@pytest.mark.skipif(
    not all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm"))), reason="needs arm-none-eabi-gcc and QEMU"
)
@pytest.mark.parametrize("target", [Target.CORTEX_M4, Target.CORTEX_M0PLUS])
def test_the_table_is_what_kernels_take(target: Target) -> None:
    found = measure_kernels(target)
    assert found == pytest.approx(MEASURED.costs[target], rel=0.1)
