// What an instruction set offers to the engine. Each is compiled in files of its own with its own compiler flags; all
// other code is compiled for the plainest processor, and reaches them through this table only.
//
// Tables are filled by name. A kernel that an instruction set lacks stays null; the engine then takes another one.
#pragma once

#include "kernels/calls.h"
#include "kernels/language.h"

namespace maqd {

// csrc/c99/kernels.c, compiled for the instruction set.
struct ScalarKernels {
    maqd_widen_fn *widen;
    maqd_narrow_fn *narrow;
    maqd_add_shifted_fn *add_shifted;
    maqd_conv_row_fn *conv_row;
    maqd_conv_row_wide_fn *conv_row_wide;
    maqd_quantize_fn *quantize;
    maqd_fixed_point_fn *fixed_point;
    maqd_max_pool_row_fn *max_pool_row;
    maqd_sum_pool_row_fn *sum_pool_row;
    maqd_transpose_fn *transpose;
};

// Fills them with the functions whose names begin with maqd_PREFIX.
#define FILL_SCALAR_KERNELS(kernels, prefix)                    \
    do {                                                        \
        (kernels).widen = maqd_##prefix##widen;                 \
        (kernels).narrow = maqd_##prefix##narrow;               \
        (kernels).add_shifted = maqd_##prefix##add_shifted;     \
        (kernels).conv_row = maqd_##prefix##conv_row;           \
        (kernels).conv_row_wide = maqd_##prefix##conv_row_wide; \
        (kernels).quantize = maqd_##prefix##quantize;           \
        (kernels).fixed_point = maqd_##prefix##fixed_point;     \
        (kernels).max_pool_row = maqd_##prefix##max_pool_row;   \
        (kernels).sum_pool_row = maqd_##prefix##sum_pool_row;   \
        (kernels).transpose = maqd_##prefix##transpose;         \
    } while (0)

struct DenseKernel {
    // Parts first .. last - 1, see DenseCall::parts. `memory` has scratch() bytes.
    void (*run)(const DenseCall &, const Finish &, size_t images, size_t first, size_t last, uint8_t *memory);
    size_t (*scratch)(const DenseCall &);
    size_t align;           // runs are filled up to a multiple of it
    bool compact;           // whether it can expand compact weights
    bool direct;            // whether it can read the left matrix from the input
    bool fold;              // whether it can fold few outputs
    int32_t strip_columns;  // the least number of output columns that makes strips worth while
    int32_t pair_limit;     // two products must not add up to more than this; 0 for no limit
};

struct WinogradKernel {
    // Parts first .. last - 1, see WinogradCall::parts. It needs the `align` and `pair_limit` of the dense kernel.
    void (*run)(const WinogradCall &, const Finish &, size_t images, size_t first, size_t last, uint8_t *memory);
    size_t (*scratch)(const WinogradCall &);
    bool offset;  // whether transformed inputs must not be negative
};

struct EventsKernel {
    // Output rows first .. last - 1 of all images.
    void (*run)(const EventsCall &, const Finish &, size_t first, size_t last, uint8_t *memory);
    size_t (*scratch)(const EventsCall &);
    int vector_bits;  // of its widest vectors
    bool sweeps;      // whether it has sweeps
    // How many bits are set in `count` pieces of `size` bytes, at most 64, that begin `stride` bytes apart.
    size_t (*count_bits)(const uint8_t *x, size_t size, size_t count, size_t stride);
};

struct DepthwiseKernel {
    // Output rows first .. last - 1 of all images; `Finish` is that of fold x channels outputs.
    void (*run)(const DepthwiseCall &, const Finish &, size_t first, size_t last, uint8_t *memory);
    size_t (*scratch)(const DepthwiseCall &);
};

// Rough costs in nanoseconds, only to choose between kernels; benchmarks/kernel_costs.py measures them.
struct Costs {
    double product;  // dense: a product of an input and a weight
    double finish;   // dense: an output of a pixel, beside its products
    double combine;  // winograd: an output of a quad
    double row;      // events: a row of a chunk
    double chunk;    // events: a chunk of an output pixel
    double sums;     // events: an output that leaves the bit slices
    double look;     // events: 64 channels of an input pixel, searched for set bits
};

struct Isa {
    const char *name;
    ScalarKernels scalar;
    DenseKernel dense;
    WinogradKernel winograd;
    EventsKernel events;
    DepthwiseKernel depthwise;
    LanguageKernels language;
    Costs costs;
    const Isa *vectors;  // for layers that would leave matrix tiles mostly empty; null if there are no tiles
};

// The instruction set of that name, or the best one for an empty name; null if the processor or the build lacks it.
const Isa *find_isa(const char *name);

// Names of all that this processor and build have, best first, ending with a null pointer.
const char *const *isa_names();

}  // namespace maqd
