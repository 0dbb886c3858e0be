/* Runs a program on an emulated AVR and counts the instructions of each of its layers: the program writes a layer's
 * number to GPIOR0 before it (255 ends the run), and to GPIOR1 at its end whether its integers differ.
 *
 *     avr CHIP PROGRAM.elf
 *
 * prints a line `layer <index> <instructions> <cycles>` for each layer of the last complete run. Exit status 0 if all
 * integers are the same. Needs libsimavr. */
#include <inttypes.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GPIOR0 = 0x3e, GPIOR1 = 0x4a, LAYERS = 255, PENDING = 0xa5 };

typedef struct {
    uint64_t instructions, cycles;
} tally;

int main(int count, char **arguments) {
    static elf_firmware_t firmware;
    static tally counts[LAYERS], done[LAYERS];
    int layers = 0, found = 0;
    avr_t *avr;
    if (count != 3 || elf_read_firmware(arguments[2], &firmware) != 0) return 2;
    avr = avr_make_mcu_by_name(arguments[1]);
    if (avr == NULL) return 2;
    avr_init(avr);
    avr->log = LOG_NONE;
    avr_load_firmware(avr, &firmware);
    avr->data[GPIOR0] = LAYERS;
    avr->data[GPIOR1] = PENDING;
    while (avr->data[GPIOR1] == PENDING) {
        const uint8_t layer = avr->data[GPIOR0];
        const avr_cycle_count_t before = avr->cycle;
        const int state = avr_run(avr);
        if (state == cpu_Done || state == cpu_Crashed) return 2;
        if (layer < LAYERS) {
            counts[layer].instructions++;
            counts[layer].cycles += avr->cycle - before;
            if (layer >= found) found = layer + 1;
            if (avr->data[GPIOR0] == LAYERS) {
                memcpy(done, counts, sizeof done);
                memset(counts, 0, sizeof counts);
                layers = found, found = 0;
            }
        }
    }
    for (int i = 0; i < layers; i++)
        printf("layer %d %" PRIu64 " %" PRIu64 "\n", i, done[i].instructions, done[i].cycles);
    return avr->data[GPIOR1] != 0;
}
