/* memcpy and memset, word by word, as libraries of C for microcontrollers have them. */
#include <stddef.h>
#include <stdint.h>

#define PLAIN __attribute__((optimize("no-tree-loop-distribute-patterns")))
#if defined(__ARM_FEATURE_UNALIGNED)
#define APART(to, from) 0
#else
#define APART(to, from) ((((uintptr_t)(to) ^ (uintptr_t)(from)) & 3) != 0)
#endif

typedef uint32_t __attribute__((may_alias, aligned(1))) word;
typedef uint32_t __attribute__((may_alias)) aligned_word;

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int value, size_t size);

PLAIN void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    uint8_t *y = to;
    const uint8_t *x = from;
    if (size >= 8 && !APART(to, from)) {
        for (; (uintptr_t)y & 3; size--) *y++ = *x++;
        for (; size >= 16; size -= 16, x += 16, y += 16) {
#if defined(__ARM_FEATURE_UNALIGNED)
            const word *p = (const word *)x;
#else
            const aligned_word *p = (const aligned_word *)x;
#endif
            aligned_word *q = (aligned_word *)y;
            q[0] = p[0], q[1] = p[1], q[2] = p[2], q[3] = p[3];
        }
#if defined(__ARM_FEATURE_UNALIGNED)
        for (; size >= 4; size -= 4, x += 4, y += 4) *(aligned_word *)y = *(const word *)x;
#else
        for (; size >= 4; size -= 4, x += 4, y += 4) *(aligned_word *)y = *(const aligned_word *)x;
#endif
    }
    for (; size > 0; size--) *y++ = *x++;
    return to;
}

PLAIN void *memset(void *to, int value, size_t size) {
    uint8_t *y = to;
    const uint32_t four = (uint8_t)value * 0x01010101u;
    if (size >= 8) {
        for (; (uintptr_t)y & 3; size--) *y++ = (uint8_t)value;
        for (; size >= 4; size -= 4, y += 4) *(aligned_word *)y = four;
    }
    for (; size > 0; size--) *y++ = (uint8_t)value;
    return to;
}
