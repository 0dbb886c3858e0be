// Depthwise convolutions: each channel has a kernel of its own, so vectors go along channels.
//
// Layers with fewer channels than a vector has lanes are folded: `fold` neighbouring output columns are taken as one
// pixel of fold x channels, which has the same layout in memory. Input rows are copied to padded strips, one for each
// remainder of the columns modulo the stride, so that what a kernel column reads is contiguous.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags. `Ops` has
//
//     class Finisher;  // see epilogue.h
//     template <size_t COUNT>
//     static void shorts(const uint8_t *x, const size_t *taps, size_t count, size_t step, const int8_t *weights,
//                        size_t pitch, int16_t *acc);
//         // acc[COUNT][64] modulo 2^16: sum over t of x[taps[t] + pixel * step + lane] * weights[t * pitch + lane]
#pragma once

#include <cstring>

#include "kernels/epilogue.h"
#include "kernels/panel.h"
#include "kernels/table.h"

namespace maqd {
namespace {

constexpr size_t DEPTHWISE_LANES = 64;   // of a block
constexpr size_t DEPTHWISE_TILE = 6;     // pixels whose sums are in registers together
constexpr size_t DEPTHWISE_PIXELS = 64;  // pixels of a block that are finished together

// Sums in loops that compilers turn into vectors.
template <class Sum, size_t COUNT>
inline void plain_taps(const uint8_t *x, const size_t *taps, size_t count, size_t step, const int8_t *weights,
                       size_t pitch, Sum *acc) {
    constexpr size_t WIDTH = 16;
    for (size_t lane = 0; lane < DEPTHWISE_LANES; lane += WIDTH)
        for (size_t p = 0; p < COUNT; p++) {
            Sum sums[WIDTH] = {};
            for (size_t t = 0; t < count; t++) {
                const uint8_t *from = x + taps[t] + p * step + lane;
                const int8_t *w = weights + t * pitch + lane;
                for (size_t i = 0; i < WIDTH; i++) sums[i] = static_cast<Sum>(sums[i] + from[i] * w[i]);
            }
            std::memcpy(acc + p * DEPTHWISE_LANES + lane, sums, sizeof(sums));
        }
}

// The input of some output rows of an image: a strip for each [input row][phase]. Members are copies, since stores of
// bytes may alias what a reference refers to.
class DepthwiseStrips {
  public:
    explicit DepthwiseStrips(const DepthwiseCall &d)
        : x_(d.conv.x),
          w_(d.conv.window),
          channels_(static_cast<size_t>(x_.channels)),
          phases_(static_cast<size_t>(w_.stride_columns)),
          length_(d.conv.columns + (w_.kernel_columns - 1) * w_.dilation_columns / w_.stride_columns),
          pitch_((bytes(length_) + SLACK + 63) / 64 * 64) {}

    // Output rows that are computed together.
    static size_t together(const DepthwiseCall &d) {
        const size_t pixels = static_cast<size_t>(d.conv.columns) / d.fold, most = DEPTHWISE_PIXELS / pixels;
        const auto rows = static_cast<size_t>(d.conv.rows);
        return most == 0 ? 1 : most < rows ? most : rows;
    }

    size_t size(size_t rows) const { return span(rows) * line(); }

    // Bytes between the first inputs of neighbouring output rows.
    size_t next() const { return static_cast<size_t>(w_.stride_rows) * line(); }

    // Offset of the input at a kernel position, of output column 0.
    size_t tap(int32_t row, int32_t column) const {
        const auto at = static_cast<size_t>(column * w_.dilation_columns);
        return static_cast<size_t>(row * w_.dilation_rows) * line() + at % phases_ * pitch_ + at / phases_ * channels_;
    }

    void fill(const uint8_t *x, int32_t row, size_t rows, uint8_t *memory) const {
        const int32_t top = row * w_.stride_rows - w_.padding_rows, count = static_cast<int32_t>(span(rows));
        for (size_t phase = 0; phase < phases_; phase++) {
            const auto stride = static_cast<int32_t>(phases_);
            const int32_t first = static_cast<int32_t>(phase) - w_.padding_columns;  // the input column it begins with
            const int32_t before = first < 0 ? (-first + stride - 1) / stride : 0;
            const int32_t seen = x_.columns > first ? (x_.columns - first + stride - 1) / stride : 0;
            const int32_t begin = before < length_ ? before : length_;
            const int32_t end = seen < begin ? begin : seen < length_ ? seen : length_;
            uint8_t *to = memory + phase * pitch_;
            for (int32_t i = top; i < top + count; i++, to += line()) {
                // Pieces have a fixed length: the next one overwrites the excess.
                if (i < 0 || i >= x_.rows || begin == end) {
                    fill_piece(to, x_.zero, bytes(length_));
                    continue;
                }
                const uint8_t *from = x + bytes(i * x_.columns + first + begin * stride);
                fill_piece(to, x_.zero, bytes(begin));
                if (stride == 1)
                    copy_piece(to + bytes(begin), from, bytes(end - begin));
                else
                    for (int32_t k = begin; k < end; k++, from += bytes(stride))
                        for (size_t c = 0; c < channels_; c += 16) std::memcpy(to + bytes(k) + c, from + c, 16);
                fill_piece(to + bytes(end), x_.zero, bytes(length_ - end));
            }
        }
    }

  private:
    size_t bytes(int32_t columns) const { return static_cast<size_t>(columns) * channels_; }
    size_t line() const { return phases_ * pitch_; }
    // Input rows under `count` output rows.
    size_t span(size_t rows) const {
        return (rows - 1) * static_cast<size_t>(w_.stride_rows) +
               static_cast<size_t>((w_.kernel_rows - 1) * w_.dilation_rows) + 1;
    }

