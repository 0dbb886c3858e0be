// AVX-512 with VNNI, VBMI, VBMI2, BITALG and VPOPCNTDQ: Ice Lake, Sapphire Rapids, Zen 4 and later.
#include "x86.h"

#include <immintrin.h>

#include "dense.h"
#include "events.h"
#include "panel.h"
#include "winograd.h"

namespace maqd {

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq");
}

namespace {

// ---- what follows the accumulators ----------------------------------------------------------------------------------

inline __m512i load_values(const void *x, maqd_element element, int32_t zero, size_t at, __mmask16 mask) {
    switch (element) {
        case MAQD_U8:
            return _mm512_sub_epi32(
                _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, static_cast<const uint8_t *>(x) + at)),
                _mm512_set1_epi32(zero));
        case MAQD_I16:
            return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, static_cast<const int16_t *>(x) + at));
        default:
            return _mm512_maskz_loadu_epi32(mask, static_cast<const int32_t *>(x) + at);
    }
}

inline void store_values(void *y, maqd_element element, int32_t zero, size_t at, __mmask16 mask, __m512i v) {
    switch (element) {
        case MAQD_U8:
            v = _mm512_add_epi32(v, _mm512_set1_epi32(zero));
            _mm_mask_storeu_epi8(static_cast<uint8_t *>(y) + at, mask, _mm512_cvtepi32_epi8(v));
            break;
        case MAQD_I16:
            _mm256_mask_storeu_epi16(static_cast<int16_t *>(y) + at, mask, _mm512_cvtepi32_epi16(v));
            break;
        default:
            _mm512_mask_storeu_epi32(static_cast<int32_t *>(y) + at, mask, v);
    }
}

// Sixteen outputs of some pixels.
template <bool ADDEND, bool RAW, bool SIGNS>
inline void finish16(const Finish &f, const int32_t *acc, size_t stride, size_t pixel, size_t pixels, size_t output,
                     __mmask16 mask) {
    const __m512i bias = _mm512_loadu_si512(f.bias + output);
    const __m512i base = _mm512_set1_epi32(f.base), spacing = _mm512_set1_epi32(f.spacing);
    const __m512i sign = SIGNS ? _mm512_loadu_si512(f.signs + output) : _mm512_setzero_si512();
    for (size_t p = 0; p < pixels; p++) {
        const size_t at = (pixel + p) * f.outputs + output;
        __m512i v = _mm512_add_epi32(_mm512_loadu_si512(acc + p * stride), bias);
        if (ADDEND) {
            const __m512i other = load_values(f.addend, f.addend_element, f.addend_zero, at, mask);
            v = _mm512_add_epi32(_mm512_sll_epi32(v, _mm_cvtsi32_si128(f.shift)),
                                 _mm512_sll_epi32(other, _mm_cvtsi32_si128(f.addend_shift)));
        }
        if (RAW) store_values(f.raw, f.raw_element, f.raw_zero, at, mask, v);
        if (f.codes) {
            if (SIGNS) v = _mm512_sub_epi32(_mm512_xor_si512(v, sign), sign);
            __m512i code = base;
            for (int32_t k = 0; k < f.levels; k++)
                code = _mm512_mask_add_epi32(
                    code,
                    _mm512_cmpge_epi32_mask(v, _mm512_loadu_si512(f.thresholds + static_cast<size_t>(k) * f.padded + output)),
                    code, spacing);
            _mm_mask_storeu_epi8(f.codes + at, mask, _mm512_cvtepi32_epi8(code));
        }
    }
}

// Three times the outputs of a quad, for 16 outputs, of the products m[6][BLOCK][32].
inline __attribute__((always_inline)) void thrice_quad(const int32_t *m, __m512i *y) {
    const auto product = [&](size_t t) { return _mm512_load_si512(m + t * BLOCK * 32); };
    const auto plus = [](__m512i a, __m512i b) { return _mm512_add_epi32(a, b); };
    const __m512i a = plus(product(1), product(2)), b = _mm512_sub_epi32(product(1), product(2));
    const __m512i c = plus(product(3), product(4)), d = _mm512_sub_epi32(product(3), product(4));
    y[0] = _mm512_srai_epi32(plus(plus(product(0), c), _mm512_slli_epi32(a, 2)), 3);
    y[1] = _mm512_srai_epi32(plus(plus(b, b), d), 2);
    y[2] = _mm512_srai_epi32(plus(a, c), 1);
    y[3] = _mm512_srai_epi32(plus(plus(b, product(5)), plus(d, d)), 1);
}

