// Kernels of language models: rows of packed codes times the codes of tokens, and what stands between maps.
//
// kernels/tokens.h defines them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace maqd {

constexpr size_t TRITS = 5;       // ternary weights in a byte, the first one in the lowest digit
constexpr size_t ROW_ALIGN = 64;  // bytes that planes of inputs are padded to
constexpr size_t GROUP = 4;       // tokens whose values lie side by side

// sums[t][o] = spacing * sum_i index[o][i] x[t][i] + low * total[t]
struct RowsCall {
    const uint8_t *weights;  // [rows][row_bytes]: indices of states, `digits` a byte
    size_t rows, row_bytes;
    size_t digits;        // TRITS for three states, or 1
    const int8_t *x;      // [tokens][digits][pitch]: plane d has the inputs of digit d, and zeros up to the pitch
    size_t pitch;         // row_bytes, padded to a multiple of ROW_ALIGN
    size_t tokens;
    const int32_t *totals;  // of the inputs of each token
    int32_t low, spacing;
    int32_t *sums;  // [tokens][stride]
    size_t stride;
};

struct LanguageKernels {
    // Rows first .. last - 1. `memory` has rows_memory(digits, pitch) bytes.
    void (*rows)(const RowsCall &, size_t first, size_t last, uint8_t *memory);
    size_t (*rows_memory)(size_t digits, size_t pitch);
    // y = (x / root mean square) weight
    void (*norm)(const float *x, const float *weight, size_t channels, double eps, float *y);
    // Codes of one token, |code| <= limit < 2^bits, and the exponent of their unit.
    int32_t (*quantize)(const float *x, size_t channels, int32_t limit, int32_t bits, int8_t *codes);
    // Codes digit by digit, [TRITS][pitch], with zeros up to the pitch; their total.
    int32_t (*spread)(const int8_t *codes, size_t channels, size_t pitch, int8_t *planes);
    // int32 sums become float32(sums) times 2^exponent, in place.
    void (*scale)(void *sums, size_t count, int32_t exponent);
    // Pairs of channels turned in place.
    void (*rotate)(float *x, size_t size, const float *cosine, const float *sine);
    // y = gate / (1 + exp2(-gate log2 e)) * up; without a gate max(up, 0)^2.
    void (*gate)(const float *gate, const float *up, size_t channels, float *y);
    // Attention of one query on `known` keys, [known][size], and values, [known / GROUP][size][GROUP], with a unit
    // each. `scores` has `known` floats, up to a multiple of 16; `mixed` has `size` doubles.
    void (*mix)(const int8_t *query, float unit, const int8_t *keys, const float *key_units, const int8_t *values,
                const float *value_units, size_t known, size_t size, float factor, float *scores, double *mixed,
                float *y);
};

}  // namespace maqd
