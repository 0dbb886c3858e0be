// The choice of an instruction set at run time.
#include <cstring>

#include "isa/plain.h"
#include "kernels/table.h"

#if defined(MAQD_X86)
#include <cpuid.h>

#include "isa/x86.h"
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(MAQD_ARM64)
#include "isa/arm.h"
#endif

namespace maqd {

namespace {

#if defined(MAQD_X86)
// Whether the processor has all features of the set.
bool has_features(const char *isa) {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    bool all = true;
#define FEATURE(set, name, leaf, reg, bit) \
    if (!std::strcmp(isa, #set)) all = all && __get_cpuid_count(leaf, 0, &eax, &ebx, &ecx, &edx) && (reg >> bit & 1);
#include "isa/features.h"
#undef FEATURE
    return all;
}

// The compiler's checks also ask whether the operating system keeps the wide registers.
bool has_avx2() { return has_features("avx2") && __builtin_cpu_supports("avx2"); }
bool has_avx512() { return has_avx2() && has_features("avx512") && __builtin_cpu_supports("avx512f"); }

// On Linux each process has to request tiles.
bool has_amx() {
#if defined(__linux__)
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM of arch_prctl
    return has_avx512() && has_features("amx") && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

// Kernels for any processor; the engine can do without all others.
const Isa &scalar() {
    static const Isa isa = [] {
        Isa made{};
        made.name = "scalar";
        FILL_SCALAR_KERNELS(made.scalar, );
        made.language = plain_language();
        return made;
    }();
    return isa;
}

constexpr size_t MOST = 8;

struct Available {
    const Isa *isas[MOST];
    const char *names[MOST + 1];
    size_t count = 0;

    Available() {
#if defined(MAQD_X86)
        if (has_amx()) add(amx());
        if (has_avx512()) add(avx512());
        if (has_avx2()) add(avx2());
#elif defined(MAQD_ARM64)
        add(neon());
#endif
        add(scalar());
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
