// Packed ternary weights in AVX-512, for the files of language models.
#pragma once

#include <immintrin.h>

#include "kernels/language.h"

namespace maqd {

namespace {

// Streams of weights are asked for this many bytes ahead: more than the processor does by itself.
constexpr size_t AHEAD = 4096;

// Tables for 64 lanes, of a function of the lane's number.
template <class Function>
__m512i table(Function function) {
    alignas(64) uint8_t bytes[64];
    for (int i = 0; i < 64; i++) bytes[i] = static_cast<uint8_t>(function(i));
    return _mm512_load_si512(bytes);
}

// The five digits of 64 bytes n < 243. A table of n / 4 has q = n / 27, or one less; digits 0 .. 2 are those of
// n - 27 q, 3 and 4 those of q.
struct Digits {
    const __m512i first = table([](int i) { return i % 3; }), second = table([](int i) { return i % 27 / 3 % 3; }),
                  third = table([](int i) { return i % 27 / 9; }), fourth = table([](int i) { return i % 16 % 3; }),
                  fifth = table([](int i) { return i % 16 / 3; }), quotient = table([](int i) { return i * 4 / 27; }),
                  product = table([](int i) { return i * 4 / 27 * 27; }), limit = _mm512_set1_epi8(27),
                  one = _mm512_set1_epi8(1);

    inline void of(__m512i n, __m512i *digit) const {
        const __m512i quarter = _mm512_srli_epi16(n, 2);  // lookups ignore the upper two bits of a byte
        const __m512i low = _mm512_permutexvar_epi8(quarter, quotient);
        const __m512i rest = _mm512_sub_epi8(n, _mm512_permutexvar_epi8(quarter, product));  // 0 .. 29
        const __m512i q = _mm512_mask_add_epi8(low, _mm512_cmpge_epu8_mask(rest, limit), low, one);
        digit[0] = _mm512_permutexvar_epi8(rest, first);
        digit[1] = _mm512_permutexvar_epi8(rest, second);
        digit[2] = _mm512_permutexvar_epi8(rest, third);
        digit[3] = _mm512_shuffle_epi8(fourth, q);
        digit[4] = _mm512_shuffle_epi8(fifth, q);
    }
};

// Up to 64 bytes of a row from place j on, and zeros.
inline __m512i load(const uint8_t *row, size_t j, size_t row_bytes) {
    const size_t size = row_bytes - j;
    return _mm512_maskz_loadu_epi8(size >= 64 ? ~__mmask64{0} : (__mmask64{1} << size) - 1, row + j);
}

// spacing * value + offset; states lie 1 or 2 apart.
inline __m512i finish(__m512i values, int32_t spacing, __m512i offset) {
    return _mm512_add_epi32(_mm512_sll_epi32(values, _mm_cvtsi32_si128(spacing - 1)), offset);
}

}  // namespace

}  // namespace maqd
