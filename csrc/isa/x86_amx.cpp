// AMX: the dense kernel on tiles of 16 pixels x 16 outputs x 64 inputs; everything else is AVX-512.
#include <immintrin.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "isa/x86.h"
#include "isa/x86_epilogue.h"
#include "isa/x86_tiles.h"
#include "kernels/panel.h"
#include "kernels/winograd.h"

namespace maqd {

namespace {

constexpr size_t STEP = 64;  // inputs of a tile

constexpr size_t PIXELS = 16;  // of a tile
constexpr size_t BLOCK_STEPS = 12;  // steps whose weights for 32 outputs stay in the L1 cache: 24 KiB

size_t dense_scratch(const DenseCall &dense) {
    const size_t size = left_scratch(dense) + finishers_size<Finisher>(dense.outputs);
    return size + (dense.compact_bits ? 32 * BLOCK_STEPS * STEP + dense.part_pixels() * 32 * 4 : 2 * PIXELS * 32 * 4);
}

// Two tiles of rows of the left matrix, or only the first, x 32 outputs: sums[2][16][32]. SIGNED if the left matrix is.
template <bool SIGNED, bool BOTH>
inline void tiles(const uint8_t *a, const uint8_t *b, const Left &left, const Right &right, int32_t *sums) {
    const int8_t *u = right.first, *v = u + right.pitch;
    const auto stride = static_cast<long>(left.stride);
    _tile_zero(0);
    _tile_zero(1);
    if (BOTH) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int32_t row = 0; row < right.runs; row++, a += left.pitch, b += left.pitch)
        for (size_t k = 0; k < right.run; k += STEP, u += STEP * 16, v += STEP * 16) {
            _tile_loadd(4, a + k, stride);
            _tile_loadd(6, u, 64);
            _tile_loadd(7, v, 64);
            if (SIGNED) {
                _tile_dpbssd(0, 4, 6);
                _tile_dpbssd(1, 4, 7);
            } else {
                _tile_dpbusd(0, 4, 6);
                _tile_dpbusd(1, 4, 7);
            }
            if (BOTH) {
                _tile_loadd(5, b + k, stride);
                if (SIGNED) {
                    _tile_dpbssd(2, 5, 6);
                    _tile_dpbssd(3, 5, 7);
                } else {
                    _tile_dpbusd(2, 5, 6);
                    _tile_dpbusd(3, 5, 7);
                }
            }
        }
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    if (BOTH) {
        _tile_stored(2, sums + PIXELS * 32, 128);
        _tile_stored(3, sums + PIXELS * 32 + 16, 128);
    }
}

// Compact weights of 32 outputs and the inputs begin .. end - 1 as bytes: [2][(end - begin) / 4][16][4].
inline void expand(const DenseCall &d, size_t output, size_t begin, size_t end, uint8_t *to) {
    const int bits = d.compact_bits;
    const auto share = static_cast<size_t>(8 / bits);
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(d.table)));
    const __m512i low = _mm512_set1_epi8(static_cast<char>((1 << bits) - 1));
    for (size_t half = 0; half < 2; half++) {
        const size_t first = (output + half * 16) * d.depth() + begin * 16;
        const uint8_t *from = reinterpret_cast<const uint8_t *>(d.weights) + first / share;
        for (size_t k = begin; k < end; k += 4 * share, from += 64) {
            __m512i indices = _mm512_load_si512(from);
            for (size_t j = 0; j < share; j++, to += 64) {
                _mm512_store_si512(to, _mm512_shuffle_epi8(table, _mm512_and_si512(indices, low)));
                indices = _mm512_srl_epi16(indices, _mm_cvtsi32_si128(bits));
            }
        }
    }
}

