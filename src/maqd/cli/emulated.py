"""`maqd bench --target`: what the exported C program takes on an emulated microcontroller."""

import json
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from maqd.bench import int8
from maqd.bench.microcontroller import Measurement, measure
from maqd.cli.text import table
from maqd.export.c99 import Strategy, Target
from maqd.graph import Graph

HEADINGS = (
    "layer", "kernel", "input density", "instructions", "cycles (model)", "multiply-adds", "each", "each in 8 bits",
)  # fmt: skip


def emulated(
    graph: Graph, target: Target, strategy: Strategy, images: tuple[NDArray[Any], ...], *, json_output: bool
) -> int:
    """Measure and print; the exit status."""
    measured = measure(graph, target, strategy, images)
    found = measured.emulation
    if json_output:
        print(json.dumps(_object(measured, target, strategy)))
        return 0
    print(f"{target.value}, {strategy.value}; {found.compiler}; {' '.join(found.flags)}; {found.emulator}")
    print(layers_table(measured))
    ratio = measured.int8_ratio
    print(
        f"{measured.instructions:,} instructions"
        + ("" if measured.cycles is None else f", {measured.cycles:,} cycles by the model")
        + ("" if ratio is None else f", {ratio:.2f} times the instructions of 8 bits ({int8.SOURCE})")
    )
    print(
        f"flash {found.flash:,} bytes, {measured.table_bytes:,} of them tables; "
        f"RAM {found.ram:,}; stack {found.stack:,}"
    )
    return 0


def layers_table(measured: Measurement) -> str:
    """What each layer took, for a terminal."""
    return table(
        HEADINGS,
        [
            (
                layer.names[0] if layer.names else "",
                layer.kernel,
                None if layer.density is None else f"{layer.density:.2f}",
                layer.instructions,
                layer.cycles,
                layer.macs,
                layer.instructions / layer.macs if layer.macs else None,
                layer.int8,
            )
            for layer in measured.layers
        ],
    )


def _object(measured: Measurement, target: Target, strategy: Strategy) -> dict[str, object]:
    found = measured.emulation
    return {
        "target": target.value,
        "strategy": strategy.value,
        "instructions": measured.instructions,
        "cycles": measured.cycles,
        "int8_ratio": measured.int8_ratio,
        "flash": found.flash,
        "ram": found.ram,
        "stack": found.stack,
        "compiler": found.compiler,
        "emulator": found.emulator,
        "flags": found.flags,
        "layers": [asdict(layer) | {"kind": layer.kind and layer.kind.value} for layer in measured.layers],
    }