// The same in 16 bits, for 32 outputs of one pixel at a time. It has copies of everything it needs: codes are stored as
// bytes, which may alias whatever is behind a reference. LEVELS is their number, or 0 for any.
template <bool ADDEND, bool RAW, bool SIGNS, int LEVELS>
struct Short {
    Short(const Finish &finish, size_t output, __mmask32 mask)
        : f(finish),
          output(output),
          mask(mask),
          bias(_mm512_loadu_si512(f.short_bias + output)),
          sign(SIGNS ? _mm512_loadu_si512(f.short_signs + output) : _mm512_setzero_si512()),
          base(_mm256_set1_epi8(static_cast<char>(f.base))),
          spacing(_mm256_set1_epi8(static_cast<char>(f.spacing))) {
        for (int k = 0; k < LEVELS; k++) thresholds[k] = threshold(k);
    }

    inline __m512i threshold(int32_t k) const {
        return _mm512_loadu_si512(f.short_thresholds + static_cast<size_t>(k) * f.padded + output);
    }

    // v has the bias already; `at` is where the outputs are in the tensor.
    inline __attribute__((always_inline)) void store(__m512i v, size_t at) const {
        if (ADDEND) {
            __m512i other;
            if (f.addend_element == MAQD_U8)
                other = _mm512_sub_epi16(
                    _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, static_cast<const uint8_t *>(f.addend) + at)),
                    _mm512_set1_epi16(static_cast<int16_t>(f.addend_zero)));
            else
                other = _mm512_maskz_loadu_epi16(mask, static_cast<const int16_t *>(f.addend) + at);
            v = _mm512_add_epi16(_mm512_sll_epi16(v, _mm_cvtsi32_si128(f.shift)),
                                 _mm512_sll_epi16(other, _mm_cvtsi32_si128(f.addend_shift)));
        }
        if (RAW) {
            if (f.raw_element == MAQD_U8)
                _mm256_mask_storeu_epi8(static_cast<uint8_t *>(f.raw) + at, mask,
                                        _mm512_cvtepi16_epi8(_mm512_add_epi16(v, _mm512_set1_epi16(static_cast<int16_t>(f.raw_zero)))));
            else
                _mm512_mask_storeu_epi16(static_cast<int16_t *>(f.raw) + at, mask, v);
        }
        if (RAW && !f.codes) return;
        if (SIGNS) v = _mm512_sub_epi16(_mm512_xor_si512(v, sign), sign);
        __m256i code = base;
        if (LEVELS)
            for (int k = 0; k < LEVELS; k++)
                code = _mm256_mask_add_epi8(code, _mm512_cmpge_epi16_mask(v, thresholds[k]), code, spacing);
        else
            for (int32_t k = 0; k < f.levels; k++)
                code = _mm256_mask_add_epi8(code, _mm512_cmpge_epi16_mask(v, threshold(k)), code, spacing);
        _mm256_mask_storeu_epi8(f.codes + at, mask, code);
    }

    // The lower halves of 32 accumulators.
    static inline __m512i halves(__m512i low, __m512i high) {
        const __m512i even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24,
                                              22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        return _mm512_permutex2var_epi16(low, even, high);
    }

    inline void block(const int32_t *acc, size_t stride, size_t pixel, size_t pixels) const {
        size_t at = pixel * f.outputs + output;
        for (size_t p = 0; p < pixels; p++, acc += stride, at += f.outputs)
            store(_mm512_add_epi16(halves(_mm512_loadu_si512(acc), _mm512_loadu_si512(acc + 16)), bias), at);
    }

    // Products of Winograd's filtering; the division by 3 is left for 16 bits.
    inline void quads(const int32_t *m, const Quad *quad, size_t count) const {
        const __m512i third = _mm512_set1_epi16(static_cast<int16_t>(THIRD));
        for (size_t i = 0; i < count; i++, m += 32) {
            __m512i low[QUAD], high[QUAD];
            thrice_quad(m, low);
            thrice_quad(m + 16, high);
            size_t at = quad[i].pixel * f.outputs + output;
            for (size_t j = 0; j < quad[i].count; j++, at += f.outputs)
                store(_mm512_add_epi16(_mm512_mullo_epi16(halves(low[j], high[j]), third), bias), at);
        }
    }

    const Finish f;
    const size_t output;
    const __mmask32 mask;
    const __m512i bias, sign;
    const __m256i base, spacing;
    __m512i thresholds[LEVELS ? LEVELS : 1];
};

