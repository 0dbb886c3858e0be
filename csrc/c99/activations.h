/* Activations: thresholds and fixed-point maps, of the sums of a pixel or of a pass (packed.h). */
#ifndef MAQD_ACTIVATIONS_H
#define MAQD_ACTIVATIONS_H

/* An activation as a count of thresholds. */
typedef struct {
    int32_t levels;        /* thresholds a channel, at least 1 */
    int32_t wide;          /* 1 if thresholds are int32_t, 0 if they are int16_t */
    int32_t bits;          /* of the output: fields of 1, 2 or 4 bits, or 8 for bytes */
    int32_t spacing, base; /* bytes: base + spacing * count; 1 and 0 for fields */
} maqd_steps;

/* #{k: v >= t[k]} for ascending t. */
MAQD_INLINE uint32_t maqd_count(const maqd_steps *s, const MAQD_FLASH void *t, int32_t v) {
    uint32_t count = 0;
#define MAQD_AT(k) (s->wide ? ((const MAQD_FLASH int32_t *)t)[k] : (int32_t)((const MAQD_FLASH int16_t *)t)[k])
    if (s->levels <= 3) {
        if (v < MAQD_AT(0)) return 0;
        count = 1;
        if (s->levels > 1) count += v >= MAQD_AT(1);
        if (s->levels > 2) count += v >= MAQD_AT(2);
        return count;
    }
#define MAQD_BISECT(n) /* looks for the first level that v does not reach */ \
    if ((n) <= s->levels && (int32_t)count + (n) <= s->levels && v >= MAQD_AT((int32_t)count + (n) - 1)) count += (n);
    MAQD_BISECT(128)
    MAQD_BISECT(64)
    MAQD_BISECT(32)
    MAQD_BISECT(16)
    MAQD_BISECT(8)
    MAQD_BISECT(4)
    MAQD_BISECT(2)
    MAQD_BISECT(1)
#undef MAQD_BISECT
#undef MAQD_AT
    return count;
}

/* Stores the sums of a pass. Lanes of 8 bits: y = sums, or y += sums with `accumulate`. Lanes of 16 bits: the pass has
 * added to y already, and only low * (sum of a) is missing. */
MAQD_INLINE void maqd_events_store(const maqd_events *g, const maqd_rows *w, const maqd_sums *s, int32_t outputs,
                                   int32_t accumulate, int32_t *y) {
    const int32_t registers = maqd_registers(w, outputs);
#define MAQD_STORE(r, l)                                   \
    if ((r) < registers && maqd_output(w, r, l) < outputs) \
        y[maqd_output(w, r, l)] = (accumulate ? y[maqd_output(w, r, l)] : 0) + maqd_half(g, s, r, l);
#define MAQD_STORES(r) MAQD_STORE(r, 0) MAQD_STORE(r, 1) MAQD_STORE(r, 2) MAQD_STORE(r, 3)
    if (w->lane == 8) {
        MAQD_EACH(MAQD_STORES)
    } else {
        for (int32_t i = 0; i < outputs; i++) y[i] += s->sum;
    }
#undef MAQD_STORE
#undef MAQD_STORES
}

/* Stores the sums of a pass as a tensor's integers.
 *
 *   y       the sums of the pass, for lanes of 16 bits
 *   bias    int32_t [outputs], or NULL
 *   bits    8, 16 or 32: of an integer, to whose value `zero` is added
 *   stored  the first of them */
