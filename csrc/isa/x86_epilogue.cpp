// The epilogue of a convolution, with AVX-512.
#include "isa/x86_epilogue.h"

#include <immintrin.h>

#include <new>
#include <type_traits>

#include "kernels/epilogue.h"

namespace maqd {

namespace {

inline __m512i load_values(const void *x, maqd_element element, int32_t zero, size_t at, __mmask16 mask) {
    switch (element) {
        case MAQD_U8:
            return _mm512_sub_epi32(
                _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, static_cast<const uint8_t *>(x) + at)),
                _mm512_set1_epi32(zero));
        case MAQD_I16:
            return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, static_cast<const int16_t *>(x) + at));
        default: return _mm512_maskz_loadu_epi32(mask, static_cast<const int32_t *>(x) + at);
    }
}

inline void store_values(void *y, maqd_element element, int32_t zero, size_t at, __mmask16 mask, __m512i v) {
    switch (element) {
        case MAQD_U8:
            v = _mm512_add_epi32(v, _mm512_set1_epi32(zero));
            _mm_mask_storeu_epi8(static_cast<uint8_t *>(y) + at, mask, _mm512_cvtepi32_epi8(v));
            break;
        case MAQD_I16: _mm256_mask_storeu_epi16(static_cast<int16_t *>(y) + at, mask, _mm512_cvtepi32_epi16(v)); break;
        default: _mm512_mask_storeu_epi32(static_cast<int32_t *>(y) + at, mask, v);
    }
}

// Sixteen outputs of some pixels.
template <bool ADDEND, bool RAW, bool SIGNS>
inline void finish16(const Finish &f, const int32_t *acc, size_t stride, size_t pixel, size_t pixels, size_t output,
                     __mmask16 mask) {
    const __m512i bias = _mm512_loadu_si512(f.bias + output);
    const __m512i base = _mm512_set1_epi32(f.base), spacing = _mm512_set1_epi32(f.spacing);
    const __m512i sign = SIGNS ? _mm512_loadu_si512(f.signs + output) : _mm512_setzero_si512();
    for (size_t p = 0; p < pixels; p++) {
        const size_t at = (pixel + p) * f.outputs + output;
        __m512i v = _mm512_add_epi32(_mm512_loadu_si512(acc + p * stride), bias);
        if (ADDEND) {
            const __m512i other = load_values(f.addend, f.addend_element, f.addend_zero, at, mask);
            v = _mm512_add_epi32(_mm512_sll_epi32(v, _mm_cvtsi32_si128(f.shift)),
                                 _mm512_sll_epi32(other, _mm_cvtsi32_si128(f.addend_shift)));
        }
        if (RAW) store_values(f.raw, f.raw_element, f.raw_zero, at, mask, v);
        if (f.codes) {
            if (SIGNS) v = _mm512_sub_epi32(_mm512_xor_si512(v, sign), sign);
            __m512i code = base;
            for (int32_t k = 0; k < f.levels; k++)
                code = _mm512_mask_add_epi32(
                    code,
                    _mm512_cmpge_epi32_mask(
                        v, _mm512_loadu_si512(f.thresholds + static_cast<size_t>(k) * f.padded + output)),
                    code, spacing);
            _mm_mask_storeu_epi8(f.codes + at, mask, _mm512_cvtepi32_epi8(code));
        }
    }
}

// Three times the outputs of a quad, for 16 outputs, of the products m[6][PLANE][32].
inline __attribute__((always_inline)) void thrice_quad(const int32_t *m, __m512i *y) {
    const auto product = [&](size_t t) { return _mm512_load_si512(m + t * PLANE * 32); };
    const auto plus = [](__m512i a, __m512i b) { return _mm512_add_epi32(a, b); };
    const __m512i a = plus(product(1), product(2)), b = _mm512_sub_epi32(product(1), product(2));
    const __m512i c = plus(product(3), product(4)), d = _mm512_sub_epi32(product(3), product(4));
    y[0] = _mm512_srai_epi32(plus(plus(product(0), c), _mm512_slli_epi32(a, 2)), 3);
    y[1] = _mm512_srai_epi32(plus(plus(b, b), d), 2);
    y[2] = _mm512_srai_epi32(plus(a, c), 1);
    y[3] = _mm512_srai_epi32(plus(plus(b, product(5)), plus(d, d)), 1);
}