// Tensors of 32 bits hold no 16-bit values: those that are read or written then have others.
inline bool is_short(const Finish &f) {
    return f.short_bias && !(f.addend && f.addend_element == MAQD_I32) && !(f.raw && f.raw_element == MAQD_I32);
}

template <bool ADDEND, bool RAW, bool SIGNS, class Use>
inline void with_levels(const Finish &f, size_t output, __mmask32 mask, Use use) {
    switch (f.codes ? f.levels : 0) {
        case 1: return use(Short<ADDEND, RAW, SIGNS, 1>(f, output, mask));
        case 3: return use(Short<ADDEND, RAW, SIGNS, 3>(f, output, mask));
        default: return use(Short<ADDEND, RAW, SIGNS, 0>(f, output, mask));
    }
}

// Calls `use` with the `Short` that fits.
template <class Use>
inline void with_short(const Finish &f, size_t output, __mmask32 mask, Use use) {
    if (f.signs) {
        if (f.addend)
            f.raw ? with_levels<true, true, true>(f, output, mask, use) : with_levels<true, false, true>(f, output, mask, use);
        else
            f.raw ? with_levels<false, true, true>(f, output, mask, use) : with_levels<false, false, true>(f, output, mask, use);
    } else {
        if (f.addend)
            f.raw ? with_levels<true, true, false>(f, output, mask, use) : with_levels<true, false, false>(f, output, mask, use);
        else
            f.raw ? with_levels<false, true, false>(f, output, mask, use) : with_levels<false, false, false>(f, output, mask, use);
    }
}

// In 32 bits.
void finish_long(const Finish &f, const int32_t *acc, size_t stride, size_t pixel, size_t pixels, size_t output,
                 size_t outputs) {
    const auto mask = static_cast<uint32_t>((uint64_t{1} << outputs) - 1);
    for (size_t part = 0; part < outputs; part += 16) {
        const auto m = static_cast<__mmask16>(mask >> part);
        const int32_t *from = acc + part;
        const size_t o = output + part;
        if (f.addend) {
            if (f.raw)
                f.signs ? finish16<true, true, true>(f, from, stride, pixel, pixels, o, m)
                        : finish16<true, true, false>(f, from, stride, pixel, pixels, o, m);
            else
                f.signs ? finish16<true, false, true>(f, from, stride, pixel, pixels, o, m)
                        : finish16<true, false, false>(f, from, stride, pixel, pixels, o, m);
        } else if (f.raw) {
            f.signs ? finish16<false, true, true>(f, from, stride, pixel, pixels, o, m)
                    : finish16<false, true, false>(f, from, stride, pixel, pixels, o, m);
        } else {
            f.signs ? finish16<false, false, true>(f, from, stride, pixel, pixels, o, m)
                    : finish16<false, false, false>(f, from, stride, pixel, pixels, o, m);
        }
    }
}

}  // namespace

void finish_avx512(const Finish &f, const int32_t *acc, size_t stride, size_t pixel, size_t pixels, size_t output,
                   size_t outputs) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << outputs) - 1);
    if (is_short(f)) return with_short(f, output, mask, [&](const auto &with) { with.block(acc, stride, pixel, pixels); });
    finish_long(f, acc, stride, pixel, pixels, output, outputs);
}

