// AMX: the dense kernel on tiles of 16 pixels x 16 outputs x 64 inputs; everything else is AVX-512.
#include <immintrin.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "panel.h"
#include "x86_avx512.h"

namespace maqd {

// The processor has it and the operating system lets this process use it.
bool has_amx() {
#if defined(__linux__)
    if (!has_avx512()) return false;
    uint32_t a, b, c, d;
    asm volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    const bool tiles = d >> 24 & 1, int8 = d >> 25 & 1;
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM of arch_prctl
    return tiles && int8 && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

namespace {

constexpr size_t STEP = 64;  // inputs of a tile

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

size_t dense_scratch(const Dense &dense) { return DENSE_PIXELS * dense.depth + DENSE_PIXELS * 32 * 4; }

void configure() {
    TileConfig config;
    for (int tile = 0; tile < 8; tile++) {
        config.bytes[tile] = 64;
        config.rows[tile] = 16;
    }
    _tile_loadconfig(&config);
}

// 32 pixels x 32 outputs, or 16 x 32; `weights` are two blocks of 16 outputs.
template <bool BOTH>
inline void tiles(const uint8_t *panel, size_t depth, const int8_t *weights, int32_t *acc) {
    const int8_t *other = weights + depth * 16;
    _tile_zero(0);
    _tile_zero(1);
    if (BOTH) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t k = 0; k < depth; k += STEP) {
        _tile_loadd(4, panel + k, static_cast<long>(depth));
        _tile_loadd(6, weights + k * 16, 64);
        _tile_loadd(7, other + k * 16, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        if (BOTH) {
            _tile_loadd(5, panel + 16 * depth + k, static_cast<long>(depth));
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
    }
    _tile_stored(0, acc, 128);
    _tile_stored(1, acc + 16, 128);
    if (BOTH) {
        _tile_stored(2, acc + 16 * 32, 128);
        _tile_stored(3, acc + 16 * 32 + 16, 128);
    }
}

void dense(const Dense &d, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    uint8_t *panel = scratch;
    auto *acc = reinterpret_cast<int32_t *>(scratch + DENSE_PIXELS * d.depth);
    const size_t outputs = finish.outputs / static_cast<size_t>(d.conv.groups);
    configure();
    for (size_t pixel = first; pixel < last; pixel += DENSE_PIXELS) {
        const size_t count = last - pixel < DENSE_PIXELS ? last - pixel : DENSE_PIXELS;
        fill_panel(d, Place::of(d.conv, pixel), count, panel);
        for (size_t o = 0; o < outputs; o += 32) {
            if (count > 16)
                tiles<true>(panel, d.depth, d.weights + o * d.depth, acc);
            else
                tiles<false>(panel, d.depth, d.weights + o * d.depth, acc);
            finish_avx512(finish, acc, 32, pixel, count, d.first_output + o, outputs - o < 32 ? outputs - o : 32);
        }
    }
    _tile_release();
}

Isa with_tiles() {
    Isa isa = AVX512;
    isa.name = "amx";
    isa.dense = dense;
    isa.dense_scratch = dense_scratch;
    isa.dense_cost = 0.0004;
    return isa;
}

}  // namespace

const Isa &amx() {
    static const Isa isa = with_tiles();  // when first used: AVX512 is a constant of another file
    return isa;
}

}  // namespace maqd