MAQD_INLINE void maqd_events_raw(const maqd_events *g, const maqd_rows *w, const maqd_sums *s, int32_t outputs,
                                 const int32_t *y, const MAQD_FLASH int32_t *bias, int32_t bits, int32_t zero,
                                 void *stored) {
    const int32_t registers = maqd_registers(w, outputs);
#define MAQD_RAW(r, l)                                                                                       \
    if ((r) < registers && maqd_output(w, r, l) < outputs) {                                                 \
        const int32_t v = (w->lane == 8 ? maqd_half(g, s, r, l) : y[maqd_output(w, r, l)] + s->sum) + zero + \
                          (bias != NULL ? bias[maqd_output(w, r, l)] : 0);                                   \
        if (bits == 8) ((uint8_t *)stored)[maqd_output(w, r, l)] = (uint8_t)v;                               \
        if (bits == 16) ((int16_t *)stored)[maqd_output(w, r, l)] = (int16_t)v;                              \
        if (bits == 32) ((int32_t *)stored)[maqd_output(w, r, l)] = v;                                       \
    }
#define MAQD_RAWS(r) MAQD_RAW(r, 0) MAQD_RAW(r, 1) if (w->lane == 8){MAQD_RAW(r, 2) MAQD_RAW(r, 3)}
    MAQD_EACH(MAQD_RAWS)
    (void)y;
#undef MAQD_RAW
#undef MAQD_RAWS
}

/* The addend of a residual connection: (sum << shift) + (stored integer << value_shift). */
typedef struct {
    int32_t bits; /* 1, 2 or 4: fields; 8 or 16: integers as they are stored; 0: nothing is added */
    int32_t shift, value_shift;
} maqd_addend;

/* Codes of the sums of a pass. Every output has code of its own: faster than maqd_quantize_pixel, and larger.
 *
 *   t           the activation; its output is fields
 *   thresholds  of the pass, [outputs][levels]
 *   codes       the word of the first code
 *   shift       the bit of the first code, in passes that are not whole words; lower bits are kept
 *   q, fields   the addend, from the word of the first output on; for lanes of 8 bits */
MAQD_INLINE void maqd_events_codes(const maqd_events *g, const maqd_rows *w, const maqd_sums *s, int32_t outputs,
                                   const int32_t *y, const maqd_steps *t, const MAQD_FLASH void *thresholds,
                                   maqd_word *codes, int32_t shift, const maqd_addend *q, const maqd_word *fields) {
    const int32_t registers = maqd_registers(w, outputs);
    uint32_t c0 = 0, c1 = 0, c2 = 0, c3 = 0;
    const uint32_t a0 = q->bits > 0 ? fields[0] : 0u, a1 = outputs * q->bits > 32 ? fields[1] : 0u;
    const uint32_t a2 = outputs * q->bits > 64 ? fields[2] : 0u, a3 = outputs * q->bits > 96 ? fields[3] : 0u;
#define MAQD_ADDEND(o)                                                                    \
    ((maqd_choose((o) * q->bits / 32, a0, a1, a2, a3) >> (uint32_t)((o) * q->bits % 32) & \
      (((uint32_t)1 << q->bits) - 1u))                                                    \
     << q->value_shift)
#define MAQD_WITH(o, v) (q->bits == 0 ? (v) : (int32_t)(((uint32_t)(v) << q->shift) + MAQD_ADDEND(o)))
#define MAQD_CODE(o, v)                                                                     \
    if ((o) < outputs) {                                                                    \
        const ptrdiff_t at = (ptrdiff_t)(o) * t->levels * (t->wide ? 4 : 2);                \
        const uint32_t code = maqd_count(t, (const MAQD_FLASH uint8_t *)thresholds + at, v) \
                              << (uint32_t)((o) * t->bits % 32);                            \
        if ((o) * t->bits / 32 == 0) c0 |= code;                                            \
        if ((o) * t->bits / 32 == 1) c1 |= code;                                            \
        if ((o) * t->bits / 32 == 2) c2 |= code;                                            \
        if ((o) * t->bits / 32 == 3) c3 |= code;                                            \
    }
#define MAQD_LANE_CODE(r, l)                                                                              \
    if ((r) < registers)                                                                                  \
    MAQD_CODE(maqd_output(w, r, l), w->lane == 8 ? MAQD_WITH(maqd_output(w, r, l), maqd_half(g, s, r, l)) \
                                                 : y[maqd_output(w, r, l)] + s->sum)
#define MAQD_CODES(r) \
    MAQD_LANE_CODE(r, 0) MAQD_LANE_CODE(r, 1) if (w->lane == 8){MAQD_LANE_CODE(r, 2) MAQD_LANE_CODE(r, 3)}
    MAQD_EACH(MAQD_CODES)
    codes[0] = shift > 0 ? codes[0] | c0 << shift : c0;
    if (outputs * t->bits > 32) codes[1] = c1;
    if (outputs * t->bits > 64) codes[2] = c2;
    if (outputs * t->bits > 96) codes[3] = c3;
    (void)y;
#undef MAQD_CODE
#undef MAQD_ADDEND
#undef MAQD_WITH
#undef MAQD_LANE_CODE
#undef MAQD_CODES
}

