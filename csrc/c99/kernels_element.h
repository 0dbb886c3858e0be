/* The kernels of kernels.c that depend on the type of the stored integers; included there once for each type.
 *
 *   MAQD_TYPE    the type
 *   MAQD_SUFFIX  what the names end with
 */
#define MAQD_PASTE2(a, b) a##_##b
#define MAQD_PASTE(a, b) MAQD_PASTE2(a, b)
#define TYPED(name) MAQD_PASTE(name, MAQD_SUFFIX)

static void TYPED(widen)(const void *x, int32_t zero, size_t count, int32_t *y) {
    const MAQD_TYPE *from = (const MAQD_TYPE *)x;
    for (size_t i = 0; i < count; i++) y[i] = from[i] - zero;
}

static void TYPED(narrow)(const int32_t *x, size_t count, int32_t zero, void *y) {
    MAQD_TYPE *to = (MAQD_TYPE *)y;
    for (size_t i = 0; i < count; i++) to[i] = (MAQD_TYPE)(x[i] + zero);
}

static void TYPED(add_shifted)(int32_t *y, int32_t shift, const void *x, int32_t zero, int32_t x_shift, size_t count) {
    const MAQD_TYPE *from = (const MAQD_TYPE *)x;
    for (size_t i = 0; i < count; i++) y[i] = shifted(y[i], shift) + shifted(from[i] - zero, x_shift);
}

/* Both widths of weights: the same loops. */
#define MAQD_CONV_ROW(name, weight_type)                                                                         \
    static void TYPED(name)(const maqd_conv *conv, const void *x, const MAQD_FLASH weight_type *weights,         \
                            const MAQD_FLASH int32_t *bias, int32_t row, int32_t *y) {                           \
        const maqd_window *w = &conv->window;                                                                    \
        const size_t inputs = (size_t)(conv->x.channels / conv->groups);                                         \
        const size_t outputs = (size_t)(conv->outputs / conv->groups);                                           \
        const int32_t top = row * w->stride_rows - w->padding_rows;                                              \
        int32_t first_row, last_row;                                                                             \
        overlap(top, w->kernel_rows, w->dilation_rows, conv->x.rows, &first_row, &last_row);                     \
        for (int32_t column = 0; column < conv->columns; column++) {                                             \
            const int32_t left = column * w->stride_columns - w->padding_columns;                                \
            int32_t first_column, last_column;                                                                   \
            overlap(left, w->kernel_columns, w->dilation_columns, conv->x.columns, &first_column, &last_column); \
            for (int32_t o = 0; o < conv->outputs; o++) y[o] = bias == NULL ? 0 : bias[o];                       \
            for (int32_t i = first_row; i < last_row; i++)                                                       \
                for (int32_t j = first_column; j < last_column; j++) {                                           \
                    const int32_t at =                                                                           \
                        (top + i * w->dilation_rows) * conv->x.columns + left + j * w->dilation_columns;         \
                    const MAQD_TYPE *in = (const MAQD_TYPE *)x + (size_t)at * (size_t)conv->x.channels;          \
                    const MAQD_FLASH weight_type *from =                                                         \
                        weights + (size_t)(i * w->kernel_columns + j) * inputs * (size_t)conv->outputs;          \
                    if (inputs == 1 && outputs == 1) {                                                           \
                        for (int32_t g = 0; g < conv->groups; g++) y[g] += (in[g] - conv->x.zero) * from[g];     \
                        continue;                                                                                \
                    }                                                                                            \
                    for (int32_t g = 0; g < conv->groups; g++) {                                                 \
                        int32_t *MAQD_RESTRICT to = y + (size_t)g * outputs;                                     \
                        for (size_t c = 0; c < inputs; c++, from += outputs) {                                   \
                            const int32_t value = in[(size_t)g * inputs + c] - conv->x.zero;                     \
                            if (value == 0) continue;                                                            \
                            for (size_t o = 0; o < outputs; o++) to[o] += value * from[o];                       \
                        }                                                                                        \
                    }                                                                                            \
                }                                                                                                \
            y += conv->outputs;                                                                                  \
        }                                                                                                        \
    }
MAQD_CONV_ROW(conv_row_narrow, int8_t)
MAQD_CONV_ROW(conv_row_wide, int16_t)
#undef MAQD_CONV_ROW

