// Instruction sets of 64-bit ARM.
#pragma once

#include "kernels/table.h"

namespace maqd {

const Isa &neon();

}  // namespace maqd
