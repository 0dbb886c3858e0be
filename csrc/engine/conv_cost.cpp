// Estimates of what each kernel costs, and the choice between them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/conv_step.h"

namespace maqd {

namespace {

constexpr size_t SAMPLE = 4096;  // bytes of the input that the choice of the kernel looks at
// Nanoseconds to fetch a byte of weights from a far cache, and to expand one.
constexpr double FETCH = 0.03, EXPAND = 0.02;
constexpr double FAR = 1.1;    // factor of rows of events from a far cache
constexpr double NEAR = 0.85;  // factor of products of transformed inputs and weights, which are in a near cache

// Of an output pixel of a group, by the dense kernel.
double dense_pixel(const Isa &isa, const ConvOptions &o) {
    const auto row = static_cast<size_t>(o.window.kernel_columns) * o.weights.inputs;
    const auto rows = static_cast<size_t>(o.window.kernel_rows);
    const size_t apart = rows * rounded(row, isa.dense.align), together = rounded(rows * row, isa.dense.align);
    const int32_t columns = (o.raw.empty() ? o.codes : o.raw).at(0).columns;
    const bool strips = in_strips(isa, o.window, o.groups, columns, o.weights.outputs);
    const size_t depth = strips && o.weights.inputs <= 8 && 2 * together <= apart ? together : apart;
    const size_t outputs = o.weights.outputs / static_cast<size_t>(o.groups);
    const bool fold = isa.dense.fold && (outputs == 8 || outputs == 16);
    return static_cast<double>(fold ? outputs : rounded(outputs, 32)) *
           (static_cast<double>(depth) * isa.costs.product + isa.costs.finish);
}

}  // namespace

const Isa &suited(const Isa &isa, const ConvOptions &o) {
    return isa.vectors && dense_pixel(*isa.vectors, o) < dense_pixel(isa, o) ? *isa.vectors : isa;
}

double ConvStep::dense_cost(size_t images) const {
    const double weights = static_cast<double>(dense_.depth() * dense_.outputs) * conv_.groups;
    const double times = std::ceil(pixels() * static_cast<double>(images) / static_cast<double>(dense_.part_pixels()));
    const double once = dense_.compact_bits ? times * weights * EXPAND : weights > CACHED ? weights * FETCH : 0;
    const double outputs = static_cast<double>(dense_.outputs) * conv_.groups, fold = static_cast<double>(dense_.fold);
    return std::max(pixels(), 16.0 / static_cast<double>(images)) *
               (weights * isa_.costs.product + outputs * isa_.costs.finish) / fold +
           once / static_cast<double>(images);
}

double ConvStep::winograd_cost(size_t images) const {
    const double weights = static_cast<double>(winograd_.depth() * dense_.outputs) * 6;
    const double quads = static_cast<double>(winograd_.quads()) * conv_.rows;
    const double parts = static_cast<double>(winograd_.parts(images));
    const double once = winograd_.compact_bits ? parts * weights * EXPAND : weights > CACHED ? weights * FETCH : 0;
    const double quad = weights * isa_.costs.product * NEAR + static_cast<double>(dense_.outputs) * isa_.costs.combine;
    return std::max(quads, 16.0 / static_cast<double>(images)) * quad + once / static_cast<double>(images);
}

double ConvStep::events_cost(double bits) const {
    const auto &w = conv_.window;
    const double reads = static_cast<double>(w.kernel_rows) * w.kernel_columns * conv_.x.channels;
    const double looks = static_cast<double>(conv_.rows) * conv_.x.columns * w.kernel_rows * events_.planes *
                         static_cast<double>(rounded(static_cast<size_t>(conv_.x.channels), 64) / 64);
    // A sweep pads the list of each column to a multiple of 8.
    const double fetched = reads * bits * (events_.sweep ? 1.5 / w.kernel_columns : 1);
    const double weights = reads * static_cast<double>(events_.row_bytes) * events_.chunks;
    const double rows = fetched * (weights > CACHED / 2 ? FAR : 1);
    const double sums = events_.threshold_planes ? 0 : static_cast<double>(finish_.outputs) * isa_.costs.sums;
    return pixels() * (events_.chunks * (rows * isa_.costs.row + isa_.costs.chunk) + sums) + looks * isa_.costs.look;
}

// The mean number of bits that are set in an input, from a sample.
double ConvStep::set_bits(const Batch &batch) const {
    const size_t bytes = x_.bytes() * batch.images, size = std::min<size_t>(64, bytes);
    const size_t lines = std::max<size_t>(1, bytes / 64);
    const size_t every = (lines * 64 / SAMPLE) | 1;  // odd, so that the sample meets every channel
    const size_t count = (lines + every - 1) / every;
    const size_t set = isa_.events.count_bits(batch.at(x_), size, count, every * 64);
    return static_cast<double>(set) / static_cast<double>(size * count);
}

int ConvStep::choose(const Batch &batch) const {
    if (depthwise_ready_) return DEPTHWISE;
    int choice = SCALAR;
    double least = std::numeric_limits<double>::infinity();
    const auto offer = [&](int kernel, double cost) {
        if (cost >= least) return;
        choice = kernel;
        least = cost;
    };
    if (dense_ready_) offer(DENSE, dense_cost(batch.images));
    if (winograd_ready_) offer(WINOGRAD, winograd_cost(batch.images));
    if (events_ready_) offer(EVENTS, choice == SCALAR ? 0 : events_cost(set_bits(batch)));
    return choice;
}

}  // namespace maqd
