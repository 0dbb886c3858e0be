/* First layers: convolutions that visit every pixel, with two outputs in one multiplication.
 *
 * Pairs. A word holds two weights, w0 + (w1 << 16), so a sum of pixel * word is two sums of 16 bits. Pixels are used as
 * stored, 0 .. 255. Sums start with 255 times the sum of the magnitudes of the negative weights. So no partial sum is
 * negative, and none exceeds 255 * (sum of |w|), which must be below 2^16. The thresholds include the start.
 *
 * Codes. If both sums are below 2^15 they are compared together: bit 15 of (sum | 2^15) - t is sum >= t.
 *
 * Fields. Dense layers of few states have eight weights in a word: the index of each state in 4 bits. Two fields that
 * lie 16 bits apart are summed together. The lowest pair is summed without a mask; the sums of the other fields are
 * subtracted from it afterwards, modulo 2^32. */
#ifndef MAQD_PIXELS_H
#define MAQD_PIXELS_H

/* A row of the image, `width` pixels: `padding` pixels of value 0, the row, and pixels of value 0 after it.
 *
 *   x    the image, uint8_t
 *   row  the row; NULL outside of the image, for zeros */
MAQD_INLINE void maqd_pixels_row(const maqd_codes *x, const uint8_t *row, int32_t padding, int32_t width, uint8_t *to) {
    const int32_t row_bytes = x->columns * x->channels, first = (padding < width ? padding : width) * x->channels;
    const uint8_t *const end = to + width * x->channels, *inside = to + first;
    for (; to != inside; to++) *to = (uint8_t)x->zero;
    if (row != NULL) {
        inside = end - to < row_bytes ? end : to + row_bytes;
        for (; to != inside; to++) *to = *row++;
    }
    for (; to != end; to++) *to = (uint8_t)x->zero;
}

/* Sums of a dense layer for eight outputs: y = sum of s x, where s is the index of a weight's state.
 *
 *   x        uint8_t [inputs]
 *   weights  uint32_t [inputs]; field r is output r
 *   chunk    number of inputs whose sums stay below 2^16
 *   y        int32_t [8] */
MAQD_INLINE void maqd_fields_pass(const uint8_t *x, int32_t inputs, int32_t chunk, const MAQD_FLASH uint32_t *weights,
                                  int32_t *y) {
    uint32_t mask = 0x000f000fu;
    for (int32_t o = 0; o < 8; o++) y[o] = 0;
    MAQD_REGISTER(mask);
    for (int32_t done = 0; done < inputs; done += chunk) {
        const uint8_t *const end = x + (inputs - done < chunk ? inputs - done : chunk);
        uint32_t f0 = 0, f1 = 0, f2 = 0, f3 = 0;
#define MAQD_INPUT(i)                            \
    {                                            \
        const uint32_t u = weights[i], a = x[i]; \
        f0 += u * a;                             \
        f1 += ((u >> 4) & mask) * a;             \
        f2 += ((u >> 8) & mask) * a;             \
        f3 += ((u >> 12) & mask) * a;            \
    }
        for (; end - x >= 8; x += 8, weights += 8) {
            MAQD_INPUT(0)
            MAQD_INPUT(1)
            MAQD_INPUT(2)
            MAQD_INPUT(3)
            MAQD_INPUT(4)
            MAQD_INPUT(5)
            MAQD_INPUT(6)
            MAQD_INPUT(7)
        }
        for (; x != end; x++, weights++) MAQD_INPUT(0)
#undef MAQD_INPUT
        f0 -= (f1 << 4) + (f2 << 8) + (f3 << 12);
        y[0] += (int32_t)(f0 & 0xffffu), y[4] += (int32_t)(f0 >> 16);
        y[1] += (int32_t)(f1 & 0xffffu), y[5] += (int32_t)(f1 >> 16);
        y[2] += (int32_t)(f2 & 0xffffu), y[6] += (int32_t)(f2 >> 16);
        y[3] += (int32_t)(f3 & 0xffffu), y[7] += (int32_t)(f3 >> 16);
    }
}

#endif
