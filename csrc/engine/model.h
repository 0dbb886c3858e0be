// The native engine: steps over tensors in an arena, planned in Python (src/maqd/plan), computed here.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/memory.h"
#include "engine/threads.h"
#include "engine/weights.h"
#include "kernels/table.h"

namespace maqd {

// A tensor of one sample and where it lies in the memory of one sample.
struct Buffer {
    size_t offset;
    size_t stage;  // whose memory it is in: see Batch
    int32_t rows, columns, channels;
    maqd_element element;
    int32_t zero;
    int32_t highest;  // no stored integer is larger

    size_t elements() const {
        return static_cast<size_t>(rows) * static_cast<size_t>(columns) * static_cast<size_t>(channels);
    }
    size_t bytes() const { return elements() * maqd_element_size(element); }
    maqd_tensor tensor() const { return {rows, columns, channels, element, zero}; }
};

// Early layers have large tensors and few weights, late ones the opposite. So steps are cut into stages: early ones run
// for few images at a time, whose tensors then stay in the cache; later ones for more, to fetch weights less often. The
// memory of a stage holds the tensors that its steps use and those of no later stage do.
struct Stage {
    size_t bytes;   // of one sample
    size_t images;  // that run together, at least as many as in the stage before
    size_t steps;   // up to the end of it
};

constexpr size_t MAX_STAGES = 4;

// The tensors of the images that are computed together.
struct Batch {
    uint8_t *memory[MAX_STAGES];
    size_t capacity[MAX_STAGES];  // in images
    size_t start[MAX_STAGES];     // the first image, in that memory
    size_t images;

    uint8_t *at(const Buffer &buffer, size_t image = 0) const {
        const size_t stage = buffer.stage;
        return memory[stage] + buffer.offset * capacity[stage] + (start[stage] + image) * buffer.bytes();
    }
};

// A step of the plan. Its kernel is chosen anew for each batch.
class Step {
  public:
    virtual ~Step() = default;
    // The kernel for this input.
    virtual int choose(const Batch &) const { return 0; }
    // Parts that can be computed independently, in any order.
    virtual size_t parts(const Batch &, int choice) const = 0;
    virtual void run(const Batch &, int choice, size_t first, size_t last, uint8_t *scratch) const = 0;
    virtual size_t scratch() const { return 0; }
    // The weights that it is likely to read first, if prefetching them is worth while.
    virtual Bytes weights() const { return {nullptr, 0}; }
    // Tells it which weights the steps after it are likely to read first.
    virtual void precede(Bytes) {}
    virtual const char *kernel(int) const { return "scalar"; }
    // The input whose share of non-zero values is of interest, or null.
    virtual const Buffer *input() const { return nullptr; }
    // Bytes of weights and tables.
    virtual size_t constants() const { return 0; }
};

// Which kernel convolutions use where they have a choice.
enum class Kernel { automatic, scalar, dense, winograd, events };

// Activation: stored = base + spacing * #{k: signs[c] * x >= thresholds[k][c]}.
struct Quantization {
    std::vector<int32_t> thresholds;  // [levels][channels]
    std::vector<int8_t> signs;
    int32_t levels, spacing, base;
};

// Activation of many states: base + spacing * clip(floor((a[c] * x + b[c]) / 2^shift), 0, last).
struct FixedPoint {
    std::vector<int64_t> a, b;
    int32_t shift, last, spacing, base;
};

struct ConvOptions {
    Buffer x;
    PackedWeights weights;
    std::vector<int32_t> bias;  // one an output, or empty
    maqd_window window;
    int32_t groups;
    int32_t shift;
    std::vector<Buffer> addend;  // none or one
    int32_t addend_shift;
    std::vector<Buffer> raw, codes;  // none or one each
    int32_t reach;  // no |v|, and no threshold that can matter, is larger; see Finish
    Quantization quantization;
};

struct StepProfile {
    double seconds = 0;
    double density = -1;  // of the input, or -1
    const char *kernel = "";
};

class Model {
  public:
    Model(const Isa &isa, Kernel kernel, int threads, std::vector<Buffer> inputs, std::vector<Buffer> outputs,
          std::vector<Stage> stages);
    ~Model();
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;

