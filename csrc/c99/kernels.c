/* See kernels.h. Inner loops run over channels, which are contiguous, so that compilers can vectorize them. */
#include "kernels.h"

/* Two's complement shift of a value, as uint32_t because shifting a negative int32_t is undefined. */
static inline int32_t shifted(int32_t value, int32_t shift) { return (int32_t)((uint32_t)value << shift); }

/* Where a window of `kernel` positions, dilated, overlaps 0 .. size - 1: its positions first .. last - 1. */
static inline void overlap(int32_t start, int32_t kernel, int32_t dilation, int32_t size, int32_t *first,
                           int32_t *last) {
    int32_t low = 0, high = kernel;
    while (low < high && start + low * dilation < 0) low++;
    while (high > low && start + (high - 1) * dilation >= size) high--;
    *first = low;
    *last = high;
}

/* C99's restrict, which C++ has under other names only. */
#if defined(__GNUC__)
#define MAQD_RESTRICT __restrict__
#elif defined(__cplusplus)
#define MAQD_RESTRICT
#else
#define MAQD_RESTRICT restrict
#endif

/* Before a loop that compilers are not to unroll; older ones do not know how to say it. */
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 8)
#define MAQD_ROLLED _Pragma("GCC unroll 1")
#else
#define MAQD_ROLLED
#endif

#define MAQD_TYPE uint8_t
#define MAQD_SUFFIX u8
#include "kernels_element.h"
#define MAQD_TYPE int16_t
#define MAQD_SUFFIX i16
#include "kernels_element.h"
#define MAQD_TYPE int32_t
#define MAQD_SUFFIX i32
#include "kernels_element.h"

/* Calls the function of an element type. */
#define DISPATCH(element, name, ...)                   \
    switch (element) {                                 \
        case MAQD_U8: name##_u8(__VA_ARGS__); break;   \
        case MAQD_I16: name##_i16(__VA_ARGS__); break; \
        case MAQD_I32: name##_i32(__VA_ARGS__); break; \
        default: break;                                \
    }

void MAQD_NAME(widen)(const void *x, maqd_element element, int32_t zero, size_t count, int32_t *y) {
    DISPATCH(element, widen, x, zero, count, y)
}

void MAQD_NAME(narrow)(const int32_t *x, size_t count, maqd_element element, int32_t zero, void *y) {
    DISPATCH(element, narrow, x, count, zero, y)
}

void MAQD_NAME(add_shifted)(int32_t *y, int32_t shift, const void *x, maqd_element element, int32_t zero,
                            int32_t x_shift, size_t count) {
    DISPATCH(element, add_shifted, y, shift, x, zero, x_shift, count)
}

void MAQD_NAME(conv_row)(const maqd_conv *conv, const void *x, const MAQD_FLASH int8_t *weights,
                         const MAQD_FLASH int32_t *bias, int32_t row, int32_t *y) {
    DISPATCH(conv->x.element, conv_row_narrow, conv, x, weights, bias, row, y)
}

void MAQD_NAME(conv_row_wide)(const maqd_conv *conv, const void *x, const MAQD_FLASH int16_t *weights,
                              const MAQD_FLASH int32_t *bias, int32_t row, int32_t *y) {
    DISPATCH(conv->x.element, conv_row_wide, conv, x, weights, bias, row, y)
}

void MAQD_NAME(quantize)(const int32_t *x, size_t outer, size_t channels, size_t inner,
                         const MAQD_FLASH int32_t *thresholds, const MAQD_FLASH int8_t *signs, int32_t levels,
                         int32_t spacing, int32_t base, uint8_t *y) {
    for (size_t o = 0; o < outer; o++) {
        if (inner == 1) {
            for (size_t c = 0; c < channels; c++) y[c] = (uint8_t)base;
            for (int32_t k = 0; k < levels; k++) {
                const MAQD_FLASH int32_t *t = thresholds + (size_t)k * channels;
                if (signs == NULL)
                    for (size_t c = 0; c < channels; c++) y[c] = (uint8_t)(y[c] + (x[c] >= t[c] ? spacing : 0));
                else
                    for (size_t c = 0; c < channels; c++)
                        y[c] = (uint8_t)(y[c] + (signs[c] * x[c] >= t[c] ? spacing : 0));
            }
        } else {
            for (size_t c = 0; c < channels; c++) {
                const int32_t sign = signs == NULL ? 1 : signs[c];
                for (size_t i = 0; i < inner; i++) {
                    int32_t code = base;
                    for (int32_t k = 0; k < levels; k++)
                        code += sign * x[c * inner + i] >= thresholds[(size_t)k * channels + c] ? spacing : 0;
                    y[c * inner + i] = (uint8_t)code;
                }
            }
        }
        x += channels * inner;
        y += channels * inner;
    }
}

void MAQD_NAME(fixed_point)(const int32_t *x, size_t outer, size_t channels, size_t inner, const MAQD_FLASH int64_t *a,
                            const MAQD_FLASH int64_t *b, int32_t shift, int32_t last, int32_t spacing, int32_t base,
                            int32_t *y) {
    for (size_t o = 0; o < outer; o++)
        for (size_t c = 0; c < channels; c++)
            for (size_t i = 0; i < inner; i++) {
                const int64_t v = a[c] * *x++ + b[c];
                const int64_t down = v < 0 ? ~(~v >> shift) : v >> shift; /* rounds down, whatever compilers do */
                *y++ = base + spacing * (int32_t)(down < 0 ? 0 : down > last ? last : down);
            }
}

void MAQD_NAME(max_pool_row)(const maqd_tensor *shape, const maqd_window *window, const void *x, int32_t columns,
                             int32_t row, void *y) {
    DISPATCH(shape->element, max_pool_row, shape, window, x, columns, row, y)
}

void MAQD_NAME(sum_pool_row)(const maqd_tensor *shape, const maqd_window *window, const void *x, int32_t columns,
                             int32_t row, int32_t *y) {
    DISPATCH(shape->element, sum_pool_row, shape, window, x, columns, row, y)
}

void MAQD_NAME(transpose)(const void *x, size_t height, size_t width, size_t size, void *y) {
    switch (size) {
        case 1: transpose_u8(x, height, width, y); break;
        case 2: transpose_i16(x, height, width, y); break;
        default: transpose_i32(x, height, width, y); break;
    }
}
