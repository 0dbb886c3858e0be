// Winograd's minimal filtering F(4, 3) along the rows of a convolution with three kernel columns and stride 1.
//
// Six products give four neighbouring outputs, where each of them takes three otherwise (Lavin and Gray 2016, from
// Winograd 1980). Inputs and weights are transformed to six planes each, and with the few states that networks have
// here those still fit 8 bits; the division that makes outputs of products has no remainder. So the result is the same
// integer. Input columns d0 .. d5, weights g0 .. g2, products m = sum over kernel rows and channels of v * u:
//
//     v0 = 4 d0 - 5 d2 + d4                u0 = 6 g0                24 y0 = m0 + 4 (m1 + m2) + (m3 + m4)
//     v1 = -4 (d1 + d2) + (d3 + d4)        u1 = -(g0 + g1 + g2)     12 y1 = 2 (m1 - m2) + (m3 - m4)
//     v2 = 4 (d1 - d2) + (d4 - d3)         u2 = -(g0 - g1 + g2)      6 y2 = (m1 + m2) + (m3 + m4)
//     v3 = 2 (d3 - d1) + (d4 - d2)         u3 = g0 + 2 g1 + 4 g2     6 y3 = (m1 - m2) + 2 (m3 - m4) + m5
//     v4 = -2 (d3 - d1) + (d4 - d2)        u4 = g0 - 2 g1 + 4 g2
//     v5 = 4 d1 - 5 d3 + d5                u5 = 6 g2
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags. `Ops` has
//
//     class Finisher;  // see epilogue.h
//     static void products(const uint8_t *v, size_t count, const Left &, const Right &, int32_t *m);
//         // of `count` quads, at most STRIP: m[count][32]; may write up to 3 rows more
//     static void expand(const WinogradCall &, size_t output, int8_t *u);  // of 32 outputs, if weights may be compact
#pragma once

#include <cstring>

#include "kernels/calls.h"
#include "kernels/epilogue.h"
#include "kernels/panel.h"

namespace maqd {
namespace {

constexpr size_t STRIP = 32;  // quads that are multiplied together
constexpr size_t PIECE = 64;  // channels that are transformed together

// What is computed together: some output rows of some images. The transformed inputs are
// [6][input rows][images][quads of a row][channels, padded to a multiple of PIECE].
struct WinogradPart {
    size_t image, images;
    size_t row, rows;
    size_t quads;  // of a row
    size_t channels;
    size_t input_rows;

