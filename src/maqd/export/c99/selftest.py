"""Test vectors for a program, and the program that checks them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.program import Program
from maqd.export.c99.source import Source
from maqd.export.c99.text import string
from maqd.graph import Graph, interpreter

FNV_START, FNV_PRIME = 0x811C9DC5, 0x01000193
"""FNV-1a with 32 bits, over 32-bit values instead of bytes."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What the program must compute.

    Args:
        inputs: Of each input's type, N x elements in the order of memory.
        outputs: int32, N x elements in the order of memory, of each output.
        hashes: uint32, N x traced tensors.
    """

    inputs: tuple[NDArray[np.integer], ...]
    outputs: tuple[NDArray[np.int32], ...]
    hashes: NDArray[np.uint32]


def in_memory(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """N x tensors of the graph as N x elements in the order of memory, channels last."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)).reshape(len(values), -1)


def make_vectors(graph: Graph, program: Program, source: Source, samples: Sequence[NDArray[np.generic]]) -> Vectors:
    """What the interpreter computes for some samples.

    Args:
        graph: A valid graph.
        program: Its program.
        source: The program's text.
        samples: An array for each input, of the graph's type, N x the input's shape.
    """
    ends = program.ends
    codes = [end.codes(one) for end, one in zip(ends.inputs, samples, strict=True)]
    tensors = dict(interpreter.layers(graph, *codes))
    hashes = [_hash(in_memory(one.as_computed(tensors[one.name]))) for one in source.traced]
    count = len(codes[0])
    return Vectors(
        inputs=tuple(in_memory(one + end.zero).astype(end.dtype) for end, one in zip(ends.inputs, codes, strict=True)),
        outputs=tuple(in_memory(tensors[end.node.name]).astype(np.int32) for end in ends.outputs),
        hashes=np.stack(hashes, 1) if hashes else np.zeros((count, 0), np.uint32),
    )


def random_samples(program: Program, count: int) -> list[NDArray[np.generic]]:
    """Random codes of each input, as samples of the graph's type; numbers amid their codes' ranges for floats."""
    random = np.random.default_rng(0)
    found: list[NDArray[np.generic]] = []
    for end in program.ends.inputs:
        node, border = end.node, end.node.border
        codes = random.integers(node.grid.low, node.grid.high + 1, (count, *node.shape))
        if border is None:
            found.append((codes + node.zero).astype(node.storage.value))
            continue
        scale, offset = border.factors(len(node.shape))
        found.append(((codes - offset) / scale).astype(np.float32))
    return found


def _hash(values: NDArray[np.int64]) -> NDArray[np.uint32]:
    """FNV-1a of each row."""
    found = np.full(len(values), FNV_START, np.uint64)
    for column in values.astype(np.uint64).T & np.uint64(0xFFFFFFFF):
        found = ((found ^ column) * np.uint64(FNV_PRIME)) & np.uint64(0xFFFFFFFF)
    return found.astype(np.uint32)


def write_selftest(prefix: str, program: Program, source: Source, vectors: Vectors) -> str:
    """The text of the test program."""
    ends, count, tensors = program.ends, len(vectors.hashes), len(source.traced)
    names = "".join(f"\n    {string(one.name)}," for one in source.traced)
    what = "image" if ends.plain else "sample"
    given = "\n\n".join(
        f"static const {end.type} given_{end.argument}[{count}][{values.shape[1]}] = {{\n{_rows(values)}\n}};"
        for end, values in zip(ends.inputs, vectors.inputs, strict=True)
    )
    expected = "\n\n".join(
        f"static const int32_t expected_{end.argument}[{count}][{values.shape[1]}] = {{\n{_rows(values)}\n}};"
        for end, values in zip(ends.outputs, vectors.outputs, strict=True)
    )
    room = "\n".join(
        f"    static int32_t {end.argument}[{values.shape[1]}];"
        for end, values in zip(ends.outputs, vectors.outputs, strict=True)
    )
    arguments = ", ".join(
        [f"given_{end.argument}[*image]" for end in ends.inputs] + [end.argument for end in ends.outputs]
    )
    compared = "\n".join(
        f"        for (int32_t i = 0; i < {values.shape[1]}; i++)\n"
        f"            if ({end.argument}[i] != expected_{end.argument}[*image][i]) return 1;"
        for end, values in zip(ends.outputs, vectors.outputs, strict=True)
    )
    return f"""/* Test vectors of the network and the program that checks them. See README.md.
 * The Arduino IDE, which compiles every file of a library, leaves it out.
 *
 * Compiled with MAQD_TRACE, together with the network, it compares every tensor, by a hash of its values.
 * MAQD_NO_MAIN leaves out main, which prints and so needs a C library. */
#ifndef ARDUINO
#include "{prefix}_model.h"

#include <stdint.h>

/* Compares; returns 0, or 1 and the first {what} and tensor that differ (tensor -1: an output). */
int {prefix}_selftest(int32_t *image, int32_t *tensor);

{given}

{expected}

#ifdef MAQD_TRACE
#define TENSORS {tensors}

static const uint32_t hashes[{count}][TENSORS + 1] = {{
{_rows(np.pad(vectors.hashes, ((0, 0), (0, 1))), "u")}
}};

static uint32_t found[TENSORS + 1];

void {prefix}_trace(int32_t tensor, const int32_t *values, int32_t count) {{
    for (int32_t i = 0; i < count; i++) found[tensor] = (found[tensor] ^ (uint32_t)values[i]) * {FNV_PRIME}u;
}}
#endif

int {prefix}_selftest(int32_t *image, int32_t *tensor) {{
{room}
    for (*image = 0; *image < {count}; ++*image) {{
#ifdef MAQD_TRACE
        for (int32_t i = 0; i < TENSORS; i++) found[i] = {FNV_START}u;
#endif
        *tensor = -1;
        if ({prefix}_run({arguments}) != 0) return 1;
#ifdef MAQD_TRACE
        for (*tensor = 0; *tensor < TENSORS; ++*tensor)
            if (found[*tensor] != hashes[*image][*tensor]) return 1;
        *tensor = -1;
#endif
{compared}
    }}
    return 0;
}}

#ifndef MAQD_NO_MAIN
#include <stdio.h>

int main(void) {{
#ifdef MAQD_TRACE
    static const char *const names[TENSORS + 1] = {{{names}
        ""}};
#endif
    int32_t image, tensor;
    if ({prefix}_selftest(&image, &tensor) == 0) {{
        printf("{count} {what}s: the same integers\\n");
        return 0;
    }}
#ifdef MAQD_TRACE
    if (tensor >= 0) {{
        printf("{what} %d: tensor %s differs\\n", (int)image, names[tensor]);
        return 1;
    }}
#endif
    printf("{what} %d: {"the logits differ" if ends.plain else "an output differs"}\\n", (int)image);
    return 1;
}}
#endif
#endif
"""


def _rows(values: NDArray[np.integer], suffix: str = "") -> str:
    rows = []
    for row in values.tolist():
        words = [f"{value}{suffix}" if value > -(2**31) else "(-2147483647 - 1)" for value in row]
        lines = [", ".join(words[start : start + 20]) for start in range(0, len(words), 20)]
        rows.append("    {" + ",\n     ".join(lines) + "},")
    return "\n".join(rows)
