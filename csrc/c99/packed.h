/* Kernels on packed codes and packed weights, for processors with little memory: C99 without a library.
 *
 * Codes. A pixel is fields of 1, 2 or 4 `bits` in words of 32 bits, the first channel in the lowest bits; every pixel
 * starts a new word. `bits` 8, 16 and 32 mean plain uint8_t, int16_t and int32_t; their value is the stored integer
 * minus `zero`, which is 0 unless they are uint8_t. Words are used as numbers only, so byte order does not matter.
 *
 * Events. A convolution visits only inputs that are not 0. Those under one column of the kernel are listed once for
 * each output row; all windows that contain the column use the list. An event adds its value a times its row of
 * weights. Weights are stored as fields of 1, 2, 4 or 8 bits: the index s of the state, w = low + spacing * s. Fields
 * that lie `lane` bits apart are multiplied and added together, as the lanes of a 32-bit number. The sum of w a is then
 * spacing * (sum of s a) + low * (sum of a).
 *
 * Ranges. Lanes never overflow: they are emptied before the sum of the values can exceed `capacity`. The caller
 * guarantees the ranges that kernels.h asks for.
 *
 * Constants. These functions are inlined into callers that pass constants for all arguments that describe a layer, so
 * compilers remove the branches on them.
 */
#ifndef MAQD_PACKED_H
#define MAQD_PACKED_H

#include <stddef.h>
#include <stdint.h>

#if ((defined(__riscv) && !defined(__riscv_mul)) ||                              \
     (defined(__AVR__) && !defined(__AVR_HAVE_MUL__) && !defined(__clang__))) && \
    !defined(MAQD_SOFTWARE_MULTIPLY)
#error \
    "this processor cannot multiply: take one that can, or define MAQD_SOFTWARE_MULTIPLY to call the compiler's routine"
#endif

#if defined(__GNUC__)
#define MAQD_INLINE static inline __attribute__((always_inline, unused))
#define MAQD_SHARED static __attribute__((noinline, unused))
typedef uint32_t __attribute__((may_alias)) maqd_word;
#else
#define MAQD_INLINE static inline
#define MAQD_SHARED static
typedef uint32_t maqd_word;
#endif

/* Tables are declared with this. On an AVR it keeps them in flash, which has an address space of its own; they must lie
 * in its first 64 KB. Only GCC has the keyword, in C (not C++) and without -std=c99; elsewhere the start-up code copies
 * tables to RAM. */
#if defined(__AVR__) && defined(__FLASH) && !defined(__cplusplus) && !defined(__STRICT_ANSI__)
#define MAQD_FLASH __flash
#else
#define MAQD_FLASH
#endif

/* Keeps a value in a register, for two reasons: Arm cannot combine an immediate constant with a shift; and compilers
 * must not reorder sums, which takes more registers than there are. */
#if defined(__GNUC__) && !defined(__AVR__)
#define MAQD_REGISTER(x) __asm__("" : "+r"(x))
/* Needs four values at one time, so that adjacent words are loaded in pairs. */
#define MAQD_TOGETHER(a, b, c, d) __asm__("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d))
#else
#define MAQD_REGISTER(x) (void)(x)
#define MAQD_TOGETHER(a, b, c, d) (void)(a), (void)(b), (void)(c), (void)(d)
#endif

/* Whether the processor has an instruction that counts leading zeros. */
#if defined(__GNUC__) && !defined(MAQD_NO_CLZ) && (!defined(__arm__) || defined(__ARM_FEATURE_CLZ)) && \
    (!defined(__riscv) || defined(__riscv_zbb))
#define MAQD_CLZ 1
#else
#define MAQD_CLZ 0
#endif

/* Leading zeros of a word that is not 0; int may have 16 bits. */
#if MAQD_CLZ && __SIZEOF_INT__ >= 4
#define MAQD_LEADING(v) ((uint32_t)__builtin_clz(v))
#elif MAQD_CLZ
#define MAQD_LEADING(v) ((uint32_t)__builtin_clzl(v))
#endif

