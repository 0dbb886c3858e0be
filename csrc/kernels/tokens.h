// The kernels of language models for any processor: the definition. An instruction set compiles them for itself, and
// may replace `rows`.
//
// Floats are computed in one order, one rounding for each operation and none fused (docs/language.md): files that
// include this are compiled with -ffp-contract=off.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/language.h"

namespace maqd {

namespace {

constexpr int32_t LEAST_EXPONENT = -60, MOST_EXPONENT = 60;  // maqd.numerics.tokens
constexpr float LOG2_E = 1.44269502162933349609375f;
constexpr float LOWEST_POWER = -126.0f;
constexpr float PROBABILITY = 32768.0f;

inline float power_of_two(int32_t exponent) {
    const int32_t bits = (exponent + 127) << 23;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// 2^t for -126 <= t <= 126.
inline float exp2_fixed(float t) {
    const float whole = std::floor(t + 0.5f), rest = t - whole;
    float result = 1.535336188319500e-4f;
    result = result * rest + 1.339887440266574e-3f;
    result = result * rest + 9.618437357674640e-3f;
    result = result * rest + 5.550332471162809e-2f;
    result = result * rest + 2.402264791363012e-1f;
    result = result * rest + 6.931472028550421e-1f;
    result = result * rest + 1.0f;
    return result * power_of_two(static_cast<int32_t>(whole));
}

[[maybe_unused]] void plain_rows(const RowsCall &call, size_t first, size_t last, uint8_t *) {
    for (size_t o = first; o < last; o++) {
        const uint8_t *row = call.weights + o * call.row_bytes;
        for (size_t t = 0; t < call.tokens; t++) {
            const int8_t *x = call.x + t * call.digits * call.pitch;
            int32_t sum = 0;
            for (size_t j = 0; j < call.row_bytes; j++) {
                int32_t rest = row[j];
                if (call.digits == 1)
                    sum += rest * x[j];
                else
                    for (size_t d = 0; d < TRITS; d++, rest /= 3) sum += rest % 3 * x[d * call.pitch + j];
            }
            call.sums[t * call.stride + o] = call.spacing * sum + call.low * call.totals[t];
        }
    }
}

// Four unpacked rows.
size_t rows_memory(size_t digits, size_t pitch) { return 4 * digits * pitch; }

void norm(const float *x, const float *weight, size_t channels, double eps, float *y) {
    double sums[8] = {};
    size_t c = 0;
    for (; c + 8 <= channels; c += 8)
        for (size_t i = 0; i < 8; i++) sums[i] += static_cast<double>(x[c + i]) * static_cast<double>(x[c + i]);
    for (; c < channels; c++) sums[0] += static_cast<double>(x[c]) * static_cast<double>(x[c]);
    double sum = 0;
    for (const double one : sums) sum += one;
    const auto inverse = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(channels) + eps));
    for (c = 0; c < channels; c++) y[c] = x[c] * inverse * weight[c];
}

int32_t quantize(const float *x, size_t channels, int32_t limit, int32_t bits, int8_t *codes) {
    int32_t largest = 0;  // magnitudes of floats are in the order of their bits
    for (size_t c = 0; c < channels; c++) {
        int32_t one;
        std::memcpy(&one, x + c, 4);
        one &= 0x7fffffff;
        largest = one > largest ? one : largest;
    }
    int32_t exponent = largest ? (largest >> 23) - 126 : 0;  // as frexp, down to the limit
    exponent = exponent < LEAST_EXPONENT ? LEAST_EXPONENT : exponent > MOST_EXPONENT ? MOST_EXPONENT : exponent;
    const float scale = power_of_two(bits - exponent), most = static_cast<float>(limit);
    for (size_t c = 0; c < channels; c++) {
        const float scaled = x[c] * scale, floor = std::floor(scaled);
        float rounded = floor + (scaled - floor >= 0.5f ? 1.0f : 0.0f);
        rounded = rounded < -most ? -most : rounded;
        rounded = rounded > most ? most : rounded;
        codes[c] = static_cast<int8_t>(static_cast<int32_t>(rounded));
    }
    return exponent - bits;
}

[[maybe_unused]] int32_t plain_spread(const int8_t *codes, size_t channels, size_t pitch, int8_t *planes) {
    int32_t total = 0;
    for (size_t c = 0; c < channels; c++) total += codes[c];
    std::memset(planes, 0, TRITS * pitch);
    const size_t whole = channels / TRITS;
    for (size_t j = 0; j < whole; j++)
        for (size_t d = 0; d < TRITS; d++) planes[d * pitch + j] = codes[TRITS * j + d];
    for (size_t c = whole * TRITS; c < channels; c++) planes[c % TRITS * pitch + whole] = codes[c];
    return total;
}

void scale(void *sums, size_t count, int32_t exponent) {
    auto *at = static_cast<uint8_t *>(sums);
    const auto each = [&](auto unit) {
        for (size_t i = 0; i < count; i++) {
            int32_t sum;
            std::memcpy(&sum, at + 4 * i, 4);
            const auto value = static_cast<float>(static_cast<decltype(unit)>(sum) * unit);
            std::memcpy(at + 4 * i, &value, 4);
        }
    };
    if (-90 <= exponent && exponent <= 90)  // then powers of two do not round float32
        each(power_of_two(exponent));
    else
        each(std::ldexp(1.0, exponent));
}

void rotate(float *x, size_t size, const float *cosine, const float *sine) {
    for (size_t i = 0; i < size / 2; i++) {
        const float even = x[2 * i], odd = x[2 * i + 1];
        x[2 * i] = even * cosine[i] - odd * sine[i];
        x[2 * i + 1] = even * sine[i] + odd * cosine[i];
    }
}

void gate(const float *gates, const float *up, size_t channels, float *y) {
    if (!gates) {
        for (size_t c = 0; c < channels; c++) {
            const float positive = up[c] > 0 ? up[c] : 0.0f;
            y[c] = positive * positive;
        }
        return;
    }
    // In two steps: together, compilers compute both ends of the range for every channel, in denormal numbers.
    constexpr size_t STEP = 64;
    for (size_t first = 0; first < channels; first += STEP) {
        const size_t count = channels - first < STEP ? channels - first : STEP;
        float powers[STEP];
        for (size_t i = 0; i < count; i++) {
            const float power = gates[first + i] * -LOG2_E, above = power < LOWEST_POWER ? LOWEST_POWER : power;
            powers[i] = above > -LOWEST_POWER ? -LOWEST_POWER : above;
        }
#pragma GCC ivdep  // y may be where the gates are
        for (size_t i = 0; i < count; i++)
            y[first + i] = gates[first + i] / (exp2_fixed(powers[i]) + 1.0f) * up[first + i];
    }
}

// Scores become weights, integers up to 2^15 for the largest.
inline void weigh(float *scores, size_t known, float most) {
    for (size_t t = 0; t < known; t++) {
        float power = scores[t] - most;
        power = power < LOWEST_POWER ? LOWEST_POWER : power;
        scores[t] = std::floor(exp2_fixed(power) * PROBABILITY + 0.5f);
    }
}

// The mean of values with their weights, the scores.
inline void weighted_mean(const int8_t *values, const float *value_units, size_t known, size_t size,
                          const float *scores, double *mixed, float *y) {
    std::memset(mixed, 0, size * sizeof *mixed);
    double total = 0;
    for (size_t t = 0; t < known; t++) {
        if (scores[t] == 0) continue;
        total += static_cast<double>(scores[t]);
        const double weight = static_cast<double>(scores[t]) * static_cast<double>(value_units[t]);
        const int8_t *value = values + t / GROUP * GROUP * size + t % GROUP;
        for (size_t i = 0; i < size; i++) mixed[i] += weight * static_cast<double>(value[GROUP * i]);
    }
    for (size_t i = 0; i < size; i++) y[i] = static_cast<float>(mixed[i] / total);
}

[[maybe_unused]] void plain_mix(const int8_t *query, float unit, const int8_t *keys, const float *key_units,
                                const int8_t *values, const float *value_units, size_t known, size_t size, float factor,
                                float *scores, double *mixed, float *y) {
    float most = -INFINITY;
    for (size_t t = 0; t < known; t++) {
        const int8_t *key = keys + t * size;
        int32_t sum = 0;
        for (size_t i = 0; i < size; i++) sum += query[i] * key[i];
        scores[t] = static_cast<float>(sum) * unit * key_units[t] * factor;
        most = scores[t] > most ? scores[t] : most;
    }
    weigh(scores, known, most);
    weighted_mean(values, value_units, known, size, scores, mixed, y);
}

// The functions above, compiled for the instruction set of the file.
[[maybe_unused]] LanguageKernels language_kernels(decltype(LanguageKernels::rows) rows,
                                                  decltype(LanguageKernels::mix) mix) {
    LanguageKernels made{};
    made.rows = rows;
    made.rows_memory = rows_memory;
    made.spread = plain_spread;
    made.norm = norm;
    made.quantize = quantize;
    made.scale = scale;
    made.rotate = rotate;
    made.gate = gate;
    made.mix = mix;
    return made;
}

}  // namespace

}  // namespace maqd
