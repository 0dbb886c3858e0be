// What follows the accumulators of a convolution, in loops of fixed length that compilers turn into vectors.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include <cstring>

#include "isa.h"

namespace maqd {
namespace {

constexpr size_t FINISH_WIDTH = 32;

template <class T>
inline void add_addend(const Finish &f, size_t at, int32_t *v) {
    T from[FINISH_WIDTH];
    std::memcpy(from, static_cast<const T *>(f.addend) + at, sizeof(from));  // the tensor has slack behind it
    for (size_t o = 0; o < FINISH_WIDTH; o++)
        v[o] = static_cast<int32_t>((static_cast<uint32_t>(v[o]) << f.shift) +
                                    (static_cast<uint32_t>(from[o] - f.addend_zero) << f.addend_shift));
}

template <class T>
inline void store_raw(const Finish &f, size_t at, const int32_t *v, size_t outputs) {
    T to[FINISH_WIDTH];
    for (size_t o = 0; o < FINISH_WIDTH; o++) to[o] = static_cast<T>(v[o] + f.raw_zero);
    std::memcpy(static_cast<T *>(f.raw) + at, to, outputs * sizeof(T));
}

// [pixels] rows of `stride` for `outputs` of a layer's outputs from `output` on, at most 32. Pixel 0 of the block is pixel
// `pixel` of the tensor. 32 accumulators of each row can be read.
inline void finish_plain(const Finish &f, const int32_t *acc, size_t stride, size_t pixel, size_t pixels, size_t output,
                         size_t outputs) {
    for (size_t p = 0; p < pixels; p++) {
        const size_t at = (pixel + p) * f.outputs + output;
        int32_t v[FINISH_WIDTH];
        for (size_t o = 0; o < FINISH_WIDTH; o++)
            v[o] = static_cast<int32_t>(static_cast<uint32_t>(acc[p * stride + o]) + static_cast<uint32_t>(f.bias[output + o]));
        if (f.addend) {
            if (f.addend_element == MAQD_U8)
                add_addend<uint8_t>(f, at, v);
            else if (f.addend_element == MAQD_I16)
                add_addend<int16_t>(f, at, v);
            else
                add_addend<int32_t>(f, at, v);
        }
        if (f.raw) {
            if (f.raw_element == MAQD_U8)
                store_raw<uint8_t>(f, at, v, outputs);
            else if (f.raw_element == MAQD_I16)
                store_raw<int16_t>(f, at, v, outputs);
            else
                store_raw<int32_t>(f, at, v, outputs);
        }
        if (!f.codes) continue;
        if (f.signs)
            for (size_t o = 0; o < FINISH_WIDTH; o++) v[o] = (v[o] ^ f.signs[output + o]) - f.signs[output + o];
        int32_t count[FINISH_WIDTH] = {};
        for (int32_t k = 0; k < f.levels; k++) {
            const int32_t *t = f.thresholds + static_cast<size_t>(k) * f.padded + output;
            for (size_t o = 0; o < FINISH_WIDTH; o++) count[o] += v[o] >= t[o];
        }
        uint8_t codes[FINISH_WIDTH];
        for (size_t o = 0; o < FINISH_WIDTH; o++) codes[o] = static_cast<uint8_t>(f.base + f.spacing * count[o]);
        std::memcpy(f.codes + at, codes, outputs);
    }
}

}  // namespace
}  // namespace maqd
