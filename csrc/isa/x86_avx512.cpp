// AVX-512 with VNNI, VBMI, VBMI2, BITALG, VPOPCNTDQ and GFNI: Ice Lake, Sapphire Rapids, Zen 4 and later.
#include "isa/x86.h"

#include <immintrin.h>

#include "isa/x86_epilogue.h"
#include "isa/x86_lists.h"
#include "kernels/dense.h"
#include "kernels/depthwise.h"
#include "kernels/events.h"
#include "kernels/panel.h"
#include "kernels/winograd.h"

namespace maqd {

namespace {

// ---- dense ----------------------------------------------------------------------------------------------------------

struct DenseOps {
    static constexpr size_t TILE = 8;

    static inline void tile(const uint8_t *x, const Left &left, const Right &right, int32_t *acc) {
        pixels<TILE, 2>(x, left, right, acc, 32);
    }

    // The last pixels of a row.
    static inline void some(const uint8_t *x, size_t count, const Left &left, const Right &right, int32_t *acc) {
        switch ((count + 1) / 2) {
            case 1: pixels<2, 2>(x, left, right, acc, 32); break;
            case 2: pixels<4, 2>(x, left, right, acc, 32); break;
            case 3: pixels<6, 2>(x, left, right, acc, 32); break;
            default: pixels<8, 2>(x, left, right, acc, 32);
        }
    }

    static inline void narrow(const uint8_t *x, const Left &left, const Right &right, size_t outputs, int32_t *acc) {
        pixels<TILE, 1>(x, left, right, acc, outputs);
    }

  private:
    // Sums of COUNT pixels and HALVES x 16 outputs. Pixels begin `pitch` entries apart, and the last may write past it.
    template <size_t COUNT, size_t HALVES>
    static inline void pixels(const uint8_t *x, const Left &left, const Right &right, int32_t *acc, size_t pitch) {
        __m512i sums[COUNT][HALVES];
#pragma GCC unroll 8
        for (size_t p = 0; p < COUNT; p++)
#pragma GCC unroll 2
            for (size_t h = 0; h < HALVES; h++) sums[p][h] = _mm512_loadu_si512(right.start + 16 * h);
        const int8_t *weights = right.first, *other = weights + (HALVES - 1) * right.pitch;
        for (int32_t row = 0; row < right.runs; row++, x += left.pitch)
            for (size_t k = 0; k < right.run; k += 4, weights += 64, other += 64) {
                const __m512i w0 = _mm512_load_si512(weights), w1 = _mm512_load_si512(other);
#pragma GCC unroll 8
                for (size_t p = 0; p < COUNT; p++) {
                    int32_t four;
                    std::memcpy(&four, x + p * left.stride + k, 4);
                    const __m512i inputs = _mm512_set1_epi32(four);
                    sums[p][0] = _mm512_dpbusd_epi32(sums[p][0], inputs, w0);
                    if (HALVES == 2) sums[p][HALVES - 1] = _mm512_dpbusd_epi32(sums[p][HALVES - 1], inputs, w1);
                }
            }
#pragma GCC unroll 8
        for (size_t p = 0; p < COUNT; p++)
#pragma GCC unroll 2
            for (size_t h = 0; h < HALVES; h++) _mm512_storeu_si512(acc + p * pitch + 16 * h, sums[p][h]);
    }

  public:
    using Finisher = maqd::Finisher;
};

// ---- depthwise ------------------------------------------------------------------------------------------------------

// Products of single bytes: the other byte of each pair of weights is 0. Sums of even and of odd lanes are apart.
struct DepthwiseOps {
    using Finisher = maqd::Finisher;