    size_t plane() const { return input_rows * images * quads * channels + 3 * PIECE; }  // see PLANE
};

inline WinogradPart winograd_part(const WinogradCall &w, size_t images, size_t part) {
    const auto height = static_cast<size_t>(w.conv.rows);
    const size_t across = (height + w.part_rows - 1) / w.part_rows;
    WinogradPart p{};
    p.image = part / across * w.part_images;
    p.images = images - p.image < w.part_images ? images - p.image : w.part_images;
    p.row = part % across * w.part_rows;
    p.rows = height - p.row < w.part_rows ? height - p.row : w.part_rows;
    p.quads = w.quads();
    p.channels = (w.inputs() + PIECE - 1) / PIECE * PIECE;
    p.input_rows = p.rows + static_cast<size_t>((w.conv.window.kernel_rows - 1) * w.conv.window.dilation_rows);
    return p;
}

// For the largest part, with what a last block reads past its planes.
inline size_t winograd_planes(const WinogradCall &w) {
    const WinogradPart p = winograd_part(w, w.part_images, 0);
    return 6 * p.plane() + BLOCK * p.channels;
}

template <class Finisher>
inline size_t winograd_scratch(const WinogradCall &w) {
    return winograd_planes(w) + finishers_size<Finisher>(static_cast<size_t>(w.conv.outputs)) +
           (w.compact_bits ? 6 * 32 * w.depth() : 0) + 6 * PLANE * 32 * sizeof(int32_t);
}

// Kernel rows.
struct Runs {
    int32_t first, last;
};

// Those that lie inside the input for any of the quads first .. last of a part.
inline Runs seen_runs(const WinogradCall &w, const WinogradPart &p, size_t first, size_t last) {
    const maqd_window &window = w.conv.window;
    const size_t width = p.images * p.quads;
    const int32_t top = static_cast<int32_t>(p.row + first / width) - window.padding_rows;
    const int32_t bottom = static_cast<int32_t>(p.row + last / width) - window.padding_rows;
    Runs seen{0, w.runs()};
    while (seen.first < seen.last && bottom + seen.first * window.dilation_rows < 0) seen.first++;
    while (seen.first < seen.last && top + (seen.last - 1) * window.dilation_rows >= w.conv.x.rows) seen.last--;
    return seen;
}

// One input row, which may be outside.
inline void transform_row(const WinogradCall &w, const WinogradPart &p, const uint8_t *x, int32_t row, uint8_t *to) {
    typedef uint8_t Bytes __attribute__((vector_size(PIECE)));
    const size_t plane = p.plane(), inputs = w.inputs();
    const Bytes offset = Bytes{} + w.offset;
    if (row < 0 || row >= w.conv.x.rows) {
        for (size_t t = 0; t < 6; t++) std::memset(to + t * plane, w.offset, p.quads * p.channels);
        return;
    }
    x += static_cast<size_t>(row) * static_cast<size_t>(w.conv.x.columns) * inputs;
    const int32_t columns = w.conv.x.columns, padding = w.conv.window.padding_columns;
    for (size_t c = 0; c < inputs; c += PIECE)
        for (size_t q = 0; q < p.quads; q++) {
            const int32_t first = static_cast<int32_t>(q * QUAD) - padding;
            Bytes d[6];
#pragma GCC unroll 6
            for (int32_t i = 0; i < 6; i++) {
                const int32_t column = first + i;
                if (column < 0 || column >= columns)
                    d[i] = Bytes{};
                else
                    std::memcpy(&d[i], x + static_cast<size_t>(column) * inputs + c, PIECE);
            }
            // Sums only: processors neither shift nor multiply bytes.
            const Bytes s = d[4] - d[2], r = d[3] - d[1] + d[3] - d[1];
            Bytes v[6] = {d[0] - d[2], d[1] + d[2], d[1] - d[2], s + r, s - r, d[5] - d[3] - r - r};
            v[0] += v[0];
            v[1] += v[1];
            v[2] += v[2];
            v[0] += v[0] + s;
            v[1] = d[3] + d[4] - v[1] - v[1];
            v[2] += v[2] + d[4] - d[3];
#pragma GCC unroll 6
            for (size_t t = 0; t < 6; t++) {
                v[t] += offset;
                std::memcpy(to + t * plane + q * p.channels + c, &v[t], PIECE);
            }
        }
}

// Where the outputs of `count` quads of a part are.
inline void place_quads(const WinogradCall &w, const WinogradPart &p, size_t first, size_t count, Quad *quads) {
    const auto columns = static_cast<size_t>(w.conv.columns), height = static_cast<size_t>(w.conv.rows);
    size_t row = first / p.quads, q = first % p.quads;
    for (size_t i = 0; i < count; i++) {
        const size_t image = p.image + row % p.images, y = p.row + row / p.images, column = q * QUAD;
        quads[i] = {(image * height + y) * columns + column, columns - column < QUAD ? columns - column : QUAD};
        if (++q == p.quads) {
            q = 0;
            row++;
        }
    }
}

template <class Ops>
void winograd(const WinogradCall &w, const Finish &finish, size_t images, size_t first, size_t last, uint8_t *scratch) {
    uint8_t *const planes = scratch;
    using Finisher = typename Ops::Finisher;
    const Finisher *finishers = make_finishers<Finisher>(finish, 0, finish.outputs, planes + winograd_planes(w));
    auto *const expanded =
        reinterpret_cast<int8_t *>(planes + winograd_planes(w) + finishers_size<Finisher>(finish.outputs));
    auto *const m = reinterpret_cast<int32_t *>(expanded + (w.compact_bits ? 6 * 32 * w.depth() : 0));
    for (size_t part = first; part < last; part++) {
        const WinogradPart p = winograd_part(w, images, part);
        const size_t row_size = p.quads * p.channels;
        for (size_t i = 0; i < p.input_rows; i++) {
            const int32_t row = static_cast<int32_t>(p.row + i) - w.conv.window.padding_rows;
            for (size_t n = 0; n < p.images; n++)
                transform_row(w, p, w.x + (p.image + n) * w.image_size, row, planes + (i * p.images + n) * row_size);
        }
        const size_t total = p.rows * p.images * p.quads;
        const Left left{nullptr, p.channels, static_cast<size_t>(w.conv.window.dilation_rows) * p.images * row_size};
        for (size_t o = 0; o < finish.outputs; o += 32) {
            const int8_t *u = w.weights + o * 6 * w.depth();
            if (w.compact_bits) {
                Ops::expand(w, o, expanded);
                u = expanded;
            }
            for (size_t begin = 0; begin < total; begin += BLOCK) {
                const size_t count = total - begin < BLOCK ? total - begin : BLOCK;
                // Without an offset of transformed inputs, kernel rows on padding only can be left out.
                Runs seen[BLOCK / STRIP];
                for (size_t q = 0; q < count; q += STRIP) {
                    const size_t end = begin + (count - q < STRIP ? count : q + STRIP);
                    seen[q / STRIP] = w.offset ? Runs{0, w.runs()} : seen_runs(w, p, begin + q, end - 1);
                }
                for (size_t t = 0; t < 6; t++) {
                    const uint8_t *v = planes + t * p.plane() + begin * p.channels;
                    for (size_t q = 0; q < count; q += STRIP, v += STRIP * p.channels) {
                        const auto skipped = static_cast<size_t>(seen[q / STRIP].first);
                        const Right right{u + t * 32 * w.depth() + skipped * w.run * 16,
                                          w.depth() * 16,
                                          seen[q / STRIP].last - seen[q / STRIP].first,
                                          w.run,
                                          w.short_steps,
                                          w.start + (o / 32 * 6 + t) * 32};
                        Ops::products(v + skipped * left.pitch, count - q < STRIP ? count - q : STRIP, left, right,
                                      m + (t * PLANE + q) * 32);
                    }
                }
                Quad quads[BLOCK];
                place_quads(w, p, begin, count, quads);
                finishers[o / 32].quads(m, quads, count);
            }
        }
    }
}

// What instruction sets without matrix tiles need, from the Ops of their dense kernel.
template <class DenseOps>
struct BlockWinograd {
    using Finisher = typename DenseOps::Finisher;
    static inline void products(const uint8_t *v, size_t count, const Left &left, const Right &right, int32_t *m) {
        for (size_t q = 0; q < count; q += DenseOps::TILE) DenseOps::tile(v + q * left.stride, left, right, m + q * 32);
    }
    static void expand(const WinogradCall &, size_t, int8_t *) {}  // has no compact weights
};

}  // namespace
}  // namespace maqd
