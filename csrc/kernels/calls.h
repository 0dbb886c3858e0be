// Arguments of the kernels: a convolution in the form that each kind of kernel needs, and the epilogue.
#pragma once

#include <cstddef>
#include <cstdint>

#include "c99/kernels.h"

// Bytes of one stored integer.
inline size_t maqd_element_size(maqd_element element) { return size_t{1} << element; }

namespace maqd {

// Bytes past the end of every tensor that may be read, and past the end of every scratch memory that may be written.
constexpr size_t SLACK = 128;

// The epilogue of a convolution. Of its accumulators,
//     v = ((acc + bias) << shift) + (addend << addend_shift)
// is stored (raw), or its activation (codes), or both. Arrays over outputs have `padded` entries, a multiple of 64;
// tensors are [pixels][outputs].
struct Finish {
    size_t outputs, padded;
    const int32_t *bias;
    int32_t shift, addend_shift;
    const void *addend;  // or null
    maqd_element addend_element;
    int32_t addend_zero;
    void *raw;  // or null
    maqd_element raw_element;
    int32_t raw_zero;
    uint8_t *codes;  // or null
    const int32_t *thresholds;  // [levels][padded]
    const int32_t *signs;  // 0 or -1 each, or null if all are 0: (v ^ sign) - sign is compared with the thresholds
    int32_t levels, spacing, base;
    // Where every v, and what it is compared with, fits 16 bits: the same in 16 bits, modulo 2^16. Otherwise null.
    const int16_t *short_bias, *short_thresholds, *short_signs;
};

// A convolution as a product of matrices, uint8 times int8 in int32: pixels x depth times depth x outputs.
//
// The depth is [runs][run]: a run for each kernel row, [kernel columns][input channels of the group], or, interleaved,
// a single one, [kernel columns][kernel rows][input channels]. Runs are padded to a multiple of DenseKernel::align. The
// left matrix may hold anything there: the weights of the padding are 0.
struct DenseCall {
    maqd_conv conv;
    size_t run;  // bytes
    bool interleaved;  // only with strips, where a run of one kernel row would be mostly padding
    bool strips;  // the left matrix is read from padded input rows, not from a copy for each pixel
    bool direct;  // the left matrix is the input: kernels of 1 x 1 with stride 1 and no padding
    int group;  // which group of input channels
    size_t first_output;  // of the group
    size_t fold;  // pixels of 8 or 16 outputs that `Finish` takes as one of 32; 1 if there are more outputs
    size_t outputs;  // of the group, rounded up to a multiple of 32
    const int8_t *weights;  // [outputs / 16][depth / 4][16][4]
    size_t short_steps;  // the largest number of pairs of inputs whose products have a sum of 16 bits
    const uint8_t *x;  // [images] tensors
    size_t image_size;  // bytes of one
    // Large layers keep indices into a table and expand them, 32 outputs at a time. A line of 64 bytes then holds the
    // indices of 8 / compact_bits lines of `weights`, the first one in the lowest bits.
    int compact_bits;  // 2 or 4, then input channels are a multiple of 64; or 0 if `weights` are as above
    int8_t table[16];

    int32_t runs() const { return interleaved ? 1 : conv.window.kernel_rows; }
    size_t depth() const { return static_cast<size_t>(runs()) * run; }
    size_t inputs() const { return static_cast<size_t>(conv.x.channels / conv.groups); }
    // A part is an output row with strips, and part_pixels() output pixels without.
    size_t part_pixels() const { return compact_bits ? 256 : 32; }
    size_t parts(size_t images) const {
        const size_t rows = images * static_cast<size_t>(conv.rows);
        return strips ? rows : (rows * static_cast<size_t>(conv.columns) + part_pixels() - 1) / part_pixels();
    }
};

constexpr size_t QUAD = 4;  // output columns that Winograd's filtering makes together
constexpr size_t BLOCK = 128;  // quads whose products are made together, before they are combined
// Products of a block are m[6][PLANE][32]. The extra quads leave room for writes past the end, and keep planes from
// beginning at the same offset of a page: loads would then falsely depend on recent stores.
constexpr size_t PLANE = BLOCK + 3;

// Output columns of a convolution that Winograd's filtering makes together, at most 4: `count` pixels of the tensor.
struct Quad {
    size_t pixel, count;
};

// A convolution with three kernel columns and stride 1 by Winograd's minimal filtering, see winograd.h. One group,
// inputs of at most WINOGRAD_INPUT without an offset, codes of at most WINOGRAD_CODE.
struct WinogradCall {
    maqd_conv conv;
    size_t run;  // input channels, padded to a multiple of DenseKernel::align
    // Transformed weights of six planes, [outputs / 32][6][2][depth / 4][16][4] with a depth of [kernel rows][run]; or,
    // if compact_bits, plain ones as in DenseCall.
    const int8_t *weights;
    uint8_t offset;  // of transformed inputs: none, or 8 times the largest input, so that they are not negative
    const int32_t *start;  // [outputs / 32][6][32]: sums begin with it, which cancels the offset
    size_t short_steps;  // as in DenseCall
    const uint8_t *x;  // [images] tensors
    size_t image_size;
    int compact_bits;
    int8_t table[16];
    size_t part_images, part_rows;  // largest size of a part

