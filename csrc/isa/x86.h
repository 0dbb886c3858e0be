// Instruction sets of x86-64.
#pragma once

#include "kernels/table.h"

namespace maqd {

extern const Isa AVX2;
extern const Isa AVX512;
const Isa &amx();
bool has_avx2();
bool has_avx512();
bool has_amx();

}  // namespace maqd
