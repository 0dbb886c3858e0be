// Language models with AVX-512, VNNI and VBMI.
#include <immintrin.h>

#include "isa/x86.h"
#include "kernels/tokens.h"

namespace maqd {

namespace {

// Tables for 64 lanes, of a function of the lane's number.
template <class Function>
__m512i table(Function function) {
    alignas(64) uint8_t bytes[64];
    for (int i = 0; i < 64; i++) bytes[i] = static_cast<uint8_t>(function(i));
    return _mm512_load_si512(bytes);
}

// The five digits of 64 bytes n: with q = n / 27, digits 0 .. 2 are those of n - 27 q, 3 and 4 those of q.
struct Digits {
    const __m512i first = table([](int i) { return i % 3; }), second = table([](int i) { return i / 3 % 3; }),
                  third = table([](int i) { return i / 9 % 3; }), fourth = table([](int i) { return i % 16 % 3; }),
                  fifth = table([](int i) { return i % 16 / 3 % 3; }), times = table([](int i) { return i % 16 * 27; }),
                  low = _mm512_set1_epi16(0xff), inverse = _mm512_set1_epi16(2428);

    inline void of(__m512i n, __m512i *digit) const {
        // 2428 / 2^16 is 1/27 up to 1e-5: exact for n < 243.
        const __m512i even = _mm512_mulhi_epu16(_mm512_and_si512(n, low), inverse);
        const __m512i odd = _mm512_mulhi_epu16(_mm512_srli_epi16(n, 8), inverse);
        const __m512i q = _mm512_or_si512(even, _mm512_slli_epi16(odd, 8));
        const __m512i rest = _mm512_sub_epi8(n, _mm512_shuffle_epi8(times, q));
        digit[0] = _mm512_permutexvar_epi8(rest, first);
        digit[1] = _mm512_permutexvar_epi8(rest, second);
        digit[2] = _mm512_permutexvar_epi8(rest, third);
        digit[3] = _mm512_shuffle_epi8(fourth, q);
        digit[4] = _mm512_shuffle_epi8(fifth, q);
    }
};

// Lane i of the result is the sum of the lanes of v[i].
inline __m512i reduce(const __m512i *v) {
    __m512i a[8], b[4], c[4];
    for (int i = 0; i < 8; i++)  // lanes (2i, 2i+1) alternate
        a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                                _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    // b[i] has in each quarter the sums of a quarter of v[4i .. 4i + 3].
    for (int i = 0; i < 2; i++) {
        const __m512i lower = _mm512_shuffle_i64x2(b[2 * i], b[2 * i + 1], 0x44);
        const __m512i upper = _mm512_shuffle_i64x2(b[2 * i], b[2 * i + 1], 0xee);
        c[i] = _mm512_add_epi32(lower, upper);  // quarters: b[2i] twice, b[2i+1] twice
    }
    const __m512i even = _mm512_shuffle_i64x2(c[0], c[1], 0x88), odd = _mm512_shuffle_i64x2(c[0], c[1], 0xdd);
    return _mm512_add_epi32(even, odd);
}

inline __mmask64 tail(size_t size) { return size >= 64 ? ~__mmask64{0} : (__mmask64{1} << size) - 1; }

inline __m512i load(const uint8_t *row, size_t j, size_t row_bytes) {
    return _mm512_maskz_loadu_epi8(tail(row_bytes - j), row + j);
}

// Sums of up to 16 values at `sums`, spacing * value + low * total.
inline __m512i finish(__m512i values, int32_t spacing, __m512i offset) {
    return _mm512_add_epi32(_mm512_mullo_epi32(values, _mm512_set1_epi32(spacing)), offset);
}

// One token: the digits go straight into the products.
void one_token(const RowsCall &call, size_t t, size_t first, size_t last) {
    const Digits digits;
    const int8_t *x = call.x + t * call.digits * call.pitch;
    const __m512i offset = _mm512_set1_epi32(call.low * call.totals[t]);
    for (size_t o = first; o < last; o += 16) {
        const size_t count = last - o < 16 ? last - o : 16;
        __m512i sums[16];
        for (size_t r = 0; r < 16; r++) {
            __m512i a = _mm512_setzero_si512(), b = a;
            if (r < count) {
                const uint8_t *row = call.weights + (o + r) * call.row_bytes;
                for (size_t j = 0; j < call.row_bytes; j += 64) {
                    const __m512i n = load(row, j, call.row_bytes);
                    const auto input = [&](size_t d) { return _mm512_loadu_si512(x + d * call.pitch + j); };
                    if (call.digits == 1) {
                        a = _mm512_dpbusd_epi32(a, n, input(0));
                        continue;
                    }
                    __m512i digit[TRITS];
                    digits.of(n, digit);
                    a = _mm512_dpbusd_epi32(a, digit[0], input(0));
                    b = _mm512_dpbusd_epi32(b, digit[1], input(1));
                    a = _mm512_dpbusd_epi32(a, digit[2], input(2));
                    b = _mm512_dpbusd_epi32(b, digit[3], input(3));
                    a = _mm512_dpbusd_epi32(a, digit[4], input(4));
                }
            }
            sums[r] = _mm512_add_epi32(a, b);
        }
        const __m512i found = finish(reduce(sums), call.spacing, offset);
        _mm512_mask_storeu_epi32(call.sums + t * call.rows + o, static_cast<__mmask16>((1u << count) - 1), found);
    }
}

// Four rows, unpacked once, times four tokens at a time.
void many_tokens(const RowsCall &call, size_t first, size_t last, uint8_t *memory) {
    const Digits digits;
    const size_t depth = call.digits * call.pitch;
    for (size_t o = first; o < last; o += 4) {
        const size_t count = last - o < 4 ? last - o : 4;
        for (size_t r = 0; r < 4; r++) {
            const uint8_t *row = call.weights + (o + (r < count ? r : 0)) * call.row_bytes;
            uint8_t *to = memory + r * depth;
            for (size_t j = 0; j < call.row_bytes; j += 64) {
                const __m512i n = load(row, j, call.row_bytes);
                __m512i digit[TRITS] = {n};
                if (call.digits != 1) digits.of(n, digit);
                for (size_t d = 0; d < call.digits; d++) _mm512_storeu_si512(to + d * call.pitch + j, digit[d]);
            }
        }
        for (size_t t = 0; t < call.tokens; t += 4) {
            const size_t some = call.tokens - t < 4 ? call.tokens - t : 4;
            const int8_t *x[4];
            for (size_t s = 0; s < 4; s++) x[s] = call.x + (t + (s < some ? s : 0)) * depth;
            __m512i sums[16];
#pragma GCC unroll 16
            for (auto &sum : sums) sum = _mm512_setzero_si512();
            for (size_t k = 0; k < depth; k += 64) {
                __m512i inputs[4];
#pragma GCC unroll 4
                for (size_t s = 0; s < 4; s++) inputs[s] = _mm512_loadu_si512(x[s] + k);
#pragma GCC unroll 4
                for (size_t r = 0; r < 4; r++) {
                    const __m512i weights = _mm512_loadu_si512(memory + r * depth + k);
#pragma GCC unroll 4
                    for (size_t s = 0; s < 4; s++)
                        sums[4 * s + r] = _mm512_dpbusd_epi32(sums[4 * s + r], weights, inputs[s]);
                }
            }
            alignas(64) int32_t found[16];
            _mm512_store_si512(found, reduce(sums));
            for (size_t s = 0; s < some; s++)
                for (size_t r = 0; r < count; r++)
                    call.sums[(t + s) * call.rows + o + r] =
                        call.spacing * found[4 * s + r] + call.low * call.totals[t + s];
        }
    }
}

void rows(const RowsCall &call, size_t first, size_t last, uint8_t *memory) {
    if (call.tokens < 3)
        for (size_t t = 0; t < call.tokens; t++) one_token(call, t, first, last);
    else
        many_tokens(call, first, last, memory);
}

}  // namespace

LanguageKernels avx512_language() { return language_kernels(rows); }

}  // namespace maqd
