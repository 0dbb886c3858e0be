/* Marks in the instruction stream where layers begin, for count.c: instructions without an effect that no compiler
 * emits and every processor has. A layer's number comes as ten bits, the highest first; -1 is the end of a run. */
#ifndef MAQD_MARK_H
#define MAQD_MARK_H

#ifdef __riscv
#define MAQD_MARK_0 ".4byte 0x00102013" /* slti x0, x0, 1: a bit that is 0 */
#define MAQD_MARK_1 ".4byte 0x00202013"  /* slti x0, x0, 2: a bit that is 1 */
#define MAQD_MARK_SET ".4byte 0x00302013"  /* slti x0, x0, 3: the number is complete */
#else
#define MAQD_MARK_0 ".inst.n 0x46d2" /* mov r10, r10 */
#define MAQD_MARK_1 ".inst.n 0x46c9"  /* mov r9, r9 */
#define MAQD_MARK_SET ".inst.n 0x46db"  /* mov r11, r11 */
#endif

#define MAQD_BIT(index, place)                      \
    if ((index) >> (place) & 1)                     \
        __asm__ volatile(MAQD_MARK_1 ::: "memory"); \
    else                                            \
        __asm__ volatile(MAQD_MARK_0 ::: "memory");

#define MAQD_LAYER(index) \
    MAQD_BIT(index, 9)    \
    MAQD_BIT(index, 8)    \
    MAQD_BIT(index, 7)    \
    MAQD_BIT(index, 6)    \
    MAQD_BIT(index, 5)    \
    MAQD_BIT(index, 4)    \
    MAQD_BIT(index, 3)    \
    MAQD_BIT(index, 2)    \
    MAQD_BIT(index, 1)    \
    MAQD_BIT(index, 0)    \
    __asm__ volatile(MAQD_MARK_SET ::: "memory");

#endif
