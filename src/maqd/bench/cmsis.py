"""CMSIS-NN in 8 bits on emulated microcontrollers, layer by layer: where the yardstick of `maqd.bench.int8` comes from.

The sources are the user's: a checkout of github.com/ARM-software/CMSIS-NN, given by its path. Numbers are the same
everywhere; what a layer costs does not depend on them.
"""

import tempfile
from pathlib import Path

from maqd.bench.qemu import Bench, Tally
from maqd.errors import ConfigError, EngineError
from maqd.export.c99 import Target
from maqd.export.c99.source import kernels
from maqd.graph import Add, Conv, GlobalSum, Graph, Input, Linear, Node, Output, Thresholds

OPTIMIZATION = "-Ofast"
"""Of CMSIS-NN's own build."""

ROOMS = ("BasicMath", "Convolution", "FullyConnected", "NNSupport", "Pooling")
"""Folders of its sources that layers need."""

STUB = """#include <stddef.h>
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
#define memcpy __builtin_memcpy
#define memset __builtin_memset
"""
"""For string.h and stdio.h, where there is no C library; compilers replace small copies, as they do with one."""

MAIN = """#include "int8.h"
{tables}
int main(void) {{
    int8_begin();
{calls}
    MAQD_LAYER(-1)
    return 0;
}}
"""


def measure_int8(graph: Graph, target: Target, sources: Path) -> dict[str, Tally]:
    """What each layer of a graph takes with weights and activations of 8 bits.

    Args:
        graph: A graph of convolutions, linear layers, additions and sums over all positions; activations cost nothing
            of their own.
        target: The processor.
        sources: A checkout of CMSIS-NN.

    Returns:
        By the name of the node.

    Raises:
        ConfigError: There are no sources.
        MissingDependencyError: A tool is not installed.
        EngineError: The graph has another node, or the program fails.
    """
    if not (sources / "Include" / "arm_nnfunctions.h").is_file():
        raise ConfigError(f"{sources} has no Include/arm_nnfunctions.h; give a checkout of ARM-software/CMSIS-NN")
    names, text = _program(graph)
    with tempfile.TemporaryDirectory(prefix="maqd-int8-") as folder:
        root = Path(folder)
        bench = Bench(root, target, OPTIMIZATION)
        (root / "stubs").mkdir()
        for name in ("string.h", "stdio.h"):
            (root / "stubs" / name).write_text(STUB)
        (root / "stubs" / "limits.h").write_text("#define INT_MAX __INT_MAX__\n")
        (root / "int8.h").write_text(kernels("qemu/int8.h"))
        (root / "network.c").write_text(text)
        include = ("-Istubs", f"-I{sources.resolve() / 'Include'}", f"-I{sources.resolve()}")
        files = sorted(
            str(path)
            for room in ROOMS
            for path in (sources.resolve() / "Source" / f"{room}Functions").glob("*.c")
            if "f32" not in path.name and "f16" not in path.name and "flt" not in path.name
        )
        objects = [bench.compile(path, f"{place}.o", *include) for place, path in enumerate(files)]
        objects.append(bench.compile("network.c", "network.o", *include, "-include", "mark.h"))
        bench.link(objects, "int8.elf")
        tallies = bench.run("int8.elf")
    if len(tallies) != len(names):
        raise EngineError(f"QEMU's plugin counted {len(tallies)} layers of {len(names)}")
    return dict(zip(names, tallies, strict=True))


def _program(graph: Graph) -> tuple[list[str], str]:
    """Names of the layers, and the text of a program that computes them."""
    names, tables, calls = [], [], []
    places: dict[str, str] = {}
    for node in graph.nodes:
        shape = graph.types[node.name].shape
        if isinstance(node, Input):
            places[node.name] = "input"
            tables.append(f"static int8_t input[{_size(shape)}];")
            continue
        if isinstance(node, Output):
            continue
        if isinstance(node, Thresholds):
            places[node.name] = places[node.inputs[0]]
            continue
        index, to = len(names), f"t{len(names)}"
        calls.append(f"    MAQD_LAYER({index})")
        tables.append(f"static int8_t {to}[{_size(shape)}];")
        calls.append(f"    {_call(graph, node, [places[name] for name in node.inputs], index, to)}")
        if isinstance(node, Conv | Linear):
            tables.append(f"static const int8_t w{index}[{node.weight.unpack().size}] = {{1}};")
        names.append(node.name)
        places[node.name] = to
    return names, MAIN.format(tables="\n".join(tables), calls="\n".join(calls))


def _call(graph: Graph, node: Node, sources: list[str], index: int, to: str) -> str:
    shape, y = graph.types[node.inputs[0]].shape, graph.types[node.name].shape
    match node:
        case Conv() if node.dilation == (1, 1) and node.groups in (1, shape[0]):
            outputs, _, high, wide = node.weight.shape
            depthwise = node.groups > 1 and outputs == shape[0]
            filters = (1, high, wide, outputs) if depthwise else (outputs, high, wide, shape[0])
            tiles = ", ".join(
                f"(cmsis_nn_tile){{{wide_}, {high_}}}" for high_, wide_ in (node.stride, node.padding[:2])
            )
            dims = ", ".join(map(_dims, ((1, *shape[1:], shape[0]), filters, (1, *y[1:], y[0]))))
            name = "int8_depthwise" if depthwise else "int8_conv"
            return f"{name}({dims}, {tiles}, {sources[0]}, w{index}, {to});"
        case Linear():
            return f"int8_dense({shape[-1]}, {y[-1]}, {sources[0]}, w{index}, {to});"
        case Add():
            return f"int8_add({sources[0]}, {sources[1]}, {_size(y)}, {to});"
        case GlobalSum():
            return f"int8_mean({_dims((1, *shape[1:], shape[0]))}, {sources[0]}, {to});"
        case _:
            raise EngineError(f"the yardstick in 8 bits has no {type(node).__name__} such as {node.name!r}")


def _dims(numbers: tuple[int, ...]) -> str:
    return f"(cmsis_nn_dims){{{', '.join(map(str, numbers))}}}"


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for one in shape:
        size *= one
    return size
