// Runs a convolution with the kernel that was chosen.
#include <algorithm>

#include "engine/conv_step.h"

namespace maqd {

void ConvStep::run(const Batch &batch, int choice, size_t first, size_t last, uint8_t *scratch) const {
    Finish finish = finish_;
    finish.addend = addend_.empty() ? nullptr : batch.at(addend_[0]);
    finish.raw = raw_.empty() ? nullptr : batch.at(raw_[0]);
    finish.codes = codes_.empty() ? nullptr : batch.at(codes_[0]);
    if (choice == DEPTHWISE) {
        DepthwiseCall call = depthwise_;
        call.x = batch.at(x_);
        isa_.depthwise.run(call, folded(finish), first, last, scratch);
    } else if (choice == DENSE) {
        for (size_t group = 0; group < dense_weights_.size(); group++) {
            DenseCall dense = dense_;
            dense.group = static_cast<int>(group);
            dense.first_output = group * (finish_.outputs / dense_weights_.size());
            dense.weights = reinterpret_cast<const int8_t *>(dense_weights_[group].data());
            dense.x = batch.at(x_);
            finish.bias = dense_bias_.data();
            if (finish.short_bias) finish.short_bias = short_dense_bias_.data();
            isa_.dense.run(dense, dense.fold > 1 ? folded(finish) : finish, batch.images, first, last, scratch);
        }
    } else if (choice == WINOGRAD) {
        WinogradCall winograd = winograd_;
        const Memory &weights = dense_.compact_bits ? dense_weights_[0] : winograd_weights_;
        winograd.weights = reinterpret_cast<const int8_t *>(weights.data());
        winograd.start = winograd_start_.data();
        winograd.x = batch.at(x_);
        isa_.winograd.run(winograd, finish, batch.images, first, last, scratch);
    } else if (choice == EVENTS) {
        EventsCall events = events_;
        events.x = batch.at(x_);
        isa_.events.run(events, finish, first, last, scratch);
    } else {
        scalar(batch, finish, first, last, reinterpret_cast<int32_t *>(scratch));
    }
}

size_t ConvStep::parts(const Batch &batch, int choice) const {
    return choice == DENSE      ? dense_.parts(batch.images)
           : choice == WINOGRAD ? winograd_.parts(batch.images)
                                : batch.images * static_cast<size_t>(conv_.rows);
}

size_t ConvStep::scratch() const {
    size_t size = static_cast<size_t>(conv_.columns) * finish_.outputs * 4;
    if (dense_ready_) size = std::max(size, isa_.dense.scratch(dense_));
    if (winograd_ready_) size = std::max(size, isa_.winograd.scratch(winograd_));
    if (events_ready_) size = std::max(size, isa_.events.scratch(events_));
    if (depthwise_ready_) size = std::max(size, isa_.depthwise.scratch(depthwise_));
    return size;
}

Bytes ConvStep::weights() const {
    if (!events_ready_ || !events_.most) return {nullptr, 0};
    return {event_rows_.data(), event_rows_.size() / static_cast<size_t>(events_.chunks)};
}

const char *ConvStep::kernel(int choice) const {
    static constexpr const char *NAMES[] = {"scalar", "dense", "winograd", "events", "depthwise"};
    return NAMES[choice];
}

// `folded_` with the tensors of a call.
Finish ConvStep::folded(const Finish &finish) const {
    Finish made = folded_;
    made.addend = finish.addend;
    made.raw = finish.raw;
    made.codes = finish.codes;
    return made;
}

void ConvStep::scalar(const Batch &batch, const Finish &finish, size_t first, size_t last, int32_t *acc) const {
    const auto rows = static_cast<size_t>(conv_.rows);
    const size_t length = static_cast<size_t>(conv_.columns) * finish.outputs;
    for (size_t part = first; part < last; part++) {
        const uint8_t *x = batch.at(x_, part / rows);
        const auto row = static_cast<int32_t>(part % rows);
        if (narrow_)
            isa_.scalar.conv_row(&conv_, x, reinterpret_cast<const int8_t *>(scalar_weights_.data()), bias_.data(), row,
                                 acc);
        else
            isa_.scalar.conv_row_wide(&conv_, x, reinterpret_cast<const int16_t *>(scalar_weights_.data()),
                                      bias_.data(), row, acc);
        const size_t at = part * length;
        if (finish.addend)
            isa_.scalar.add_shifted(
                acc, finish.shift,
                static_cast<const uint8_t *>(finish.addend) + at * maqd_element_size(addend_[0].element),
                addend_[0].element, addend_[0].zero, finish.addend_shift, length);
        if (finish.raw)
            isa_.scalar.narrow(acc, length, raw_[0].element, raw_[0].zero,
                               static_cast<uint8_t *>(finish.raw) + at * maqd_element_size(raw_[0].element));
        if (finish.codes)
            isa_.scalar.quantize(acc, static_cast<size_t>(conv_.columns), finish.outputs, 1, rows_.data(),
                                 narrow_signs_.empty() ? nullptr : narrow_signs_.data(), finish.levels, finish.spacing,
                                 finish.base, finish.codes + at);
    }
}

std::unique_ptr<Step> make_conv(const Isa &isa, Kernel kernel, const ConvOptions &options) {
    return std::make_unique<ConvStep>(kernel == Kernel::automatic ? suited(isa, options) : isa, kernel, options);
}

}  // namespace maqd