/* A tensor of one sample. */
typedef struct {
    int32_t rows, columns, channels; /* each at least 1 */
    int32_t bits;                    /* 1, 2, 4, 8, 16 or 32 */
    int32_t zero;                    /* stored integer of value 0, if bits is 8 */
    int32_t kept;                    /* rows in memory at one time: row r is at r % kept */
} maqd_codes;

/* A convolution by events, without groups. */
typedef struct {
    maqd_codes x;
    int32_t kernel_rows, kernel_columns;
    int32_t stride_rows, stride_columns;
    int32_t padding_rows, padding_columns;
    int32_t dilation_rows, dilation_columns;
    int32_t low, spacing; /* of the weights' states */
    int32_t capacity;     /* sum of |values| that lanes can take */
    int32_t largest;      /* no |value| is larger; not larger than capacity */
} maqd_events;

/* Storage format of rows of weights, and the code for it. */
typedef struct {
    int32_t bits; /* of a field: 1, 2, 4 or 8 */
    int32_t lane; /* 8: values are never negative; or 16 */
    int32_t ones; /* 1 if all values are 0 or 1: lists hold no values */
    int32_t unit; /* what events multiply to the index of a row: bytes of a row (or a multiple of them), or 1 */
    int32_t open; /* 1: omit the mask of each word's first field, which pays in windows of many inputs */
    int32_t twice; /* 1: two events a turn of the loop, which is faster and larger */
    /* NULL, or for three states: a byte is five weights in base 3, the first one lowest, and this table has the five
     * fields of each of the 243 bytes. */
    const MAQD_FLASH uint16_t *trits;
} maqd_rows;

/* Words of a pixel. */
MAQD_INLINE int32_t maqd_pixel_words(const maqd_codes *x) { return (x->channels * x->bits + 31) / 32; }

/* The place of a row that is in memory. */
MAQD_INLINE int32_t maqd_place(const maqd_codes *x, int32_t row) {
    return x->kept < x->rows ? (int32_t)((uint32_t)row % (uint32_t)x->kept) : row;
}

/* Columns whose lists must exist at one time. */
MAQD_INLINE int32_t maqd_ring(const maqd_events *g) { return (g->kernel_columns - 1) * g->dilation_columns + 1; }

/* Appends an event: the offset of its row of weights, and in the lower 16 bits its value, unless all values are 1. */
MAQD_INLINE uint16_t *maqd_event(uint16_t *e, const maqd_rows *w, int32_t row, uint32_t value) {
    const uint32_t place = (uint32_t)(row * w->unit);
    if (w->ones) {
        *e = (uint16_t)place;
        return e + 1;
    }
    *(maqd_word *)(void *)e = place << 16 | value;
    return e + 2;
}

/* Events of a pixel; `row` belongs to its first channel. */
MAQD_INLINE uint16_t *maqd_gather_pixel(const maqd_events *g, const maqd_rows *w, const void *x, int32_t pixel,
                                        int32_t row, uint16_t *e, int32_t *sum, int32_t *size) {
    const int32_t bits = g->x.bits;
    if (bits < 8) {
        const maqd_word *p = (const maqd_word *)x + (ptrdiff_t)pixel * maqd_pixel_words(&g->x);
        int32_t total = 0;
        for (int32_t i = maqd_pixel_words(&g->x); i > 0; i--) {
            uint32_t v = *p++;
#if MAQD_CLZ
            int32_t at = row + 32 / bits - 1; /* of the highest field, from which v is read */
            while (v != 0) {
                const uint32_t skip = MAQD_LEADING(v) & ~((uint32_t)bits - 1u);
                at -= (int32_t)(skip / (uint32_t)bits);
                v <<= skip;
                const uint32_t value = v >> (32 - bits);
                v &= 0xffffffffu >> bits;
                total += (int32_t)value;
                e = maqd_event(e, w, at, value);
            }
#else
            const uint32_t mask = ((uint32_t)1 << bits) - 1u;
            for (int32_t at = row; v != 0; v >>= bits, at++)
                if ((v & mask) != 0) {
                    total += (int32_t)(v & mask);
                    e = maqd_event(e, w, at, v & mask);
                }
#endif
            row += 32 / bits;
        }
        *sum += total;
        *size += total;
        return e;
    }
    for (int32_t c = 0; c < g->x.channels; c++) {
        const ptrdiff_t at = (ptrdiff_t)pixel * g->x.channels + c;
        const int32_t value = bits == 8    ? (int32_t)((const uint8_t *)x)[at] - g->x.zero
                              : bits == 16 ? (int32_t)((const int16_t *)x)[at]
                                           : ((const int32_t *)x)[at];
        if (value == 0) continue;
        *sum += value;
        *size += value < 0 ? -value : value;
        e = maqd_event(e, w, row + c, (uint16_t)value);
    }
    return e;
}