void combine_avx512(const Finish &f, const int32_t *m, const Quad *quads, size_t count, size_t output, size_t outputs) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << outputs) - 1);
    if (is_short(f)) return with_short(f, output, mask, [&](const auto &with) { with.quads(m, quads, count); });
    const __m512i third = _mm512_set1_epi32(static_cast<int32_t>(THIRD));
    for (size_t i = 0; i < count; i++, m += 32) {
        alignas(64) int32_t y[QUAD][32];
        for (size_t half = 0; half < 32; half += 16) {
            __m512i thrice[QUAD];
            thrice_quad(m + half, thrice);
            for (size_t j = 0; j < QUAD; j++) _mm512_store_si512(y[j] + half, _mm512_mullo_epi32(thrice[j], third));
        }
        finish_long(f, y[0], 32, quads[i].pixel, quads[i].count, output, outputs);
    }
}

namespace {

// ---- dense ----------------------------------------------------------------------------------------------------------

struct DenseOps {
    static constexpr size_t TILE = 8;

    static inline void tile(const uint8_t *x, const Left &left, const Right &right, int32_t *acc) {
        __m512i sums[TILE][2];
#pragma GCC unroll 8
        for (size_t p = 0; p < TILE; p++) {
            sums[p][0] = _mm512_load_si512(right.start);
            sums[p][1] = _mm512_load_si512(right.start + 16);
        }
        const int8_t *weights = right.first, *other = weights + right.pitch;
        for (int32_t row = 0; row < right.runs; row++, x += left.pitch)
            for (size_t k = 0; k < right.run; k += 4, weights += 64, other += 64) {
                const __m512i w0 = _mm512_load_si512(weights), w1 = _mm512_load_si512(other);
#pragma GCC unroll 8
                for (size_t p = 0; p < TILE; p++) {
                    int32_t four;
                    std::memcpy(&four, x + p * left.stride + k, 4);
                    const __m512i inputs = _mm512_set1_epi32(four);
                    sums[p][0] = _mm512_dpbusd_epi32(sums[p][0], inputs, w0);
                    sums[p][1] = _mm512_dpbusd_epi32(sums[p][1], inputs, w1);
                }
            }
#pragma GCC unroll 8
        for (size_t p = 0; p < TILE; p++) {
            _mm512_store_si512(acc + p * 32, sums[p][0]);
            _mm512_store_si512(acc + p * 32 + 16, sums[p][1]);
        }
    }

    static constexpr auto finish = finish_avx512;
    static constexpr auto combine = combine_avx512;
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

struct Tail {
    // The last entries of a list, filled up to 16.
    static void tail(const uint32_t *list, size_t count, uint32_t zero, uint32_t *to) {
        const auto here = static_cast<__mmask16>((1u << count) - 1);
        _mm512_store_si512(to, _mm512_mask_loadu_epi32(_mm512_set1_epi32(static_cast<int>(zero)), here, list));
    }
};

// Vectors of 64, 128 and 256 bits as halves, of 128, 256 and 512 bits as rows.
struct X64 : Tail {
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

struct X256 : Tail {
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

struct X512 : Tail {
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

struct EventOps {
    static constexpr auto finish = finish_avx512;

