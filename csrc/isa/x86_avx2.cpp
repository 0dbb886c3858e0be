// AVX2: Haswell, Zen and later.
#include <immintrin.h>

#include "isa/x86.h"
#include "kernels/dense.h"
#include "kernels/depthwise.h"
#include "kernels/epilogue.h"
#include "kernels/events.h"
#include "kernels/winograd.h"

namespace maqd {

namespace {

// Pairs of products are added in 16 bits; DenseKernel::pair_limit keeps them in range. Several steps are added in 16
// bits where they fit.
struct DenseOps : WholeTiles<DenseOps> {
    static constexpr size_t TILE = 3;
    static constexpr size_t WORTH_SHORT = 8;  // from this many steps that is faster
    using Finisher = PlainFinisher;

    static inline __m256i wide(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

    // 32 outputs are two blocks of 16: four vectors of 8 a pixel.
    static inline void tile(const uint8_t *x, const Left &left, const Right &right, int32_t *acc) {
        for (size_t p = 0; p < TILE; p++) std::memcpy(acc + p * 32, right.start, 32 * sizeof(int32_t));
        const bool together = right.short_steps >= WORTH_SHORT;
        const int8_t *weights = right.first;
        for (int32_t row = 0; row < right.runs; row++, x += left.pitch) {
            const size_t most = together ? 4 * right.short_steps : right.run;
            for (size_t begin = 0; begin < right.run; begin += most) {
                const size_t size = right.run - begin < most ? right.run - begin : most;
                together ? add<true>(x + begin, left.stride, weights, right.pitch, size, acc)
                         : add<false>(x + begin, left.stride, weights, right.pitch, size, acc);
                weights += size * 16;
            }
        }
    }

    // Adds products of `size` inputs to acc[TILE][32]; SHORT if pairs of all of them may be added in 16 bits.
    template <bool SHORT>
    static inline void add(const uint8_t *x, size_t stride, const int8_t *weights, size_t pitch, size_t size,
                           int32_t *acc) {
        __m256i sums[TILE][4];
#pragma GCC unroll 4
        for (size_t p = 0; p < TILE; p++)
#pragma GCC unroll 4
            for (size_t v = 0; v < 4; v++) sums[p][v] = _mm256_setzero_si256();
        const int8_t *other = weights + pitch;
        for (size_t k = 0; k < size; k += 4, weights += 64, other += 64) {
            __m256i inputs[TILE];
#pragma GCC unroll 4
            for (size_t p = 0; p < TILE; p++) {
                int32_t four;
                std::memcpy(&four, x + p * stride + k, 4);
                inputs[p] = _mm256_set1_epi32(four);
            }
#pragma GCC unroll 4
            for (size_t v = 0; v < 4; v++) {
                const __m256i w =
                    _mm256_load_si256(reinterpret_cast<const __m256i *>((v < 2 ? weights : other) + v % 2 * 32));
#pragma GCC unroll 4
                for (size_t p = 0; p < TILE; p++) {
                    const __m256i pairs = _mm256_maddubs_epi16(inputs[p], w);
                    sums[p][v] =
                        SHORT ? _mm256_add_epi16(sums[p][v], pairs) : _mm256_add_epi32(sums[p][v], wide(pairs));
                    asm volatile("" : "+x"(sums[p][v]));  // otherwise compilers make all products first and spill sums
                }
            }
        }
#pragma GCC unroll 4
        for (size_t p = 0; p < TILE; p++)
#pragma GCC unroll 4
            for (size_t v = 0; v < 4; v++) {
                auto *at = reinterpret_cast<__m256i *>(acc + p * 32 + v * 8);
                _mm256_store_si256(at, _mm256_add_epi32(_mm256_load_si256(at), SHORT ? wide(sums[p][v]) : sums[p][v]));
            }
    }
};

// A vector of 128 bits; only the lower 64 where BYTES is 8.
template <size_t SIZE>
struct Half {
    using T = __m128i;
    static constexpr size_t BYTES = SIZE;
    static T load(const uint8_t *p) {
        const auto *from = reinterpret_cast<const __m128i *>(p);
        return SIZE == 8 ? _mm_loadl_epi64(from) : _mm_load_si128(from);
    }
    static void store(uint8_t *p, T v) {
        auto *to = reinterpret_cast<__m128i *>(p);
        SIZE == 8 ? _mm_storel_epi64(to, v) : _mm_store_si128(to, v);
    }
    static T zero() { return _mm_setzero_si128(); }
    static T xor2(T a, T b) { return _mm_xor_si128(a, b); }
    static T and2(T a, T b) { return _mm_and_si128(a, b); }
    static T or2(T a, T b) { return _mm_or_si128(a, b); }
    static T and_not(T a, T b) { return _mm_andnot_si128(b, a); }
    static T xor3(T a, T b, T c) { return xor2(xor2(a, b), c); }
    static T not_xor3(T a, T b, T c) { return xor2(xor3(a, b, c), _mm_set1_epi32(-1)); }
    static T borrow(T a, T b, T c) {  // where b and c differ, not a; else b
        const T differ = xor2(b, c);
        return or2(and_not(differ, a), and2(b, c));
    }
    static T full_add(T &a, T b, T c) {
        const T u = xor2(b, c), v = xor2(a, c);
        a = xor2(v, b);
        return xor2(and2(u, v), c);
    }
};

struct X128 : Half<16> {
    using H = Half<8>;
    static H::T low(T v) { return v; }
    static H::T high(T v) { return _mm_unpackhi_epi64(v, v); }
};

struct X256 {
    using T = __m256i;
    using H = Half<16>;
    static constexpr size_t BYTES = 32;
    static T load(const uint8_t *p) { return _mm256_load_si256(reinterpret_cast<const __m256i *>(p)); }
    static void store(uint8_t *p, T v) { _mm256_store_si256(reinterpret_cast<__m256i *>(p), v); }
    static T zero() { return _mm256_setzero_si256(); }
    static T xor2(T a, T b) { return _mm256_xor_si256(a, b); }
    static T and2(T a, T b) { return _mm256_and_si256(a, b); }
    static T full_add(T &a, T b, T c) {
        const T u = xor2(b, c), v = xor2(a, c);
        a = xor2(v, b);
        return xor2(and2(u, v), c);
    }
    static H::T low(T v) { return _mm256_castsi256_si128(v); }
    static H::T high(T v) { return _mm256_extracti128_si256(v, 1); }
};

struct EventOps : PlainEventOps {
    using Finisher = PlainFinisher;

