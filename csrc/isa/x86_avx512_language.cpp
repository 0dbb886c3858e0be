// Language models with AVX-512, VNNI and VBMI.
#include <immintrin.h>

#include "isa/x86.h"
#include "isa/x86_trits.h"
#include "kernels/tokens.h"

namespace maqd {

namespace {

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

// Products of bytes and inputs, added to a sum. Bytes are five digits each, or one.
template <bool TRITS_OF>
inline __m512i products(const Digits &digits, __m512i n, const __m512i *inputs, __m512i sum) {
    if (!TRITS_OF) return _mm512_dpbusd_epi32(sum, n, inputs[0]);
    __m512i digit[TRITS];
    digits.of(n, digit);
#pragma GCC unroll 5
    for (size_t d = 0; d < TRITS; d++) sum = _mm512_dpbusd_epi32(sum, digit[d], inputs[d]);
    return sum;
}

// One token: the digits go straight into the products. Four rows share the inputs; where their rests are short, they
// share a vector.
template <bool TRITS_OF>
void one_token(const RowsCall &call, size_t t, size_t first, size_t last) {
    constexpr size_t DIGITS = TRITS_OF ? TRITS : 1;
    const Digits digits;
    const int8_t *x = call.x + t * DIGITS * call.pitch;
    const __m512i offset = _mm512_set1_epi32(call.low * call.totals[t]);
    const size_t rest = call.row_bytes % 64, whole = call.row_bytes - rest;
    const auto lanes = static_cast<__mmask16>((1u << rest % 32) - 1);
    const bool shared = rest && rest <= 16;
    for (size_t o = first; o < last; o += 16) {
        const size_t count = last - o < 16 ? last - o : 16;
        __m512i sums[16];
        for (size_t r = 0; r < 16; r += 4) {
            const uint8_t *row[4];
            for (size_t i = 0; i < 4; i++) row[i] = call.weights + (o + (r + i < count ? r + i : 0)) * call.row_bytes;
            __m512i sum[4], inputs[DIGITS];
#pragma GCC unroll 4
            for (auto &one : sum) one = _mm512_setzero_si512();
            for (size_t j = 0; j < (shared ? whole : call.row_bytes); j += 64) {
#pragma GCC unroll 5
                for (size_t d = 0; d < DIGITS; d++) inputs[d] = _mm512_loadu_si512(x + d * call.pitch + j);
#pragma GCC unroll 4
                for (size_t i = 0; i < 4; i++) {
                    _mm_prefetch(row[i] + j + AHEAD, _MM_HINT_T0);
                    sum[i] = products<TRITS_OF>(digits, load(row[i], j, call.row_bytes), inputs, sum[i]);
                }
            }
            if (shared) {
                const auto quarter = [&](size_t i) { return _mm_maskz_loadu_epi8(lanes, row[i] + whole); };
                __m512i n = _mm512_castsi128_si512(quarter(0));
                n = _mm512_inserti32x4(n, quarter(1), 1);
                n = _mm512_inserti32x4(n, quarter(2), 2);
                n = _mm512_inserti32x4(n, quarter(3), 3);
                for (size_t d = 0; d < DIGITS; d++)
                    inputs[d] = _mm512_broadcast_i32x4(
                        _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + d * call.pitch + whole)));
                const __m512i found = products<TRITS_OF>(digits, n, inputs, _mm512_setzero_si512());
#pragma GCC unroll 4
                for (size_t i = 0; i < 4; i++)
                    sum[i] = _mm512_mask_add_epi32(sum[i], static_cast<__mmask16>(15u << 4 * i), sum[i], found);
            }
            for (size_t i = 0; i < 4; i++) sums[r + i] = sum[i];
        }
        const __m512i found = finish(reduce(sums), call.spacing, offset);
        _mm512_mask_storeu_epi32(call.sums + t * call.stride + o, static_cast<__mmask16>((1u << count) - 1), found);
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
                _mm_prefetch(row + j + AHEAD, _MM_HINT_T0);
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
                    call.sums[(t + s) * call.stride + o + r] =
                        call.spacing * found[4 * s + r] + call.low * call.totals[t + s];
        }
    }
}