/* The same for weights of 2 bits in lanes of 8, two outputs together: those whose sums share a word, 8 apart. For every
 * v = (sum << shift) + addend and threshold t, |v - t| is below 2^15. So no half of (v + 2^15) - t borrows from the
 * other, and its highest bit is v >= t. Thresholds ascend, so the bits of a code are sums modulo 2 of these bits.
 *
 *   levels      1 .. 7
 *   bits        of a code
 *   thresholds  uint32_t [registers][2][levels]: t + (t' << 16) of a pair of outputs; they include the zero point
 *               of the addend
 *   addend      of the first output */
MAQD_INLINE void maqd_events_pairs(const maqd_events *g, const maqd_rows *w, const maqd_sums *s, int32_t outputs,
                                   int32_t levels, int32_t bits, const MAQD_FLASH uint32_t *thresholds,
                                   maqd_word *codes, const maqd_addend *q, const void *addend) {
    const int32_t registers = maqd_registers(w, outputs);
    const uint32_t start = (0x8000u + ((uint32_t)s->sum << q->shift)) * 0x10001u;
    const maqd_word *const fields = (const maqd_word *)addend;
    uint32_t c0 = 0, c1 = 0, c2 = 0, c3 = 0; /* pairs of codes of 16 outputs: c0; of 4 bits, c0 and c2 */
    uint32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0; /* fields that are added, in the same places */
    if (q->bits == 1) {
        a0 = (fields[0] & 0xffu) | (fields[0] & 0xff00u) << 8;
        a1 = (fields[0] >> 16 & 0xffu) | (fields[0] >> 8 & 0xff0000u);
    }
    if (q->bits == 2) {
        a0 = fields[0];
        if (outputs > 16) a1 = fields[1];
    }
    if (q->bits == 4) {
        const uint32_t f1 = outputs > 8 ? fields[1] : 0u, f2 = outputs > 16 ? fields[2] : 0u;
        const uint32_t f3 = outputs > 24 ? fields[3] : 0u;
        a0 = (fields[0] & 0xffffu) | f1 << 16, a2 = fields[0] >> 16 | (f1 & 0xffff0000u);
        a1 = (f2 & 0xffffu) | f3 << 16, a3 = f2 >> 16 | (f3 & 0xffff0000u);
    }
#define MAQD_AMONG(r, l) ((r) % 4 + 4 * (l)) /* of 16 outputs */
#define MAQD_IN_WORD(r, l, b) ((b) == 4 ? 4 * (MAQD_AMONG(r, l) % 4) : (b) * MAQD_AMONG(r, l))
#define MAQD_UPPER(r, l, b) ((b) == 4 && MAQD_AMONG(r, l) >= 4)
#define MAQD_FIELDS(r, l)                                                                                       \
    (((MAQD_UPPER(r, l, q->bits) ? ((r) < 4 ? a2 : a3) : ((r) < 4 ? a0 : a1)) >> MAQD_IN_WORD(r, l, q->bits)) & \
     ((((uint32_t)1 << q->bits) - 1u) * 0x10001u))
#define MAQD_STORED(o) (q->bits == 8 ? ((const uint8_t *)addend)[o] : ((const int16_t *)addend)[o])
#define MAQD_INTEGER(o) ((o) >= outputs ? 0u : (uint32_t)MAQD_STORED(o))
#define MAQD_INTEGERS(r, l) (MAQD_INTEGER(maqd_output(w, r, l)) + (MAQD_INTEGER(maqd_output(w, r, l) + 8) << 16))
#define MAQD_REACHED_AT(k) ((k) <= levels ? x - t[(k) - 1] : 0u)
#define MAQD_CODE_PAIR(r, l)                                                                             \
    if ((r) < registers && maqd_output(w, r, l) < outputs) {                                             \
        const uint32_t more = q->bits == 0 ? 0u : q->bits < 8 ? MAQD_FIELDS(r, l) : MAQD_INTEGERS(r, l); \
        const uint32_t sums = s->half[2 * (r) + (l)] * (uint32_t)g->spacing << q->shift;                 \
        const uint32_t x = sums + start + (more << q->value_shift);                                      \
        const MAQD_FLASH uint32_t *const t = thresholds + (2 * (r) + (l)) * levels;                      \
        const uint32_t e2 = MAQD_REACHED_AT(2), e4 = MAQD_REACHED_AT(4), e6 = MAQD_REACHED_AT(6);        \
        const uint32_t e1 = MAQD_REACHED_AT(1), e3 = MAQD_REACHED_AT(3), e5 = MAQD_REACHED_AT(5);        \
        const uint32_t even = e2 ^ e4 ^ e6, all = even ^ e1 ^ e3 ^ e5 ^ MAQD_REACHED_AT(7);              \
        uint32_t code = all >> 15 & 0x10001u;                                                            \
        if (levels > 1) code |= even >> 14 & 0x20002u;                                                   \
        if (levels > 3) code |= e4 >> 13 & 0x40004u;                                                     \
        code <<= MAQD_IN_WORD(r, l, bits);                                                               \
        if (MAQD_UPPER(r, l, bits) && (r) < 4) c2 |= code;                                               \
        if (MAQD_UPPER(r, l, bits) && (r) >= 4) c3 |= code;                                              \
        if (!MAQD_UPPER(r, l, bits) && (r) < 4) c0 |= code;                                              \
        if (!MAQD_UPPER(r, l, bits) && (r) >= 4) c1 |= code;                                             \
    }
#define MAQD_CODE_PAIRS(r) MAQD_CODE_PAIR(r, 0) MAQD_CODE_PAIR(r, 1)
    MAQD_EACH(MAQD_CODE_PAIRS)
    if (bits == 1) codes[0] = (c0 & 0xffu) | (c0 >> 8 & 0xff00u) | (c1 & 0xffu) << 16 | (c1 << 8 & 0xff000000u);
    if (bits == 2) {
        codes[0] = c0;
        if (outputs > 16) codes[1] = c1;
    }
    if (bits == 4) {
        codes[0] = (c0 & 0xffffu) | c2 << 16;
        if (outputs > 8) codes[1] = c0 >> 16 | (c2 & 0xffff0000u);
        if (outputs > 16) codes[2] = (c1 & 0xffffu) | c3 << 16;
        if (outputs > 24) codes[3] = c1 >> 16 | (c3 & 0xffff0000u);
    }
    (void)fields, (void)a0, (void)a1, (void)a2, (void)a3, (void)c2, (void)c3;
#undef MAQD_AMONG
#undef MAQD_IN_WORD
#undef MAQD_UPPER
#undef MAQD_FIELDS
#undef MAQD_STORED
#undef MAQD_INTEGER
#undef MAQD_INTEGERS
#undef MAQD_REACHED_AT
#undef MAQD_CODE_PAIR
#undef MAQD_CODE_PAIRS
}