    static uint32_t *append(const uint8_t *x, size_t channels, int plane, uint32_t step, uint32_t *to) {
        uint32_t base = 0;
        const __m128i up = _mm_cvtsi32_si128(7 - plane);  // the bit becomes the sign of its byte
        for (size_t c = 0; c < channels; c += 32, base += 32 * step) {
            const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(x + c));
            auto set = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(bytes, up)));
            if (channels - c < 32) set &= (1u << (channels - c)) - 1;
            for (; set; set &= set - 1) *to++ = base + static_cast<uint32_t>(__builtin_ctz(set)) * step;
        }
        return to;
    }

    static void shorts(const uint8_t *slices, size_t bytes, int16_t *acc) {
        // In each vector, future lower bytes are on the left and higher ones on the right.
        __m256i x[8];
        for (size_t k = 0; k < 8; k++) {
            const auto *low = reinterpret_cast<const __m128i *>(slices + k * bytes);
            const auto *high = reinterpret_cast<const __m128i *>(slices + (k + 8) * bytes);
            x[k] = bytes == 8 ? _mm256_set_m128i(_mm_loadl_epi64(high), _mm_loadl_epi64(low))
                              : _mm256_set_m128i(_mm_load_si128(high), _mm_load_si128(low));
        }
        // Bytes of 8 slices become qwords, two vectors of which are the bytes 0 .. 3 and so on.
        __m256i pairs[2][4], fours[4][2];
        for (size_t k = 0; k < 4; k++) {
            pairs[0][k] = _mm256_unpacklo_epi8(x[2 * k], x[2 * k + 1]);
            pairs[1][k] = _mm256_unpackhi_epi8(x[2 * k], x[2 * k + 1]);
        }
        for (size_t half = 0; half < 2; half++)
            for (size_t k = 0; k < 2; k++) {
                fours[2 * half][k] = _mm256_unpacklo_epi16(pairs[half][2 * k], pairs[half][2 * k + 1]);
                fours[2 * half + 1][k] = _mm256_unpackhi_epi16(pairs[half][2 * k], pairs[half][2 * k + 1]);
            }
        for (size_t i = 0; i < bytes / 4; i++, acc += 32) {
            store_sixteen(_mm256_unpacklo_epi32(fours[i][0], fours[i][1]), acc);
            store_sixteen(_mm256_unpackhi_epi32(fours[i][0], fours[i][1]), acc + 16);
        }
    }

