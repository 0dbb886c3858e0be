"""`maqd bench --target`: the exported C program on an emulated microcontroller."""

import json
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from maqd.bench import int8
from maqd.bench.microcontroller import emulate
from maqd.cli.text import table
from maqd.export.c99 import Strategy, Target, export_c99
from maqd.export.c99.operations import Operation, Weighted, step_of
from maqd.graph import Graph
from maqd.runtime.numpy import NumpyEngine

PLENTY = 2**40
"""No limit: it is measured whether or not it would fit a typical device."""


def emulated(graph: Graph, target: Target, strategy: Strategy, images: NDArray[np.uint8], *, json_output: bool) -> int:
    """Measure and print; the exit status."""
    exported = export_c99(graph, strategy=strategy, target=target, flash=PLENTY, ram=PLENTY, images=images)
    found = emulate(exported, target)
    steps = [step_of(operation) for operation in exported.program.operations]
    names = [step.links.nodes[0] if step.links.nodes else None for step in steps]
    shares = {name: float((x != 0).mean()) for name, x in NumpyEngine(graph).layers(images[:1])}
    densities = [None if name is None else shares[graph[name].inputs[0]] for name in names]
    eights = [_int8(graph, operation, target) for operation in exported.program.operations]
    macs = [sum(graph.macs(name) for name in step.links.nodes) for step in steps]
    total = sum(found.instructions)
    known = sum(eight * mac for eight, mac in zip(eights, macs, strict=True) if eight is not None)
    ratio = total / known if known else None
    if json_output:
        layers = [
            {"nodes": step.links.nodes, "instructions": count, "macs": mac, "density": density, "int8": eight}
            for step, count, mac, density, eight in zip(steps, found.instructions, macs, densities, eights, strict=True)
        ]
        print(
            json.dumps(
                {
                    "target": target.value,
                    "strategy": strategy.value,
                    **asdict(found),
                    "instructions": total,
                    "int8_ratio": ratio,
                    "layers": layers,
                }
            )
        )
        return 0
    print(f"{target.value}, {strategy.value}; {found.compiler}; {' '.join(found.flags)}; {found.emulator}")
    rows = [
        (
            step.links.nodes[-1] if step.links.nodes else "",
            type(operation).__name__,
            count,
            mac,
            count / mac if mac else None,
            eight,
            None if density is None else f"{density:.2f}",
        )
        for step, operation, count, mac, eight, density in zip(
            steps, exported.program.operations, found.instructions, macs, eights, densities, strict=True
        )
    ]
    print(table(("layer", "kernel", "instructions", "multiply-adds", "each", "each in 8 bits", "input density"), rows))
    print(f"{total:,} instructions" + ("" if ratio is None else f", {ratio:.2f} times those of 8 bits ({int8.SOURCE})"))
    print(
        f"flash {found.flash:,} bytes, {exported.table_bytes:,} of them tables; "
        f"RAM {found.ram:,}; stack {found.stack:,}"
    )
    return 0


def _int8(graph: Graph, operation: Operation, target: Target) -> float | None:
    """Instructions of a multiplication in 8 bits in a layer of this kind; None where nothing was measured."""
    if not isinstance(operation, Weighted):
        return None
    step, out = operation.step, operation.step.links.outputs[0]
    _, _, high, wide = step.weight.shape
    kind = int8.kind_of(
        first=graph[step.links.nodes[0]].inputs[0] == graph.input.name,
        groups=step.groups,
        kernel=(high, wide),
        pixels=out.rows * out.columns,
    )
    return int8.each(kind, target)
