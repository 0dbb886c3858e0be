// Weights from a file, in the orders of the kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/memory.h"
#include "kernels/calls.h"

namespace maqd {

// Codes of `count` states in groups, as docs/format.md has them: [outputs][bytes of a row]. A row is
// [inputs][kernel rows][kernel columns]; code = low + spacing * index.
struct PackedWeights {
    const uint8_t *data;
    size_t row_bytes;
    int count, low, spacing;
    int digits, group_bytes;
    size_t outputs, inputs, taps;  // inputs of a group; kernel rows x kernel columns

    size_t depth() const { return inputs * taps; }
    int highest() const { return low + spacing * (count - 1); }
    bool narrow() const { return low >= -128 && highest() <= 127; }  // whether codes fit int8
};

// Scalar kernels: [taps][groups][inputs][outputs / groups]. `negate` flips the outputs whose flag is set.
template <class T>
Memory scalar_weights(const PackedWeights &packed, size_t groups, const std::vector<bool> &negate);

// Sums of the codes of each output.
std::vector<int64_t> code_sums(const PackedWeights &packed, const std::vector<bool> &negate);

// Dense kernels, one group: [outputs / 16][depth / 4][16][4], filled up with zeros, or compact; see DenseCall.
Memory dense_weights(const PackedWeights &packed, size_t first_output, size_t outputs, const DenseCall &dense,
                     const std::vector<bool> &negate);

Memory compact_weights(const PackedWeights &packed, const DenseCall &dense, const std::vector<bool> &negate);

// The transformed weights as WinogradCall::weights has them, and WinogradCall::start.
Memory winograd_weights(const PackedWeights &packed, const WinogradCall &winograd, const std::vector<bool> &negate,
                        int32_t *start);

// How weights are written as planes of bits: acc = sum_p coefficients[p] * plane sums + input_sum_coefficient * sum x.
struct WeightPlanes {
    int planes;
    int32_t coefficients[8];
    int32_t input_sum_coefficient;
};
WeightPlanes weight_planes(const PackedWeights &packed);

// Event kernels: rows of planes as EventsCall has them, one group, with the row of zeros.
Memory event_rows(const PackedWeights &packed, int lanes, int chunks, size_t row_bytes,
                  const std::vector<bool> &negate);

// The same for a sweep: [kernel rows][inputs] rows of 64 bytes.
Memory sweep_rows(const PackedWeights &packed, int kernel_columns, const std::vector<bool> &negate);

}  // namespace maqd
