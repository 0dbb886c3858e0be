/* Marks in the instruction stream where layers begin, for count.c: instructions without an effect that no compiler
 * emits and every processor has. */
#ifndef MAQD_MARK_H
#define MAQD_MARK_H

#ifdef __riscv
#define MAQD_BEGIN ".4byte 0x00102013" /* slti x0, x0, 1: a run begins */
#define MAQD_NEXT ".4byte 0x00202013"  /* slti x0, x0, 2: the next layer */
#else
#define MAQD_BEGIN ".inst.n 0x46d2" /* mov r10, r10 */
#define MAQD_NEXT ".inst.n 0x46c9"  /* mov r9, r9 */
#endif

#define MAQD_LAYER(index)                          \
    if ((index) == 0)                              \
        __asm__ volatile(MAQD_BEGIN ::: "memory"); \
    else                                           \
        __asm__ volatile(MAQD_NEXT ::: "memory");

#endif