// The same in 16 bits, for 32 outputs of one pixel at a time. Members are copies, since stores of bytes may alias what
// a reference refers to. LEVELS is the number of levels, or 0 for any.
template <bool ADDEND, bool RAW, bool SIGNS, int LEVELS>
struct Short {
    Short(const Finish &finish, size_t output, __mmask32 mask)
        : f(finish),
          output(output),
          mask(mask),
          bias(_mm512_loadu_si512(f.short_bias + output)),
          sign(SIGNS ? _mm512_loadu_si512(f.short_signs + output) : _mm512_setzero_si512()),
          base(_mm256_set1_epi8(static_cast<char>(f.base))),
          spacing(_mm256_set1_epi8(static_cast<char>(f.spacing))) {
        for (int k = 0; k < LEVELS; k++) thresholds[k] = threshold(k);
    }

    inline __m512i threshold(int32_t k) const {
        return _mm512_loadu_si512(f.short_thresholds + static_cast<size_t>(k) * f.padded + output);
    }

    // v has the bias already; `at` is where the outputs are in the tensor.
    inline __attribute__((always_inline)) void store(__m512i v, size_t at) const {
        if (ADDEND) {
            __m512i other;
            if (f.addend_element == MAQD_U8)
                other = _mm512_sub_epi16(
                    _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, static_cast<const uint8_t *>(f.addend) + at)),
                    _mm512_set1_epi16(static_cast<int16_t>(f.addend_zero)));
            else
                other = _mm512_maskz_loadu_epi16(mask, static_cast<const int16_t *>(f.addend) + at);
            v = _mm512_add_epi16(_mm512_sll_epi16(v, _mm_cvtsi32_si128(f.shift)),
                                 _mm512_sll_epi16(other, _mm_cvtsi32_si128(f.addend_shift)));
        }
        if (RAW) {
            if (f.raw_element == MAQD_U8)
                _mm256_mask_storeu_epi8(
                    static_cast<uint8_t *>(f.raw) + at, mask,
                    _mm512_cvtepi16_epi8(_mm512_add_epi16(v, _mm512_set1_epi16(static_cast<int16_t>(f.raw_zero)))));
            else
                _mm512_mask_storeu_epi16(static_cast<int16_t *>(f.raw) + at, mask, v);
        }
        if (RAW && !f.codes) return;
        if (SIGNS) v = _mm512_sub_epi16(_mm512_xor_si512(v, sign), sign);
        __m256i code = base;
        if (LEVELS)
            for (int k = 0; k < LEVELS; k++)
                code = _mm256_mask_add_epi8(code, _mm512_cmpge_epi16_mask(v, thresholds[k]), code, spacing);
        else
            for (int32_t k = 0; k < f.levels; k++)
                code = _mm256_mask_add_epi8(code, _mm512_cmpge_epi16_mask(v, threshold(k)), code, spacing);
        _mm256_mask_storeu_epi8(f.codes + at, mask, code);
    }

    // The lower halves of 32 accumulators.
    static inline __m512i halves(__m512i low, __m512i high) {
        const __m512i even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28,
                                              26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        return _mm512_permutex2var_epi16(low, even, high);
    }

    inline __attribute__((always_inline)) void block(const int32_t *acc, size_t stride, size_t pixel,
                                                     size_t pixels) const {
        size_t at = pixel * f.outputs + output;
        for (size_t p = 0; p < pixels; p++, acc += stride, at += f.outputs)
            store(_mm512_add_epi16(halves(_mm512_loadu_si512(acc), _mm512_loadu_si512(acc + 16)), bias), at);
    }

    // Products of Winograd's filtering; the division by 3 is left for 16 bits.
    inline __attribute__((always_inline)) void quads(const int32_t *m, const Quad *quad, size_t count) const {
        const __m512i third = _mm512_set1_epi16(static_cast<int16_t>(THIRD));
        for (size_t i = 0; i < count; i++, m += 32) {
            __m512i low[QUAD], high[QUAD];
            thrice_quad(m, low);
            thrice_quad(m + 16, high);
            size_t at = quad[i].pixel * f.outputs + output;
            for (size_t j = 0; j < quad[i].count; j++, at += f.outputs)
                store(_mm512_add_epi16(_mm512_mullo_epi16(halves(low[j], high[j]), third), bias), at);
        }
    }

    inline __attribute__((always_inline)) void rows(const int16_t *acc, size_t stride, size_t pixel,
                                                    size_t pixels) const {
        size_t at = pixel * f.outputs + output;
        for (size_t p = 0; p < pixels; p++, acc += stride, at += f.outputs)
            store(_mm512_add_epi16(_mm512_load_si512(acc), bias), at);
    }

    const Finish f;
    const size_t output;
    const __mmask32 mask;
    const __m512i bias, sign;
    const __m256i base, spacing;
    __m512i thresholds[LEVELS ? LEVELS : 1];
};