void rows(const RowsCall &call, size_t first, size_t last, uint8_t *memory) {
    if (call.tokens < 3)
        for (size_t t = 0; t < call.tokens; t++)
            (call.digits == 1 ? one_token<false> : one_token<true>)(call, t, first, last);
    else
        many_tokens(call, first, last, memory);
}

// 320 codes at a time: byte j of plane d is code 5 j + d, in one of five vectors.
int32_t spread(const int8_t *codes, size_t channels, size_t pitch, int8_t *planes) {
    __m512i places[TRITS];
    __mmask64 from[TRITS][TRITS] = {};
    for (size_t d = 0; d < TRITS; d++) {
        places[d] = table([d](int j) { return (5 * static_cast<size_t>(j) + d) % 64; });
        for (size_t j = 0; j < 64; j++) from[d][(5 * j + d) / 64] |= __mmask64{1} << j;
    }
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i total = _mm512_setzero_si512();
    for (size_t j = 0; j < pitch; j += 64) {
        __m512i some[TRITS];
#pragma GCC unroll 5
        for (size_t i = 0; i < TRITS; i++) {
            const size_t first = 5 * j + 64 * i;
            some[i] = first < channels ? load(reinterpret_cast<const uint8_t *>(codes), first, channels)
                                       : _mm512_setzero_si512();
            total = _mm512_dpbusd_epi32(total, ones, some[i]);
        }
#pragma GCC unroll 5
        for (size_t d = 0; d < TRITS; d++) {
            __m512i plane = _mm512_maskz_permutexvar_epi8(from[d][0], places[d], some[0]);
#pragma GCC unroll 4
            for (size_t i = 1; i < TRITS; i++)
                plane = _mm512_mask_permutexvar_epi8(plane, from[d][i], places[d], some[i]);
            _mm512_storeu_si512(planes + d * pitch + j, plane);
        }
    }
    return _mm512_reduce_add_epi32(total);
}

// The mean of values with their weights, in integers: weights in units of the least are three bytes. Sums are exact
// here and in the definition, so that they are the same. False where the units lie too far apart. It overwrites scores.
bool weighted_bytes(const int8_t *values, const float *value_units, size_t known, size_t size, float *scores,
                    float *y) {
    constexpr size_t MOST_KNOWN = 1 << 15;  // times 255 x 127 fits int32
    constexpr int MOST_SHIFT = 8;           // of a weight up to 2^15
    if (known > MOST_KNOWN) return false;
    const auto lanes = [&](size_t t) {
        return static_cast<__mmask16>(known - t < 16 ? (1u << (known - t)) - 1 : 0xffff);
    };
    const auto exponents = [&](size_t t) {
        return _mm512_srli_epi32(_mm512_maskz_loadu_epi32(lanes(t), value_units + t), 23);
    };
    __m512i least = _mm512_set1_epi32(255), most = _mm512_setzero_si512();
    for (size_t t = 0; t < known; t += 16) {
        least = _mm512_mask_min_epi32(least, lanes(t), least, exponents(t));
        most = _mm512_max_epi32(most, exponents(t));
    }
    const int32_t exponent = _mm512_reduce_min_epi32(least);
    if (_mm512_reduce_max_epi32(most) - exponent > MOST_SHIFT) return false;
    // Four weights to four of each of their bytes.
    const __m512i apart = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i total = _mm512_setzero_si512();
    for (size_t t = 0; t < known; t += 16) {
        const __m512i weight = _mm512_cvtps_epi32(_mm512_maskz_loadu_ps(lanes(t), scores + t));
        total = _mm512_add_epi32(total, weight);
        const __m512i shift = _mm512_sub_epi32(exponents(t), _mm512_set1_epi32(exponent));
        _mm512_storeu_si512(scores + t, _mm512_shuffle_epi8(_mm512_sllv_epi32(weight, shift), apart));
    }
    const double unit = std::ldexp(1.0, exponent - 127), whole = static_cast<double>(_mm512_reduce_add_epi32(total));
    for (size_t c = 0; c < size; c += 64) {
        __m512i sums[3][4];
#pragma GCC unroll 3
        for (auto &some : sums)
#pragma GCC unroll 4
            for (auto &sum : some) sum = _mm512_setzero_si512();
        const int8_t *value = values + c * GROUP;
        const size_t parts = size - c < 64 ? (size - c + 15) / 16 : 4;
        for (size_t t = 0; t < known; t += GROUP, value += GROUP * size) {
            __m512i weight[3];
#pragma GCC unroll 3
            for (size_t byte = 0; byte < 3; byte++) {
                int32_t four;
                std::memcpy(&four, scores + t + byte, 4);
                weight[byte] = _mm512_set1_epi32(four);
            }
#pragma GCC unroll 4
            for (size_t part = 0; part < 4; part++) {
                if (part >= parts) break;
                const __m512i some = _mm512_loadu_si512(value + 64 * part);
#pragma GCC unroll 3
                for (size_t byte = 0; byte < 3; byte++)
                    sums[byte][part] = _mm512_dpbusd_epi32(sums[byte][part], weight[byte], some);
            }
        }
#pragma GCC unroll 4
        for (size_t part = 0; part < 4; part++) {
            const auto eight = [&](size_t half) {
                const auto wide = [&](size_t byte) {
                    return _mm512_cvtepi32_pd(half ? _mm512_extracti64x4_epi64(sums[byte][part], 1)
                                                   : _mm512_castsi512_si256(sums[byte][part]));
                };
                const __m512d step = _mm512_set1_pd(256);
                const __m512d sum = _mm512_fmadd_pd(_mm512_fmadd_pd(wide(2), step, wide(1)), step, wide(0));
                return _mm512_cvtpd_ps(_mm512_div_pd(_mm512_mul_pd(sum, _mm512_set1_pd(unit)), _mm512_set1_pd(whole)));
            };
            const size_t first = c + 16 * part, count = first >= size ? 0 : size - first < 16 ? size - first : 16;
            const __m512 found = _mm512_insertf32x8(_mm512_castps256_ps512(eight(0)), eight(1), 1);
            if (count) _mm512_mask_storeu_ps(y + first, static_cast<__mmask16>((1u << count) - 1), found);
        }
    }
    return true;
}

