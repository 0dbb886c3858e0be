// Language models for any processor.
#include "isa/plain.h"
#include "kernels/tokens.h"

namespace maqd {

LanguageKernels plain_language() { return language_kernels(plain_rows, plain_mix); }

}  // namespace maqd