// In 32 bits.
struct Long {
    inline void block(const int32_t *acc, size_t stride, size_t pixel, size_t pixels) const {
        const auto mask = static_cast<uint32_t>((uint64_t{1} << outputs) - 1);
        for (size_t part = 0; part < outputs; part += 16) {
            const auto m = static_cast<__mmask16>(mask >> part);
            const int32_t *from = acc + part;
            const size_t o = output + part;
            if (f.addend) {
                if (f.raw)
                    f.signs ? finish16<true, true, true>(f, from, stride, pixel, pixels, o, m)
                            : finish16<true, true, false>(f, from, stride, pixel, pixels, o, m);
                else
                    f.signs ? finish16<true, false, true>(f, from, stride, pixel, pixels, o, m)
                            : finish16<true, false, false>(f, from, stride, pixel, pixels, o, m);
            } else if (f.raw) {
                f.signs ? finish16<false, true, true>(f, from, stride, pixel, pixels, o, m)
                        : finish16<false, true, false>(f, from, stride, pixel, pixels, o, m);
            } else {
                f.signs ? finish16<false, false, true>(f, from, stride, pixel, pixels, o, m)
                        : finish16<false, false, false>(f, from, stride, pixel, pixels, o, m);
            }
        }
    }

    inline void quads(const int32_t *m, const Quad *quads, size_t count) const {
        const __m512i third = _mm512_set1_epi32(static_cast<int32_t>(THIRD));
        for (size_t i = 0; i < count; i++, m += 32) {
            alignas(64) int32_t y[QUAD][32];
            for (size_t half = 0; half < 32; half += 16) {
                __m512i thrice[QUAD];
                thrice_quad(m + half, thrice);
                for (size_t j = 0; j < QUAD; j++) _mm512_store_si512(y[j] + half, _mm512_mullo_epi32(thrice[j], third));
            }
            block(y[0], 32, quads[i].pixel, quads[i].count);
        }
    }

    inline void rows(const int16_t *, size_t, size_t, size_t) const {}  // only if is_short()

    const Finish f;
    const size_t output, outputs;
};

}  // namespace

template <class With>
void Finisher::use(const With &with) {
    static_assert(sizeof(With) <= sizeof(made_) && std::is_trivially_destructible_v<With>);
    new (made_) With(with);
    // Copies: stores of bytes may alias references.
    static constexpr Table TABLE = {
        [](const Finisher &f, const int32_t *acc, size_t stride, size_t pixel, size_t pixels) {
            const With copy = *std::launder(reinterpret_cast<const With *>(f.made_));
            copy.block(acc, stride, pixel, pixels);
        },
        [](const Finisher &f, const int32_t *m, const Quad *quads, size_t count) {
            const With copy = *std::launder(reinterpret_cast<const With *>(f.made_));
            copy.quads(m, quads, count);
        },
        [](const Finisher &f, const int16_t *acc, size_t stride, size_t pixel, size_t pixels) {
            const With copy = *std::launder(reinterpret_cast<const With *>(f.made_));
            copy.rows(acc, stride, pixel, pixels);
        },
    };
    table_ = &TABLE;
}

template <bool ADDEND, bool RAW, bool SIGNS>
void Finisher::use_short(const Finish &f, size_t output, size_t outputs) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << outputs) - 1);
    switch (f.codes ? f.levels : 0) {
        case 1: use(Short<ADDEND, RAW, SIGNS, 1>(f, output, mask)); break;
        case 3: use(Short<ADDEND, RAW, SIGNS, 3>(f, output, mask)); break;
        default: use(Short<ADDEND, RAW, SIGNS, 0>(f, output, mask));
    }
}

Finisher::Finisher(const Finish &f, size_t output, size_t outputs) {
    if (!is_short(f)) {
        use(Long{f, output, outputs});
    } else if (f.signs) {
        if (f.addend)
            f.raw ? use_short<true, true, true>(f, output, outputs) : use_short<true, false, true>(f, output, outputs);
        else
            f.raw ? use_short<false, true, true>(f, output, outputs)
                  : use_short<false, false, true>(f, output, outputs);
    } else {
        if (f.addend)
            f.raw ? use_short<true, true, false>(f, output, outputs)
                  : use_short<true, false, false>(f, output, outputs);
        else
            f.raw ? use_short<false, true, false>(f, output, outputs)
                  : use_short<false, false, false>(f, output, outputs);
    }
}

}  // namespace maqd
