// Rows of the left matrix of a dense convolution: the inputs that an output pixel sees, side by side.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include <cstring>

#include "isa.h"

namespace maqd {
namespace {

// Both move whole pieces of 64 bytes: up to 63 bytes more than asked are read and written.
inline void copy_piece(uint8_t *to, const uint8_t *from, size_t size) {
    for (size_t i = 0; i < size; i += 64) std::memcpy(to + i, from + i, 64);
}

inline void fill_piece(uint8_t *to, int value, size_t size) {
    for (size_t i = 0; i < size; i += 64) std::memset(to + i, value, 64);
}

// Pixels of an output, in order.
struct Place {
    size_t image;
    int32_t row, column;

    static Place of(const maqd_conv &conv, size_t pixel) {
        const auto columns = static_cast<size_t>(conv.columns), rows = static_cast<size_t>(conv.rows);
        return {pixel / columns / rows, static_cast<int32_t>(pixel / columns % rows),
                static_cast<int32_t>(pixel % columns)};
    }
    void advance(const maqd_conv &conv) {
        if (++column < conv.columns) return;
        column = 0;
        if (++row < conv.rows) return;
        row = 0;
        image++;
    }
};

// Fills [count][dense.depth] bytes; a row is [kernel rows][kernel columns][input channels of the group]. What lies behind
// it up to dense.depth is anything: its weights are zero.
inline void fill_panel(const Dense &dense, Place place, size_t count, uint8_t *panel) {
    const maqd_conv &conv = dense.conv;
    const maqd_window &w = conv.window;
    const auto channels = static_cast<size_t>(conv.x.channels);
    const size_t inputs = channels / static_cast<size_t>(conv.groups);
    const bool together = conv.groups == 1 && w.dilation_columns == 1;
    const int32_t run = together ? w.kernel_columns : 1, runs = together ? 1 : w.kernel_columns;
    for (size_t p = 0; p < count; p++, place.advance(conv)) {
        uint8_t *to = panel + p * dense.depth;
        const uint8_t *x = dense.x + place.image * dense.image_size + static_cast<size_t>(dense.group) * inputs;
        const int32_t top = place.row * w.stride_rows - w.padding_rows;
        const int32_t left = place.column * w.stride_columns - w.padding_columns;
        for (int32_t i = 0; i < w.kernel_rows; i++) {
            const int32_t row = top + i * w.dilation_rows;
            for (int32_t j = 0; j < runs; j++) {
                const int32_t begin = left + j * w.dilation_columns, end = begin + run;
                const bool outside = row < 0 || row >= conv.x.rows;
                const int32_t first = outside ? end : begin < 0 ? (end < 0 ? end : 0) : begin;
                const int32_t last = outside ? end : end > conv.x.columns ? conv.x.columns : end;
                if (first > begin) {
                    const size_t size = static_cast<size_t>(first - begin) * inputs;
                    fill_piece(to, conv.x.zero, size);
                    to += size;
                }
                if (last > first) {
                    const size_t size = static_cast<size_t>(last - first) * inputs;
                    copy_piece(to, x + (static_cast<size_t>(row) * static_cast<size_t>(conv.x.columns) +
                                        static_cast<size_t>(first)) * channels, size);
                    to += size;
                }
                const int32_t behind = last > first ? last : first;
                if (end > behind) {
                    const size_t size = static_cast<size_t>(end - behind) * inputs;
                    fill_piece(to, conv.x.zero, size);
                    to += size;
                }
            }
        }
    }
}

}  // namespace
}  // namespace maqd