    void conv(const ConvOptions &options);
    void quantize(Buffer x, Buffer y, Quantization quantization, size_t outer, size_t channels, size_t inner);
    void fixed_point(Buffer x, Buffer y, FixedPoint map, size_t outer, size_t inner);
    void pool(Buffer x, Buffer y, bool maximum, maqd_window window);
    void sum(Buffer x, Buffer y);
    void add(std::vector<Buffer> x, std::vector<int32_t> shifts, Buffer y);
    void concat(std::vector<Buffer> x, std::vector<int32_t> shifts, std::vector<size_t> lengths, size_t outer,
                Buffer y);
    void transpose(Buffer x, Buffer y, size_t height, size_t width);
    void move(Buffer x, Buffer y, std::vector<std::vector<int32_t>> tables, int32_t fill);
    void multiply(Buffer a, Buffer b, Buffer y);

    // What a call reads and writes, one array for each input and output of the model. An input has `count` samples of
    // its buffer's elements, [count][channels][positions], or [count][positions][channels] if channels_last; an output
    // int32_t [count][elements], channels innermost.
    struct Source {
        const uint8_t *data;
        bool channels_last;
    };
    struct Arrays {
        std::vector<Source> inputs;
        std::vector<int32_t *> outputs;
    };

    // Computes `count` samples. Safe to call from many threads.
    void run(const Arrays &arrays, size_t count) const;

    // The same with a profile, one entry a step, or with tensors that are copied out afterwards; then for as many
    // images as run together in the first stage.
    struct Copy {
        Buffer buffer;
        int32_t *values;  // [count][elements]
    };
    void inspect(const Arrays &arrays, size_t count, std::vector<StepProfile> *profile,
                 const std::vector<Copy> &copies) const;

    const Isa &isa() const { return isa_; }
    int threads() const { return threads_; }
    const std::vector<Stage> &stages() const { return stages_; }
    const std::vector<Buffer> &inputs() const { return inputs_; }
    const std::vector<Buffer> &outputs() const { return outputs_; }
    size_t constants() const;  // bytes of weights and tables
    size_t working() const;    // bytes of arenas and scratch memory

  private:
    // The memory of a thread in a call; `stages` are used only where threads work on different images.
    struct Worker {
        std::vector<Memory> stages;
        Memory scratch;
    };
    using Context = std::vector<Worker>;  // one a thread
    void append(std::unique_ptr<Step> step);
    // Whether this is a child of the process that made the model. A child has none of the team's threads, and they may
    // hold locks: it runs on the calling thread, in memory that each call allocates.
    bool forked() const;
    std::unique_ptr<Context> acquire() const;
    void release(std::unique_ptr<Context> context) const;
    Batch batch(Worker &worker, size_t images) const;
    // Samples first .. last of a batch, whose sample 0 is number `start` of the arrays.
    void load(const Arrays &arrays, size_t start, const Batch &batch, size_t first, size_t last) const;
    void store(const Arrays &arrays, size_t start, const Batch &batch, size_t first, size_t last) const;
    void block(const Arrays &arrays, size_t start, size_t count, Worker &worker,
               std::vector<StepProfile> *profile) const;
    void stage(size_t stage, const Arrays &arrays, size_t start, const Batch &batch, uint8_t *scratch,
               std::vector<StepProfile> *profile) const;
    void step(size_t index, const Batch &batch, uint8_t *scratch, std::vector<StepProfile> *profile) const;

    const Isa &isa_;
    const Kernel kernel_;
    const int threads_;
    const std::vector<Buffer> inputs_, outputs_;
    const std::vector<Stage> stages_;
    std::vector<std::unique_ptr<Step>> steps_;
    size_t unaware_ = 0;  // the steps from here do not know yet which weights are read after them
    std::unique_ptr<Team> team_;
    const long process_;
    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Context>> idle_;
};

std::unique_ptr<Step> make_conv(const Isa &isa, Kernel kernel, const ConvOptions &options);
std::unique_ptr<Step> make_move(const Isa &isa, Buffer x, Buffer y, std::vector<std::vector<int32_t>> tables,
                                int32_t fill);
std::unique_ptr<Step> make_multiply(const Isa &isa, Buffer a, Buffer b, Buffer y);

}  // namespace maqd
