// Instruction sets of 64-bit ARM.
#pragma once

#include "kernels/table.h"

namespace maqd {

extern const Isa NEON;

}  // namespace maqd