    int32_t runs() const { return conv.window.kernel_rows; }
    size_t depth() const { return static_cast<size_t>(runs()) * run; }
    size_t inputs() const { return static_cast<size_t>(conv.x.channels); }
    size_t quads() const { return (static_cast<size_t>(conv.columns) + QUAD - 1) / QUAD; }  // of an output row
    size_t parts(size_t images) const {
        return ((static_cast<size_t>(conv.rows) + part_rows - 1) / part_rows) *
               ((images + part_images - 1) / part_images);
    }
};

constexpr int WINOGRAD_INPUT = 15, WINOGRAD_CODE = 18;
// Transformed inputs are between -8 and 5 times the largest input, transformed weights within 7 times the largest code.
constexpr int WINOGRAD_BELOW = 8, WINOGRAD_ABOVE = 5, WINOGRAD_WEIGHT = 7;

constexpr int MAX_THRESHOLD_PLANES = 28;

// Constants to prefetch.
struct Bytes {
    const uint8_t *data;
    size_t size;
};

constexpr size_t SWEEP_ROWS = UINT16_MAX / 8;  // offsets in a sweep are 16 bits, in units of 8 bytes; a row has 64

// A convolution as sums of weight planes over the bits that are set in the input.
//
// Outputs are cut into chunks of `lanes`. There is a row for each chunk, kernel position and input channel. It has one
// plane of bits for the weights +1 and one for -1, or one for each bit of their index (see weights.h): [planes][lanes],
// padded to a vector. The rows of a chunk are contiguous, so that its weights stay in a near cache while it runs.
struct EventsCall {
    maqd_conv conv;
    int planes;  // of the input: bits of its largest value
    int weight_planes;  // 1 .. 8
    // acc = sum_p coefficients[p] * (sum of inputs whose weight has bit p) + input_sum_coefficient * (sum of inputs)
    int32_t coefficients[8];
    int32_t input_sum_coefficient;
    int lanes;  // outputs in a chunk: 64, 128, 256 or 512
    int vector_bits;  // of a chunk: 128, 256 or 512, at least lanes x weight_planes
    int chunks;
    size_t row_bytes;
    const uint8_t *rows;  // for each chunk one of zeros, then [kernel rows][kernel columns][channels] rows
    const uint8_t *x;
    size_t image_size;
    // Few outputs leave most of a vector empty; a sweep fills it with up to four output columns. There is then a row
    // for each kernel row and input channel, [output columns][planes][64], the last kernel column first. For three
    // states, up to 64 outputs, up to 4 kernel columns, stride 1 across, up to 2 planes and less than SWEEP_ROWS rows.
    bool sweep;
    int threshold_bits;  // planes that hold every threshold, with the sign; the planes after them repeat it
    // [chunks][levels][MAX_THRESHOLD_PLANES][lanes], or null if thresholds are not bit-sliced
    const uint8_t *threshold_planes;
    bool most;  // an image is likely to read most rows of a chunk
    Bytes next;  // weights that the next convolution is likely to read first
};

// A convolution whose groups have one input and one output each, see depthwise.h.
struct DepthwiseCall {
    maqd_conv conv;
    size_t fold;  // output columns that are one pixel; divides them
    size_t lanes;  // fold x channels, padded to a multiple of 64
    const int8_t *weights;  // [kernel rows][kernel columns][lanes]
    const uint8_t *x;  // [images] tensors; the bias corrects for the zero of the stored integers
    size_t image_size;
};

}  // namespace maqd
