// Instruction sets of x86-64. Each table is built when first asked for: only then does a processor run code of its
// file.
#pragma once

#include "kernels/table.h"

namespace maqd {

const Isa &avx2();
const Isa &avx512();
const Isa &amx();

}  // namespace maqd
