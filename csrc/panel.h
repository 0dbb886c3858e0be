// The left matrix of a dense convolution: the inputs that an output pixel sees.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include <cstring>

#include "isa.h"

namespace maqd {
namespace {

// Rows of the left matrix: that of pixel p begins at first + p * stride, its run of kernel row i `pitch` * i behind.
struct Left {
    const uint8_t *first;
    size_t stride, pitch;
};

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

// The columns begin .. end - 1 of an input row with `padding` columns on the left and what is missing on the right; `row`
// may be outside. `inputs` channels of each are copied to `to`, in ascending order, with up to 63 bytes more.
inline void copy_columns(const Dense &dense, const uint8_t *x, int32_t row, int32_t begin, int32_t end, uint8_t *to) {
    const maqd_tensor &shape = dense.conv.x;
    const size_t inputs = dense.inputs();
    const bool outside = row < 0 || row >= shape.rows;
    const int32_t first = outside ? end : begin < 0 ? (end < 0 ? end : 0) : begin;
    const int32_t last = outside || end <= shape.columns ? end : shape.columns > first ? shape.columns : first;
    if (first > begin) {
        const size_t size = static_cast<size_t>(first - begin) * inputs;
        fill_piece(to, shape.zero, size);
        to += size;
    }
    if (last > first) {
        const size_t size = static_cast<size_t>(last - first) * inputs;
        const size_t at = static_cast<size_t>(row) * static_cast<size_t>(shape.columns) + static_cast<size_t>(first);
        copy_piece(to, x + at * static_cast<size_t>(shape.channels), size);
        to += size;
    }
    if (end > last) fill_piece(to, shape.zero, static_cast<size_t>(end - last) * inputs);
}

// A copy for each of `count` pixels: [count][kernel rows][run].
inline Left fill_panel(const Dense &dense, Place place, size_t count, uint8_t *panel) {
    const maqd_conv &conv = dense.conv;
    const maqd_window &w = conv.window;
    const size_t inputs = dense.inputs();
    const bool together = conv.groups == 1 && w.dilation_columns == 1;
    const int32_t width = together ? w.kernel_columns : 1, pieces = together ? 1 : w.kernel_columns;
    uint8_t *to = panel;
    for (size_t p = 0; p < count; p++, place.advance(conv)) {
        const uint8_t *x = dense.x + place.image * dense.image_size + static_cast<size_t>(dense.group) * inputs;
        const int32_t top = place.row * w.stride_rows - w.padding_rows;
        const int32_t left = place.column * w.stride_columns - w.padding_columns;
        for (int32_t i = 0; i < w.kernel_rows; i++, to += dense.run)
            for (int32_t j = 0; j < pieces; j++) {
                const int32_t begin = left + j * w.dilation_columns;
                copy_columns(dense, x, top + i * w.dilation_rows, begin, begin + width,
                             to + static_cast<size_t>(j) * inputs);
            }
    }
    return {panel, dense.depth(), dense.run};
}

// Bytes of a strip: what 16 * n output columns see of an input row.
inline size_t strip_size(const Dense &dense) {
    const maqd_window &w = dense.conv.window;
    const int32_t columns = (dense.conv.columns + 15) / 16 * 16;
    const auto seen = static_cast<size_t>((columns - 1) * w.stride_columns + w.kernel_columns);
    return (seen * dense.inputs() + SLACK + 63) / 64 * 64;
}

// The input rows that an output row sees, padded.
inline Left fill_strips(const Dense &dense, size_t part, uint8_t *strips) {
    const maqd_conv &conv = dense.conv;
    const maqd_window &w = conv.window;
    const auto rows = static_cast<size_t>(conv.rows);
    const size_t size = strip_size(dense);
    const int32_t top = static_cast<int32_t>(part % rows) * w.stride_rows - w.padding_rows;
    const int32_t end = (conv.columns - 1) * w.stride_columns - w.padding_columns + w.kernel_columns;
    for (int32_t i = 0; i < w.kernel_rows; i++)
        copy_columns(dense, dense.x + part / rows * dense.image_size, top + i * w.dilation_rows, -w.padding_columns, end,
                     strips + static_cast<size_t>(i) * size);
    return {strips, static_cast<size_t>(w.stride_columns) * dense.inputs(), size};
}

// Bytes for a panel of DENSE_PIXELS pixels and what a last block of up to 4 pixels reads behind them, or for the strips of
// two output rows.
inline size_t left_scratch(const Dense &dense) {
    const size_t size = dense.strips ? 2 * static_cast<size_t>(dense.conv.window.kernel_rows) * strip_size(dense)
                                     : (DENSE_PIXELS + 3) * dense.depth();
    return (size + SLACK + 63) / 64 * 64;
}

}  // namespace
}  // namespace maqd
