// The dense kernel of instruction sets without matrix tiles: blocks of a few pixels x 32 outputs in registers.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags. `Ops` has
//
//     static constexpr size_t TILE;  // pixels of a block: at most 4, or a divisor of 16
//     static void tile(const uint8_t *x, const Left &, const Right &, int32_t *acc);
//         // acc[TILE][32]; x is the first row of the left matrix
//     class Finisher;  // see finish.h
#pragma once

#include "kernels/epilogue.h"
#include "kernels/table.h"
#include "kernels/panel.h"

namespace maqd {
namespace {

alignas(64) constexpr int32_t NO_START[32] = {};

template <class Ops>
size_t dense_block_scratch(const Dense &dense) {
    return left_scratch(dense) + finishers_size<typename Ops::Finisher>(dense.outputs) + Ops::TILE * 32 * 4;
}

// `count` pixels that follow each other in the left matrix, all outputs of the group.
template <class Ops>
inline void dense_pixels(const Dense &d, size_t outputs, const typename Ops::Finisher *finishers, const Left &left,
                         size_t pixel, size_t count, int32_t *acc) {
    for (size_t o = 0; o < outputs; o += 32) {
        const Right right{d.weights + o * d.depth(), d.depth() * 16, d.runs(), d.run, d.short_steps, NO_START};
        for (size_t p = 0; p < count; p += Ops::TILE) {
            Ops::tile(left.first + p * left.stride, left, right, acc);
            finishers[o / 32].block(acc, 32, pixel + p, count - p < Ops::TILE ? count - p : Ops::TILE);
        }
    }
}

template <class Ops>
void dense_blocks(const Dense &d, const Finish &finish, size_t images, size_t first, size_t last, uint8_t *scratch) {
    const auto columns = static_cast<size_t>(d.conv.columns);
    const size_t pixels = images * static_cast<size_t>(d.conv.rows) * columns;
    const size_t outputs = finish.outputs / static_cast<size_t>(d.conv.groups);
    const auto *finishers =
        make_finishers<typename Ops::Finisher>(finish, d.first_output, outputs, scratch + left_scratch(d));
    auto *acc = reinterpret_cast<int32_t *>(scratch + left_scratch(d) + finishers_size<typename Ops::Finisher>(d.outputs));
    for (size_t part = first; part < last;) {
        if (d.strips) {
            const size_t rows = strip_rows(d, part, last - part);
            Left left = fill_strips(d, part, rows, scratch);
            for (size_t row = 0; row < rows; row++, left.first += strip_step(d))
                dense_pixels<Ops>(d, outputs, finishers, left, (part + row) * columns, columns, acc);
            part += rows;
        } else {
            const size_t pixel = part * d.part_pixels();
            const size_t count = pixels - pixel < d.part_pixels() ? pixels - pixel : d.part_pixels();
            dense_pixels<Ops>(d, outputs, finishers, fill_panel(d, Place::of(d.conv, pixel), count, scratch), pixel,
                              count, acc);
            part++;
        }
    }
}

}  // namespace
}  // namespace maqd
