/* QEMU plugin that counts executed instructions, and those that take more than a cycle, between the marks of mark.h.
 *
 * The interface is QEMU's plugin API, version 1 (include/qemu/qemu-plugin.h of QEMU 4.2 .. 8), declared here by hand
 * because distributions do not ship the header. At the end it prints a line for each layer of the last complete run,
 *
 *     layer <index> <instructions> <loads> <words> <stores> <words> <taken> <accumulates> <longs> <divides>
 *
 * and the number of runs. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VISIBLE __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_info {
    const char *target_name; /* the first of its fields */
};
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                                  void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern void qemu_plugin_outs(const char *);

VISIBLE int qemu_plugin_version = 1;

enum { ZERO = 1, ONE = 2, SET = 3, MOST = 1023 };

/* What cycle models need to know, besides the number of instructions. */
typedef struct {
    uint64_t instructions;
    uint64_t loads, loaded;   /* instructions that load, and words (or parts of them) that they load */
    uint64_t stores, stored;  /* the same for stores */
    uint64_t taken;           /* branches, calls and returns that do not go on at the next instruction */
    uint64_t accumulates;     /* products of 32 bits that are added to something */
    uint64_t longs, divides;  /* products of 64 bits, divisions */
} tally;

/* A stretch of instructions without marks. */
typedef struct {
    uint64_t start, end; /* addresses */
    tally cost;
    uintptr_t mark; /* or a mark */
} stretch;

static tally counts[MOST], done[MOST];
static int layer = -1, number, found, layers; /* of this run; bits of a mark; this run's, and the last one's */
static unsigned long runs;
static uint64_t following; /* address after the last stretch */

static void add(tally *sum, const tally *one) {
    sum->instructions += one->instructions;
    sum->loads += one->loads, sum->loaded += one->loaded;
    sum->stores += one->stores, sum->stored += one->stored;
    sum->accumulates += one->accumulates, sum->longs += one->longs, sum->divides += one->divides;
}

static void ran(unsigned cpu, void *what) {
    const stretch *one = what;
    (void)cpu;
    if (layer >= 0) {
        add(&counts[layer], &one->cost);
        if (one->start != following) counts[layer].taken++;
    }
    following = one->end;
}

static void marked(unsigned cpu, void *what) {
    const stretch *one = what;
    (void)cpu;
    following = one->end;
    if (one->mark != SET) {
        number = (number << 1 | (one->mark == ONE)) & MOST;
        return;
    }
    layer = number;
    if (layer < MOST) {
        if (layer >= found) found = layer + 1;
        return;
    }
    /* The end of a run. */
    memcpy(done, counts, sizeof done);
    memset(counts, 0, sizeof counts);
    layers = found, found = 0, layer = -1;
    runs++;
}

/* ---- instructions ---- */

static int riscv;

static uint32_t halfword(const uint8_t *bytes) { return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8; }

/* No test of what QEMU says about sizes: at the end of a page it adds the halfword after it, at which it has looked. */
static unsigned size_of(const uint8_t *bytes) {
    if (riscv) return (bytes[0] & 3) == 3 ? 4 : 2;
    return halfword(bytes) >= 0xe800 ? 4 : 2;
}

/* Marks of mark.h. */
static uintptr_t mark_of(const uint8_t *bytes) {
    if (riscv) {
        if (size_of(bytes) == 2 || halfword(bytes) != 0x2013) return 0; /* slti x0, x0, .. */
        const uint32_t kind = halfword(bytes + 2) >> 4;
        return halfword(bytes + 2) % 16 == 0 && kind >= ZERO && kind <= SET ? kind : 0;
    }
    return halfword(bytes) == 0x46d2 ? ZERO : halfword(bytes) == 0x46c9 ? ONE : halfword(bytes) == 0x46db ? SET : 0;
}

static void memory(tally *t, int load, int words) {
    if (load) t->loads++, t->loaded += (uint64_t)words;
    if (!load) t->stores++, t->stored += (uint64_t)words;
}

/* Classes of Thumb instructions: Armv7-M Architecture Reference Manual, sections A5.2 and A5.3. */
static void classify(tally *t, const uint8_t *bytes) {
    const uint32_t a = halfword(bytes);
    t->instructions++;
    if (riscv) return;
    if (size_of(bytes) == 2) {
        if (a >> 11 == 0x09) memory(t, 1, 1);                                            /* LDR literal */
        if (a >> 12 == 0x5) memory(t, (a >> 9 & 7) >= 3, 1);                             /* register offsets */
        if (a >> 12 >= 0x6 && a >> 12 <= 0x9) memory(t, a >> 11 & 1, 1);                 /* immediate offsets */
        if (a >> 9 == 0x5a) memory(t, 0, __builtin_popcount(a & 0x1ff));                 /* PUSH */
        if (a >> 9 == 0x5e) memory(t, 1, __builtin_popcount(a & 0x1ff));                 /* POP */
        if (a >> 12 == 0xc) memory(t, a >> 11 & 1, __builtin_popcount(a & 0xff));        /* STM, LDM */
        return;
    }
    const uint32_t b = halfword(bytes + 2);
    if (a >> 9 == 0x74 && !(a >> 6 & 1)) memory(t, a >> 4 & 1, __builtin_popcount(b));   /* STM, LDM */
    if (a >> 9 == 0x74 && (a >> 6 & 1)) { /* STRD, LDRD, TBB, exclusives */
        const int single = !(a >> 8 & 1) && !(a >> 5 & 1);
        memory(t, a >> 4 & 1, single ? 1 : 2);
    }
    if (a >> 9 == 0x7c) memory(t, a >> 4 & 1, 1); /* single registers */
    if (a >> 7 == 0x1f6 && b >> 12 != 0xf) t->accumulates++; /* MLA, MLS, SMLAD .. */
    if (a >> 7 == 0x1f7) {
        const uint32_t kind = a >> 4 & 7;
        if (kind == 1 || kind == 3)
            t->divides++;
        else
            t->longs++;
    }
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    const size_t size = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (size_t i = 0; i < size;) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        stretch *one = calloc(1, sizeof *one); /* as long as the block may run: for ever */
        if (one == NULL) abort();
        one->start = one->end = qemu_plugin_insn_vaddr(insn);
        one->mark = mark_of(qemu_plugin_insn_data(insn));
        do {
            const uint8_t *bytes = qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i++));
            one->end += size_of(bytes);
            if (!one->mark) classify(&one->cost, bytes);
        } while (!one->mark && i < size && !mark_of(qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i))));
        qemu_plugin_register_vcpu_insn_exec_cb(insn, one->mark ? marked : ran, 0, one);
    }
}

static void finished(qemu_plugin_id_t id, void *unused) {
    char line[256];
    (void)id, (void)unused;
    for (int i = 0; i < layers; i++) {
        const tally *t = &done[i];
        snprintf(line, sizeof line,
                 "layer %d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
                 " %" PRIu64 "\n",
                 i, t->instructions, t->loads, t->loaded, t->stores, t->stored, t->taken, t->accumulates, t->longs,
                 t->divides);
        qemu_plugin_outs(line);
    }
    snprintf(line, sizeof line, "runs %lu\n", runs);
    qemu_plugin_outs(line);
}

VISIBLE int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int count, char **arguments);
VISIBLE int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int count, char **arguments) {
    (void)count, (void)arguments;
    riscv = strncmp(info->target_name, "riscv", 5) == 0;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
