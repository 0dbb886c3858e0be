"""Exported programs on an emulated microcontroller: instructions and cycles of each layer, flash, RAM and stack."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maqd.bench import int8
from maqd.bench.qemu import BOARDS, Bench, Tally, check_board, cycles
from maqd.errors import EngineError
from maqd.export.c99 import Exported, Strategy, Target, export_c99
from maqd.export.c99.examples import OPTIMIZATION
from maqd.export.c99.operations import Operation, Weighted, step_of
from maqd.graph import Graph
from maqd.runtime.numpy import NumpyEngine

PLENTY = 2**40
"""No limit: a network is measured whether or not it would fit a typical device."""


MARKS = re.compile(r"^\s*(\.inst\.n 0x46(d2|c9|db)|\.4byte 0x00[123]02013)\s*$", re.MULTILINE)
"""The instructions of csrc/qemu/mark.h, which count only where layers begin and are no part of the program's flash."""


@dataclass(frozen=True, kw_only=True)
class Emulation:
    """What a program took.

    Args:
        tallies: Of each of the program's operations, in one run.
        flash: Bytes of code and tables, linked.
        ram: Bytes of static memory: the arena.
        stack: Bytes that the deepest chain of the program's functions needs.
        compiler, emulator: Versions.
        flags: The compiler's options.
    """

    tallies: tuple[Tally, ...]
    flash: int
    ram: int
    stack: int
    compiler: str
    emulator: str
    flags: tuple[str, ...]

    @property
    def instructions(self) -> tuple[int, ...]:
        """Of each operation."""
        return tuple(tally.instructions for tally in self.tallies)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a layer took.

    Args:
        names: Of the graph's nodes that it computes.
        kernel: Which one computes it.
        kind: For the yardstick; None of layers without weights.
        macs: Multiplications and additions.
        density: Share of its input's values that are not 0.
        instructions, cycles: In one run; cycles None where there is no model.
        int8: Instructions of a multiplication in 8 bits, or None.
    """

    names: tuple[str, ...]
    kernel: str
    kind: int8.Kind | None
    macs: int
    density: float | None
    instructions: int
    cycles: int | None
    int8: float | None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A network on a processor.

    Args:
        emulation: What its program took.
        layers: Layer by layer.
        table_bytes: Of constant tables.
    """

    emulation: Emulation
    layers: tuple[Layer, ...]
    table_bytes: int

    @property
    def instructions(self) -> int:
        """Of all layers."""
        return sum(layer.instructions for layer in self.layers)

    @property
    def cycles(self) -> int | None:
        """Of all layers, by the model; None where there is none."""
        found = [layer.cycles for layer in self.layers if layer.cycles is not None]
        return sum(found) if len(found) == len(self.layers) else None

    @property
    def int8_ratio(self) -> float | None:
        """Instructions over those of 8 bits, from the mean costs of layers of each kind."""
        known = sum(layer.int8 * layer.macs for layer in self.layers if layer.int8 is not None)
        return self.instructions / known if known else None


def measure(
    graph: Graph,
    target: Target,
    strategy: Strategy,
    images: NDArray[Any] | tuple[NDArray[Any], ...],
    *,
    network: str | None = None,
) -> Measurement:
    """Export a graph, run it on an emulated processor, and count.

    Args:
        graph: A valid graph.
        target: The processor.
        strategy: Of the export.
        images: N x the input's shape, of its storage type, an array for each input or one alone; the last sample is
            counted.
        network: One of `int8.NETWORKS`, whose costs are to be compared with; else the mean of all.

    Raises:
        MissingDependencyError: A tool is not installed.
        EngineError: There is no board for the target, or the program fails.
        ExportError: The graph cannot be exported.
    """
    given = images if isinstance(images, tuple) else (images,)
    exported = export_c99(graph, strategy=strategy, target=target, flash=PLENTY, ram=PLENTY, samples=given)
    found = emulate(exported, target)
    shares = {name: float((x != 0).mean()) for name, x in NumpyEngine(graph).layers(*(one[-1:] for one in given))}
    rows = []
    for operation, tally in zip(exported.program.operations, found.tallies, strict=True):
        nodes = step_of(operation).links.nodes
        kind = _kind(graph, operation)
        rows.append(
            Layer(
                names=nodes,
                kernel=type(operation).__name__,
                kind=kind,
                macs=sum(graph.macs(name) for name in nodes),
                density=shares[graph[nodes[0]].inputs[0]] if nodes else None,
                instructions=tally.instructions,
                cycles=cycles(tally, target),
                int8=None if kind is None else int8.each(kind, target, network),
            )
        )
    return Measurement(emulation=found, layers=tuple(rows), table_bytes=exported.table_bytes)


