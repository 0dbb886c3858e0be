// Instruction sets of 64-bit ARM.
#pragma once

#include "isa.h"

namespace maqd {

extern const Isa NEON;

}  // namespace maqd