/* The list of a column of the kernel. */
typedef struct {
    uint16_t *first, *last; /* events */
    int32_t sum, size; /* of the values, and of their magnitudes */
} maqd_list;

/* Lists the events of input column `column` under a kernel whose first row is `top`. */
MAQD_INLINE void maqd_gather(const maqd_events *g, const maqd_rows *w, const void *x, int32_t top, int32_t column,
                             maqd_list *list) {
    const int32_t some = g->x.kept < g->x.rows;
    int32_t place = some ? maqd_place(&g->x, top + g->x.kept * g->padding_rows) : top;
    uint16_t *e = list->first;
    int32_t sum = 0, size = 0;
    if (column >= 0 && column < g->x.columns)
        for (int32_t i = 0; i < g->kernel_rows; i++) {
            const int32_t row = top + i * g->dilation_rows;
            if (row >= 0 && row < g->x.rows)
                e = maqd_gather_pixel(g, w, x, place * g->x.columns + column, i * g->x.channels, e, &sum, &size);
            place += g->dilation_rows;
            if (some && place >= g->x.kept) place -= g->x.kept;
        }
    list->last = e;
    list->sum = sum;
    list->size = size;
}

/* Word `i` of the fields of a row of weights of `bytes` bytes. Rows that are not whole words are read byte by byte. */
MAQD_INLINE uint32_t maqd_weights(const maqd_rows *w, const MAQD_FLASH void *row, int32_t bytes, int32_t i) {
    uint32_t v = 0;
    if (w->trits != NULL) {
#define MAQD_TRITS(b)                                                                       \
    if ((b) < bytes && 10 * (b) > 32 * i - 10 && 10 * (b) < 32 * i + 32) {                  \
        const uint32_t five = w->trits[((const MAQD_FLASH uint8_t *)row)[b]];               \
        v |= 10 * (b) < 32 * i ? five >> (32 * i - 10 * (b)) : five << (10 * (b) - 32 * i); \
    }
        MAQD_TRITS(0)
        MAQD_TRITS(1)
        MAQD_TRITS(2)
        MAQD_TRITS(3)
        MAQD_TRITS(4)
        MAQD_TRITS(5)
        MAQD_TRITS(6)
#undef MAQD_TRITS
        return v;
    }
    if (4 * i >= bytes) return 0;
    if (bytes % 4 == 0) return ((const MAQD_FLASH uint32_t *)row)[i];
    v = ((const MAQD_FLASH uint8_t *)row)[4 * i];
    if (4 * i + 1 < bytes) v |= (uint32_t)((const MAQD_FLASH uint8_t *)row)[4 * i + 1] << 8;
    if (4 * i + 2 < bytes) v |= (uint32_t)((const MAQD_FLASH uint8_t *)row)[4 * i + 2] << 16;
    if (4 * i + 3 < bytes) v |= (uint32_t)((const MAQD_FLASH uint8_t *)row)[4 * i + 3] << 24;
    return v;
}

