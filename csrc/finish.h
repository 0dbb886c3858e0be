// What follows the accumulators of a convolution, in loops of fixed length that compilers turn into vectors.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include <cstring>
#include <new>

#include "isa.h"

namespace maqd {
namespace {

constexpr size_t FINISH_WIDTH = 32;

// Multiplying by it modulo 2^32 divides a multiple of 3.
constexpr uint32_t THIRD = 0xaaaaaaabu;

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

// For some of a layer's outputs, at most 32.
class PlainFinisher {
  public:
    PlainFinisher(const Finish &finish, size_t output, size_t outputs) : f(finish), output_(output), outputs_(outputs) {}

    // Rows of accumulators, `stride` apart, of `pixels` pixels of the tensor from `pixel` on; 32 of each row can be read.
    inline void block(const int32_t *acc, size_t stride, size_t pixel, size_t pixels) const {
        for (size_t p = 0; p < pixels; p++) {
            const size_t at = (pixel + p) * f.outputs + output_;
            int32_t v[FINISH_WIDTH];
            for (size_t o = 0; o < FINISH_WIDTH; o++)
                v[o] = static_cast<int32_t>(static_cast<uint32_t>(acc[p * stride + o]) +
                                            static_cast<uint32_t>(f.bias[output_ + o]));
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
                    store_raw<uint8_t>(f, at, v, outputs_);
                else if (f.raw_element == MAQD_I16)
                    store_raw<int16_t>(f, at, v, outputs_);
                else
                    store_raw<int32_t>(f, at, v, outputs_);
            }
            if (!f.codes) continue;
            if (f.signs)
                for (size_t o = 0; o < FINISH_WIDTH; o++) v[o] = (v[o] ^ f.signs[output_ + o]) - f.signs[output_ + o];
            int32_t count[FINISH_WIDTH] = {};
            for (int32_t k = 0; k < f.levels; k++) {
                const int32_t *t = f.thresholds + static_cast<size_t>(k) * f.padded + output_;
                for (size_t o = 0; o < FINISH_WIDTH; o++) count[o] += v[o] >= t[o];
            }
            uint8_t codes[FINISH_WIDTH];
            for (size_t o = 0; o < FINISH_WIDTH; o++) codes[o] = static_cast<uint8_t>(f.base + f.spacing * count[o]);
            std::memcpy(f.codes + at, codes, outputs_);
        }
    }

    // Products of Winograd's filtering, m[6][PLANE][32].
    inline void quads(const int32_t *m, const Quad *quads, size_t count) const {
        constexpr size_t NEXT = PLANE * FINISH_WIDTH;
        const auto third = [](int32_t v) { return static_cast<int32_t>(static_cast<uint32_t>(v) * THIRD); };
        for (size_t i = 0; i < count; i++, m += FINISH_WIDTH) {
            int32_t y[QUAD][FINISH_WIDTH];
            for (size_t o = 0; o < FINISH_WIDTH; o++) {
                const int32_t a = m[NEXT + o] + m[2 * NEXT + o], b = m[NEXT + o] - m[2 * NEXT + o];
                const int32_t c = m[3 * NEXT + o] + m[4 * NEXT + o], d = m[3 * NEXT + o] - m[4 * NEXT + o];
                y[0][o] = third((m[o] + 4 * a + c) >> 3);
                y[1][o] = third((2 * b + d) >> 2);
                y[2][o] = third((a + c) >> 1);
                y[3][o] = third((b + 2 * d + m[5 * NEXT + o]) >> 1);
            }
            block(y[0], FINISH_WIDTH, quads[i].pixel, quads[i].count);
        }
    }

    inline void rows(const int16_t *, size_t, size_t, size_t) const {}  // only if is_short()
    static bool is_short(const Finish &) { return false; }

  private:
    const Finish f;
    const size_t output_, outputs_;
};

// Bytes of the finishers of all outputs. They are made once for a call, in scratch memory.
template <class Finisher>
inline size_t finishers_size(size_t outputs) {
    return ((outputs + 31) / 32 * sizeof(Finisher) + 63) / 64 * 64;
}

template <class Finisher>
inline const Finisher *make_finishers(const Finish &finish, size_t first, size_t outputs, uint8_t *memory) {
    auto *made = reinterpret_cast<Finisher *>(memory);
    for (size_t o = 0; o < outputs; o += 32)
        new (made + o / 32) Finisher(finish, first + o, outputs - o < 32 ? outputs - o : 32);
    return made;
}

}  // namespace
}  // namespace maqd
