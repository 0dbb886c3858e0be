/* Starts a program on a Cortex-M in QEMU, without a C library: copies initialized data, clears the rest, runs main, and
 * ends the emulation with its status. Semihosting is how the program talks to QEMU. */
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
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
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

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top,          (const void *)start, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault, (const void *)fault,
};

/* What compilers may call for loops that copy or clear. */
void *memset(void *to, int value, unsigned size);
void *memcpy(void *to, const void *from, unsigned size);
__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memset(void *to, int value, unsigned size) {
    for (unsigned i = 0; i < size; i++) ((uint8_t *)to)[i] = (uint8_t)value;
    return to;
}
__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memcpy(void *to, const void *from, unsigned size) {
    for (unsigned i = 0; i < size; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}
