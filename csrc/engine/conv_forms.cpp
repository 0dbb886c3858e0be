// What a convolution keeps for each kernel that it may use: weights, bias and thresholds in the kernel's order.
#include <algorithm>
#include <cstdlib>

#include "engine/conv_step.h"

namespace maqd {

namespace {

constexpr size_t DENSE_LIMIT = 600000;  // a layer with more weights keeps several forms only if each is worth it
constexpr size_t WINOGRAD_LIMIT = 1 << 21;  // bytes of transformed weights that are not compact
constexpr int MAX_THRESHOLD_BITS = 20;

template <class T>
std::vector<T> padded(const std::vector<T> &values, size_t rows, size_t columns, size_t width, T fill) {
    std::vector<T> wide(rows * width, fill);
    for (size_t row = 0; row < rows; row++)
        std::copy_n(values.begin() + static_cast<ptrdiff_t>(row * columns), columns,
                    wide.begin() + static_cast<ptrdiff_t>(row * width));
    return wide;
}

// Modulo 2^16. The thresholds of padded outputs become -1; their codes are never stored.
std::vector<int16_t> shortened(const std::vector<int32_t> &values) {
    std::vector<int16_t> made(values.size());
    for (size_t i = 0; i < values.size(); i++) made[i] = static_cast<int16_t>(static_cast<uint16_t>(values[i]));
    return made;
}

int64_t largest_code(const PackedWeights &w) { return std::max(std::abs(w.low), std::abs(w.highest())); }

size_t short_steps(int64_t product) { return static_cast<size_t>(INT16_MAX / std::max<int64_t>(1, 2 * product)); }

}  // namespace

ConvStep::ConvStep(const Isa &isa, Kernel kernel, const ConvOptions &o)
    : isa_(isa), x_(o.x), addend_(o.addend), raw_(o.raw), codes_(o.codes) {
    const Buffer &y = raw_.empty() ? codes_.at(0) : raw_.at(0);
    conv_ = {x_.tensor(), y.rows, y.columns, y.channels, o.groups, o.window};
    const auto outputs = static_cast<size_t>(y.channels);
    finish_ = {};
    finish_.outputs = outputs;
    finish_.padded = rounded(outputs + 31, 64);  // the last 32 outputs of a group may reach beyond it
    finish_.shift = o.shift;
    finish_.addend_shift = o.addend_shift;
    if (!addend_.empty()) {
        finish_.addend_element = addend_[0].element;
        finish_.addend_zero = addend_[0].zero;
    }
    if (!raw_.empty()) {
        finish_.raw_element = raw_[0].element;
        finish_.raw_zero = raw_[0].zero;
    }
    bias_ = o.bias.empty() ? std::vector<int32_t>(outputs, 0) : o.bias;
    negate_.assign(outputs, false);
    if (!codes_.empty()) prepare_activation(o.quantization);
    bias_ = padded(bias_, 1, outputs, finish_.padded, 0);
    finish_.bias = bias_.data();
    prepare_weights(kernel, o);
    if (o.reach < INT16_MAX) prepare_short();
    if ((dense_ready_ && fold_ > 1) || depthwise_ready_) prepare_folded();
}

void ConvStep::prepare_activation(const Quantization &q) {
    const size_t outputs = finish_.outputs;
    finish_.levels = q.levels;
    finish_.spacing = q.spacing;
    finish_.base = q.base;
    bool falling = false;
    for (size_t o = 0; o < outputs; o++) falling = falling || q.signs[o] < 0;
    if (falling && raw_.empty() && addend_.empty()) {
        // Only codes are stored, so the sign can go into the weights.
        for (size_t o = 0; o < outputs; o++)
            if (q.signs[o] < 0) {
                negate_[o] = true;
                bias_[o] = -bias_[o];
            }
        falling = false;
    }
    thresholds_ = padded(q.thresholds, static_cast<size_t>(q.levels), outputs, finish_.padded, INT32_MAX);
    finish_.thresholds = thresholds_.data();
    if (falling) {
        signs_.assign(finish_.padded, 0);
        for (size_t o = 0; o < outputs; o++) signs_[o] = q.signs[o] < 0 ? -1 : 0;
        narrow_signs_ = q.signs;
        finish_.signs = signs_.data();
    }
    rows_ = q.thresholds;
}

void ConvStep::prepare_short() {
    short_bias_ = shortened(bias_);
    short_dense_bias_ = shortened(dense_bias_);
    short_thresholds_ = shortened(thresholds_);
    short_signs_ = shortened(signs_);
    finish_.short_bias = short_bias_.data();
    finish_.short_thresholds = short_thresholds_.data();
    finish_.short_signs = short_signs_.empty() ? nullptr : short_signs_.data();
}

ConvStep::Forms ConvStep::choose_forms(Kernel kernel, const ConvOptions &o) {
    const PackedWeights &w = o.weights;
    if (kernel == Kernel::scalar || x_.element != MAQD_U8) return {};
    const bool depthwise = o.groups > 1 && w.inputs == 1;
    Forms f{};
    f.dense = isa_.dense.run && w.narrow() && negatable(w) && !depthwise && pairs_fit(w);
    f.winograd = f.dense && isa_.winograd.run && winograd_fits(w);
    f.events = isa_.events.run && x_.zero == 0 && o.groups == 1 && o.window.dilation_columns == 1 &&
               weight_planes(w).planes * 64 <= isa_.events.vector_bits && events_fit(w);
    if (f.dense) plan_dense(w);
    if (f.winograd) plan_winograd(w);
    if (f.events) plan_events(o);
    if (kernel == Kernel::dense && f.dense) return {true, false, false};
    if (kernel == Kernel::winograd && f.winograd) return {false, true, false};
    if (kernel == Kernel::events && f.events) return {false, false, true};
    // Both read the same compact weights; otherwise one of them is enough.
    if (6 * winograd_.depth() * w.outputs > WINOGRAD_LIMIT && !dense_.compact_bits) f.winograd = false;
    if (f.winograd && !dense_.compact_bits) (winograd_cost(8) < dense_cost(8) ? f.dense : f.winograd) = false;
    if (f.dense && f.events && w.outputs * w.depth() > DENSE_LIMIT) {
        const double events = events_cost(USUAL_BITS * events_.planes);
        if (events < std::min(dense_cost(8), f.winograd ? winograd_cost(64) : dense_cost(8)))
            f.dense = f.winograd = false;
        else if (dense_cost(1) < events)
            f.events = false;
    }
    return f;
}

void ConvStep::prepare_weights(Kernel kernel, const ConvOptions &o) {
    const PackedWeights &w = o.weights;
    const auto groups = static_cast<size_t>(o.groups);
    if (kernel != Kernel::scalar && depthwise_fits(o)) {
        prepare_depthwise(w);
        return;
    }
    const Forms forms = choose_forms(kernel, o);
    dense_ready_ = forms.dense;
    winograd_ready_ = forms.winograd;
    events_ready_ = forms.events;
    if ((forms.dense || forms.winograd) && dense_.compact_bits)
        dense_weights_.push_back(compact_weights(w, dense_, negate_));
    if (forms.dense) {
        for (size_t group = 0; group < groups && !dense_.compact_bits; group++)
            dense_weights_.push_back(dense_weights(w, group * w.outputs / groups, w.outputs / groups, dense_, negate_));
        correct_bias(w);
    }
    if (forms.winograd) {
        winograd_start_.assign((w.outputs + 31) / 32 * 6 * 32, 0);
        if (!dense_.compact_bits) winograd_weights_ = winograd_weights(w, winograd_, negate_, winograd_start_.data());
    }
    if (forms.events) {
        event_rows_ = events_.sweep ? sweep_rows(w, conv_.window.kernel_columns, negate_)
                                    : event_rows(w, events_.lanes, events_.chunks, events_.row_bytes, negate_);
        events_.rows = event_rows_.data();
    }
    if (forms.dense || forms.winograd || forms.events) return;
    narrow_ = w.narrow() && negatable(w);
    scalar_weights_ =
        narrow_ ? scalar_weights<int8_t>(w, groups, negate_) : scalar_weights<int16_t>(w, groups, negate_);
}

void ConvStep::prepare_depthwise(const PackedWeights &w) {
    depthwise_ready_ = true;
    depthwise_.conv = conv_;
    depthwise_.image_size = x_.bytes();
    depthwise_.fold = std::max<size_t>(1, 64 / w.outputs);
    while (static_cast<size_t>(conv_.columns) % depthwise_.fold) depthwise_.fold--;
    fold_ = depthwise_.fold;
    depthwise_.lanes = rounded(depthwise_.fold * w.outputs, 64);
    const Memory plain = scalar_weights<int8_t>(w, w.outputs, negate_);
    depthwise_weights_ = Memory(w.taps * depthwise_.lanes);
    for (size_t tap = 0; tap < w.taps; tap++)
        for (size_t lane = 0; lane < depthwise_.fold * w.outputs; lane++)
            depthwise_weights_.data()[tap * depthwise_.lanes + lane] = plain.data()[tap * w.outputs + lane % w.outputs];
    depthwise_.weights = reinterpret_cast<const int8_t *>(depthwise_weights_.data());
    correct_bias(w);
}

// The epilogue of folded pixels.
void ConvStep::prepare_folded() {
    const size_t outputs = finish_.outputs, all = fold_ * outputs, width = rounded(all + 31, 64);
    const auto folded = [&](const std::vector<int32_t> &values, size_t rows) {
        std::vector<int32_t> made(rows * width, rows == 1 ? 0 : INT32_MAX);
        for (size_t row = 0; row < rows; row++)
            for (size_t lane = 0; lane < all; lane++)
                made[row * width + lane] = values[row * finish_.padded + lane % outputs];
        return made;
    };
    folded_bias_ = folded(dense_bias_, 1);
    folded_thresholds_ = folded(thresholds_, static_cast<size_t>(codes_.empty() ? 0 : finish_.levels));
    if (!signs_.empty()) folded_signs_ = folded(signs_, 1);
    folded_ = finish_;
    folded_.outputs = all;
    folded_.padded = width;
    folded_.bias = folded_bias_.data();
    folded_.thresholds = folded_thresholds_.data();
    folded_.signs = folded_signs_.empty() ? nullptr : folded_signs_.data();
    if (!finish_.short_bias) return;
    short_folded_bias_ = shortened(folded_bias_);
    short_folded_thresholds_ = shortened(folded_thresholds_);
    short_folded_signs_ = shortened(folded_signs_);
    folded_.short_bias = short_folded_bias_.data();
    folded_.short_thresholds = short_folded_thresholds_.data();
    folded_.short_signs = short_folded_signs_.empty() ? nullptr : short_folded_signs_.data();
}

// Corrects for the zero of the stored integers. Sums may wrap around, the result does not.
void ConvStep::correct_bias(const PackedWeights &w) {
    dense_bias_ = bias_;
    const auto sums = x_.zero ? code_sums(w, negate_) : std::vector<int64_t>();
    for (size_t output = 0; output < sums.size(); output++)
        dense_bias_[output] =
            static_cast<int32_t>(static_cast<uint32_t>(bias_[output]) -
                                 static_cast<uint32_t>(x_.zero) * static_cast<uint32_t>(sums[output]));
}

bool ConvStep::depthwise_fits(const ConvOptions &o) const {
    const PackedWeights &w = o.weights;
    return isa_.depthwise.run && x_.element == MAQD_U8 && w.inputs == 1 && o.groups > 1 &&
           static_cast<size_t>(o.groups) == w.outputs && w.narrow() && negatable(w);
}

bool ConvStep::winograd_fits(const PackedWeights &w) const {
    const int64_t largest = largest_code(w);
    const maqd_window &window = conv_.window;
    return window.kernel_columns == 3 && window.stride_columns == 1 && window.stride_rows == 1 &&
           window.dilation_columns == 1 && conv_.groups == 1 && x_.zero == 0 && x_.highest <= WINOGRAD_INPUT &&
           largest <= WINOGRAD_CODE &&
           (isa_.dense.pair_limit == 0 || 2 * winograd_product(w) <= isa_.dense.pair_limit) &&
           static_cast<int64_t>(w.depth()) * largest * x_.highest < int64_t{1} << 21;
}

// Sums of inputs fit the counters, and offsets of rows 32 bits.
bool ConvStep::events_fit(const PackedWeights &w) const {
    const uint64_t columns =
        static_cast<uint64_t>(conv_.x.columns) + static_cast<uint64_t>(conv_.window.padding_columns);
    const uint64_t rows = w.depth() + (columns + static_cast<uint64_t>(conv_.window.kernel_columns)) * w.inputs;
    constexpr uint64_t ROW = 64;  // bytes; none is longer
    return w.depth() * static_cast<uint64_t>(x_.highest) < uint64_t{1} << 23 && rows * ROW < uint64_t{1} << 31;
}

bool ConvStep::pairs_fit(const PackedWeights &w) const {
    return isa_.dense.pair_limit == 0 || 2 * largest_code(w) * x_.highest <= isa_.dense.pair_limit;
}

// -(-128) is no int8.
bool ConvStep::negatable(const PackedWeights &w) const {
    return w.low > -128 || std::find(negate_.begin(), negate_.end(), true) == negate_.end();
}

// No product of a transformed input, with the offset, and a transformed weight is larger.
int64_t ConvStep::winograd_product(const PackedWeights &w) const {
    return int64_t{WINOGRAD_BELOW + WINOGRAD_ABOVE} * x_.highest * WINOGRAD_WEIGHT * largest_code(w);
}

void ConvStep::plan_dense(const PackedWeights &w) {
    dense_ = {};
    dense_.conv = conv_;
    const size_t row = static_cast<size_t>(conv_.window.kernel_columns) * w.inputs;
    dense_.run = rounded(row, isa_.dense.align);
    const maqd_window &window = conv_.window;
    dense_.direct = isa_.dense.direct && conv_.groups == 1 && w.taps == 1 && window.stride_rows == 1 &&
                    window.stride_columns == 1 && window.padding_rows == 0 && window.padding_columns == 0 &&
                    dense_.run == row;
    const bool wide = in_strips(isa_, window, conv_.groups, conv_.columns, w.outputs);
    dense_.strips = wide && !dense_.direct;
    const size_t together = rounded(row * static_cast<size_t>(conv_.window.kernel_rows), isa_.dense.align);
    if (dense_.strips && w.inputs <= 8 && 2 * together <= dense_.depth()) {
        dense_.interleaved = true;
        dense_.run = together;
    }
    const size_t fold = w.outputs == 8 || w.outputs == 16 ? 32 / w.outputs : 1;
    const auto across = static_cast<size_t>(conv_.columns) * (dense_.strips ? 1 : static_cast<size_t>(conv_.rows));
    fold_ = dense_.fold = isa_.dense.fold && conv_.groups == 1 && across % fold == 0 ? fold : 1;
    dense_.outputs = rounded(w.outputs / static_cast<size_t>(conv_.groups), 32);
    dense_.short_steps = short_steps(largest_code(w) * x_.highest);
    dense_.image_size = x_.bytes();
    const bool many = w.outputs * w.depth() > CACHED && !wide && conv_.groups == 1 && w.inputs % 64 == 0;
    if (!isa_.dense.compact || !many || w.count > 16) return;
    dense_.direct = false;
    dense_.compact_bits = w.count <= 4 ? 2 : 4;
    for (int index = 0; index < 16; index++)
        dense_.table[index] = static_cast<int8_t>(w.low + w.spacing * std::min(index, w.count - 1));
}

void ConvStep::plan_winograd(const PackedWeights &w) {
    winograd_ = {};
    winograd_.offset = isa_.winograd.offset ? static_cast<uint8_t>(WINOGRAD_BELOW * x_.highest) : 0;
    winograd_.short_steps = short_steps(winograd_product(w));
    winograd_.conv = conv_;
    winograd_.run = rounded(winograd_.inputs(), isa_.dense.align);
    winograd_.image_size = x_.bytes();
    winograd_.compact_bits = dense_.compact_bits;
    std::copy_n(dense_.table, 16, winograd_.table);
    const size_t rows = static_cast<size_t>(conv_.rows), quads = winograd_.quads();
    // Compact weights are expanded for each part.
    const size_t enough = dense_.compact_bits ? 2 * BLOCK : BLOCK / 2;
    winograd_.part_rows = std::min(rows, (enough + quads - 1) / quads);
    winograd_.part_images = std::max<size_t>(1, enough / (rows * quads));
}

void ConvStep::plan_events(const ConvOptions &o) {
    const PackedWeights &w = o.weights;
    const WeightPlanes planes = weight_planes(w);
    events_ = {};
    events_.conv = conv_;
    while ((1 << events_.planes) <= x_.highest) events_.planes++;
    events_.weight_planes = planes.planes;
    std::copy_n(planes.coefficients, 8, events_.coefficients);
    events_.input_sum_coefficient = planes.input_sum_coefficient;
    // The narrowest vector in which all outputs fit, else several of the widest.
    int lanes = 64;
    while (lanes < static_cast<int>(w.outputs) && lanes * 2 * planes.planes <= isa_.events.vector_bits) lanes *= 2;
    events_.lanes = lanes;
    events_.chunks = static_cast<int>((w.outputs + static_cast<size_t>(lanes) - 1) / static_cast<size_t>(lanes));
    int vector = 128;
    while (vector < lanes * planes.planes) vector *= 2;
    events_.vector_bits = vector;
    events_.row_bytes = static_cast<size_t>(vector / 8);
    events_.image_size = x_.bytes();
    events_.most = pixels() * USUAL_BITS * events_.planes >= 1;
    const bool three = planes.planes == 2 && planes.input_sum_coefficient == 0;
    events_.sweep = isa_.events.sweeps && three && w.outputs <= 64 && events_.planes <= 2 &&
                    conv_.window.stride_columns == 1 && conv_.window.kernel_columns > 1 &&
                    conv_.window.kernel_columns <= 4 &&
                    static_cast<size_t>(conv_.window.kernel_rows) * w.inputs < SWEEP_ROWS;
    if (events_.sweep) events_.row_bytes = 64;
    plan_threshold_planes(o);
}

// Thresholds as planes of bits, where the kernel compares without leaving them.
void ConvStep::plan_threshold_planes(const ConvOptions &o) {
    const bool plain = !codes_.empty() && raw_.empty() && addend_.empty() && !finish_.signs && finish_.spacing == 1 &&
                       finish_.base == 0 && finish_.levels <= 7 && events_.input_sum_coefficient == 0 &&
                       events_.weight_planes == 2 && o.shift == 0;
    if (!plain) return;
    int64_t reach = 1;
    std::vector<int64_t> cuts(rows_.size());
    for (size_t i = 0; i < cuts.size(); i++) {
        cuts[i] = static_cast<int64_t>(rows_[i]) - bias_[i % finish_.outputs];
        reach = std::max(reach, std::abs(cuts[i]));
    }
    int bits = 2;
    while ((int64_t{1} << (bits - 1)) <= reach) bits++;
    if (bits > MAX_THRESHOLD_BITS) return;
    events_.threshold_bits = bits;
    const auto lanes = static_cast<size_t>(events_.lanes), plane = lanes / 8;
    const auto levels = static_cast<size_t>(finish_.levels);
    constexpr size_t PLANES = MAX_THRESHOLD_PLANES;
    threshold_planes_ = Memory(static_cast<size_t>(events_.chunks) * levels * PLANES * plane);
    for (size_t output = 0; output < finish_.outputs; output++)
        for (size_t level = 0; level < levels; level++)
            for (size_t bit = 0; bit < PLANES; bit++)
                if (cuts[level * finish_.outputs + output] >> bit & 1)
                    threshold_planes_
                        .data()[((output / lanes * levels + level) * PLANES + bit) * plane + output % lanes / 8] |=
                        static_cast<uint8_t>(1u << output % 8);
    events_.threshold_planes = threshold_planes_.data();
}

size_t ConvStep::constants() const {
    size_t total = scalar_weights_.size() + depthwise_weights_.size() + event_rows_.size() + threshold_planes_.size() +
                   winograd_weights_.size();
    for (const auto &weights : dense_weights_) total += weights.size();
    return total +
           (bias_.size() + dense_bias_.size() + winograd_start_.size() + thresholds_.size() + signs_.size()) * 4 +
           (folded_bias_.size() + folded_thresholds_.size() + folded_signs_.size()) * 6 +
           (short_bias_.size() + short_dense_bias_.size() + short_thresholds_.size() + short_signs_.size()) * 2;
}

}  // namespace maqd
