// The choice of an instruction set at run time.
#include <cstring>

#include "kernels/table.h"

#if defined(MAQD_X86)
#include "isa/x86.h"
#elif defined(MAQD_ARM64)
#include "isa/arm.h"
#endif

namespace maqd {

namespace {

constexpr Isa SCALAR = {
    "scalar", maqd_widen, maqd_narrow, maqd_add_shifted, maqd_conv_row, maqd_conv_row_wide, maqd_quantize,
    maqd_max_pool_row, maqd_sum_pool_row, maqd_transpose, nullptr, nullptr, nullptr, nullptr, false, 0, false, 0, 0, nullptr, nullptr, 0, false, nullptr, 0, 0, 0, 0, 0, 0, nullptr, nullptr, false, false,
};

constexpr size_t MOST = 8;

struct Available {
    const Isa *isas[MOST];
    const char *names[MOST + 1];
    size_t count = 0;

    Available() {
#if defined(MAQD_X86)
        if (has_amx()) add(amx());
        if (has_avx512()) add(AVX512);
        if (has_avx2()) add(AVX2);
#elif defined(MAQD_ARM64)
        add(NEON);
#endif
        add(SCALAR);
        names[count] = nullptr;
    }
    void add(const Isa &isa) {
        isas[count] = &isa;
        names[count++] = isa.name;
    }
};

const Available &available() {
    static const Available found;
    return found;
}

}  // namespace

const Isa *find_isa(const char *name) {
    const Available &found = available();
    if (!*name) return found.isas[0];
    for (size_t i = 0; i < found.count; i++)
        if (!std::strcmp(found.names[i], name)) return found.isas[i];
    return nullptr;
}

const char *const *isa_names() { return available().names; }

}  // namespace maqd
