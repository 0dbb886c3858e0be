/* What programs of CMSIS-NN need besides it, for a yardstick: layers of 8 bits with the same numbers everywhere, for
 * what they cost does not depend on them; and memcpy, memset as a C library has them. */
#ifndef MAQD_INT8_H
#define MAQD_INT8_H

#include <stddef.h>
#include <stdint.h>

#include "arm_nnfunctions.h"

#define MOST_OUTPUTS 1024

static int32_t multipliers[MOST_OUTPUTS], shifts[MOST_OUTPUTS];
static const int32_t biases[MOST_OUTPUTS] = {1};
static uint32_t scratch[16384];

static __attribute__((unused)) void int8_begin(void) {
    for (int i = 0; i < MOST_OUTPUTS; i++) multipliers[i] = 1 << 30, shifts[i] = -7;
}

static __attribute__((unused)) void int8_conv(cmsis_nn_dims x, cmsis_nn_dims filter, cmsis_nn_dims y,
                                              cmsis_nn_tile stride, cmsis_nn_tile padding, const int8_t *from,
                                              const int8_t *weights, int8_t *to) {
    const cmsis_nn_conv_params params = {128, -128, stride, padding, {1, 1}, {-128, 127}};
    const cmsis_nn_per_channel_quant_params scales = {multipliers, shifts};
    const cmsis_nn_dims bias = {y.c, 1, 1, 1};
    const cmsis_nn_context context = {scratch, sizeof scratch};
    arm_convolve_wrapper_s8(&context, &params, &scales, &x, from, &filter, weights, &bias, biases, &y, to);
}

static __attribute__((unused)) void int8_depthwise(cmsis_nn_dims x, cmsis_nn_dims filter, cmsis_nn_dims y,
                                                   cmsis_nn_tile stride, cmsis_nn_tile padding, const int8_t *from,
                                                   const int8_t *weights, int8_t *to) {
    const cmsis_nn_dw_conv_params params = {128, -128, 1, stride, padding, {1, 1}, {-128, 127}};
    const cmsis_nn_per_channel_quant_params scales = {multipliers, shifts};
    const cmsis_nn_dims bias = {y.c, 1, 1, 1};
    const cmsis_nn_context context = {scratch, sizeof scratch};
    arm_depthwise_conv_wrapper_s8(&context, &params, &scales, &x, from, &filter, weights, &bias, biases, &y, to);
}

static __attribute__((unused)) void int8_dense(int32_t inputs, int32_t outputs, const int8_t *from,
                                               const int8_t *weights, int8_t *to) {
    const cmsis_nn_fc_params params = {128, 0, -128, {-128, 127}};
    const cmsis_nn_per_tensor_quant_params scale = {1 << 30, -7};
    const cmsis_nn_dims x = {1, 1, 1, inputs}, filter = {inputs, 1, 1, outputs}, y = {1, 1, 1, outputs};
    const cmsis_nn_context context = {scratch, sizeof scratch};
    arm_fully_connected_s8(&context, &params, &scale, &x, from, &filter, weights, &y, biases, &y, to);
}

static __attribute__((unused)) void int8_add(const int8_t *a, const int8_t *b, int32_t size, int8_t *to) {
    arm_elementwise_add_s8(a, b, 128, 1 << 30, 0, 128, 1 << 30, 0, 20, to, -128, 1 << 30, -19, -128, 127, size);
}

static __attribute__((unused)) void int8_mean(cmsis_nn_dims x, const int8_t *from, int8_t *to) {
    const cmsis_nn_pool_params params = {{1, 1}, {0, 0}, {-128, 127}};
    const cmsis_nn_dims y = {1, 1, 1, x.c};
    const cmsis_nn_context context = {scratch, sizeof scratch};
    arm_avgpool_s8(&context, &params, &x, from, &x, &y, to);
}

#endif
