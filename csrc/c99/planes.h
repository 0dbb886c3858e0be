/* Depthwise convolutions on bit planes: 32 channels together, one bit of each in a word.
 *
 * Planes. The fields (packed.h) of 32 channels of a pixel are `bits` words. Bit p of each field of word k goes to bit k
 * of the same field of plane p, which takes two operations. So channel c lies in lane
 * bits * (c % (32 / bits)) + c / (32 / bits). Tables of weights and thresholds have the same order of lanes.
 *
 * Sums. A weight is a sign and the planes of its magnitude. The term of activation plane p and magnitude plane q is
 * (a_p ^ negative) & magnitude_q, with weight 2^(p + q). The complement stands for -a; the thresholds include the
 * constant that it adds. Terms go through full adders until one word is left for each bit of the sum.
 *
 * Codes. Thresholds are compared plane by plane from the lowest: v >= t is the carry out of v + ~t + 1. */
#ifndef MAQD_PLANES_H
#define MAQD_PLANES_H

/* Full adder: s and c are the sum and the carry of three bits, in every lane. */
#define MAQD_FULL(s, c, x, y, z) const uint32_t s##x = (x) ^ (y), s = s##x ^ (z), c = (x) ^ (s##x & ((x) ^ (z)))
/* Half adder. */
#define MAQD_PAIR(s, c, x, y) const uint32_t s = (x) ^ (y), c = (x) & (y)
/* v >= t up to this plane, with n = ~t; `g` is the result of the planes below. */
#define MAQD_REACHED(g, v, n) g = (n) ^ (((v) ^ (n)) & ((n) ^ g))

/* A mask of the lowest bit of each field. */
#define MAQD_LOWEST(bits) ((bits) == 1 ? 0xffffffffu : (bits) == 2 ? 0x55555555u : 0x11111111u)

/* A place in a ring of `size`. */
MAQD_INLINE int32_t maqd_wrap(int32_t place, int32_t size) {
    while (place >= size) place -= size;
    return place;
}

/* A row of fields as planes, `width` pixels: `padding` zeros, the columns of the row, and zeros after them.
 *
 *   x       the tensor, of fields
 *   row     index of the row; rows outside of the tensor are zeros
 *   planes  of the codes; not more than bits
 *   to      [groups of 32 channels][width][planes], `group_step` words from group to group */
MAQD_INLINE void maqd_planes_row(const maqd_codes *x, const void *from, int32_t row, int32_t padding, int32_t width,
                                 int32_t planes, ptrdiff_t group_step, maqd_word *to) {
    const int32_t words = maqd_pixel_words(x), bits = x->bits;
    const uint32_t lowest = MAQD_LOWEST(bits);
    for (int32_t first = 0; first < words; first += bits, to += group_step) {
        const int32_t count = words - first < bits ? words - first : bits;
        const maqd_word *pixel = (const maqd_word *)from + (ptrdiff_t)maqd_place(x, row) * x->columns * words + first;
        maqd_word *p = to;
        for (int32_t column = -padding; column < width - padding; column++, p += planes) {
            uint32_t p0 = 0, p1 = 0, p2 = 0, p3 = 0;
            if (row >= 0 && row < x->rows && column >= 0 && column < x->columns) {
#define MAQD_PLANE(k, q) (bits == 1 ? v : ((v >> (q)) & lowest) << (k))
#define MAQD_SPREAD(k)                          \
    if ((k) < bits && (k) < count) {            \
        const uint32_t v = pixel[k];            \
        p0 |= MAQD_PLANE(k, 0);                 \
        if (planes > 1) p1 |= MAQD_PLANE(k, 1); \
        if (planes > 2) p2 |= MAQD_PLANE(k, 2); \
        if (planes > 3) p3 |= MAQD_PLANE(k, 3); \
    }
                MAQD_SPREAD(0)
                MAQD_SPREAD(1)
                MAQD_SPREAD(2)
                MAQD_SPREAD(3)
#undef MAQD_PLANE
#undef MAQD_SPREAD
                pixel += words;
            }
            p[0] = p0;
            if (planes > 1) p[1] = p1;
            if (planes > 2) p[2] = p2;
            if (planes > 3) p[3] = p3;
        }
    }
}

/* Planes of codes as `count` words of fields; unused planes are 0. */
MAQD_INLINE void maqd_planes_store(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, int32_t bits, int32_t count,
                                   maqd_word *to) {
    const uint32_t lowest = MAQD_LOWEST(bits);
#define MAQD_GATHER(k)                                                               \
    if ((k) < bits && (k) < count)                                                   \
        to[k] = bits == 1 ? c0                                                       \
                          : ((c0 >> (k)) & lowest) | (((c1 >> (k)) & lowest) << 1) | \
                                (bits > 2 ? (((c2 >> (k)) & lowest) << 2) | (((c3 >> (k)) & lowest) << 3) : 0u);
    MAQD_GATHER(0)
    MAQD_GATHER(1)
    MAQD_GATHER(2)
    MAQD_GATHER(3)
#undef MAQD_GATHER
}

#endif
