/* Starts a program on a Cortex-M or RV32 in QEMU, without a C library: copies initialized data, clears the rest, runs
 * main, and ends the emulation with its status. Semihosting is how the program talks to QEMU. */
#include <stdint.h>

#define SYS_WRITE0 0x04
#define SYS_EXIT_EXTENDED 0x20
#define APPLICATION_EXIT 0x20026u
#define FAULT_STATUS 99

extern uint32_t stack_top, data_start, data_end, data_load, bss_start, bss_end;

int main(void);
void start(void);
void fault(void);

static void call_host(int operation, const void *argument) {
#ifdef __riscv
    register int a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    __asm__ volatile(".balign 16\n.option push\n.option norvc\nslli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
#else
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
#endif
}

void print(const char *text);
void print(const char *text) { call_host(SYS_WRITE0, text); }

static void leave(int status) {
    const uint32_t block[2] = {APPLICATION_EXIT, (uint32_t)status};
    call_host(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

void start(void) {
    const uint32_t *from = &data_load;
    for (uint32_t *to = &data_start; to < &data_end;) *to++ = *from++;
    for (uint32_t *to = &bss_start; to < &bss_end;) *to++ = 0;
    leave(main());
}

void fault(void) {
    print("processor fault\n");
    leave(FAULT_STATUS);
}

#ifdef __riscv
/* Where QEMU begins. */
__asm__(
    ".section .vectors, \"ax\"\n.option norelax\n.option arch, +zicsr\n"
    "la sp, stack_top\nla t0, fault\ncsrw mtvec, t0\nj start\n.text");
#else
__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top,          (const void *)start, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault, (const void *)fault,
};
#endif
