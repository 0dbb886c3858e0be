// The left matrix of a dense convolution: a row has the inputs of an output pixel.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include <cstring>

#include "kernels/window.h"

namespace maqd {
namespace {

// Rows of the left matrix: that of pixel p begins at first + p * stride, its run of kernel row i another pitch * i
// later.
struct Left {
    const uint8_t *first;
    size_t stride, pitch;
};

// Weights of 32 outputs, two blocks of 16 that are `pitch` bytes apart, each [runs][run / 4][16][4]; sums begin with
// start[32].
struct Right {
    const int8_t *first;
    size_t pitch;
    int32_t runs;
    size_t run;
    size_t short_steps;  // as in DenseCall
    const int32_t *start;
};

// Both move pieces of 64 bytes, so up to 63 bytes past the end are read and written.
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

// The columns begin .. end - 1 of an input row, `padding` columns on the left, and padding on the right where columns
// are missing; `row` may be outside. Copies `inputs` channels of each to `to`, in ascending order, and up to 63 bytes
// more.
inline void copy_columns(const DenseCall &dense, const uint8_t *x, int32_t row, int32_t begin, int32_t end,
                         uint8_t *to) {
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
inline Left fill_panel(const DenseCall &dense, Place place, size_t count, uint8_t *panel) {
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

// Bytes of a strip: the part of an input row under 16 * n output columns, or under two more than there are: a last tile
// of three may begin with the last one.
inline size_t strip_size(const DenseCall &dense) {
    const maqd_window &w = dense.conv.window;
    const int32_t whole = (dense.conv.columns + 15) / 16 * 16, most = dense.conv.columns + 2;
    const int32_t columns = whole < most ? most : whole;
    const auto seen = static_cast<size_t>((columns - 1) * w.stride_columns + w.kernel_columns);
    const auto rows = static_cast<size_t>(dense.interleaved ? w.kernel_rows : 1);
    return (seen * rows * dense.inputs() + SLACK + 63) / 64 * 64;
}

constexpr size_t INTERLEAVED_INPUTS = 8;  // most input channels of an interleaved layer

// One strip of columns [kernel rows][inputs] for an output row: the input columns begin .. end - 1.
inline void interleave(const DenseCall &dense, const uint8_t *x, int32_t output_row, int32_t begin, int32_t end,
                       uint8_t *to) {
    const maqd_tensor &shape = dense.conv.x;
    const maqd_window &w = dense.conv.window;
    const size_t inputs = dense.inputs();
    const auto line = static_cast<size_t>(w.dilation_rows * shape.columns) * inputs;
    const KernelRows rows = kernel_rows(dense.conv, output_row);
    // A piece may be too long: the next one overwrites the excess.
    const auto fill = [&](int32_t count) {
        for (int32_t i = 0; i < count; i++, to += inputs) std::memset(to, shape.zero, INTERLEAVED_INPUTS);
    };
    for (int32_t column = begin; column < end; column++) {
        if (column < 0 || column >= shape.columns || rows.first == rows.last) {
            fill(w.kernel_rows);
            continue;
        }
        fill(rows.first);
        const int32_t row = rows.top + rows.first * w.dilation_rows;
        const uint8_t *from = x + static_cast<size_t>(row * shape.columns + column) * inputs;
        for (int32_t i = rows.first; i < rows.last; i++, from += line, to += inputs)
            std::memcpy(to, from, INTERLEAVED_INPUTS);
        fill(w.kernel_rows - rows.last);
    }
}

constexpr size_t STRIP_ROWS = 4;  // output rows whose strips are made together

// The number of output rows from `part` in one image, at most STRIP_ROWS and `limit`.
inline size_t strip_rows(const DenseCall &dense, size_t part, size_t limit) {
    const auto rows = static_cast<size_t>(dense.conv.rows);
    const size_t left = rows - part % rows, most = left < STRIP_ROWS ? left : STRIP_ROWS;
    return limit < most ? limit : most;
}

// Strips that `count` output rows need: neighbouring rows share some, unless the kernel is dilated.
inline size_t strip_count(const DenseCall &dense, size_t count) {
    const maqd_window &w = dense.conv.window;
    const auto kernel = static_cast<size_t>(w.kernel_rows), stride = static_cast<size_t>(w.stride_rows);
    if (dense.interleaved) return count;
    return w.dilation_rows == 1 && stride < kernel ? kernel + (count - 1) * stride : count * kernel;
}

// The input rows under `count` output rows of one image, padded. That of row i begins strip_step * i later.
inline Left fill_strips(const DenseCall &dense, size_t part, size_t count, uint8_t *strips) {
    const maqd_conv &conv = dense.conv;
    const maqd_window &w = conv.window;
    const auto rows = static_cast<size_t>(conv.rows);
    const size_t size = strip_size(dense), total = strip_count(dense, count);
    const bool shared = w.dilation_rows == 1 && w.stride_rows < w.kernel_rows;
    const int32_t top = static_cast<int32_t>(part % rows) * w.stride_rows - w.padding_rows;
    const int32_t end = (conv.columns - 1) * w.stride_columns - w.padding_columns + w.kernel_columns;
    if (dense.interleaved) {
        for (size_t i = 0; i < count; i++)
            interleave(dense, dense.x + part / rows * dense.image_size, static_cast<int32_t>(part % rows + i),
                       -w.padding_columns, end, strips + i * size);
        return {strips, static_cast<size_t>(w.stride_columns * w.kernel_rows) * dense.inputs(), size};
    }
    for (size_t i = 0; i < total; i++) {
        const auto index = static_cast<int32_t>(i);
        const int32_t row = shared
                                ? top + index
                                : top + index / w.kernel_rows * w.stride_rows + index % w.kernel_rows * w.dilation_rows;
        copy_columns(dense, dense.x + part / rows * dense.image_size, row, -w.padding_columns, end, strips + i * size);
    }
    return {strips, static_cast<size_t>(w.stride_columns) * dense.inputs(), size};
}

inline size_t strip_step(const DenseCall &dense) {
    const maqd_window &w = dense.conv.window;
    if (dense.interleaved) return strip_size(dense);
    const bool shared = w.dilation_rows == 1 && w.stride_rows < w.kernel_rows;
    return static_cast<size_t>(shared ? w.stride_rows : w.kernel_rows) * strip_size(dense);
}

// Bytes of a panel of one part, and of what a last block of up to 4 pixels reads past it; or of strips.
inline size_t left_scratch(const DenseCall &dense) {
    const size_t size =
        dense.strips ? strip_count(dense, STRIP_ROWS) * strip_size(dense) : (dense.part_pixels() + 3) * dense.depth();
    return (size + SLACK + 63) / 64 * 64;
}

}  // namespace
}  // namespace maqd
