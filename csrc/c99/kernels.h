/* Scalar kernels in C99 for every kind of step. They define the result of all other kernels, and the native engine
 * falls back to them.
 *
 * Tensors. A tensor of one sample is rows x columns x channels integers, the channels innermost, without gaps. They are
 * stored as uint8_t, int16_t or int32_t; the value of a stored integer s is s - zero, and zero is 0 unless the type is
 * uint8_t. Rows of int32_t that pass between kernels ("accumulators") hold values.
 *
 * Ranges. The caller guarantees, from the bounds of the graph, that no value and no partial sum exceeds 2^31 - 1 in
 * magnitude. Nothing is rounded: there is no division, and comparisons are exact.
 *
 * Memory. No kernel allocates. Pointers need the alignment of their type only, and inputs must not overlap outputs.
 *
 * The file is compiled once for each instruction set; MAQD_VARIANT, if defined, becomes part of the names.
 */
#ifndef MAQD_KERNELS_H
#define MAQD_KERNELS_H

/* Tables are declared with this: packed.h defines it for processors whose flash has an address space of its own. */
#ifndef MAQD_FLASH
#define MAQD_FLASH
#endif

#include <stddef.h>
#include <stdint.h>

#define MAQD_JOIN3(a, b, c) a##b##c
#define MAQD_JOIN(isa, name) MAQD_JOIN3(maqd_, isa, name)
#ifdef MAQD_VARIANT
#define MAQD_NAME(name) MAQD_JOIN(MAQD_VARIANT, _##name)
#else
#define MAQD_NAME(name) maqd_##name
#endif

/* Comes before each declaration: `static` in programs that contain this file as text. */
#ifndef MAQD_LINKAGE
#define MAQD_LINKAGE
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* How integers are stored. */
typedef enum { MAQD_U8 = 0, MAQD_I16 = 1, MAQD_I32 = 2 } maqd_element;

/* A tensor of one sample. */
typedef struct {
    int32_t rows, columns, channels; /* each at least 1 */
    maqd_element element;
    int32_t zero; /* stored integer of value 0 */
} maqd_tensor;

/* Windows over the rows and columns of a tensor. */
typedef struct {
    int32_t kernel_rows, kernel_columns; /* at least 1 */
    int32_t stride_rows, stride_columns; /* at least 1 */
    int32_t padding_rows, padding_columns; /* at least 0; on both sides */
    int32_t dilation_rows, dilation_columns; /* at least 1 */
} maqd_window;

/* A convolution. */
typedef struct {
    maqd_tensor x; /* input */
    int32_t rows, columns; /* of the output */
    int32_t outputs; /* channels of the output */
    int32_t groups; /* divides x.channels and outputs */
    maqd_window window;
} maqd_conv;

/* y[i] = value of x[i], for `count` integers. */
typedef void maqd_widen_fn(const void *x, maqd_element element, int32_t zero, size_t count, int32_t *y);

/* Stores values: y[i] = x[i] + zero. Every sum must fit the type. */
typedef void maqd_narrow_fn(const int32_t *x, size_t count, maqd_element element, int32_t zero, void *y);

/* y[i] = (y[i] << shift) + (value of x[i] << x_shift); shifts are 0 .. 31. */
typedef void maqd_add_shifted_fn(int32_t *y, int32_t shift, const void *x, maqd_element element, int32_t zero,
                                 int32_t x_shift, size_t count);

/* One row of a convolution (cross-correlation; padding has value 0), as accumulators.
 *
 *   conv     the geometry
 *   x        the input tensor
 *   weights  int8_t [kernel_rows][kernel_columns][groups][x.channels / groups][outputs / groups]
 *   bias     int32_t [outputs], or NULL for zeros
 *   row      which output row, 0 .. conv->rows - 1
 *   y        int32_t [columns][outputs]
 *
 * Inputs of value 0 are skipped: the time follows the number of others. */
typedef void maqd_conv_row_fn(const maqd_conv *conv, const void *x, const MAQD_FLASH int8_t *weights,
                              const MAQD_FLASH int32_t *bias, int32_t row, int32_t *y);

/* The same with weights of int16_t, for codes beyond -128 .. 127. */
typedef void maqd_conv_row_wide_fn(const maqd_conv *conv, const void *x, const MAQD_FLASH int16_t *weights,
                                   const MAQD_FLASH int32_t *bias, int32_t row, int32_t *y);

/* Activation: stores base + spacing * #{k: signs[c] * x >= thresholds[k][c]}.
 *
 *   x           int32_t [outer][channels][inner], none of them -2^31
 *   thresholds  int32_t [levels][channels]
 *   signs       int8_t [channels], each 1 or -1, or NULL if all are 1
 *   levels      number of thresholds, 1 .. 255
 *   spacing     1 or 2; every result fits a byte
 *   y           uint8_t [outer][channels][inner] */
typedef void maqd_quantize_fn(const int32_t *x, size_t outer, size_t channels, size_t inner,
                              const MAQD_FLASH int32_t *thresholds, const MAQD_FLASH int8_t *signs, int32_t levels,
                              int32_t spacing, int32_t base, uint8_t *y);

/* Activation of many states as a fixed-point map: base + spacing * clip(floor((a[c] * x + b[c]) / 2^shift), 0, last).
 *
 *   x      int32_t [outer][channels][inner]
 *   a, b   int64_t [channels]; no |a[c] * x + b[c]| reaches 2^63
 *   shift  0 .. 62
 *   last   1 .. 65535
 *   y      int32_t [outer][channels][inner]; may be x */
typedef void maqd_fixed_point_fn(const int32_t *x, size_t outer, size_t channels, size_t inner,
                                 const MAQD_FLASH int64_t *a, const MAQD_FLASH int64_t *b, int32_t shift, int32_t last,
                                 int32_t spacing, int32_t base, int32_t *y);

/* One row of maxima over windows; padded positions never win, and no window may consist of them alone.
 *
 *   x        the input tensor
 *   columns  of the output
 *   row      which output row
 *   y        [columns][channels], stored as the input is */
typedef void maqd_max_pool_row_fn(const maqd_tensor *shape, const maqd_window *window, const void *x, int32_t columns,
                                  int32_t row, void *y);

/* One row of sums over windows as accumulators; padded positions count as 0. Arguments as above. */
typedef void maqd_sum_pool_row_fn(const maqd_tensor *shape, const maqd_window *window, const void *x, int32_t columns,
                                  int32_t row, int32_t *y);

/* A matrix height x width of elements of 1, 2 or 4 bytes becomes width x height. */
typedef void maqd_transpose_fn(const void *x, size_t height, size_t width, size_t size, void *y);

MAQD_LINKAGE maqd_widen_fn MAQD_NAME(widen);
MAQD_LINKAGE maqd_narrow_fn MAQD_NAME(narrow);
MAQD_LINKAGE maqd_add_shifted_fn MAQD_NAME(add_shifted);
MAQD_LINKAGE maqd_conv_row_fn MAQD_NAME(conv_row);
MAQD_LINKAGE maqd_conv_row_wide_fn MAQD_NAME(conv_row_wide);
MAQD_LINKAGE maqd_quantize_fn MAQD_NAME(quantize);
MAQD_LINKAGE maqd_fixed_point_fn MAQD_NAME(fixed_point);
MAQD_LINKAGE maqd_max_pool_row_fn MAQD_NAME(max_pool_row);
MAQD_LINKAGE maqd_sum_pool_row_fn MAQD_NAME(sum_pool_row);
MAQD_LINKAGE maqd_transpose_fn MAQD_NAME(transpose);

#ifdef __cplusplus
}
#endif
#endif