constexpr size_t MOST_SIZE = 1024;  // channels of a head, maqd.settings.language

// One query, 16 keys at a time: keys + 128, which are bytes without a sign, times the query.
void mix(const int8_t *query, float unit, const int8_t *keys, const float *key_units, const int8_t *values,
         const float *value_units, size_t known, size_t size, float factor, float *scores, double *mixed, float *y) {
    alignas(64) int8_t padded[MOST_SIZE];
    if (size % 64) std::memset(padded + size / 64 * 64, 0, 64);
    std::memcpy(padded, query, size);
    int32_t total = 0;
    for (size_t i = 0; i < size; i++) total += query[i];
    const __m512i sign = _mm512_set1_epi8(-128), offset = _mm512_set1_epi32(-128 * total);
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (size_t t = 0; t < known; t += 16) {
        const size_t count = known - t < 16 ? known - t : 16;
        __m512i sums[16];
        for (size_t i = 0; i < 16; i++) {
            const auto *key = reinterpret_cast<const uint8_t *>(keys) + (t + (i < count ? i : 0)) * size;
            sums[i] = _mm512_setzero_si512();
            for (size_t c = 0; c < size; c += 64)
                sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_xor_si512(load(key, c, size), sign),
                                              _mm512_load_si512(padded + c));
        }
        const auto lanes = static_cast<__mmask16>((1u << count) - 1);
        __m512 score = _mm512_cvtepi32_ps(_mm512_add_epi32(reduce(sums), offset));
        score = _mm512_mul_ps(score, _mm512_set1_ps(unit));
        score = _mm512_mul_ps(score, _mm512_maskz_loadu_ps(lanes, key_units + t));
        score = _mm512_mul_ps(score, _mm512_set1_ps(factor));
        _mm512_mask_storeu_ps(scores + t, lanes, score);
        most = _mm512_mask_max_ps(most, lanes, most, score);
    }
    weigh(scores, known, _mm512_reduce_max_ps(most));
    if (!weighted_bytes(values, value_units, known, size, scores, y))
        weighted_mean(values, value_units, known, size, scores, mixed, y);
}

}  // namespace

LanguageKernels avx512_language() {
    LanguageKernels made = language_kernels(rows, mix);
    made.spread = spread;
    return made;
}

}  // namespace maqd
