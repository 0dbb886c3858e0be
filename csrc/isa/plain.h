// What any processor has.
#pragma once

#include "kernels/language.h"

namespace maqd {

LanguageKernels plain_language();

}  // namespace maqd