    template <size_t COUNT>
    static inline void shorts(const uint8_t *x, const size_t *taps, size_t count, size_t step, const int8_t *weights,
                              size_t pitch, int16_t *acc) {
        __m512i even[COUNT], odd[COUNT];
#pragma GCC unroll 6
        for (size_t p = 0; p < COUNT; p++) even[p] = odd[p] = _mm512_setzero_si512();
        for (size_t t = 0; t < count; t++, weights += pitch) {
            const __m512i w = _mm512_loadu_si512(weights), lower = _mm512_set1_epi16(255);
            const __m512i w0 = _mm512_and_si512(w, lower), w1 = _mm512_andnot_si512(lower, w);
#pragma GCC unroll 6
            for (size_t p = 0; p < COUNT; p++) {
                const __m512i inputs = _mm512_loadu_si512(x + taps[t] + p * step);
                even[p] = _mm512_add_epi16(even[p], _mm512_maddubs_epi16(inputs, w0));
                odd[p] = _mm512_add_epi16(odd[p], _mm512_maddubs_epi16(inputs, w1));
            }
        }
        const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
                                               6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
        const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
#pragma GCC unroll 6
        for (size_t p = 0; p < COUNT; p++) {
            _mm512_store_si512(acc + p * DEPTHWISE_LANES, _mm512_permutex2var_epi16(even[p], first, odd[p]));
            _mm512_store_si512(acc + p * DEPTHWISE_LANES + 32, _mm512_permutex2var_epi16(even[p], second, odd[p]));
        }
    }
};

// ---- events ---------------------------------------------------------------------------------------------------------

constexpr int f_xor3(int a, int b, int c) { return a ^ b ^ c; }
constexpr int f_majority(int a, int b, int c) { return (a & b) | (a & c) | (b & c); }
constexpr int f_borrow(int a, int b, int c) { return ((1 - a) & (b | c)) | (b & c); }
constexpr int f_carry(int b, int sum, int c) { return f_majority(sum ^ b ^ c, b, c); }
constexpr int truth_table(int (*f)(int, int, int)) {
    int table = 0;
    for (int i = 0; i < 8; i++) table |= f(i >> 2 & 1, i >> 1 & 1, i & 1) << i;
    return table;
}
constexpr int XOR3 = truth_table(f_xor3), CARRY = truth_table(f_carry), BORROW = truth_table(f_borrow);

// Vectors of 64, 128 and 256 bits as halves, of 128, 256 and 512 bits as rows.
struct X64 {
    using T = __m128i;
    static constexpr size_t BYTES = 8;
    static T load(const uint8_t *p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)); }
    static void store(uint8_t *p, T v) { _mm_storel_epi64(reinterpret_cast<__m128i *>(p), v); }
    static T zero() { return _mm_setzero_si128(); }
    static T xor2(T a, T b) { return _mm_xor_si128(a, b); }
    static T and2(T a, T b) { return _mm_and_si128(a, b); }
    static T or2(T a, T b) { return _mm_or_si128(a, b); }
    static T and_not(T a, T b) { return _mm_andnot_si128(b, a); }
    static T xor3(T a, T b, T c) { return _mm_ternarylogic_epi64(a, b, c, XOR3); }
    static T not_xor3(T a, T b, T c) { return _mm_ternarylogic_epi64(a, b, c, 255 ^ XOR3); }
    static T full_add(T &a, T b, T c) {
        a = _mm_ternarylogic_epi64(a, b, c, XOR3);
        return _mm_ternarylogic_epi64(b, a, c, CARRY);  // needs no copy of a
    }
    static T borrow(T a, T b, T c) { return _mm_ternarylogic_epi64(a, b, c, BORROW); }
};

struct X128 : X64 {
    using H = X64;
    static constexpr size_t BYTES = 16;
    static T load(const uint8_t *p) { return _mm_load_si128(reinterpret_cast<const __m128i *>(p)); }
    static void store(uint8_t *p, T v) { _mm_store_si128(reinterpret_cast<__m128i *>(p), v); }
    static H::T low(T v) { return v; }
    static H::T high(T v) { return _mm_unpackhi_epi64(v, v); }
};

