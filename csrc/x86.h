// Instruction sets of x86-64.
#pragma once

#include "isa.h"

namespace maqd {

// For AVX-512 and AMX: stores what is made of accumulators: [pixels] rows of `stride`, for `outputs` of a layer's outputs from `output` on,
// at most 32. Pixel 0 of the block is pixel `pixel` of the tensor.
void finish_avx512(const Finish &finish, const int32_t *acc, size_t stride, size_t pixel, size_t pixels, size_t output,
                   size_t outputs);

// The same for products of Winograd's filtering, m[6][BLOCK][32] of winograd.h, of `count` quads.
void combine_avx512(const Finish &finish, const int32_t *m, const Quad *quads, size_t count, size_t output,
                    size_t outputs);

extern const Isa AVX2;
extern const Isa AVX512;
const Isa &amx();
bool has_avx2();
bool has_avx512();
bool has_amx();

}  // namespace maqd