/* One of four values. `which` is a constant, so compilers keep that one only. */
MAQD_INLINE uint32_t maqd_choose(int32_t which, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    return which == 0 ? a : which == 1 ? b : which == 2 ? c : d;
}

/* The sums of a pass. */
typedef struct {
    uint32_t half[16]; /* lane 8: sums of s a in 16 bits; of each register lanes 0 and 2, then lanes 1 and 3 */
    int32_t sum; /* low * (sum of a) */
} maqd_sums;

/* Registers that a word of weights takes. */
MAQD_INLINE int32_t maqd_per_word(const maqd_rows *w) { return w->lane / w->bits; }

/* Registers of a pass. */
MAQD_INLINE int32_t maqd_registers(const maqd_rows *w, int32_t outputs) {
    return maqd_per_word(w) * ((outputs * w->bits + 31) / 32);
}

/* The output of lane l in register r: fields lie in their order in the words. */
MAQD_INLINE int32_t maqd_output(const maqd_rows *w, int32_t r, int32_t l) {
    const int32_t each = maqd_per_word(w);
    return r / each * (32 / w->bits) + r % each + each * l;
}

/* Its sum, with lanes of 8 bits. */
MAQD_INLINE int32_t maqd_half(const maqd_events *g, const maqd_sums *s, int32_t r, int32_t l) {
    return g->spacing * (int32_t)((s->half[2 * r + l % 2] >> (16 * (l / 2))) & 0xffffu) + s->sum;
}

/* For each register. */
#define MAQD_EACH(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)

/* Sums of rows of weights, for the outputs of one pass: as many as the lanes of eight registers.
 *
 *   lists       [ring], of which every dilation'th one from `slot` on belongs to a column of the kernel
 *   columns     how many columns
 *   weights     rows of `bytes` bytes: [columns][kernel_rows][channels], `column_bytes` from column to column
 *   outputs     how many
 *   y           int32_t [outputs], with lanes of 16 bits only: spacing * (sum of s a) is added to it */