def _kind(graph: Graph, operation: Operation) -> int8.Kind | None:
    if not isinstance(operation, Weighted):
        return None
    step, out = operation.step, operation.step.links.outputs[0]
    _, _, high, wide = step.weight.shape
    return int8.kind_of(
        first=graph[step.links.nodes[0]].inputs[0] in {node.name for node in graph.inputs},
        groups=step.groups,
        kernel=(high, wide),
        pixels=out.rows * out.columns,
    )


def emulate(exported: Exported, target: Target, *, prefix: str = "maqd") -> Emulation:
    """Compile a program with its self-test, run it, and count its last image.

    Args:
        exported: The program.
        target: Which processor.
        prefix: The program's.

    Raises:
        MissingDependencyError: The compiler or QEMU is not installed.
        EngineError: There is no board for the target, the program does not fit it, or gives other integers.
    """
    with tempfile.TemporaryDirectory(prefix="maqd-qemu-") as folder:
        root = Path(folder)
        bench = Bench(root, target, OPTIMIZATION)
        for name, text in exported.files.items():
            if name.endswith((".c", ".h")):
                (root / name).write_text(text)
        assembly = root / bench.compile(f"{prefix}_model.c", "model.s", "-S", "-fstack-usage", "-include", "mark.h")
        model = bench.compile("model.s", "model.o")
        (root / "own.s").write_text(MARKS.sub("", assembly.read_text()))
        flash, ram = bench.sizes([bench.compile("own.s", "own.o")], f"{prefix}_run")
        check_board(bench.board, flash=flash, ram=ram)
        selftest = bench.compile(f"{prefix}_selftest.c", "selftest.o", "-DMAQD_NO_MAIN")
        main = bench.compile("main.c", "main.o", f"-DSELFTEST={prefix}_selftest")
        bench.link([main, model, selftest], "program.elf")
        tallies = bench.run("program.elf")
        stack = _stack((root / "model.su").read_text(), prefix)
        versions = bench.versions
    if len(tallies) != len(exported.program.operations):
        raise EngineError(f"QEMU's plugin counted {len(tallies)} layers of {len(exported.program.operations)}")
    return Emulation(
        tallies=tuple(tallies),
        flash=flash,
        ram=ram,
        stack=stack,
        compiler=versions[0],
        emulator=versions[1],
        flags=bench.flags,
    )


def _stack(usage: str, prefix: str) -> int:
    """Bytes of the deepest chain: run, run_arena, a layer, and a shared kernel, as far as they were not inlined."""
    frames: dict[str, int] = {}
    for line in usage.splitlines():
        where, size, _ = line.split("\t")
        name = where.rsplit(":", 1)[1].partition(".")[0]  # compilers split functions into parts
        frames[name] = frames.get(name, 0) + int(size)
    entry = frames.get(f"{prefix}_run", 0) + frames.get(f"{prefix}_run_arena", 0)
    layers = max((size for name, size in frames.items() if name.startswith("layer")), default=0)
    others = max((size for name, size in frames.items() if not name.startswith(("layer", prefix + "_run"))), default=0)
    return entry + layers + others


__all__ = ["BOARDS", "Emulation", "Layer", "Measurement", "emulate", "measure"]
