// The epilogue of a convolution, in loops of fixed length that compilers vectorize.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include <cstring>
#include <new>

#include "kernels/calls.h"

namespace maqd {
namespace {

constexpr size_t FINISH_WIDTH = 32;

// Multiplying by it modulo 2^32 divides a multiple of 3.
constexpr uint32_t THIRD = 0xaaaaaaabu;

// Whether everything fits 16 bits. Tensors of 32 bits do not: they are not read or written then.
inline bool is_short(const Finish &f) {
    return f.short_bias && !(f.addend && f.addend_element == MAQD_I32) && !(f.raw && f.raw_element == MAQD_I32);
}

// In Sum, int16_t or int32_t, modulo 2^16 or 2^32. Products, since compilers shift 16 bits in 32.
template <class Sum, class T>
inline void add_addend(const Finish &f, size_t at, Sum *v) {
    T from[FINISH_WIDTH];
    std::memcpy(from, static_cast<const T *>(f.addend) + at, sizeof(from));  // the tensor has SLACK after its end
    const uint32_t scale = uint32_t{1} << f.shift, addend_scale = uint32_t{1} << f.addend_shift;
    for (size_t o = 0; o < FINISH_WIDTH; o++)
        v[o] = static_cast<Sum>(static_cast<uint32_t>(v[o]) * scale +
                                static_cast<uint32_t>(from[o] - f.addend_zero) * addend_scale);
}

// A copy; its usual length is known to the compiler.
template <class T>
inline void store_some(const T *from, size_t count, T *to) {
    if (count == FINISH_WIDTH)
        std::memcpy(to, from, FINISH_WIDTH * sizeof(T));
    else
        std::memcpy(to, from, count * sizeof(T));
}

template <class Sum, class T>
inline void store_raw(const Finish &f, size_t at, const Sum *v, size_t outputs) {
    T to[FINISH_WIDTH];
    for (size_t o = 0; o < FINISH_WIDTH; o++) to[o] = static_cast<T>(v[o] + f.raw_zero);
    store_some(to, outputs, static_cast<T *>(f.raw) + at);
}

// The epilogue of at most 32 outputs of a layer.
class PlainFinisher {
  public:
    PlainFinisher(const Finish &finish, size_t output, size_t outputs)
        : f(finish), output_(output), outputs_(outputs) {}

    // Rows of accumulators, `stride` apart, of `pixels` pixels of the tensor from `pixel` on; 32 of each row can be
    // read.
    inline void block(const int32_t *acc, size_t stride, size_t pixel, size_t pixels) const {
        finish(acc, stride, pixel, pixels, f.bias, f.signs, f.thresholds);
    }

    // The same in 16 bits. Only if is_short().
    inline void rows(const int16_t *acc, size_t stride, size_t pixel, size_t pixels) const {
        finish(acc, stride, pixel, pixels, f.short_bias, f.short_signs, f.short_thresholds);
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

  private:
    template <class Sum>
    inline void finish(const Sum *acc, size_t stride, size_t pixel, size_t pixels, const Sum *bias, const Sum *signs,
                       const Sum *thresholds) const {
        for (size_t p = 0; p < pixels; p++) {
            const size_t at = (pixel + p) * f.outputs + output_;
            Sum v[FINISH_WIDTH];
            for (size_t o = 0; o < FINISH_WIDTH; o++)
                v[o] = static_cast<Sum>(static_cast<uint32_t>(acc[p * stride + o]) +
                                        static_cast<uint32_t>(bias[output_ + o]));
            if (f.addend) {
                if (f.addend_element == MAQD_U8)
                    add_addend<Sum, uint8_t>(f, at, v);
                else if (f.addend_element == MAQD_I16)
                    add_addend<Sum, int16_t>(f, at, v);
                else
                    add_addend<Sum, int32_t>(f, at, v);
            }
            if (f.raw) {
                if (f.raw_element == MAQD_U8)
                    store_raw<Sum, uint8_t>(f, at, v, outputs_);
                else if (f.raw_element == MAQD_I16)
                    store_raw<Sum, int16_t>(f, at, v, outputs_);
                else
                    store_raw<Sum, int32_t>(f, at, v, outputs_);
            }
            if (!f.codes) continue;
            if (signs)
                for (size_t o = 0; o < FINISH_WIDTH; o++)
                    v[o] = static_cast<Sum>((v[o] ^ signs[output_ + o]) - signs[output_ + o]);
            const auto spacing = static_cast<Sum>(f.spacing);
            Sum code[FINISH_WIDTH];
            for (size_t o = 0; o < FINISH_WIDTH; o++) code[o] = static_cast<Sum>(f.base);
            for (int32_t k = 0; k < f.levels; k++) {
                const Sum *t = thresholds + static_cast<size_t>(k) * f.padded + output_;
                for (size_t o = 0; o < FINISH_WIDTH; o++)
                    code[o] = static_cast<Sum>(code[o] + (v[o] >= t[o] ? spacing : 0));
            }
            uint8_t codes[FINISH_WIDTH];
            for (size_t o = 0; o < FINISH_WIDTH; o++) codes[o] = static_cast<uint8_t>(code[o]);
            store_some(codes, outputs_, f.codes + at);
        }
    }

    const Finish f;
    const size_t output_, outputs_;
};

// Bytes of the finishers of all outputs, which each call makes once in its scratch memory.
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
