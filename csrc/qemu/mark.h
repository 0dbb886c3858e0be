/* Marks in the instruction stream where layers begin, for count.c: moves of a register to itself, which no compiler
 * emits and every Thumb processor has. */
#ifndef MAQD_MARK_H
#define MAQD_MARK_H

#define MAQD_LAYER(index)                                                             \
    if ((index) == 0)                                                                 \
        __asm__ volatile(".inst.n 0x46d2" ::: "memory"); /* r10, r10: a run begins */ \
    else                                                                              \
        __asm__ volatile(".inst.n 0x46c9" ::: "memory");              /* r9, r9: the next layer */

#endif
