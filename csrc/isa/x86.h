// Instruction sets of x86-64. A table is built when first asked for, since that runs code of its instruction set.
#pragma once

#include "kernels/table.h"

namespace maqd {

const Isa &avx2();
const Isa &avx512();
const Isa &amx();

LanguageKernels avx2_language();
LanguageKernels avx512_language();
LanguageKernels amx_language();

}  // namespace maqd
