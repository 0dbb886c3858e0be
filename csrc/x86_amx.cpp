// AMX: the dense kernel on tiles of 16 pixels x 16 outputs x 64 inputs; everything else is AVX-512.
#include <immintrin.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "panel.h"
#include "x86.h"

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

constexpr size_t PIXELS = 16;  // of a tile

size_t dense_scratch(const Dense &dense) { return left_scratch(dense) + 2 * PIXELS * 32 * 4; }

void configure() {
    TileConfig config;
    for (int tile = 0; tile < 8; tile++) {
        config.bytes[tile] = 64;
        config.rows[tile] = 16;
    }
    _tile_loadconfig(&config);
}

// Two tiles of pixels, or only the first, x 32 outputs; `weights` are two blocks of 16 outputs.
template <bool BOTH>
inline void tiles(const Dense &d, const uint8_t *a, const uint8_t *b, const Left &left, const int8_t *weights,
                  int32_t *acc) {
    const int8_t *other = weights + d.depth() * 16;
    const auto stride = static_cast<long>(left.stride);
    _tile_zero(0);
    _tile_zero(1);
    if (BOTH) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int32_t row = 0; row < d.runs(); row++, a += left.pitch, b += left.pitch)
        for (size_t k = 0; k < d.run; k += STEP, weights += STEP * 16, other += STEP * 16) {
            _tile_loadd(4, a + k, stride);
            _tile_loadd(6, weights, 64);
            _tile_loadd(7, other, 64);
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            if (BOTH) {
                _tile_loadd(5, b + k, stride);
                _tile_dpbusd(2, 5, 6);
                _tile_dpbusd(3, 5, 7);
            }
        }
    _tile_stored(0, acc, 128);
    _tile_stored(1, acc + 16, 128);
    if (BOTH) {
        _tile_stored(2, acc + PIXELS * 32, 128);
        _tile_stored(3, acc + PIXELS * 32 + 16, 128);
    }
}

// Up to 16 neighbouring pixels.
struct Segment {
    const uint8_t *left;
    size_t pixel, count;
};

// One or two segments, all outputs of the group.
inline void segments(const Dense &d, const Finish &finish, const Left &left, const Segment *s, size_t count, size_t o,
                     size_t outputs, int32_t *acc) {
    const int8_t *weights = d.weights + o * d.depth();
    if (count > 1)
        tiles<true>(d, s[0].left, s[1].left, left, weights, acc);
    else
        tiles<false>(d, s[0].left, s[0].left, left, weights, acc);
    for (size_t i = 0; i < count; i++)
        finish_avx512(finish, acc + i * PIXELS * 32, 32, s[i].pixel, s[i].count, d.first_output + o,
                      outputs - o < 32 ? outputs - o : 32);
}

void dense(const Dense &d, const Finish &finish, size_t images, size_t first, size_t last, uint8_t *scratch) {
    const auto columns = static_cast<size_t>(d.conv.columns);
    const size_t outputs = finish.outputs / static_cast<size_t>(d.conv.groups);
    const size_t pixels = images * static_cast<size_t>(d.conv.rows) * columns;
    auto *acc = reinterpret_cast<int32_t *>(scratch + left_scratch(d));
    configure();
    for (size_t part = first; part < last;) {
        if (!d.strips) {
            const size_t pixel = part * DENSE_PIXELS;
            const size_t count = pixels - pixel < DENSE_PIXELS ? pixels - pixel : DENSE_PIXELS;
            const Left left = fill_panel(d, Place::of(d.conv, pixel), count, scratch);
            const Segment s[2] = {{left.first, pixel, count < PIXELS ? count : PIXELS},
                                  {left.first + PIXELS * left.stride, pixel + PIXELS, count - PIXELS}};
            for (size_t o = 0; o < outputs; o += 32) segments(d, finish, left, s, count > PIXELS ? 2 : 1, o, outputs, acc);
            part++;
            continue;
        }
        // Several rows at a time: weights are used for several tiles while they are in the nearest cache.
        const size_t rows = strip_rows(d, part, last - part), across = (columns + PIXELS - 1) / PIXELS;
        const Left left = fill_strips(d, part, rows, scratch);
        const size_t step = strip_step(d);
        const auto segment = [&](size_t i) {
            const size_t row = i / across, column = i % across * PIXELS;
            return Segment{left.first + row * step + column * left.stride, (part + row) * columns + column,
                           columns - column < PIXELS ? columns - column : PIXELS};
        };
        for (size_t o = 0; o < outputs; o += 32)
            for (size_t i = 0; i < rows * across; i += 2) {
                const bool both = i + 1 < rows * across;
                const Segment s[2] = {segment(i), both ? segment(i + 1) : Segment{}};
                segments(d, finish, left, s, both ? 2 : 1, o, outputs, acc);
            }
        part += rows;
    }
    _tile_release();
}

Isa with_tiles() {
    Isa isa = AVX512;
    isa.name = "amx";
    isa.dense = dense;
    isa.dense_scratch = dense_scratch;
    isa.dense_align = STEP;
    isa.strip_columns = 12;
    isa.dense_cost = 0.0005;
    return isa;
}

}  // namespace

const Isa &amx() {
    static const Isa isa = with_tiles();  // when first used: AVX512 is a constant of another file
    return isa;
}

}  // namespace maqd