/* Maxima of some channels over a window of `high` x `wide` positions; they stay in registers. */
#define MAQD_MAXIMA(name, width)                                                                                 \
    static inline void TYPED(name)(const MAQD_TYPE *x, size_t row_step, size_t step, int32_t high, int32_t wide, \
                                   MAQD_TYPE *y) {                                                               \
        MAQD_TYPE best[width];                                                                                   \
        for (size_t k = 0; k < width; k++) best[k] = x[k];                                                       \
        for (int32_t i = 0; i < high; i++)                                                                       \
            for (int32_t j = 0; j < wide; j++) {                                                                 \
                const MAQD_TYPE *from = x + (size_t)i * row_step + (size_t)j * step;                             \
                MAQD_ROLLED /* or compilers unroll it into single bytes */                                       \
                    for (size_t k = 0; k < width; k++) best[k] = from[k] > best[k] ? from[k] : best[k];          \
            }                                                                                                    \
        for (size_t k = 0; k < width; k++) y[k] = best[k];                                                       \
    }
MAQD_MAXIMA(maxima_64, 64)
MAQD_MAXIMA(maxima_16, 16)
MAQD_MAXIMA(maxima_1, 1)
#undef MAQD_MAXIMA

static void TYPED(max_pool_row)(const maqd_tensor *shape, const maqd_window *w, const void *x, int32_t columns,
                                int32_t row, void *y) {
    const size_t channels = (size_t)shape->channels, row_step = (size_t)shape->columns * channels;
    const int32_t top = row * w->stride_rows - w->padding_rows;
    MAQD_TYPE *to = (MAQD_TYPE *)y;
    int32_t first_row, last_row;
    overlap(top, w->kernel_rows, 1, shape->rows, &first_row, &last_row);
    for (int32_t column = 0; column < columns; column++) {
        const int32_t left = column * w->stride_columns - w->padding_columns;
        int32_t first_column, last_column;
        overlap(left, w->kernel_columns, 1, shape->columns, &first_column, &last_column);
        const int32_t high = last_row - first_row, wide = last_column - first_column;
        const MAQD_TYPE *corner =
            (const MAQD_TYPE *)x + (size_t)((top + first_row) * shape->columns + left + first_column) * channels;
        size_t c = 0;
        for (; c + 64 <= channels; c += 64) TYPED(maxima_64)(corner + c, row_step, channels, high, wide, to + c);
        for (; c + 16 <= channels; c += 16) TYPED(maxima_16)(corner + c, row_step, channels, high, wide, to + c);
        for (; c < channels; c++) TYPED(maxima_1)(corner + c, row_step, channels, high, wide, to + c);
        to += channels;
    }
}

static void TYPED(sum_pool_row)(const maqd_tensor *shape, const maqd_window *w, const void *x, int32_t columns,
                                int32_t row, int32_t *y) {
    const size_t channels = (size_t)shape->channels;
    const int32_t top = row * w->stride_rows - w->padding_rows;
    int32_t first_row, last_row;
    overlap(top, w->kernel_rows, 1, shape->rows, &first_row, &last_row);
    for (int32_t column = 0; column < columns; column++) {
        const int32_t left = column * w->stride_columns - w->padding_columns;
        int32_t first_column, last_column;
        overlap(left, w->kernel_columns, 1, shape->columns, &first_column, &last_column);
        for (size_t c = 0; c < channels; c++) y[c] = 0;
        for (int32_t i = first_row; i < last_row; i++)
            for (int32_t j = first_column; j < last_column; j++) {
                const MAQD_TYPE *from =
                    (const MAQD_TYPE *)x + (size_t)((top + i) * shape->columns + left + j) * channels;
                for (size_t c = 0; c < channels; c++) y[c] += from[c] - shape->zero;
            }
        y += channels;
    }
}

static void TYPED(transpose)(const void *x, size_t height, size_t width, void *y) {
    const MAQD_TYPE *from = (const MAQD_TYPE *)x;
    MAQD_TYPE *to = (MAQD_TYPE *)y;
    if (height == 3) { /* images */
        for (size_t i = 0; i < width; i++, to += 3) {
            to[0] = from[i];
            to[1] = from[width + i];
            to[2] = from[2 * width + i];
        }
        return;
    }
    for (size_t i = 0; i < width; i++)
        for (size_t j = 0; j < height; j++) to[i * height + j] = from[j * width + i];
}

#undef TYPED
#undef MAQD_PASTE
#undef MAQD_PASTE2
#undef MAQD_TYPE
#undef MAQD_SUFFIX