// The left matrix for `count` pixels, tile by tile: [count / 16][depth / 64][16][64]. Plain rows would lie on as
// many pages of memory as a tile has rows, more than the L1 TLB holds.
inline void fill_tiles(const DenseCall &d, Place place, size_t count, uint8_t *panel) {
    const maqd_conv &conv = d.conv;
    const maqd_window &w = conv.window;
    const size_t inputs = d.inputs(), depth = d.depth();
    const __m512i zero = _mm512_set1_epi8(static_cast<char>(conv.x.zero));
    for (size_t p = 0; p < count; p++, place.advance(conv)) {
        uint8_t *to = panel + p / PIXELS * PIXELS * depth + p % PIXELS * STEP;
        const uint8_t *x = d.x + place.image * d.image_size;
        for (int32_t i = 0; i < w.kernel_rows; i++) {
            const int32_t row = place.row * w.stride_rows - w.padding_rows + i * w.dilation_rows;
            for (int32_t j = 0; j < w.kernel_columns; j++) {
                const int32_t column = place.column * w.stride_columns - w.padding_columns + j * w.dilation_columns;
                if (row < 0 || row >= conv.x.rows || column < 0 || column >= conv.x.columns) {
                    for (size_t c = 0; c < inputs; c += STEP, to += STEP * PIXELS) _mm512_store_si512(to, zero);
                } else {
                    const uint8_t *from = x + static_cast<size_t>(row * conv.x.columns + column) * inputs;
                    for (size_t c = 0; c < inputs; c += STEP, to += STEP * PIXELS)
                        _mm512_store_si512(to, _mm512_loadu_si512(from + c));
                }
            }
        }
    }
}

// Some pixels of a layer with compact weights, all outputs. The weights of a block of inputs are used for all pixels
// before the next block, so accumulators go through memory between blocks.
void compact_part(const DenseCall &d, size_t outputs, const Finisher *finishers, size_t pixel, size_t count,
                  uint8_t *scratch) {
    const size_t depth = d.depth();
    auto *weights = scratch + left_scratch(d) + finishers_size<Finisher>(d.outputs);
    auto *acc = reinterpret_cast<int32_t *>(weights + 32 * BLOCK_STEPS * STEP);
    fill_tiles(d, Place::of(d.conv, pixel), count, scratch);
    for (size_t o = 0; o < outputs; o += 32) {
        for (size_t begin = 0; begin < depth; begin += BLOCK_STEPS * STEP) {
            const size_t end = begin + BLOCK_STEPS * STEP < depth ? begin + BLOCK_STEPS * STEP : depth;
            expand(d, o, begin, end, weights);
            for (size_t p = 0; p < count; p += 2 * PIXELS) {
                int32_t *sums = acc + p * 32;
                if (begin == 0) {
                    _tile_zero(0);
                    _tile_zero(1);
                    _tile_zero(2);
                    _tile_zero(3);
                } else {
                    _tile_loadd(0, sums, 128);
                    _tile_loadd(1, sums + 16, 128);
                    _tile_loadd(2, sums + PIXELS * 32, 128);
                    _tile_loadd(3, sums + PIXELS * 32 + 16, 128);
                }
                const uint8_t *a = scratch + p * depth + begin * PIXELS, *b = a + PIXELS * depth;
                const uint8_t *u = weights, *v = u + 16 * (end - begin);
                for (size_t k = begin; k < end; k += STEP, a += 1024, b += 1024, u += 1024, v += 1024) {
                    _tile_loadd(4, a, 64);
                    _tile_loadd(6, u, 64);
                    _tile_loadd(7, v, 64);
                    _tile_dpbusd(0, 4, 6);
                    _tile_dpbusd(1, 4, 7);
                    _tile_loadd(5, b, 64);
                    _tile_dpbusd(2, 5, 6);
                    _tile_dpbusd(3, 5, 7);
                }
                _tile_stored(0, sums, 128);
                _tile_stored(1, sums + 16, 128);
                _tile_stored(2, sums + PIXELS * 32, 128);
                _tile_stored(3, sums + PIXELS * 32 + 16, 128);
                if (end == depth)
                    finishers[o / 32].block(sums, 32, pixel + p, count - p < 2 * PIXELS ? count - p : 2 * PIXELS);
            }
        }
    }
}

// Up to 16 neighbouring pixels.
struct Segment {
    const uint8_t *left;
    size_t pixel, count;
};

