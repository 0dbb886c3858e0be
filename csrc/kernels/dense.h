// The dense kernel of instruction sets without matrix tiles: blocks of a few pixels x 32 outputs in registers.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags. `Ops` has
//
//     static constexpr size_t TILE;  // pixels of a block: at most 4, or a divisor of 16
//     static void tile(const uint8_t *x, const Left &, const Right &, int32_t *acc);
//         // acc[TILE][32]; x is the first row of the left matrix
//     static void some(const uint8_t *x, size_t count, const Left &, const Right &, int32_t *acc);
//         // the same for less than TILE pixels; may write acc[TILE][32]
//     static void narrow(const uint8_t *x, const Left &, const Right &, size_t outputs, int32_t *acc);
//         // if the instruction set folds: acc[TILE][outputs], and then up to 16 more
//     class Finisher;  // see epilogue.h
#pragma once

#include "kernels/calls.h"
#include "kernels/epilogue.h"
#include "kernels/panel.h"

namespace maqd {
namespace {

alignas(64) constexpr int32_t NO_START[32] = {};

// Pixels that are finished together: whole blocks.
template <class Ops>
constexpr size_t dense_together() {
    return 64 / Ops::TILE * Ops::TILE;
}

// For instruction sets with small tiles, which do not fold.
template <class Ops>
struct WholeTiles {
    static inline void some(const uint8_t *x, size_t, const Left &left, const Right &right, int32_t *acc) {
        Ops::tile(x, left, right, acc);
    }
    static inline void narrow(const uint8_t *, const Left &, const Right &, size_t, int32_t *) {}
};

template <class Ops>
size_t dense_block_scratch(const DenseCall &dense) {
    return left_scratch(dense) + finishers_size<typename Ops::Finisher>(dense.outputs) +
           (dense_together<Ops>() + Ops::TILE) * 32 * 4;
}

// `count` pixels that follow each other in the left matrix, all outputs of the group.
template <class Ops>
inline void dense_pixels(const DenseCall &d, size_t outputs, const typename Ops::Finisher *finishers, const Left &left,
                         size_t pixel, size_t count, int32_t *acc) {
    constexpr size_t TOGETHER = dense_together<Ops>();
    for (size_t o = 0; o < outputs; o += 32) {
        const Right right{d.weights + o * d.depth(), d.depth() * 16, d.runs(), d.run, d.short_steps, NO_START};
        for (size_t begin = 0; begin < count; begin += TOGETHER) {
            const size_t pixels = count - begin < TOGETHER ? count - begin : TOGETHER;
            for (size_t p = 0; p < pixels; p += Ops::TILE) {
                const uint8_t *x = left.first + (begin + p) * left.stride;
                if (d.fold > 1)
                    Ops::narrow(x, left, right, 32 / d.fold, acc + p * (32 / d.fold));
                else if (pixels - p < Ops::TILE)
                    Ops::some(x, pixels - p, left, right, acc + p * 32);
                else
                    Ops::tile(x, left, right, acc + p * 32);
            }
            finishers[o / 32].block(acc, 32, (pixel + begin) / d.fold, pixels / d.fold);
        }
    }
}

template <class Ops>
void dense_blocks(const DenseCall &d, const Finish &finish, size_t images, size_t first, size_t last,
                  uint8_t *scratch) {
    const auto columns = static_cast<size_t>(d.conv.columns);
    const size_t pixels = images * static_cast<size_t>(d.conv.rows) * columns;
    const size_t outputs = finish.outputs / static_cast<size_t>(d.conv.groups);
    const auto *finishers =
        make_finishers<typename Ops::Finisher>(finish, d.first_output, outputs, scratch + left_scratch(d));
    auto *acc =
        reinterpret_cast<int32_t *>(scratch + left_scratch(d) + finishers_size<typename Ops::Finisher>(d.outputs));
    if (d.direct) {
        // A few pixels at a time, so that they stay in the L1 cache for all outputs.
        constexpr size_t MOST = 256;
        const size_t begin = first * d.part_pixels(),
                     end = last * d.part_pixels() < pixels ? last * d.part_pixels() : pixels;
        for (size_t pixel = begin; pixel < end; pixel += MOST) {
            const size_t count = end - pixel < MOST ? end - pixel : MOST, whole = count / Ops::TILE * Ops::TILE;
            const uint8_t *x = d.x + pixel * d.run;
            if (whole) dense_pixels<Ops>(d, outputs, finishers, Left{x, d.run, 0}, pixel, whole, acc);
            if (whole == count) continue;
            std::memcpy(scratch, x + whole * d.run, (count - whole) * d.run);  // a block would read past the input
            dense_pixels<Ops>(d, outputs, finishers, Left{scratch, d.run, 0}, pixel + whole, count - whole, acc);
        }
        return;
    }
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
