"""Test vectors for a program, and the program that checks them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.source import Source
from maqd.graph import Graph, interpreter

FNV_START, FNV_PRIME = 0x811C9DC5, 0x01000193
"""FNV-1a with 32 bits, over 32-bit values instead of bytes."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What the program must compute.

    Args:
        images: uint8, N x rows x columns x channels.
        logits: int32, N x classes, in the order of memory.
        hashes: uint32, N x traced tensors.
    """

    images: NDArray[np.uint8]
    logits: NDArray[np.int32]
    hashes: NDArray[np.uint32]


def in_memory(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """N x tensors of the graph as N x elements in the order of memory, channels last."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)).reshape(len(values), -1)


def make_vectors(graph: Graph, source: Source, images: NDArray[np.uint8]) -> Vectors:
    """What the interpreter computes for some images.

    Args:
        graph: A valid graph.
        source: Its program.
        images: uint8, N x the input's shape.
    """
    tensors = dict(interpreter.layers(graph, images.astype(np.int64) - graph.input.zero))
    hashes = [_hash(in_memory(one.as_computed(tensors[one.name]))) for one in source.traced]
    return Vectors(
        images=in_memory(images.astype(np.int64)).astype(np.uint8),
        logits=in_memory(tensors[graph.output.name]).astype(np.int32),
        hashes=np.stack(hashes, 1) if hashes else np.zeros((len(images), 0), np.uint32),
    )


def _hash(values: NDArray[np.int64]) -> NDArray[np.uint32]:
    """FNV-1a of each row."""
    found = np.full(len(values), FNV_START, np.uint64)
    for column in values.astype(np.uint64).T & np.uint64(0xFFFFFFFF):
        found = ((found ^ column) * np.uint64(FNV_PRIME)) & np.uint64(0xFFFFFFFF)
    return found.astype(np.uint32)


def write_selftest(prefix: str, source: Source, vectors: Vectors) -> str:
    """The text of the test program."""
    upper, count, tensors = prefix.upper(), len(vectors.images), len(source.traced)
    names = "".join(f'\n    "{one.name}",' for one in source.traced)
    return f"""/* Test vectors of the network and the program that checks them. See README.md.
 *
 * Compiled with MAQD_TRACE, together with the network, it compares every tensor, by a hash of its values.
 * MAQD_NO_MAIN leaves out main, which prints and so needs a C library. */
#include "{prefix}_model.h"

#include <stdint.h>

/* Compares; returns 0, or 1 and the first image and tensor that differ (tensor -1: the logits). */
int {prefix}_selftest(int32_t *image, int32_t *tensor);

static const uint8_t images[{count}][{vectors.images.shape[1]}] = {{
{_rows(vectors.images)}
}};

static const int32_t expected[{count}][{upper}_CLASSES] = {{
{_rows(vectors.logits)}
}};

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
    int32_t logits[{upper}_CLASSES];
    for (*image = 0; *image < {count}; ++*image) {{
#ifdef MAQD_TRACE
        for (int32_t i = 0; i < TENSORS; i++) found[i] = {FNV_START}u;
#endif
        *tensor = -1;
        if ({prefix}_run(images[*image], logits) != 0) return 1;
#ifdef MAQD_TRACE
        for (*tensor = 0; *tensor < TENSORS; ++*tensor)
            if (found[*tensor] != hashes[*image][*tensor]) return 1;
        *tensor = -1;
#endif
        for (int32_t i = 0; i < {upper}_CLASSES; i++)
            if (logits[i] != expected[*image][i]) return 1;
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
        printf("{count} images: the same integers\\n");
        return 0;
    }}
#ifdef MAQD_TRACE
    if (tensor >= 0) {{
        printf("image %d: tensor %s differs\\n", (int)image, names[tensor]);
        return 1;
    }}
#endif
    printf("image %d: the logits differ\\n", (int)image);
    return 1;
}}
#endif
"""


def _rows(values: NDArray[np.integer], suffix: str = "") -> str:
    rows = []
    for row in values.tolist():
        words = [f"{value}{suffix}" if value > -(2**31) else "(-2147483647 - 1)" for value in row]
        lines = [", ".join(words[start : start + 20]) for start in range(0, len(words), 20)]
        rows.append("    {" + ",\n     ".join(lines) + "},")
    return "\n".join(rows)
