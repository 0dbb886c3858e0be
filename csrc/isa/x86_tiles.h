// Tiles of AMX: eight, each 16 rows of 64 bytes.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace maqd {

namespace {

constexpr size_t TILE_ROWS = 16, TILE_BYTES = 64;

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

inline void configure() {
    TileConfig config;
    for (int tile = 0; tile < 8; tile++) {
        config.bytes[tile] = TILE_BYTES;
        config.rows[tile] = TILE_ROWS;
    }
    _tile_loadconfig(&config);
}

}  // namespace

}  // namespace maqd
