// Kernel rows that lie inside the input.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include "kernels/calls.h"

namespace maqd {
namespace {

// The input row at kernel row 0, inside or not, and the kernel rows first .. last - 1 that lie inside.
struct KernelRows {
    int32_t top, first, last;
};

// Of an output row.
inline KernelRows kernel_rows(const maqd_conv &conv, int32_t row) {
    const maqd_window &w = conv.window;
    const int32_t top = row * w.stride_rows - w.padding_rows;
    int32_t first = 0, last = w.kernel_rows;
    while (first < last && top + first * w.dilation_rows < 0) first++;
    while (first < last && top + (last - 1) * w.dilation_rows >= conv.x.rows) last--;
    return {top, first, last};
}

}  // namespace
}  // namespace maqd