struct X256 {
    using T = __m256i;
    using H = X128;
    static constexpr size_t BYTES = 32;
    static T load(const uint8_t *p) { return _mm256_load_si256(reinterpret_cast<const __m256i *>(p)); }
    static void store(uint8_t *p, T v) { _mm256_store_si256(reinterpret_cast<__m256i *>(p), v); }
    static T zero() { return _mm256_setzero_si256(); }
    static T xor2(T a, T b) { return _mm256_xor_si256(a, b); }
    static T and2(T a, T b) { return _mm256_and_si256(a, b); }
    static T or2(T a, T b) { return _mm256_or_si256(a, b); }
    static T and_not(T a, T b) { return _mm256_andnot_si256(b, a); }
    static T xor3(T a, T b, T c) { return _mm256_ternarylogic_epi64(a, b, c, XOR3); }
    static T not_xor3(T a, T b, T c) { return _mm256_ternarylogic_epi64(a, b, c, 255 ^ XOR3); }
    static T full_add(T &a, T b, T c) {
        a = _mm256_ternarylogic_epi64(a, b, c, XOR3);
        return _mm256_ternarylogic_epi64(b, a, c, CARRY);  // needs no copy of a
    }
    static T borrow(T a, T b, T c) { return _mm256_ternarylogic_epi64(a, b, c, BORROW); }
    static H::T low(T v) { return _mm256_castsi256_si128(v); }
    static H::T high(T v) { return _mm256_extracti128_si256(v, 1); }
};

struct X512 {
    using T = __m512i;
    using H = X256;
    static constexpr size_t BYTES = 64;
    static T load(const uint8_t *p) { return _mm512_load_si512(p); }
    static void store(uint8_t *p, T v) { _mm512_store_si512(p, v); }
    static T zero() { return _mm512_setzero_si512(); }
    static T xor2(T a, T b) { return _mm512_xor_si512(a, b); }
    static T and2(T a, T b) { return _mm512_and_si512(a, b); }
    static T full_add(T &a, T b, T c) {
        a = _mm512_ternarylogic_epi64(a, b, c, XOR3);
        return _mm512_ternarylogic_epi64(b, a, c, CARRY);  // needs no copy of a
    }
    static H::T low(T v) { return _mm512_castsi512_si256(v); }
    static H::T high(T v) { return _mm512_extracti64x4_epi64(v, 1); }
};

// Eight slices of 64 bits, one a qword, become 64 bytes, bit k of which is from slice k. They are in the order that
// unpacking with other bytes turns into two vectors of 32 words in order.
inline __m512i bytes_of_slices(__m512i slices) {
    const __m512i order = _mm512_set_epi8(
        // of bytes [slice][group of 8 bits] to [0, 4, 1, 5, 2, 6, 3, 7][7 - slice]
        7, 15, 23, 31, 39, 47, 55, 63, 3, 11, 19, 27, 35, 43, 51, 59, 6, 14, 22, 30, 38, 46, 54, 62, 2, 10, 18, 26, 34,
        42, 50, 58, 5, 13, 21, 29, 37, 45, 53, 61, 1, 9, 17, 25, 33, 41, 49, 57, 4, 12, 20, 28, 36, 44, 52, 60, 0, 8,
        16, 24, 32, 40, 48, 56);
    // A product of bit matrices, each 8 x 8, with the unit matrix: it transposes them.
    return _mm512_gf2p8affine_epi64_epi8(_mm512_set1_epi64(static_cast<long long>(0x8040201008040201ull)),
                                         _mm512_permutexvar_epi8(order, slices), 0);
}

inline void store_words(__m512i low, __m512i high, int16_t *to) {
    const __m512i a = bytes_of_slices(low), b = bytes_of_slices(high);
    _mm512_store_si512(to, _mm512_unpacklo_epi8(a, b));
    _mm512_store_si512(to + 32, _mm512_unpackhi_epi8(a, b));
}

struct EventOps {
    using Finisher = maqd::Finisher;

