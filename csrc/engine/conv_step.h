// A convolution with its epilogue, as a step. conv_forms.cpp prepares weights and tables for each kernel, conv_cost.cpp
// estimates costs and chooses, conv_step.cpp runs the chosen kernel.
#pragma once

#include <vector>

#include "engine/model.h"

namespace maqd {

constexpr size_t CACHED = 1 << 18;  // bytes of weights that stay in a near cache
constexpr double USUAL_BITS = 0.18;  // share of set bits of trained networks, where no input is known yet

inline size_t rounded(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Whether the dense kernel reads padded input rows: with few outputs, copying the input costs more than computing
// unused pixels.
inline bool in_strips(const Isa &isa, const maqd_window &window, int32_t groups, int32_t columns, size_t outputs) {
    const int32_t least = outputs <= 64 ? isa.dense.strip_columns / 2 : isa.dense.strip_columns;
    return columns >= least && groups == 1 && window.dilation_columns == 1;
}

// The instruction set itself, or its `vectors`, whichever is faster for a layer.
const Isa &suited(const Isa &isa, const ConvOptions &o);

class ConvStep final : public Step {
  public:
    ConvStep(const Isa &isa, Kernel kernel, const ConvOptions &o);

    int choose(const Batch &batch) const override;
    size_t parts(const Batch &batch, int choice) const override;
    void run(const Batch &batch, int choice, size_t first, size_t last, uint8_t *scratch) const override;
    size_t scratch() const override;
    Bytes weights() const override;
    void precede(Bytes next) override { events_.next = next; }
    const char *kernel(int choice) const override;
    const Buffer *input() const override { return &x_; }
    size_t constants() const override;

  private:
    enum { SCALAR, DENSE, WINOGRAD, EVENTS, DEPTHWISE };

    // Forms of the weights. A layer keeps those that it may need for some density and number of images.
    struct Forms {
        bool dense, winograd, events;
    };

    // conv_forms.cpp
    void prepare_activation(const Quantization &q);
    void prepare_short();
    Forms choose_forms(Kernel kernel, const ConvOptions &o);
    void prepare_weights(Kernel kernel, const ConvOptions &o);
    void prepare_depthwise(const PackedWeights &w);
    void prepare_folded();
    void correct_bias(const PackedWeights &w);
    bool depthwise_fits(const ConvOptions &o) const;
    bool winograd_fits(const PackedWeights &w) const;
    bool events_fit(const PackedWeights &w) const;
    bool pairs_fit(const PackedWeights &w) const;
    bool negatable(const PackedWeights &w) const;
    int64_t winograd_product(const PackedWeights &w) const;
    void plan_dense(const PackedWeights &w);
    void plan_winograd(const PackedWeights &w);
    void plan_events(const ConvOptions &o);
    void plan_threshold_planes(const ConvOptions &o);

    // conv_cost.cpp: nanoseconds of an image among `images`. `bits` is the mean number of set bits of an input.
    double dense_cost(size_t images) const;
    double winograd_cost(size_t images) const;
    double events_cost(double bits) const;
    double set_bits(const Batch &batch) const;
    double pixels() const { return static_cast<double>(conv_.rows) * conv_.columns; }

    // conv_step.cpp
    Finish folded(const Finish &finish) const;
    void scalar(const Batch &batch, const Finish &finish, size_t first, size_t last, int32_t *acc) const;

    const Isa &isa_;
    const Buffer x_;
    const std::vector<Buffer> addend_, raw_, codes_;
    maqd_conv conv_;
    Finish finish_;
    std::vector<int32_t> bias_, dense_bias_, winograd_start_, thresholds_, rows_, signs_;
    std::vector<int16_t> short_bias_, short_dense_bias_, short_thresholds_, short_signs_;
    std::vector<int8_t> narrow_signs_;
    std::vector<bool> negate_;
    std::vector<int32_t> folded_bias_, folded_thresholds_, folded_signs_;
    std::vector<int16_t> short_folded_bias_, short_folded_thresholds_, short_folded_signs_;
    bool dense_ready_ = false, winograd_ready_ = false, events_ready_ = false, depthwise_ready_ = false, narrow_ = true;
    Memory scalar_weights_, depthwise_weights_, event_rows_, threshold_planes_, winograd_weights_;
    std::vector<Memory> dense_weights_;
    DenseCall dense_{};
    WinogradCall winograd_{};
    EventsCall events_{};
    DepthwiseCall depthwise_{};
    size_t fold_ = 1;  // of `depthwise_` or `dense_`
    Finish folded_{};  // the epilogue of `fold_` pixels
};

}  // namespace maqd
