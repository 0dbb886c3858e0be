"""`maqd bench --target`: the exported C program on an emulated microcontroller."""

import json
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from maqd.bench.microcontroller import emulate
from maqd.cli.text import table
from maqd.export.c99 import Strategy, Target, export_c99
from maqd.export.c99.operations import step_of
from maqd.graph import Graph

INT8_INSTRUCTIONS = {Target.CORTEX_M3: 2.8, Target.CORTEX_M4: 1.9, Target.CORTEX_M7: 1.9}
"""Instructions of an 8-bit multiplication and addition in CMSIS-NN, measured in QEMU on a network of 7.3 million; the
Cortex-M7 runs the code of the Cortex-M4."""

PLENTY = 2**40
"""No limit: it is measured whether or not it would fit a typical device."""


def emulated(graph: Graph, target: Target, strategy: Strategy, images: NDArray[np.uint8], *, json_output: bool) -> int:
    """Measure and print; the exit status."""
    exported = export_c99(graph, strategy=strategy, target=target, flash=PLENTY, ram=PLENTY, images=images)
    found = emulate(exported, target)
    steps = [step_of(operation) for operation in exported.program.operations]
    macs = [sum(graph.macs(name) for name in step.links.nodes) for step in steps]
    total, int8 = sum(found.instructions), INT8_INSTRUCTIONS.get(target)
    ratio = None if int8 is None or not sum(macs) else total / (int8 * sum(macs))
    if json_output:
        layers = [
            {"nodes": step.links.nodes, "instructions": count, "macs": mac}
            for step, count, mac in zip(steps, found.instructions, macs, strict=True)
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
        )
        for step, operation, count, mac in zip(
            steps, exported.program.operations, found.instructions, macs, strict=True
        )
    ]
    print(table(("layer", "kernel", "instructions", "multiply-adds", "instructions each"), rows))
    print(f"{total:,} instructions" + ("" if ratio is None else f", {ratio:.2f} times those of 8-bit multiplications"))
    print(
        f"flash {found.flash:,} bytes, {exported.table_bytes:,} of them tables; "
        f"RAM {found.ram:,}; stack {found.stack:,}"
    )
    return 0
