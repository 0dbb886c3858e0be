/* QEMU plugin that counts executed instructions between the marks of mark.h.
 *
 * The interface is QEMU's plugin API, version 1 (include/qemu/qemu-plugin.h of QEMU 4.2 .. 8), declared here by hand
 * because distributions do not ship the header. At the end it prints a line for each layer of the last complete run,
 *
 *     layer <index> <instructions>
 *
 * and the number of runs. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define VISIBLE __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                                  void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_outs(const char *);

VISIBLE int qemu_plugin_version = 1;

enum { BEGIN = 1, NEXT = 2, MOST = 1024 };

static uint64_t counts[MOST], done[MOST];
static int layer = -1, layers;
static unsigned long runs;

/* A stretch of instructions without marks has run. */
static void ran(unsigned cpu, void *count) {
    (void)cpu;
    if (layer >= 0) counts[layer] += (uintptr_t)count;
}

static void marked(unsigned cpu, void *mark) {
    (void)cpu;
    if ((uintptr_t)mark == BEGIN) {
        for (int i = 0; i < MOST; i++) counts[i] = 0;
        layer = 0;
    } else if (layer >= 0 && layer < MOST - 1) {
        layer++;
    }
    /* The last mark of a run closes its last layer; whatever follows is counted beyond it, and not printed. */
    layers = layer;
    for (int i = 0; i < layers; i++) done[i] = counts[i];
    if ((uintptr_t)mark == BEGIN) runs++;
}

static uintptr_t mark_of(const struct qemu_plugin_insn *insn) {
    const uint8_t *bytes = qemu_plugin_insn_data(insn);
    /* No test of the size: at the end of a page QEMU adds the halfword behind it, at which it has looked. Instructions
     * of 32 bits do not begin like this. */
    if (bytes[1] != 0x46) return 0;
    return bytes[0] == 0xd2 ? BEGIN : bytes[0] == 0xc9 ? NEXT : 0;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    const size_t size = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (size_t i = 0; i < size;) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        const uintptr_t mark = mark_of(insn);
        size_t end = i + 1;
        if (mark) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, 0, (void *)mark);
        } else {
            while (end < size && !mark_of(qemu_plugin_tb_get_insn(block, end))) end++;
            qemu_plugin_register_vcpu_insn_exec_cb(insn, ran, 0, (void *)(uintptr_t)(end - i));
        }
        i = end;
    }
}

static void finished(qemu_plugin_id_t id, void *unused) {
    char line[64];
    (void)id, (void)unused;
    for (int i = 0; i < layers; i++) {
        snprintf(line, sizeof line, "layer %d %llu\n", i, (unsigned long long)done[i]);
        qemu_plugin_outs(line);
    }
    snprintf(line, sizeof line, "runs %lu\n", runs);
    qemu_plugin_outs(line);
}

VISIBLE int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int count, char **arguments);
VISIBLE int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int count, char **arguments) {
    (void)info, (void)count, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