    static void shorts(const uint8_t *slices, size_t bytes, int16_t *acc) {
        const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
        for (size_t byte = 0; byte < bytes; byte += 8, acc += 64) {
            const auto eight = [&](const uint8_t *from) {
                if (bytes == 8) return _mm512_loadu_si512(from);
                const __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
                const auto at = static_cast<long long>(byte / 8);
                if (bytes == 16)
                    return _mm512_permutex2var_epi64(
                        a, _mm512_add_epi64(_mm512_add_epi64(lanes, lanes), _mm512_set1_epi64(at)), b);
                const __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
                const __m512i every = _mm512_add_epi64(_mm512_slli_epi64(lanes, 2), _mm512_set1_epi64(at));
                return _mm512_inserti64x4(_mm512_permutex2var_epi64(a, every, b),
                                          _mm512_castsi512_si256(_mm512_permutex2var_epi64(c, every, d)), 1);
            };
            store_words(eight(slices), eight(slices + 8 * bytes), acc);
        }
    }

    static void store_codes(const uint8_t (*slices)[64], int bits, uint8_t *codes, size_t outputs) {
        for (size_t o = 0; o < outputs; o += 64) {
            __m512i code = _mm512_setzero_si512();
            for (int k = 0; k < bits; k++) {
                uint64_t mask;
                std::memcpy(&mask, slices[k] + o / 8, 8);
                code = _mm512_mask_add_epi8(code, mask, code, _mm512_set1_epi8(static_cast<char>(1 << k)));
            }
            const __mmask64 here = outputs - o >= 64 ? ~__mmask64{0} : (__mmask64{1} << (outputs - o)) - 1;
            _mm512_mask_storeu_epi8(codes + o, here, code);
        }
    }

    static void add_bits(int32_t *acc, const uint8_t *bits, size_t lanes, int32_t weight) {
        const __m512i w = _mm512_set1_epi32(weight);
        for (size_t lane = 0; lane < lanes; lane += 16) {
            uint16_t mask;
            std::memcpy(&mask, bits + lane / 8, 2);
            const __m512i old = _mm512_load_si512(acc + lane);
            _mm512_store_si512(acc + lane, _mm512_mask_add_epi32(old, mask, old, w));
        }
    }
};

// ---- sweeps ---------------------------------------------------------------------------------------------------------

// Four output columns at once: the lower 64 bits of each 128 are in use; thresholds are the same for all of them.
struct X4x64 {
    using T = __m512i;
    static constexpr size_t BYTES = 8;
    static T load(const uint8_t *p) {
        long long plane;
        std::memcpy(&plane, p, 8);
        return _mm512_set1_epi64(plane);
    }
    static T zero() { return _mm512_setzero_si512(); }
    static T or2(T a, T b) { return _mm512_or_si512(a, b); }
    static T and_not(T a, T b) { return _mm512_andnot_si512(b, a); }
    static T not_xor3(T a, T b, T c) { return _mm512_ternarylogic_epi64(a, b, c, 255 ^ XOR3); }
    static T borrow(T a, T b, T c) { return _mm512_ternarylogic_epi64(a, b, c, BORROW); }
};

// The rows that each input column of one output row fetches. ConvStep makes sure that entries fit.
using SweepLists = LookupLists<uint16_t, true>;

inline EventOffsets sweep_offsets(const EventsCall &e) {
    return {e.row_bytes, 0, static_cast<size_t>(e.conv.x.channels) * e.row_bytes};
}

constexpr size_t FOURS = 8;  // this many times four output columns are finished together

// The sums of four output columns, [PLANES][SLICES], in two's complement. A sum of 64 outputs is in the lower half of
// each 128 bits.
template <int PLANES, int SLICES>
struct Difference {
    static constexpr int BITS = PLANES == 1 ? SLICES : SLICES + 2;
    __m512i slices[BITS + 1];

    inline explicit Difference(const __m512i (&counts)[PLANES][SLICES]) {
        __m512i borrow = _mm512_setzero_si512(), carry = borrow;
#pragma GCC unroll 32
        for (int k = 0; k < BITS; k++) {
            __m512i sum = k < SLICES ? counts[0][k] : _mm512_setzero_si512();
            if (PLANES == 2) {  // the second plane has twice the weight
                const __m512i twice = k > 0 && k <= SLICES ? counts[PLANES - 1][k - 1] : _mm512_setzero_si512();
                carry = X512::full_add(sum, twice, carry);
            }
            const __m512i minus = _mm512_unpackhi_epi64(sum, sum);
            slices[k] = _mm512_ternarylogic_epi64(sum, minus, borrow, XOR3);
            borrow = _mm512_ternarylogic_epi64(sum, minus, borrow, BORROW);
        }
        slices[BITS] = borrow;
    }