MAQD_INLINE void maqd_events_pass(const maqd_events *g, const maqd_rows *w, const maqd_list *lists, int32_t slot,
                                  int32_t columns, const MAQD_FLASH void *weights, int32_t bytes,
                                  ptrdiff_t column_bytes, int32_t outputs, int32_t *y, maqd_sums *s) {
    const int32_t registers = maqd_registers(w, outputs), each = maqd_per_word(w);
    const uint32_t start = w->lane == 8 ? 0u : 0x80008000u;
    uint32_t mask = (((uint32_t)1 << w->bits) - 1u) * (w->lane == 8 ? 0x01010101u : 0x00010001u);
    uint32_t f0 = start, f1 = start, f2 = start, f3 = start, f4 = start, f5 = start, f6 = start, f7 = start;
    const MAQD_FLASH uint8_t *column = (const MAQD_FLASH uint8_t *)weights;
    int32_t room = g->capacity, sum = 0;
#define MAQD_ZERO(r) \
    if (w->lane == 8 && (r) < registers) s->half[2 * (r)] = s->half[2 * (r) + 1] = 0;
    MAQD_EACH(MAQD_ZERO)
#undef MAQD_ZERO

/* With w->open the first register of a word takes it without a mask. The other fields of the word then are in its sum,
 * too; they are subtracted, shifted to their place, when the lanes are emptied, modulo 2^32. */
#define MAQD_FIRST(r) ((r) % each == 0)
#define MAQD_TERM(r)                                                              \
    if ((r) < registers) {                                                        \
        const uint32_t word = maqd_choose((r) / each, u0, u1, u2, u3);            \
        const uint32_t field = word >> (uint32_t)(w->bits * ((r) % each)) & mask; \
        const uint32_t term = w->open && MAQD_FIRST(r) ? word : field;            \
        f##r += w->ones ? term : term * a;                                        \
    }
/* Stops compilers from adding the terms of two events first: that takes more instructions. */
#define MAQD_KEEP(r) \
    if ((r) < registers) MAQD_REGISTER(f##r);
#define MAQD_CLOSE(r, s)                                                         \
    if (w->open && (s) < registers && MAQD_FIRST(r) && (r) / each == (s) / each) \
        f##r -= (f##s - start) << (uint32_t)(w->bits * ((s) - (r)));
#define MAQD_LANE(r, l)                 \
    if (maqd_output(w, r, l) < outputs) \
        y[maqd_output(w, r, l)] += g->spacing * ((int32_t)((f##r >> (16 * (l))) & 0xffffu) - 0x8000);
#define MAQD_EMPTY(r)                                          \
    if ((r) < registers) {                                     \
        if (w->lane == 8) {                                    \
            s->half[2 * (r)] += f##r & 0x00ff00ffu;            \
            s->half[2 * (r) + 1] += (f##r >> 8) & 0x00ff00ffu; \
        } else {                                               \
            MAQD_LANE(r, 0) MAQD_LANE(r, 1)                    \
        }                                                      \
        f##r = start;                                          \
    }

/* Adds the row of weights of the next event. All of its words have one base address, so that pairs load together. */
#define MAQD_VISIT                                                                                                 \
    {                                                                                                              \
        const uint32_t event = w->ones ? (uint32_t)*e << 16 : *(const maqd_word *)(const void *)e;                 \
        const uint32_t a = w->ones ? 1u : w->lane == 8 ? event & 0xffffu : (uint32_t)(int16_t)(event & 0xffffu);   \
        const MAQD_FLASH uint8_t *q = column + (w->unit == 1 ? (size_t)(event >> 16) * (size_t)bytes               \
                                                             : (size_t)(event >> 16) / (size_t)(w->unit / bytes)); \
        if (bytes > 4) MAQD_REGISTER(q);                                                                           \
        const uint32_t u0 = maqd_weights(w, q, bytes, 0), u1 = maqd_weights(w, q, bytes, 1),                       \
                       u2 = maqd_weights(w, q, bytes, 2), u3 = maqd_weights(w, q, bytes, 3);                       \
        MAQD_EACH(MAQD_TERM)                                                                                       \
        e += w->ones ? 1 : 2;                                                                                      \
        (void)a, (void)u0, (void)u1, (void)u2, (void)u3;                                                           \
    }

    const int32_t twice = w->twice && registers <= 4;
    MAQD_REGISTER(mask);
    for (int32_t j = 0;; j++) { /* once more at the end, to empty the lanes */
        const maqd_list *list = j < columns ? lists + slot : lists;
        const uint16_t *e = list->first;
        for (;;) { /* one turn, or more for lists that exceed the capacity of the lanes */
            const uint16_t *to = list->last;
            const int32_t end = j == columns;
            if (end || list->size > room) {
                MAQD_CLOSE(0, 1)
                MAQD_CLOSE(0, 2)
                MAQD_CLOSE(0, 3)
                MAQD_CLOSE(0, 4)
                MAQD_CLOSE(0, 5)
                MAQD_CLOSE(0, 6)
                MAQD_CLOSE(0, 7)
                MAQD_CLOSE(2, 3)
                MAQD_CLOSE(4, 5)
                MAQD_CLOSE(4, 6)
                MAQD_CLOSE(4, 7)
                MAQD_CLOSE(6, 7)
                MAQD_EACH(MAQD_EMPTY)
                if (end) break;
                room = g->capacity;
                if (list->size > room) {
                    const ptrdiff_t chunk = (ptrdiff_t)(room / g->largest) * (w->ones ? 1 : 2);
                    if (to - e > chunk) to = e + chunk;
                }
            }
            if (twice && ((to - e) & (w->ones ? 1 : 2)) != 0) MAQD_VISIT
            while (e != to) {
                MAQD_VISIT
                if (!twice) continue;
                MAQD_EACH(MAQD_KEEP)
                MAQD_VISIT
            }
            room -= list->size;
            if (to == list->last) break;
        }
        if (j == columns) break;
        sum += list->sum;
        column += column_bytes;
        slot += g->dilation_columns;
        if (slot >= maqd_ring(g)) slot -= maqd_ring(g);
    }
    s->sum = g->low * sum;
    (void)outputs, (void)y;
#undef MAQD_FIRST
#undef MAQD_TERM
#undef MAQD_CLOSE
#undef MAQD_LANE
#undef MAQD_EMPTY
#undef MAQD_KEEP
#undef MAQD_VISIT
}

/* Lists the columns that enter the window of an output. Callers go through the columns of a row in their order. */
MAQD_INLINE void maqd_slide(const maqd_events *g, const maqd_rows *w, const void *x, int32_t row, int32_t column,
                            maqd_list *lists, int32_t *slot) {
    const int32_t ring = maqd_ring(g), top = row * g->stride_rows - g->padding_rows;
    const int32_t left = column * g->stride_columns - g->padding_columns;
    int32_t fresh = ring;
    if (column == 0) {
        *slot = 0;
    } else {
        if (g->stride_columns < ring) fresh = g->stride_columns;
        *slot += fresh;
        if (*slot >= ring) *slot -= ring;
    }
    for (int32_t i = ring - fresh; i < ring; i++) {
        int32_t at = *slot + i;
        if (at >= ring) at -= ring;
        maqd_gather(g, w, x, top, left + i, lists + at);
    }
}

/* The maximum of two words, field by field. */
MAQD_INLINE uint32_t maqd_larger(uint32_t a, uint32_t b, int32_t bits) {
    const uint32_t top = (bits == 1 ? 0xffffffffu : bits == 2 ? 0xaaaaaaaau : 0x88888888u);
    const uint32_t rest = (a | top) - (b & ~top);
    uint32_t first = ((a & ~b) | (~(a ^ b) & rest)) & top; /* a >= b */
    first |= first - (first >> (bits - 1));
    return (a & first) | (b & ~first);
}

/* How pools move over a tensor. */
typedef struct {
    int32_t kernel_rows, kernel_columns;
    int32_t stride_rows, stride_columns;
    int32_t padding_rows, padding_columns;
} maqd_pool;

/* Word `k` of the pixel under position i, j of the window of an output; NULL outside of the tensor. */
MAQD_INLINE const maqd_word *maqd_under(const maqd_codes *x, const maqd_pool *p, const void *from, int32_t row,
                                        int32_t column, int32_t i, int32_t j, int32_t k) {
    const int32_t r = row * p->stride_rows - p->padding_rows + i;
    const int32_t c = column * p->stride_columns - p->padding_columns + j;
    if (r < 0 || r >= x->rows || c < 0 || c >= x->columns) return NULL;
    return (const maqd_word *)from + (ptrdiff_t)(maqd_place(x, r) * x->columns + c) * maqd_pixel_words(x) + k;
}

/* A row of maxima of fields, padding not included.
 *
 *   columns  of the result
 *   y        fields of as many bits */
MAQD_INLINE void maqd_max_pool_fields(const maqd_codes *x, const maqd_pool *p, const void *from, int32_t row,
                                      int32_t columns, void *y) {
    const int32_t words = maqd_pixel_words(x);
    maqd_word *to = (maqd_word *)y;
    for (int32_t column = 0; column < columns; column++)
        for (int32_t k = 0; k < words; k++) {
            uint32_t most = 0;
            for (int32_t i = 0; i < p->kernel_rows; i++)
                for (int32_t j = 0; j < p->kernel_columns; j++) {
                    const maqd_word *const at = maqd_under(x, p, from, row, column, i, j, k);
                    if (at != NULL) most = maqd_larger(most, *at, x->bits);
                }
            *to++ = most;
        }
}

/* A row of sums of fields, none of which exceeds 255: fields 8 bits apart are added together.
 *
 *   columns  of the result
 *   bits     of its fields, at least those of x; or 8 for bytes */
MAQD_INLINE void maqd_sum_pool_fields(const maqd_codes *x, const maqd_pool *p, const void *from, int32_t row,
                                      int32_t columns, int32_t bits, void *y) {
    const int32_t words = maqd_pixel_words(x), apart = 8 / x->bits, each = 32 / x->bits;
    const uint32_t mask = (((uint32_t)1 << x->bits) - 1u) * 0x01010101u;
    maqd_word *to = (maqd_word *)y;
    uint8_t *bytes = (uint8_t *)y;
    for (int32_t column = 0; column < columns; column++) {
        uint32_t word = 0, at = 0;
        for (int32_t k = 0; k < words; k++) {
            const int32_t count = x->channels - k * each < each ? x->channels - k * each : each;
            uint32_t lanes[8] = {0};
            for (int32_t i = 0; i < p->kernel_rows; i++)
                for (int32_t j = 0; j < p->kernel_columns; j++) {
                    const maqd_word *const v = maqd_under(x, p, from, row, column, i, j, k);
                    if (v != NULL)
                        for (int32_t n = 0; n < apart; n++) lanes[n] += (*v >> (n * x->bits)) & mask;
                }
            for (int32_t c = 0; c < count; c++) {
                const uint32_t sum = (lanes[c % apart] >> (c / apart * 8)) & 0xffu;
                if (bits == 8) {
                    *bytes++ = (uint8_t)sum;
                    continue;
                }
                word |= sum << at;
                at += (uint32_t)bits;
                if (at == 32) {
                    *to++ = word;
                    word = at = 0;
                }
            }
        }
        if (bits < 8 && at > 0) *to++ = word;
    }
}

/* y = (y << shift) + (fields << x_shift), for `count` fields; shifts are 0 .. 31. */
MAQD_INLINE void maqd_add_fields(int32_t *y, int32_t shift, const maqd_word *x, int32_t bits, int32_t x_shift,
                                 int32_t count) {
    const uint32_t mask = ((uint32_t)1 << bits) - 1u;
    const int32_t each = 32 / bits;
    for (int32_t done = 0; done < count; done += each) {
        uint32_t word = *x++;
        for (int32_t *const end = y + (count - done < each ? count - done : each); y != end; y++, word >>= bits)
            *y = (int32_t)(((uint32_t)*y << shift) + ((word & mask) << x_shift));
    }
}

/* Adds the fields of all pixels to the sums of their channels: fields 8 bits apart are added together.
 *
 *   y  int32_t [channels] */
MAQD_INLINE void maqd_sum_fields(const maqd_codes *x, const void *from, int32_t *y) {
    const int32_t words = maqd_pixel_words(x), pixels = x->rows * x->columns, bits = x->bits, apart = 8 / bits;
    const int32_t most = 255 / (((int32_t)1 << bits) - 1); /* pixels whose sums fit 8 bits */
    const uint32_t mask = (((uint32_t)1 << bits) - 1u) * 0x01010101u;
    for (int32_t k = 0; k < words; k++) {
        const maqd_word *p = (const maqd_word *)from + k;
        for (int32_t left = pixels; left > 0;) {
            uint32_t lanes[8] = {0};
            for (int32_t n = left < most ? left : most; n > 0; n--, left--, p += words) {
                const uint32_t v = *p;
                for (int32_t i = 0; i < apart; i++) lanes[i] += (v >> (i * bits)) & mask;
            }
            for (int32_t b = 0; b < 4; b++)
                for (int32_t i = 0; i < apart; i++) {
                    const int32_t c = (4 * k + b) * apart + i;
                    if (c < x->channels) y[c] += (int32_t)((lanes[i] >> (8 * b)) & 0xffu);
                }
        }
    }
}

#endif