/* Activation of a pixel: codes of `channels` sums.
 *
 *   thresholds  int32_t or int16_t [channels][levels]
 *   signs       int8_t [channels], 1 or -1: compared is sign * sum; NULL if all are 1
 *   y           the pixel */
MAQD_INLINE void maqd_quantize_pixel(const maqd_steps *s, const int32_t *x, int32_t channels,
                                     const MAQD_FLASH void *thresholds, const MAQD_FLASH int8_t *signs, void *y) {
    const int32_t each = s->bits < 8 ? 32 / s->bits : 1;
    const ptrdiff_t step = (ptrdiff_t)s->levels * (s->wide ? 4 : 2);
    const MAQD_FLASH uint8_t *next = (const MAQD_FLASH uint8_t *)thresholds;
    maqd_word *words = (maqd_word *)y;
    for (int32_t first = 0; first < channels; first += each) {
        const int32_t count = channels - first < each ? channels - first : each;
        const MAQD_FLASH uint8_t *t = next + count * step;
        uint32_t word = 0;
        next = t;
        for (int32_t c = first + count - 1; c >= first; c--) {
            const int32_t v = signs != NULL && signs[c] < 0 ? -x[c] : x[c];
            t -= step;
            const uint32_t index = maqd_count(s, t, v);
            word = s->bits < 8 ? word << s->bits | index : (uint32_t)(s->base + s->spacing * (int32_t)index);
        }
        if (s->bits < 8)
            *words++ = word;
        else
            ((uint8_t *)y)[first] = (uint8_t)word;
    }
}