    // Compares with thresholds and stores the codes of `count` columns.
    inline void store_codes(const EventsCall &e, const Finish &finish, size_t pixel, size_t count) const {
        __m512i index[3];
        count_reached<X4x64>(slices, e.threshold_planes, e.threshold_bits, finish.levels, index);
        alignas(64) uint8_t bytes[3][64];
        const int index_bits = bit_width(static_cast<size_t>(finish.levels));
        for (int k = 0; k < index_bits; k++) _mm512_store_si512(bytes[k], index[k]);
        const __mmask64 here = finish.outputs >= 64 ? ~__mmask64{0} : (__mmask64{1} << finish.outputs) - 1;
        for (size_t q = 0; q < count; q++) {
            __m512i code = _mm512_setzero_si512();
            for (int k = 0; k < index_bits; k++) {
                uint64_t mask;
                std::memcpy(&mask, bytes[k] + 16 * q, 8);
                code = _mm512_mask_add_epi8(code, mask, code, _mm512_set1_epi8(static_cast<char>(1 << k)));
            }
            _mm512_mask_storeu_epi8(finish.codes + (pixel + q) * finish.outputs, here, code);
        }
    }

    // All four columns in 16 bits.
    inline void store_words(int16_t (*words)[64]) const {
        __m512i low[4], high[4];
        columns<0>(low);
        columns<8>(high);
#pragma GCC unroll 4
        for (size_t q = 0; q < 4; q++) maqd::store_words(low[q], high[q], words[q]);
    }

