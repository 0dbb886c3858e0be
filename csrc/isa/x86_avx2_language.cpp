// Language models with AVX2.
#include <immintrin.h>

#include "isa/x86.h"
#include "kernels/tokens.h"

namespace maqd {

namespace {

inline __m256i at(const void *from) { return _mm256_loadu_si256(static_cast<const __m256i *>(from)); }

inline int32_t total(__m256i v) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

// The five digits of 32 bytes, one after the other: the rest of a division by three, and the quotient.
inline void digits_of(__m256i n, __m256i *digit) {
    const __m256i low = _mm256_set1_epi16(0xff), inverse = _mm256_set1_epi16(21846);  // 2^16 / 3, up
    for (size_t d = 0; d + 1 < TRITS; d++) {
        const __m256i even = _mm256_mulhi_epu16(_mm256_and_si256(n, low), inverse);
        const __m256i odd = _mm256_mulhi_epu16(_mm256_srli_epi16(n, 8), inverse);
        const __m256i q = _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
        digit[d] = _mm256_sub_epi8(n, _mm256_add_epi8(q, _mm256_add_epi8(q, q)));
        n = q;
    }
    digit[TRITS - 1] = n;
}

// Indices up to 255 times codes of 8 bits: in 16 bits, which two products of indices up to 2 fit as they are.
inline __m256i products(__m256i sum, __m256i weights, __m256i inputs, bool small) {
    const __m256i ones = _mm256_set1_epi16(1);
    if (small) return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, inputs), ones));
    const auto half = [&](int i) {
        const __m128i w = i ? _mm256_extracti128_si256(weights, 1) : _mm256_castsi256_si128(weights);
        const __m128i x = i ? _mm256_extracti128_si256(inputs, 1) : _mm256_castsi256_si128(inputs);
        return _mm256_madd_epi16(_mm256_cvtepu8_epi16(w), _mm256_cvtepi8_epi16(x));
    };
    return _mm256_add_epi32(sum, _mm256_add_epi32(half(0), half(1)));
}

void rows(const RowsCall &call, size_t first, size_t last, uint8_t *memory) {
    const size_t depth = call.digits * call.pitch, whole = call.row_bytes / 32 * 32;
    const bool small = call.digits != 1;
    for (size_t o = first; o < last; o++) {
        const uint8_t *row = call.weights + o * call.row_bytes;
        for (size_t j = 0; j < call.pitch; j += 32) {
            alignas(32) uint8_t rest[32] = {};
            if (j >= whole && j < call.row_bytes) std::memcpy(rest, row + j, call.row_bytes - j);
            const __m256i n = j < whole ? at(row + j) : at(rest);
            __m256i digit[TRITS] = {n};
            if (small) digits_of(n, digit);
            for (size_t d = 0; d < call.digits; d++)
                _mm256_storeu_si256(reinterpret_cast<__m256i *>(memory + d * call.pitch + j), digit[d]);
        }
        for (size_t t = 0; t < call.tokens; t++) {
            const int8_t *x = call.x + t * depth;
            __m256i a = _mm256_setzero_si256(), b = a;
            for (size_t k = 0; k < depth; k += 64) {
                a = products(a, at(memory + k), at(x + k), small);
                b = products(b, at(memory + k + 32), at(x + k + 32), small);
            }
            call.sums[t * call.stride + o] = call.spacing * total(_mm256_add_epi32(a, b)) + call.low * call.totals[t];
        }
    }
}

}  // namespace

LanguageKernels avx2_language() { return language_kernels(rows, plain_mix); }

}  // namespace maqd