/* An activation as a fixed-point map: clip(floor((A v + B) / 2^shift), 0, highest). */
typedef struct {
    int32_t shift, highest;
    int32_t multiplier_bits; /* int16_t or int32_t */
    int32_t offset_bits;     /* int32_t or int64_t */
    int32_t wide;            /* 1 if A v + B needs 64 bits */
    int32_t bits, spacing, base;
} maqd_affine;

/* Its result for channel c, before spacing and base. */
MAQD_INLINE uint32_t maqd_affine_index(const maqd_affine *f, int32_t x, int32_t c, const MAQD_FLASH void *multipliers,
                                       const MAQD_FLASH void *offsets) {
    const int32_t a = f->multiplier_bits == 16 ? (int32_t)((const MAQD_FLASH int16_t *)multipliers)[c]
                                               : ((const MAQD_FLASH int32_t *)multipliers)[c];
    if (f->wide) {
        const int64_t b = f->offset_bits == 32 ? (int64_t)((const MAQD_FLASH int32_t *)offsets)[c]
                                               : ((const MAQD_FLASH int64_t *)offsets)[c];
        const int64_t v = (int64_t)a * x + b;
        const int64_t moved = v > 0 ? v >> f->shift : 0;
        return (uint32_t)(moved > f->highest ? f->highest : moved);
    }
    const int32_t v = a * x + ((const MAQD_FLASH int32_t *)offsets)[c];
#if (-1 >> 1) == -1 /* shifts of negative numbers round down: Arm shifts and clips in one instruction */
    const int32_t moved = v >> f->shift;
    return (uint32_t)(moved < 0 ? 0 : moved > f->highest ? f->highest : moved);
#else
    const int32_t moved = v > 0 ? v >> f->shift : 0;
    return (uint32_t)(moved > f->highest ? f->highest : moved);
#endif
}

/* Activation of a pixel by a fixed-point map.
 *
 *   multipliers, offsets  A and B, [channels]
 *   y                     the pixel */
MAQD_INLINE void maqd_affine_pixel(const maqd_affine *f, const int32_t *x, int32_t channels,
                                   const MAQD_FLASH void *multipliers, const MAQD_FLASH void *offsets, void *y) {
    const int32_t each = f->bits < 8 ? 32 / f->bits : 1;
    maqd_word *words = (maqd_word *)y;
    for (int32_t first = 0; first < channels; first += each) {
        uint32_t word = 0;
        for (int32_t c = (channels - first < each ? channels : first + each) - 1; c >= first; c--) {
            const uint32_t index = maqd_affine_index(f, x[c], c, multipliers, offsets);
            word = f->bits < 8 ? word << f->bits | index : (uint32_t)(f->base + f->spacing * (int32_t)index);
        }
        if (f->bits < 8)
            *words++ = word;
        else
            ((uint8_t *)y)[first] = (uint8_t)word;
    }
}

#endif