    static constexpr bool SHORT = true;
    static bool is_short(const Finish &f) { return maqd::is_short(f); }
    static void finish_short(const Finish &f, const uint8_t *slices, size_t bytes, int bits, size_t pixel, size_t output,
                             size_t outputs) {
        for (size_t o = 0; o < outputs; o += 32) {
            const auto mask = static_cast<__mmask32>(outputs - o >= 32 ? ~uint64_t{0} : (uint64_t{1} << (outputs - o)) - 1);
            __m512i v = _mm512_loadu_si512(f.short_bias + output + o);
            for (int k = 0; k <= bits; k++) {
                uint32_t set;
                std::memcpy(&set, slices + static_cast<size_t>(k) * bytes + o / 8, 4);
                const auto weight = static_cast<int16_t>(k < bits ? 1u << k : 0u - (1u << k));
                v = _mm512_mask_add_epi16(v, set, v, _mm512_set1_epi16(weight));
            }
            with_short(f, output + o, mask, [&](const auto &with) { with.store(v, pixel * f.outputs + output + o); });
        }
    }
    static uint32_t *append(const uint8_t *x, size_t channels, int plane, uint32_t base, uint32_t step, uint32_t *to) {
        const __m512i iota = _mm512_set_epi8(
            63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38, 37, 36,
            35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7,
            6, 5, 4, 3, 2, 1, 0);
        const __m512i bit = _mm512_set1_epi8(static_cast<char>(1 << plane)), steps = _mm512_set1_epi32(static_cast<int>(step));
        for (size_t c = 0; c < channels; c += 64, base += 64 * step) {
            const __mmask64 here = channels - c >= 64 ? ~__mmask64{0} : (__mmask64{1} << (channels - c)) - 1;
            const __mmask64 set = _mm512_mask_test_epi8_mask(here, _mm512_loadu_si512(x + c), bit);
            const __m512i found = _mm512_maskz_compress_epi8(set, iota), from = _mm512_set1_epi32(static_cast<int>(base));
            const auto count = static_cast<size_t>(__builtin_popcountll(set));
            const auto put = [&](size_t at, __m128i sixteen) {
                _mm512_storeu_si512(to + at,
                                    _mm512_add_epi32(_mm512_mullo_epi32(_mm512_cvtepu8_epi32(sixteen), steps), from));
            };
            put(0, _mm512_castsi512_si128(found));
            if (count > 16) {
                put(16, _mm512_extracti32x4_epi32(found, 1));
                if (count > 32) {
                    put(32, _mm512_extracti32x4_epi32(found, 2));
                    put(48, _mm512_extracti32x4_epi32(found, 3));
                }
            }
            to += count;
        }
        return to;
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

// The rows that the columns of one output row fetch: [planes][columns] lists, filled up with rows of zeros to a multiple of
// 8 entries.
struct ColumnLists {
    uint32_t *entries, *starts;  // starts: [planes][columns + 1]
};

inline size_t column_lists_size(const Events &e) {
    const size_t columns = static_cast<size_t>(e.conv.x.columns), planes = static_cast<size_t>(e.planes);
    const size_t most = static_cast<size_t>(e.conv.window.kernel_rows) * static_cast<size_t>(e.conv.x.channels) + 8;
    return planes * (columns * most + columns + 1) + LIST_SLACK;
}

inline void build_columns(const Events &events, EventRow place, const ColumnLists lists) {
    const Events e = events;  // a copy, which stores to the lists cannot change
    const maqd_conv &conv = e.conv;
    const maqd_window &w = conv.window;
    const auto channels = static_cast<size_t>(conv.x.channels), columns = static_cast<size_t>(conv.x.columns);
    const int32_t top = place.row * w.stride_rows - w.padding_rows;
    const __m512i zero = _mm512_set1_epi32(static_cast<int>(static_cast<size_t>(w.kernel_rows) * channels * 64));
    uint32_t *to = lists.entries;
    for (int plane = 0; plane < e.planes; plane++) {
        uint32_t *starts = lists.starts + static_cast<size_t>(plane) * (columns + 1);
        for (size_t column = 0; column < columns; column++) {
            uint32_t *const begin = to;
            starts[column] = static_cast<uint32_t>(begin - lists.entries);
            for (int32_t i = 0; i < w.kernel_rows; i++) {
                const int32_t row = top + i * w.dilation_rows;
                if (row < 0 || row >= conv.x.rows) continue;
                const uint8_t *x = e.x + place.image * e.image_size + (static_cast<size_t>(row) * columns + column) * channels;
                to = EventOps::append(x, channels, plane, static_cast<uint32_t>(static_cast<size_t>(i) * channels * 64), 64, to);
            }
            _mm512_storeu_si512(to, zero);
            to += (8 - static_cast<size_t>(to - begin) % 8) % 8;
        }
        starts[columns] = static_cast<uint32_t>(to - lists.entries);
    }
}

// Sums of four output columns, [planes][slices], become what is stored.
template <int SLICES>
inline void finish_columns(const Events &e, const Finish &finish, const __m512i (*slices)[SLICES], size_t pixel,
                           size_t count, int32_t *acc) {
    __m512i difference[SLICES + 3];
    int bits = SLICES;
    __m512i borrow = _mm512_setzero_si512(), carry = borrow;
    const auto subtract = [&](int k, __m512i sum) {
        const __m512i minus = _mm512_unpackhi_epi64(sum, sum);
        difference[k] = _mm512_ternarylogic_epi64(sum, minus, borrow, XOR3);
        borrow = _mm512_ternarylogic_epi64(sum, minus, borrow, BORROW);
    };
    if (e.planes == 1) {
        for (int k = 0; k < SLICES; k++) subtract(k, slices[0][k]);
    } else {  // the second plane has twice the weight
        bits = SLICES + 2;
        const __m512i none = _mm512_setzero_si512();
        for (int k = 0; k < bits; k++) {
            __m512i a = k < SLICES ? slices[0][k] : none;
            const __m512i b = k > 0 && k <= SLICES ? slices[1][k - 1] : none;
            carry = X512::full_add(a, b, carry);
            subtract(k, a);
        }
    }
    difference[bits] = borrow;
    alignas(64) uint8_t bytes[SLICES + 3][64];
    if (e.threshold_planes) {
        __m512i index[3];
        compare<X4x64>(difference, bits, e.threshold_planes, e.threshold_bits, finish.levels, index);
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
        return;
    }
    for (int k = 0; k <= bits; k++) _mm512_store_si512(bytes[k], difference[k]);
    for (size_t q = 0; q < count; q++) {
        if (EventOps::is_short(finish)) {
            EventOps::finish_short(finish, bytes[0] + 16 * q, 64, bits, pixel + q, 0, finish.outputs);
            continue;
        }
        std::memset(acc, 0, 64 * sizeof(int32_t));
        for (int k = 0; k <= bits; k++) EventOps::add_bits(acc, bytes[k] + 16 * q, 64, k < bits ? 1 << k : -(1 << k));
        for (size_t o = 0; o < finish.outputs; o += 32)
            finish_avx512(finish, acc + o, 64, pixel + q, 1, o, finish.outputs - o < 32 ? finish.outputs - o : 32);
    }
}

// One output row. Lane l of the counters belongs to the output column that sees the present input column through kernel
// column kernel_columns - 1 - l: lane 0 is complete after it, and all move on by one.
template <int PLANES, int SLICES>
void sweep_row(const Events &e, const Finish &finish, const ColumnLists &lists, size_t part, int32_t *acc) {
    const maqd_window &w = e.conv.window;
    const int32_t columns = e.conv.columns, inputs = e.conv.x.columns;
    __m512i s[PLANES][SLICES];
    alignas(64) __m512i done[PLANES][SLICES];
#pragma GCC unroll 2
    for (int a = 0; a < PLANES; a++)
#pragma GCC unroll 16
        for (int k = 0; k < SLICES; k++) s[a][k] = done[a][k] = _mm512_setzero_si512();
    const int32_t before = w.kernel_columns - 1 - w.padding_columns;  // input column behind that of lane 0
    for (int32_t column = before - w.kernel_columns + 1; column < columns + before; column++) {
        if (column >= 0 && column < inputs) {
#pragma GCC unroll 2
            for (int a = 0; a < PLANES; a++) {
                const uint32_t *starts = lists.starts + static_cast<size_t>(a) * static_cast<size_t>(inputs + 1);
                for (const uint32_t *list = lists.entries + starts[column], *end = lists.entries + starts[column + 1];
                     list < end; list += 8)
                    Counters<X512>::ripple(s[a], 3, Counters<X512>::add8(e.rows, list, s[a][0], s[a][1], s[a][2]));
            }
        }
        const int32_t output = column - before;
        if (output >= 0) {
            const int32_t q = output & 3;
#pragma GCC unroll 2
            for (int a = 0; a < PLANES; a++)
#pragma GCC unroll 16
                for (int k = 0; k < SLICES; k++)
                    _mm_store_si128(reinterpret_cast<__m128i *>(&done[a][k]) + q, _mm512_castsi512_si128(s[a][k]));
            if (q == 3 || output == columns - 1)
                finish_columns<SLICES>(e, finish, done, part * static_cast<size_t>(columns) + static_cast<size_t>(output - q),
                                       static_cast<size_t>(q + 1), acc);
        }
#pragma GCC unroll 2
        for (int a = 0; a < PLANES; a++)
#pragma GCC unroll 16
            for (int k = 0; k < SLICES; k++) s[a][k] = _mm512_maskz_alignr_epi64(0x3f, s[a][k], s[a][k], 2);
    }
}

template <int PLANES>
void sweep_row(const Events &e, const Finish &finish, const ColumnLists &lists, size_t part, int32_t *acc) {
    const size_t inputs = static_cast<size_t>(e.conv.x.columns), wide = static_cast<size_t>(e.conv.window.kernel_columns);
    size_t most = 0;
    for (size_t a = 0; a < PLANES; a++) {
        const uint32_t *starts = lists.starts + a * (inputs + 1);
        for (size_t column = 0; column < inputs; column++) {
            const size_t last = column + wide < inputs ? column + wide : inputs;
            const size_t count = starts[last] - starts[column];
            most = count > most ? count : most;
        }
    }
    if (most < 64)
        sweep_row<PLANES, 6>(e, finish, lists, part, acc);
    else if (most < 128)
        sweep_row<PLANES, 7>(e, finish, lists, part, acc);
    else if (most < 256)
        sweep_row<PLANES, 8>(e, finish, lists, part, acc);
    else if (most < 1024)
        sweep_row<PLANES, 10>(e, finish, lists, part, acc);
    else
        sweep_row<PLANES, 24>(e, finish, lists, part, acc);
}

void sweep(const Events &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    const auto rows = static_cast<size_t>(e.conv.rows), planes = static_cast<size_t>(e.planes);
    auto *acc = reinterpret_cast<int32_t *>(scratch);
    auto *starts = reinterpret_cast<uint32_t *>(scratch + 256);
    const ColumnLists lists{starts + planes * (static_cast<size_t>(e.conv.x.columns) + 1), starts};
    for (size_t part = first; part < last; part++) {
        build_columns(e, {part / rows, static_cast<int32_t>(part % rows)}, lists);
        e.planes == 1 ? sweep_row<1>(e, finish, lists, part, acc) : sweep_row<2>(e, finish, lists, part, acc);
    }
}

size_t scratch(const Events &e) { return e.sweep ? 256 + column_lists_size(e) * 4 : event_scratch(e); }

void events(const Events &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    if (e.sweep)
        sweep(e, finish, first, last, scratch);
    else if (e.vector_bits == 128)
        event_rows<X128, EventOps>(e, finish, first, last, scratch);
    else if (e.vector_bits == 256)
        event_rows<X256, EventOps>(e, finish, first, last, scratch);
    else
        event_rows<X512, EventOps>(e, finish, first, last, scratch);
}

size_t count_bits(const uint8_t *x, size_t size) {
    __m512i total = _mm512_setzero_si512();
    for (size_t i = 0; i < size; i += 64) {
        const __mmask64 here = size - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (size - i)) - 1;
        total = _mm512_add_epi64(total, _mm512_popcnt_epi64(_mm512_maskz_loadu_epi8(here, x + i)));
    }
    return static_cast<size_t>(_mm512_reduce_add_epi64(total));
}

}  // namespace

const Isa AVX512 = {
    "avx512",
    maqd_avx512_widen,
    maqd_avx512_narrow,
    maqd_avx512_add_shifted,
    maqd_avx512_conv_row,
    maqd_avx512_conv_row_wide,
    maqd_avx512_quantize,
    maqd_avx512_max_pool_row,
    maqd_avx512_sum_pool_row,
    maqd_avx512_transpose,
    dense_blocks<DenseOps>,
    dense_block_scratch<DenseOps>,
    winograd<BlockWinograd<DenseOps>>,
    winograd_scratch,
    BlockWinograd<DenseOps>::OFFSET,
    4,
    false,
    6,
    0,
    events,
    scratch,
    512,
    true,
    count_bits,
    0.0027,
    0.9,
    0.45,
    25,
    2,
};

}  // namespace maqd