    const maqd_tensor x_;
    const maqd_window w_;
    const size_t channels_, phases_;
    const int32_t length_;  // columns of a strip
    const size_t pitch_;
};

inline size_t depthwise_taps(const DepthwiseCall &d) {
    return static_cast<size_t>(d.conv.window.kernel_rows) * static_cast<size_t>(d.conv.window.kernel_columns);
}

template <class Finisher>
size_t depthwise_scratch(const DepthwiseCall &d) {
    return finishers_size<Finisher>(d.lanes) + DEPTHWISE_PIXELS * DEPTHWISE_LANES * sizeof(int32_t) +
           (depthwise_taps(d) * sizeof(size_t) + 63) / 64 * 64 + DepthwiseStrips(d).size(DepthwiseStrips::together(d));
}

// The sums of neighbouring pixels of a block of lanes.
template <class Ops, class Sum>
struct DepthwiseTiles {
    const size_t *taps;
    size_t count, step;
    const int8_t *weights;
    size_t pitch;

    inline void run(size_t pixels, const uint8_t *x, Sum *acc) const {
        switch (pixels) {
            case 1: tile<1>(x, acc); break;
            case 2: tile<2>(x, acc); break;
            case 3: tile<3>(x, acc); break;
            case 4: tile<4>(x, acc); break;
            case 5: tile<5>(x, acc); break;
            default: tile<DEPTHWISE_TILE>(x, acc);
        }
    }

  private:
    template <size_t COUNT>
    inline void tile(const uint8_t *x, Sum *acc) const {
        if constexpr (sizeof(Sum) == 2)
            Ops::template shorts<COUNT>(x, taps, count, step, weights, pitch, acc);
        else
            plain_taps<Sum, COUNT>(x, taps, count, step, weights, pitch, acc);
    }
};

// The epilogue of a block of lanes.
template <class Finisher, class Sum>
inline void finish_lanes(const Finisher *finishers, size_t outputs, const Sum *acc, size_t pixel, size_t pixels) {
    for (size_t o = 0; o < outputs && o < DEPTHWISE_LANES; o += 32) {
        if constexpr (sizeof(Sum) == 2)
            finishers[o / 32].rows(acc + o, DEPTHWISE_LANES, pixel, pixels);
        else
            finishers[o / 32].block(acc + o, DEPTHWISE_LANES, pixel, pixels);
    }
}

// `rows` output rows, from pixel `pixel` of the tensor; their strips begin at x.
template <class Ops, class Sum>
inline void depthwise_rows(const DepthwiseCall &call, const typename Ops::Finisher *finishers, const uint8_t *x,
                           size_t next, size_t outputs, size_t pixel, size_t rows, const size_t *taps, Sum *acc) {
    const DepthwiseCall d = call;  // a copy: stores of bytes may alias a reference
    const size_t step = d.fold * static_cast<size_t>(d.conv.x.channels), count = depthwise_taps(d);
    const size_t across = static_cast<size_t>(d.conv.columns) / d.fold;
    for (size_t lane = 0; lane < outputs; lane += DEPTHWISE_LANES) {
        const DepthwiseTiles<Ops, Sum> tiles{taps, count, step, d.weights + lane, d.lanes};
        const auto finish = [&](size_t first, size_t pixels) {
            finish_lanes(finishers + lane / 32, outputs - lane, acc, pixel + first, pixels);
        };
        size_t done = 0, waiting = 0;  // pixels that are finished, and those whose sums are
        for (size_t row = 0; row < rows; row++)
            for (size_t column = 0; column < across;) {
                const size_t some = across - column < DEPTHWISE_TILE ? across - column : DEPTHWISE_TILE;
                if (waiting + some > DEPTHWISE_PIXELS) {
                    finish(done, waiting);
                    done += waiting;
                    waiting = 0;
                }
                tiles.run(some, x + row * next + column * step + lane, acc + waiting * DEPTHWISE_LANES);
                column += some;
                waiting += some;
            }
        finish(done, waiting);
    }
}

// Output rows first .. last - 1 of all images.
template <class Ops>
void depthwise(const DepthwiseCall &d, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    using Finisher = typename Ops::Finisher;
    const Finisher *finishers = make_finishers<Finisher>(finish, 0, finish.outputs, scratch);
    uint8_t *const acc = scratch + finishers_size<Finisher>(d.lanes);
    auto *const taps = reinterpret_cast<size_t *>(acc + DEPTHWISE_PIXELS * DEPTHWISE_LANES * sizeof(int32_t));
    uint8_t *const memory = reinterpret_cast<uint8_t *>(taps) + (depthwise_taps(d) * sizeof(size_t) + 63) / 64 * 64;
    const DepthwiseStrips strips(d);
    size_t t = 0;
    for (int32_t i = 0; i < d.conv.window.kernel_rows; i++)
        for (int32_t j = 0; j < d.conv.window.kernel_columns; j++) taps[t++] = strips.tap(i, j);
    const auto height = static_cast<size_t>(d.conv.rows), across = static_cast<size_t>(d.conv.columns) / d.fold;
    const size_t together = DepthwiseStrips::together(d);
    for (size_t part = first; part < last;) {
        const size_t row = part % height, left = height - row < last - part ? height - row : last - part;
        const size_t rows = left < together ? left : together;
        strips.fill(d.x + part / height * d.image_size, static_cast<int32_t>(row), rows, memory);
        const auto compute = [&](auto *sums) {
            depthwise_rows<Ops>(d, finishers, memory, strips.next(), finish.outputs, part * across, rows, taps, sums);
        };
        is_short(finish) ? compute(reinterpret_cast<int16_t *>(acc)) : compute(reinterpret_cast<int32_t *>(acc));
        part += rows;
    }
}

}  // namespace
}  // namespace maqd
