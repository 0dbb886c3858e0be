// Language models with AMX: 32 rows times up to 32 tokens at a time; everything else is AVX-512.
#include "isa/x86.h"
#include "isa/x86_tiles.h"
#include "isa/x86_trits.h"

namespace maqd {

namespace {

constexpr size_t TILE = TILE_ROWS * TILE_BYTES, ROWS = 2 * TILE_ROWS, TOKENS = 2 * TILE_ROWS;

size_t rows_memory(size_t digits, size_t pitch) { return TOKENS * digits * pitch + digits * 4 * TILE + 4 * TILE; }

// v[i] lane j becomes v[j] lane i.
inline void transpose(__m512i *v) {
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    // b[4 i + j] has column 4 q + j of rows 4 i .. 4 i + 3 in its quarter q.
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i even = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88),
                      odd = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
        const __m512i more = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        const __m512i most = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
        v[j] = _mm512_shuffle_i32x4(even, more, 0x88);
        v[8 + j] = _mm512_shuffle_i32x4(even, more, 0xdd);
        v[4 + j] = _mm512_shuffle_i32x4(odd, most, 0x88);
        v[12 + j] = _mm512_shuffle_i32x4(odd, most, 0xdd);
    }
}

// Inputs of up to 16 tokens as tiles in the order of `products`, [pitch / 64][digits][2 of tokens], four inputs of a
// token side by side: [16][tokens][4].
void fill(const RowsCall &call, const int8_t *x, size_t count, uint8_t *tiles) {
    const size_t depth = call.digits * call.pitch;
    for (size_t k = 0; k < depth; k += TILE_BYTES) {
        uint8_t *to = tiles + (k % call.pitch / TILE_BYTES * call.digits + k / call.pitch) * 2 * TILE;
        __m512i v[TILE_ROWS];
        for (size_t t = 0; t < TILE_ROWS; t++)
            v[t] = t < count ? _mm512_loadu_si512(x + t * depth + k) : _mm512_setzero_si512();
        transpose(v);
        for (size_t i = 0; i < TILE_ROWS; i++) _mm512_store_si512(to + i * TILE_BYTES, v[i]);
    }
}

// Products of 32 rows and the tokens of one or two tiles: found[2 of rows][2 of tokens][16 rows][16 tokens].
template <size_t DIGITS, bool BOTH>
void products(const RowsCall &call, const uint8_t *const *row, const uint8_t *tokens, uint8_t *weights,
              uint8_t *found) {
    const Digits digits;
    _tile_zero(0);
    _tile_zero(2);
    if (BOTH) {
        _tile_zero(1);
        _tile_zero(3);
    }
    // 64 bytes of each row are unpacked before tiles of the 64 before them are multiplied: those have left for the
    // cache.
    const auto unpack = [&](size_t j) {
        uint8_t *to = weights + j / TILE_BYTES % 2 * DIGITS * 2 * TILE;
        for (size_t r = 0; r < ROWS; r++) {
            _mm_prefetch(row[r] + ROWS * call.row_bytes + j, _MM_HINT_T0);  // of the next rows
            const __m512i n = load(row[r], j, call.row_bytes);
            __m512i digit[TRITS] = {n};
            if (DIGITS != 1) digits.of(n, digit);
#pragma GCC unroll 5
            for (size_t d = 0; d < DIGITS; d++) _mm512_store_si512(to + d * 2 * TILE + r * TILE_BYTES, digit[d]);
        }
    };
    unpack(0);
    for (size_t j = 0; j < call.row_bytes; j += TILE_BYTES) {
        const uint8_t *from = weights + j / TILE_BYTES % 2 * DIGITS * 2 * TILE;
        if (j + TILE_BYTES < call.row_bytes) unpack(j + TILE_BYTES);
        asm volatile("" ::: "memory");  // compilers do not see what tiles read
        for (size_t d = 0; d < DIGITS; d++) {
            const uint8_t *x = tokens + (j / TILE_BYTES * DIGITS + d) * 2 * TILE;
            _tile_loadd(4, from + d * 2 * TILE, TILE_BYTES);
            _tile_loadd(6, x, TILE_BYTES);
            _tile_dpbusd(0, 4, 6);
            _tile_loadd(5, from + d * 2 * TILE + TILE, TILE_BYTES);
            _tile_dpbusd(2, 5, 6);
            if (BOTH) {
                _tile_loadd(7, x + TILE, TILE_BYTES);
                _tile_dpbusd(1, 4, 7);
                _tile_dpbusd(3, 5, 7);
            }
        }
    }
    _tile_stored(0, found, TILE_BYTES);
    _tile_stored(2, found + 2 * TILE, TILE_BYTES);
    if (BOTH) {
        _tile_stored(1, found + TILE, TILE_BYTES);
        _tile_stored(3, found + 3 * TILE, TILE_BYTES);
    }
    asm volatile("" ::: "memory");
}

void rows(const RowsCall &call, size_t first, size_t last, uint8_t *memory) {
    if (call.tokens < 3) {
        static const auto few = avx512_language().rows;
        few(call, first, last, memory);
        return;
    }
    const size_t depth = call.digits * call.pitch;
    uint8_t *weights = memory + TOKENS * depth, *found = weights + call.digits * 4 * TILE;
    configure();
    for (size_t t = 0; t < call.tokens; t += TOKENS) {
        const size_t some = call.tokens - t < TOKENS ? call.tokens - t : TOKENS;
        for (size_t half = 0; half < some; half += TILE_ROWS)
            fill(call, call.x + (t + half) * depth, some - half < TILE_ROWS ? some - half : TILE_ROWS,
                 memory + half / TILE_ROWS * TILE);
        for (size_t o = first; o < last; o += ROWS) {
            const uint8_t *row[ROWS];
            for (size_t r = 0; r < ROWS; r++) row[r] = call.weights + (o + r < last ? o + r : o) * call.row_bytes;
            const auto of = [&](auto few, auto many) { return call.digits == 1 ? few : many; };
            (some > TILE_ROWS ? of(products<1, true>, products<TRITS, true>)
                              : of(products<1, false>, products<TRITS, false>))(call, row, memory, weights, found);
            for (size_t part = 0; part < 2 && o + part * TILE_ROWS < last; part++) {
                const size_t output = o + part * TILE_ROWS,
                             count = last - output < TILE_ROWS ? last - output : TILE_ROWS;
                for (size_t half = 0; half < some; half += TILE_ROWS) {
                    const uint8_t *from = found + (2 * part + half / TILE_ROWS) * TILE;
                    __m512i v[TILE_ROWS];
                    for (size_t i = 0; i < TILE_ROWS; i++) v[i] = _mm512_load_si512(from + i * TILE_BYTES);
                    transpose(v);
                    for (size_t i = 0; i < TILE_ROWS && half + i < some; i++) {
                        const size_t token = t + half + i;
                        _mm512_mask_storeu_epi32(
                            call.sums + token * call.stride + output, static_cast<__mmask16>((1u << count) - 1),
                            finish(v[i], call.spacing, _mm512_set1_epi32(call.low * call.totals[token])));
                    }
                }
            }
        }
    }
    _tile_release();
}

}  // namespace

LanguageKernels amx_language() {
    LanguageKernels made = avx512_language();
    made.rows = rows;
    made.rows_memory = rows_memory;
    return made;
}

}  // namespace maqd