void dense(const DenseCall &d, const Finish &finish, size_t images, size_t first, size_t last, uint8_t *scratch) {
    const auto columns = static_cast<size_t>(d.conv.columns);
    const size_t outputs = finish.outputs / static_cast<size_t>(d.conv.groups);
    const size_t pixels = images * static_cast<size_t>(d.conv.rows) * columns;
    const Finisher *finishers = make_finishers<Finisher>(finish, d.first_output, outputs, scratch + left_scratch(d));
    configure();
    if (d.compact_bits) {
        for (size_t part = first; part < last; part++) {
            const size_t pixel = part * d.part_pixels();
            compact_part(d, outputs, finishers, pixel,
                         pixels - pixel < d.part_pixels() ? pixels - pixel : d.part_pixels(), scratch);
        }
        _tile_release();
        return;
    }
    auto *const sums = reinterpret_cast<int32_t *>(scratch + left_scratch(d) + finishers_size<Finisher>(d.outputs));
    const auto right = [&](size_t o) {
        return Right{d.weights + o * d.depth(), d.depth() * 16, d.runs(), d.run, 0, nullptr};
    };
    // One or two segments, 32 outputs.
    const auto product = [&](const Left &l, const Right &r, const Finisher &f, const Segment &a, const Segment &b) {
        if (b.count)
            tiles<false, true>(a.left, b.left, l, r, sums);
        else
            tiles<false, false>(a.left, a.left, l, r, sums);
        const bool together = a.count == PIXELS && b.pixel == a.pixel + PIXELS;
        f.block(sums, 32, a.pixel, together ? a.count + b.count : a.count);
        if (b.count && !together) f.block(sums + PIXELS * 32, 32, b.pixel, b.count);
    };
    if (d.direct) {
        // A few pixels at a time, so that they stay in the L1 cache for all outputs.
        constexpr size_t MOST = 256;
        const size_t begin = first * d.part_pixels(),
                     end = last * d.part_pixels() < pixels ? last * d.part_pixels() : pixels;
        for (size_t pixel = begin; pixel < end; pixel += MOST) {
            const size_t count = end - pixel < MOST ? end - pixel : MOST, whole = count / PIXELS * PIXELS;
            const uint8_t *x = d.x + pixel * d.run;
            std::memcpy(scratch, x + whole * d.run, (count - whole) * d.run);  // a tile would read past the input
            const auto segment = [&](size_t i) {
                return i < whole ? Segment{x + i * d.run, pixel + i, PIXELS}
                                 : Segment{scratch, pixel + whole, count > i ? count - whole : 0};
            };
            for (size_t o = 0; o < outputs; o += 32)
                for (size_t i = 0; i < count; i += 2 * PIXELS)
                    product(Left{x, d.run, 0}, right(o), finishers[o / 32], segment(i), segment(i + PIXELS));
        }
        _tile_release();
        return;
    }
    for (size_t part = first; part < last;) {
        if (!d.strips) {
            const size_t pixel = part * d.part_pixels();
            const size_t count = pixels - pixel < d.part_pixels() ? pixels - pixel : d.part_pixels();
            const Left left = fill_panel(d, Place::of(d.conv, pixel), count, scratch);
            const Segment a{left.first, pixel, count < PIXELS ? count : PIXELS};
            const Segment b{left.first + PIXELS * left.stride, pixel + PIXELS, count - a.count};
            for (size_t o = 0; o < outputs; o += 32) product(left, right(o), finishers[o / 32], a, b);
            part++;
            continue;
        }
        // Several rows at a time: weights in the L1 cache are used for several tiles.
        const size_t rows = strip_rows(d, part, last - part), across = (columns + PIXELS - 1) / PIXELS;
        const Left left = fill_strips(d, part, rows, scratch);
        const size_t step = strip_step(d);
        const auto segment = [&](size_t i) {
            const size_t row = i / across, column = i % across * PIXELS;
            return Segment{left.first + row * step + column * left.stride, (part + row) * columns + column,
                           columns - column < PIXELS ? columns - column : PIXELS};
        };
        for (size_t o = 0; o < outputs; o += 32) {
            const Right r = right(o);
            for (size_t i = 0; i < rows * across; i += 2)
                product(left, r, finishers[o / 32], segment(i), i + 1 < rows * across ? segment(i + 1) : Segment{});
        }
        part += rows;
    }
    _tile_release();
}