    // Four matrices of bits: the lower and the higher bytes of twice 8 words.
    static inline void store_sixteen(__m256i x, int16_t *to) {
        const auto swap = [&](long long mask, int by) {
            const __m256i t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, by)), _mm256_set1_epi64x(mask));
            x = _mm256_xor_si256(_mm256_xor_si256(x, t), _mm256_slli_epi64(t, by));
        };
        swap(0x00aa00aa00aa00aa, 7);  // as in PlainEventOps
        swap(0x0000cccc0000cccc, 14);
        swap(0x00000000f0f0f0f0, 28);
        const __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(x));
        const __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(x, 1));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm256_or_si256(low, _mm256_slli_epi16(high, 8)));
    }

    // Spreads 32 bits to 32 bytes of 0 or 255.
    static inline __m256i spread(uint32_t bits) {
        const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
        const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
        const __m256i copies = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), byte);
        return _mm256_cmpeq_epi8(_mm256_and_si256(copies, bit), bit);
    }

    static void store_codes(const uint8_t (*slices)[64], int bits, uint8_t *codes, size_t outputs) {
        for (size_t o = 0; o < outputs; o += 32) {
            __m256i code = _mm256_setzero_si256();
            for (int k = 0; k < bits; k++) {
                uint32_t mask;
                std::memcpy(&mask, slices[k] + o / 8, 4);
                code =
                    _mm256_or_si256(code, _mm256_and_si256(spread(mask), _mm256_set1_epi8(static_cast<char>(1 << k))));
            }
            alignas(32) uint8_t block[32];
            _mm256_store_si256(reinterpret_cast<__m256i *>(block), code);
            std::memcpy(codes + o, block, outputs - o < 32 ? outputs - o : 32);
        }
    }

    static void add_bits(int32_t *acc, const uint8_t *bits, size_t lanes, int32_t weight) {
        const __m256i w = _mm256_set1_epi32(weight), select = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        for (size_t lane = 0; lane < lanes; lane += 8) {
            const __m256i chosen = _mm256_and_si256(_mm256_set1_epi32(bits[lane / 8]), select);
            auto *at = reinterpret_cast<__m256i *>(acc + lane);
            const __m256i mask = _mm256_cmpeq_epi32(chosen, select);
            _mm256_store_si256(at, _mm256_add_epi32(_mm256_load_si256(at), _mm256_and_si256(mask, w)));
        }
    }
};

// Products of single bytes: the other byte of each pair of weights is 0. Sums of even and of odd lanes are apart.
struct DepthwiseOps {
    using Finisher = PlainFinisher;

    template <size_t COUNT>
    static inline void shorts(const uint8_t *x, const size_t *taps, size_t count, size_t step, const int8_t *weights,
                              size_t pitch, int16_t *acc) {
        const __m256i lower = _mm256_set1_epi16(255);
        for (size_t lane = 0; lane < DEPTHWISE_LANES; lane += 32) {
            __m256i even[COUNT], odd[COUNT];
#pragma GCC unroll 6
            for (size_t p = 0; p < COUNT; p++) even[p] = odd[p] = _mm256_setzero_si256();
            for (size_t t = 0; t < count; t++) {
                const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(weights + t * pitch + lane));
                const __m256i w0 = _mm256_and_si256(w, lower), w1 = _mm256_andnot_si256(lower, w);
#pragma GCC unroll 6
                for (size_t p = 0; p < COUNT; p++) {
                    const __m256i inputs =
                        _mm256_loadu_si256(reinterpret_cast<const __m256i *>(x + taps[t] + p * step + lane));
                    even[p] = _mm256_add_epi16(even[p], _mm256_maddubs_epi16(inputs, w0));
                    odd[p] = _mm256_add_epi16(odd[p], _mm256_maddubs_epi16(inputs, w1));
                }
            }
#pragma GCC unroll 6
            for (size_t p = 0; p < COUNT; p++) {
                const __m256i a = _mm256_unpacklo_epi16(even[p], odd[p]), b = _mm256_unpackhi_epi16(even[p], odd[p]);
                auto *to = reinterpret_cast<__m256i *>(acc + p * DEPTHWISE_LANES + lane);
                _mm256_store_si256(to, _mm256_permute2x128_si256(a, b, 0x20));
                _mm256_store_si256(to + 1, _mm256_permute2x128_si256(a, b, 0x31));
            }
        }
    }
};

void events(const EventsCall &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    if (e.vector_bits == 128)
        EventRows<X128, EventOps, EventLists<EventOps>>(e, finish, scratch).run(first, last);
    else
        EventRows<X256, EventOps, EventLists<EventOps>>(e, finish, scratch).run(first, last);
}

Isa make() {
    Isa isa{};
    isa.name = "avx2";
    FILL_SCALAR_KERNELS(isa.scalar, avx2_);
    isa.dense.run = dense_blocks<DenseOps>;
    isa.dense.scratch = dense_block_scratch<DenseOps>;
    isa.dense.align = 4;
    isa.dense.strip_columns = 6;
    isa.dense.pair_limit = INT16_MAX;
    isa.dense.direct = true;
    isa.winograd.run = winograd<BlockWinograd<DenseOps>>;
    isa.winograd.scratch = winograd_scratch<PlainFinisher>;
    isa.winograd.offset = true;
    isa.events.run = events;
    isa.events.scratch = event_scratch<PlainFinisher, EventLists<EventOps>>;
    isa.events.vector_bits = 256;
    isa.events.count_bits = plain_count_bits;
    isa.depthwise.run = depthwise<DepthwiseOps>;
    isa.depthwise.scratch = depthwise_scratch<PlainFinisher>;
    isa.language = avx2_language();
    isa.costs.product = 0.0085;
    isa.costs.combine = 5;
    isa.costs.row = 0.5;
    isa.costs.chunk = 15;
    isa.costs.sums = 0.6;
    isa.costs.look = 15;
    return isa;
}

}  // namespace

const Isa &avx2() {
    static const Isa isa = make();
    return isa;
}

}  // namespace maqd
