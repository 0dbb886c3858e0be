/* Runs the self-test of an exported network, whose function is SELFTEST, and reports. */
#include <stdint.h>

int SELFTEST(int32_t *image, int32_t *tensor);
void print(const char *text);

int main(void) {
    int32_t image, tensor;
    const int wrong = SELFTEST(&image, &tensor);
    print(wrong ? "different integers\n" : "the same integers\n");
    return wrong;
}