    // Eight slices from FIRST on of each column.
    template <int FIRST>
    inline void columns(__m512i (&to)[4]) const {
        __m512i pair[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const int one = FIRST + 2 * k, two = one + 1;
            pair[k] = _mm512_unpacklo_epi64(slices[one < BITS ? one : BITS], slices[two < BITS ? two : BITS]);
        }
        const __m512i a = _mm512_shuffle_i32x4(pair[0], pair[1], 0x88),
                      b = _mm512_shuffle_i32x4(pair[2], pair[3], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(pair[0], pair[1], 0xdd),
                      d = _mm512_shuffle_i32x4(pair[2], pair[3], 0xdd);
        to[0] = _mm512_shuffle_i32x4(a, b, 0x88);
        to[1] = _mm512_shuffle_i32x4(c, d, 0x88);
        to[2] = _mm512_shuffle_i32x4(a, b, 0xdd);
        to[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }

    // The sums of column q in 32 bits.
    inline void expand(size_t q, int32_t *acc) const {
        std::memset(acc, 0, 64 * sizeof(int32_t));
        alignas(64) uint8_t bytes[64];
        for (int k = 0; k <= BITS; k++) {
            _mm512_store_si512(bytes, slices[k]);
            EventOps::add_bits(acc, bytes + 16 * q, 64, k < BITS ? 1 << k : -(1 << k));
        }
    }
};

// The epilogue of `count` columns, in groups: reading partial stores back at once would defeat store forwarding. Not
// inlined: registers suffice for the counters of a sweep or for this, not for both.
template <int PLANES, int SLICES>
__attribute__((noinline)) void finish_columns(const EventsCall &events, const Finish &finish_,
                                              const Finisher *finishers, const __m512i (*counts)[PLANES][SLICES],
                                              size_t pixel, size_t count, int32_t *acc) {
    const EventsCall e = events;  // a copy: stores of bytes may alias a reference
    const Finish finish = finish_;
    if (e.threshold_planes) {
        for (size_t i = 0; i < count; i += 4)
            Difference<PLANES, SLICES>(counts[i / 4]).store_codes(e, finish, pixel + i, count - i < 4 ? count - i : 4);
    } else if (is_short(finish)) {
        alignas(64) int16_t words[4 * FOURS][64];
        for (size_t i = 0; i < count; i += 4) Difference<PLANES, SLICES>(counts[i / 4]).store_words(words + i);
        for (size_t o = 0; o < finish.outputs; o += 32) finishers[o / 32].rows(words[0] + o, 64, pixel, count);
    } else {
        for (size_t i = 0; i < count; i++) {
            Difference<PLANES, SLICES>(counts[i / 4]).expand(i % 4, acc);
            for (size_t o = 0; o < finish.outputs; o += 32) finishers[o / 32].block(acc + o, 64, pixel + i, 1);
        }
    }
}

// One output row. Lane l of the counters belongs to the output column that has the present input column at kernel
// column kernel_columns - 1 - l. After each input column lane 0 is complete, and all lanes move on by one.
template <int PLANES, int SLICES>
void sweep_row(const EventsCall &e, const Finish &finish, const Finisher *finishers, const SweepLists &lists,
               size_t part, int32_t *acc) {
    const maqd_window &w = e.conv.window;
    const int32_t columns = e.conv.columns, inputs = e.conv.x.columns;
    __m512i s[PLANES][SLICES];
    alignas(64) __m512i done[FOURS][PLANES][SLICES];
#pragma GCC unroll 2
    for (int a = 0; a < PLANES; a++)
#pragma GCC unroll 16
        for (int k = 0; k < SLICES; k++) s[a][k] = _mm512_setzero_si512();
    const int32_t before = w.kernel_columns - 1 - w.padding_columns;  // input columns before those of lane 0
    for (int32_t column = before - w.kernel_columns + 1; column < columns + before; column++) {
        if (column >= 0 && column < inputs) {
#pragma GCC unroll 2
            for (int a = 0; a < PLANES; a++) {
                const uint32_t *starts = lists.starts(static_cast<size_t>(a), 0);
                const uint16_t *entries = lists.entries(static_cast<size_t>(a));
                const uint16_t *list = entries + starts[column], *end = entries + starts[column + 1];
                Counters<X512>::add_eights(e.rows, list, end, s[a]);
            }
        }
        const int32_t output = column - before;
        if (output >= 0) {
            const auto at = static_cast<size_t>(output) % (4 * FOURS);
#pragma GCC unroll 2
            for (int a = 0; a < PLANES; a++)
#pragma GCC unroll 16
                for (int k = 0; k < SLICES; k++)
                    _mm_store_si128(reinterpret_cast<__m128i *>(&done[at / 4][a][k]) + at % 4,
                                    _mm512_castsi512_si128(s[a][k]));
            if (at + 1 == 4 * FOURS || output == columns - 1)
                finish_columns<PLANES, SLICES>(e, finish, finishers, done,
                                               part * static_cast<size_t>(columns) + static_cast<size_t>(output) - at,
                                               at + 1, acc);
        }
#pragma GCC unroll 2
        for (int a = 0; a < PLANES; a++)
#pragma GCC unroll 16
            for (int k = 0; k < SLICES; k++) s[a][k] = _mm512_maskz_alignr_epi64(0x3f, s[a][k], s[a][k], 2);
    }
}

template <int PLANES>
void sweep_row(const EventsCall &e, const Finish &finish, const Finisher *finishers, const SweepLists &lists,
               size_t part, int32_t *acc) {
    const size_t inputs = static_cast<size_t>(e.conv.x.columns),
                 wide = static_cast<size_t>(e.conv.window.kernel_columns);
    size_t most = 0;
    for (size_t a = 0; a < PLANES; a++) {
        const uint32_t *starts = lists.starts(a, 0);
        for (size_t column = 0; column < inputs; column++) {
            const size_t last = column + wide < inputs ? column + wide : inputs;
            const size_t count = starts[last] - starts[column];
            most = count > most ? count : most;
        }
    }
    if (most < 64)
        sweep_row<PLANES, 6>(e, finish, finishers, lists, part, acc);
    else if (most < 128)
        sweep_row<PLANES, 7>(e, finish, finishers, lists, part, acc);
    else if (most < 256)
        sweep_row<PLANES, 8>(e, finish, finishers, lists, part, acc);
    else if (most < 1024)
        sweep_row<PLANES, 10>(e, finish, finishers, lists, part, acc);
    else
        sweep_row<PLANES, 24>(e, finish, finishers, lists, part, acc);
}

void sweep(const EventsCall &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    const auto rows = static_cast<size_t>(e.conv.rows);
    auto *acc = reinterpret_cast<int32_t *>(scratch);
    SweepLists lists(e, sweep_offsets(e), scratch + 256);
    const size_t second = finish.outputs > 32 ? 32 : 0;
    const Finisher finishers[2] = {{finish, 0, second ? second : finish.outputs},
                                   {finish, second, finish.outputs - second}};
    for (size_t part = first; part < last; part++) {
        lists.build({part / rows, static_cast<int32_t>(part % rows)}, 0);
        e.planes == 1 ? sweep_row<1>(e, finish, finishers, lists, part, acc)
                      : sweep_row<2>(e, finish, finishers, lists, part, acc);
    }
}

using ShortLists = LookupLists<uint16_t, false>;
using LongLists = LookupLists<uint32_t, false>;

size_t scratch(const EventsCall &e) {
    if (e.sweep) return 256 + SweepLists::size(e);
    return ShortLists::fits(e, event_offsets(e)) ? event_scratch<Finisher, ShortLists>(e)
                                                 : event_scratch<Finisher, LongLists>(e);
}

template <class Lists>
void events(const EventsCall &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    if (e.vector_bits == 128)
        EventRows<X128, EventOps, Lists>(e, finish, scratch).run(first, last);
    else if (e.vector_bits == 256)
        EventRows<X256, EventOps, Lists>(e, finish, scratch).run(first, last);
    else
        EventRows<X512, EventOps, Lists>(e, finish, scratch).run(first, last);
}

void events(const EventsCall &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    if (e.sweep)
        sweep(e, finish, first, last, scratch);
    else if (ShortLists::fits(e, event_offsets(e)))
        events<ShortLists>(e, finish, first, last, scratch);
    else
        events<LongLists>(e, finish, first, last, scratch);
}

size_t count_bits(const uint8_t *x, size_t size, size_t count, size_t stride) {
    const __mmask64 here = size >= 64 ? ~__mmask64{0} : (__mmask64{1} << size) - 1;
    __m512i total = _mm512_setzero_si512();
    for (; count; x += stride, count--)
        total = _mm512_add_epi64(total, _mm512_popcnt_epi64(_mm512_maskz_loadu_epi8(here, x)));
    return static_cast<size_t>(_mm512_reduce_add_epi64(total));
}

Isa make() {
    Isa isa{};
    isa.name = "avx512";
    FILL_SCALAR_KERNELS(isa.scalar, avx512_);
    isa.dense.run = dense_blocks<DenseOps>;
    isa.dense.scratch = dense_block_scratch<DenseOps>;
    isa.dense.align = 4;
    isa.dense.strip_columns = 6;
    isa.dense.pair_limit = 0;
    isa.dense.direct = true;
    isa.dense.fold = true;
    isa.winograd.run = winograd<BlockWinograd<DenseOps>>;
    isa.winograd.scratch = winograd_scratch<Finisher>;
    isa.winograd.offset = true;
    isa.events.run = events;
    isa.events.scratch = scratch;
    isa.events.vector_bits = 512;
    isa.events.sweeps = true;
    isa.events.count_bits = count_bits;
    isa.depthwise.run = depthwise<DepthwiseOps>;
    isa.depthwise.scratch = depthwise_scratch<Finisher>;
    isa.language = avx512_language();
    isa.costs.product = 0.003;
    isa.costs.finish = 0.09;
    isa.costs.combine = 1.9;
    isa.costs.row = 0.33;
    isa.costs.chunk = 31;
    isa.costs.sums = 0.1;
    isa.costs.look = 2.4;
    return isa;
}

}  // namespace

const Isa &avx512() {
    static const Isa isa = make();
    return isa;
}

}  // namespace maqd