// ---- Winograd -----------------------------------------------------------------------------------------------------

struct WinogradOps {
    using Finisher = maqd::Finisher;

    static inline void products(const uint8_t *v, size_t count, const Left &left, const Right &right, int32_t *m) {
        if (count > PIXELS)
            tiles<true, true>(v, v + PIXELS * left.stride, left, right, m);
        else
            tiles<true, false>(v, v, left, right, m);
    }

    static void expand(const WinogradCall &w, size_t output, int8_t *u) {
        w.compact_bits == 2 ? expand<2>(w, output, u) : expand<4>(w, output, u);
    }

    template <int BITS>
    static inline void expand(const WinogradCall &w, size_t output, int8_t *u) {
        constexpr size_t SHARE = 8 / BITS;
        const size_t depth = w.depth(), column = w.run / SHARE * 16;  // bytes of a kernel column of 16 outputs
        const uint8_t *from = reinterpret_cast<const uint8_t *>(w.weights) + output * 3 * depth / SHARE;
        const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w.table)));
        const __m512i low = _mm512_set1_epi8((1 << BITS) - 1);
        const auto plus = [](__m512i a, __m512i b) { return _mm512_add_epi8(a, b); };
        for (size_t rows = 0; rows < 2 * static_cast<size_t>(w.runs()); rows++, from += 3 * column)
            for (size_t k = 0; k < column; k += 64) {
                const __m512i indices0 = _mm512_load_si512(from + k), indices1 = _mm512_load_si512(from + column + k);
                const __m512i indices2 = _mm512_load_si512(from + 2 * column + k);
#pragma GCC unroll 4
                for (size_t i = 0; i < SHARE; i++, u += 64) {
                    const auto code = [&](__m512i indices) {
                        return _mm512_shuffle_epi8(
                            table, _mm512_and_si512(_mm512_srli_epi16(indices, static_cast<unsigned>(i) * BITS), low));
                    };
                    const auto put = [&](size_t t, __m512i v) { _mm512_store_si512(u + t * 32 * depth, v); };
                    const __m512i g0 = code(indices0), g1 = code(indices1), g2 = code(indices2);
                    const __m512i outer = plus(g0, g2), twice0 = plus(g0, g0), twice1 = plus(g1, g1),
                                  twice2 = plus(g2, g2);
                    const __m512i four2 = plus(twice2, twice2), even = plus(g0, four2);
                    put(0, plus(plus(twice0, twice0), twice0));
                    put(1, _mm512_sub_epi8(_mm512_setzero_si512(), plus(outer, g1)));
                    put(2, _mm512_sub_epi8(g1, outer));
                    put(3, plus(even, twice1));
                    put(4, _mm512_sub_epi8(even, twice1));
                    put(5, plus(four2, twice2));
                }
            }
    }
};

void winograd_tiles(const WinogradCall &w, const Finish &finish, size_t images, size_t first, size_t last,
                    uint8_t *scratch) {
    configure();
    winograd<WinogradOps>(w, finish, images, first, last, scratch);
    _tile_release();
}

Isa make() {
    Isa isa = avx512();
    isa.vectors = &avx512();
    isa.name = "amx";
    isa.dense.run = dense;
    isa.dense.scratch = dense_scratch;
    isa.dense.align = STEP;
    isa.dense.compact = true;
    isa.dense.strip_columns = 12;
    isa.dense.direct = true;
    isa.dense.fold = false;
    isa.winograd.run = winograd_tiles;
    isa.winograd.scratch = winograd_scratch<Finisher>;
    isa.language = amx_language();
    isa.winograd.offset = false;  // tiles multiply int8 by int8
    isa.costs.product = 0.0005;
    isa.costs.finish = 0.12;
    isa.costs.combine = 1.5;
    return isa;
}

}  // namespace

const Isa &amx() {
    static const Isa isa = make();
    return isa;
}

}  // namespace maqd
