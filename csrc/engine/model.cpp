#include "engine/model.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include <unistd.h>

namespace maqd {

namespace {

// Steps whose parts are whole images.
class PerImage : public Step {
  public:
    explicit PerImage(const Isa &isa) : isa_(isa) {}
    size_t parts(const Batch &batch, int) const override { return batch.images; }
    void run(const Batch &batch, int, size_t first, size_t last, uint8_t *scratch) const override {
        for (size_t image = first; image < last; image++) one(batch, image, scratch);
    }

  protected:
    virtual void one(const Batch &batch, size_t image, uint8_t *scratch) const = 0;
    const Isa &isa_;
};

// Steps whose parts are rows of the output.
class PerRow : public Step {
  public:
    PerRow(const Isa &isa, Buffer y) : isa_(isa), y_(y) {}
    size_t parts(const Batch &batch, int) const override { return batch.images * static_cast<size_t>(y_.rows); }
    void run(const Batch &batch, int, size_t first, size_t last, uint8_t *scratch) const override {
        const auto rows = static_cast<size_t>(y_.rows);
        for (size_t part = first; part < last; part++)
            one(batch, part / rows, static_cast<int32_t>(part % rows), reinterpret_cast<int32_t *>(scratch));
    }

  protected:
    virtual void one(const Batch &batch, size_t image, int32_t row, int32_t *scratch) const = 0;
    size_t row_elements() const { return y_.elements() / static_cast<size_t>(y_.rows); }
    uint8_t *row_at(const Batch &batch, const Buffer &buffer, size_t image, int32_t row) const {
        return batch.at(buffer, image) + static_cast<size_t>(row) * buffer.bytes() / static_cast<size_t>(buffer.rows);
    }
    const Isa &isa_;
    const Buffer y_;
};

class QuantizeStep final : public PerImage {
  public:
    QuantizeStep(const Isa &isa, Buffer x, Buffer y, Quantization quantization, size_t outer, size_t channels,
                 size_t inner)
        : PerImage(isa), x_(x), y_(y), q_(std::move(quantization)), outer_(outer), channels_(channels), inner_(inner) {
        if (std::all_of(q_.signs.begin(), q_.signs.end(), [](int8_t sign) { return sign > 0; })) q_.signs.clear();
        if (inner_ == 1) widen_rows();
    }
    size_t scratch() const override { return channels_ * inner_ * 5; }
    size_t constants() const override { return q_.thresholds.size() * 4 + q_.signs.size(); }

  protected:
    void one(const Batch &batch, size_t image, uint8_t *scratch) const override {
        auto *values = reinterpret_cast<int32_t *>(scratch);
        const size_t length = channels_ * inner_;
        for (size_t o = 0; o < outer_; o++) {
            isa_.scalar.widen(batch.at(x_, image) + o * length * maqd_element_size(x_.element), x_.element, x_.zero,
                              length, values);
            if (y_.element == MAQD_U8) {
                quantize(values, q_.spacing, q_.base, batch.at(y_, image) + o * length);
                continue;
            }
            uint8_t *indices = scratch + length * 4;
            quantize(values, 1, 0, indices);
            for (size_t i = 0; i < length; i++) values[i] = q_.base + q_.spacing * indices[i];
            isa_.scalar.narrow(values, length, y_.element, y_.zero,
                               batch.at(y_, image) + o * length * maqd_element_size(y_.element));
        }
    }

  private:
    // Sees several positions as one with as many channels: loops over few channels are not vectorized.
    void widen_rows() {
        size_t positions = 1;
        while (channels_ * positions < 128 && outer_ % (2 * positions) == 0) positions *= 2;
        std::vector<int32_t> thresholds;
        std::vector<int8_t> signs;
        for (size_t level = 0; level < static_cast<size_t>(q_.levels); level++) {
            const auto row = q_.thresholds.begin() + static_cast<std::ptrdiff_t>(level * channels_);
            for (size_t i = 0; i < positions; i++)
                thresholds.insert(thresholds.end(), row, row + static_cast<std::ptrdiff_t>(channels_));
        }
        for (size_t i = 0; i < positions; i++) signs.insert(signs.end(), q_.signs.begin(), q_.signs.end());
        q_.thresholds = std::move(thresholds);
        q_.signs = std::move(signs);
        channels_ *= positions;
        outer_ /= positions;
    }

    void quantize(const int32_t *values, int32_t spacing, int32_t base, uint8_t *y) const {
        isa_.scalar.quantize(values, 1, channels_, inner_, q_.thresholds.data(),
                             q_.signs.empty() ? nullptr : q_.signs.data(), q_.levels, spacing, base, y);
    }

    const Buffer x_, y_;
    Quantization q_;
    size_t outer_, channels_;
    const size_t inner_;
};

class FixedPointStep final : public PerImage {
  public:
    FixedPointStep(const Isa &isa, Buffer x, Buffer y, FixedPoint map, size_t outer, size_t inner)
        : PerImage(isa), x_(x), y_(y), map_(std::move(map)), outer_(outer), inner_(inner) {
        if (map_.a.size() != map_.b.size() || outer_ * map_.a.size() * inner_ != x_.elements() ||
            x_.elements() != y_.elements())
            throw std::invalid_argument("the tensors and numbers of a fixed-point map do not fit");
    }
    size_t scratch() const override { return length() * 4; }
    size_t constants() const override { return (map_.a.size() + map_.b.size()) * 8; }

  protected:
    void one(const Batch &batch, size_t image, uint8_t *scratch) const override {
        auto *values = reinterpret_cast<int32_t *>(scratch);
        for (size_t o = 0; o < outer_; o++) {
            isa_.scalar.widen(batch.at(x_, image) + o * length() * maqd_element_size(x_.element), x_.element, x_.zero,
                              length(), values);
            isa_.scalar.fixed_point(values, 1, map_.a.size(), inner_, map_.a.data(), map_.b.data(), map_.shift,
                                    map_.last, map_.spacing, map_.base, values);
            isa_.scalar.narrow(values, length(), y_.element, y_.zero,
                               batch.at(y_, image) + o * length() * maqd_element_size(y_.element));
        }
    }

  private:
    size_t length() const { return map_.a.size() * inner_; }

    const Buffer x_, y_;
    const FixedPoint map_;
    const size_t outer_, inner_;
};

class PoolStep final : public PerRow {
  public:
    PoolStep(const Isa &isa, Buffer x, Buffer y, bool maximum, maqd_window window)
        : PerRow(isa, y), x_(x), maximum_(maximum), window_(window) {
        if (maximum && (x.element != y.element || x.zero != y.zero))
            throw std::invalid_argument("max pooling keeps the type of its input");
    }
    size_t scratch() const override { return row_elements() * 4; }

  protected:
    void one(const Batch &batch, size_t image, int32_t row, int32_t *scratch) const override {
        const maqd_tensor shape = x_.tensor();
        uint8_t *to = row_at(batch, y_, image, row);
        if (maximum_) {
            isa_.scalar.max_pool_row(&shape, &window_, batch.at(x_, image), y_.columns, row, to);
        } else {
            isa_.scalar.sum_pool_row(&shape, &window_, batch.at(x_, image), y_.columns, row, scratch);
            isa_.scalar.narrow(scratch, row_elements(), y_.element, y_.zero, to);
        }
    }

  private:
    const Buffer x_;
    const bool maximum_;
    const maqd_window window_;
};

// A sum over everything is the only window of its pooling.
maqd_window whole(const Buffer &x) { return {x.rows, x.columns, 1, 1, 0, 0, 1, 1}; }

class AddStep final : public PerRow {
  public:
    AddStep(const Isa &isa, std::vector<Buffer> x, std::vector<int32_t> shifts, Buffer y)
        : PerRow(isa, y), x_(std::move(x)), shifts_(std::move(shifts)) {}
    size_t scratch() const override { return row_elements() * 4; }

  protected:
    void one(const Batch &batch, size_t image, int32_t row, int32_t *scratch) const override {
        std::fill(scratch, scratch + row_elements(), 0);
        for (size_t i = 0; i < x_.size(); i++)
            isa_.scalar.add_shifted(scratch, 0, row_at(batch, x_[i], image, row), x_[i].element, x_[i].zero, shifts_[i],
                                    row_elements());
        isa_.scalar.narrow(scratch, row_elements(), y_.element, y_.zero, row_at(batch, y_, image, row));
    }

  private:
    const std::vector<Buffer> x_;
    const std::vector<int32_t> shifts_;
};

class ConcatStep final : public PerImage {
  public:
    ConcatStep(const Isa &isa, std::vector<Buffer> x, std::vector<int32_t> shifts, std::vector<size_t> lengths,
               size_t outer, Buffer y)
        : PerImage(isa),
          x_(std::move(x)),
          y_(y),
          shifts_(std::move(shifts)),
          lengths_(std::move(lengths)),
          outer_(outer) {}
    size_t scratch() const override { return *std::max_element(lengths_.begin(), lengths_.end()) * 4; }

  protected:
    void one(const Batch &batch, size_t image, uint8_t *scratch) const override {
        auto *values = reinterpret_cast<int32_t *>(scratch);
        uint8_t *to = batch.at(y_, image);
        for (size_t o = 0; o < outer_; o++)
            for (size_t i = 0; i < x_.size(); i++) {
                const uint8_t *from = batch.at(x_[i], image) + o * lengths_[i] * maqd_element_size(x_[i].element);
                std::fill(values, values + lengths_[i], 0);
                isa_.scalar.add_shifted(values, 0, from, x_[i].element, x_[i].zero, shifts_[i], lengths_[i]);
                isa_.scalar.narrow(values, lengths_[i], y_.element, y_.zero, to);
                to += lengths_[i] * maqd_element_size(y_.element);
            }
    }

  private:
    const std::vector<Buffer> x_;
    const Buffer y_;
    const std::vector<int32_t> shifts_;
    const std::vector<size_t> lengths_;
    const size_t outer_;
};

class TransposeStep final : public PerImage {
  public:
    TransposeStep(const Isa &isa, Buffer x, Buffer y, size_t height, size_t width)
        : PerImage(isa), x_(x), y_(y), height_(height), width_(width) {
        if (x.element != y.element || x.zero != y.zero)
            throw std::invalid_argument("a transposition keeps the type of its input");
    }

  protected:
    void one(const Batch &batch, size_t image, uint8_t *) const override {
        isa_.scalar.transpose(batch.at(x_, image), height_, width_, maqd_element_size(x_.element), batch.at(y_, image));
    }

  private:
    const Buffer x_, y_;
    const size_t height_, width_;
};

// Part `member` of `members` of 0 .. count - 1.
std::pair<size_t, size_t> share(size_t count, size_t member, size_t members) {
    return {count * member / members, count * (member + 1) / members};
}

}  // namespace

Model::Model(const Isa &isa, Kernel kernel, int threads, std::vector<Buffer> inputs, std::vector<Buffer> outputs,
             std::vector<Stage> stages)
    : isa_(isa),
      kernel_(kernel),
      threads_(threads),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      stages_(std::move(stages)),
      process_(getpid()) {
    if (stages_.empty() || stages_.size() > MAX_STAGES) throw std::invalid_argument("there must be 1 to 4 stages");
    if (threads < 1 || stages_[0].images < static_cast<size_t>(threads))
        throw std::invalid_argument("threads and images must be positive, and there must be an image for each thread");
    for (size_t s = 1; s < stages_.size(); s++)
        if (stages_[s].images < stages_[s - 1].images || stages_[s].steps < stages_[s - 1].steps)
            throw std::invalid_argument("later stages must end later and take no fewer images");
    if (threads > 1) team_ = std::make_unique<Team>(threads);
}

void Model::conv(const ConvOptions &options) { append(make_conv(isa_, kernel_, options)); }

void Model::quantize(Buffer x, Buffer y, Quantization quantization, size_t outer, size_t channels, size_t inner) {
    append(std::make_unique<QuantizeStep>(isa_, x, y, std::move(quantization), outer, channels, inner));
}

void Model::fixed_point(Buffer x, Buffer y, FixedPoint map, size_t outer, size_t inner) {
    append(std::make_unique<FixedPointStep>(isa_, x, y, std::move(map), outer, inner));
}

void Model::pool(Buffer x, Buffer y, bool maximum, maqd_window window) {
    append(std::make_unique<PoolStep>(isa_, x, y, maximum, window));
}

void Model::sum(Buffer x, Buffer y) { pool(x, y, false, whole(x)); }

void Model::add(std::vector<Buffer> x, std::vector<int32_t> shifts, Buffer y) {
    append(std::make_unique<AddStep>(isa_, std::move(x), std::move(shifts), y));
}

void Model::concat(std::vector<Buffer> x, std::vector<int32_t> shifts, std::vector<size_t> lengths, size_t outer,
                   Buffer y) {
    append(std::make_unique<ConcatStep>(isa_, std::move(x), std::move(shifts), std::move(lengths), outer, y));
}

void Model::transpose(Buffer x, Buffer y, size_t height, size_t width) {
    append(std::make_unique<TransposeStep>(isa_, x, y, height, width));
}

void Model::move(Buffer x, Buffer y, std::vector<std::vector<int32_t>> tables, int32_t fill) {
    append(make_move(isa_, x, y, std::move(tables), fill));
}

void Model::multiply(Buffer a, Buffer b, Buffer y) { append(make_multiply(isa_, a, b, y)); }

Model::~Model() {
    // A forked child has no threads to join, and destroying their condition variables would hang.
    if (forked()) (void)team_.release();
}

bool Model::forked() const { return getpid() != process_; }

void Model::append(std::unique_ptr<Step> step) {
    const Bytes weights = step->weights();
    for (; weights.size && unaware_ < steps_.size(); unaware_++) steps_[unaware_]->precede(weights);
    steps_.push_back(std::move(step));
}

std::unique_ptr<Model::Context> Model::acquire() const {
    if (!forked()) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!idle_.empty()) {
            auto context = std::move(idle_.back());
            idle_.pop_back();
            return context;
        }
    }
    auto context = std::make_unique<Context>(static_cast<size_t>(threads_));
    size_t scratch = 0;
    for (const auto &step : steps_) scratch = std::max(scratch, step->scratch());
    for (Worker &worker : *context) {
        for (const Stage &stage : stages_) worker.stages.emplace_back(stage.bytes * stage.images);
        worker.scratch = Memory(scratch);
    }
    return context;
}

void Model::release(std::unique_ptr<Context> context) const {
    if (forked()) return;
    std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(context));
}

Batch Model::batch(Worker &worker, size_t images) const {
    Batch batch{};
    batch.images = images;
    for (size_t s = 0; s < stages_.size(); s++) {
        batch.memory[s] = worker.stages[s].data();
        batch.capacity[s] = stages_[s].images;
    }
    return batch;
}

void Model::load(const Arrays &arrays, size_t start, const Batch &batch, size_t first, size_t last) const {
    for (size_t i = 0; i < inputs_.size(); i++) {
        const Buffer &x = inputs_[i];
        const size_t elements = x.elements(), channels = static_cast<size_t>(x.channels),
                     bytes = maqd_element_size(x.element);
        const uint8_t *data = arrays.inputs[i].data + start * elements * bytes;
        if (arrays.inputs[i].channels_last || channels == 1 || channels == elements)
            std::memcpy(batch.at(x, first), data + first * elements * bytes, (last - first) * elements * bytes);
        else
            for (size_t image = first; image < last; image++)
                isa_.scalar.transpose(data + image * elements * bytes, channels, elements / channels, bytes,
                                      batch.at(x, image));
    }
}

void Model::store(const Arrays &arrays, size_t start, const Batch &batch, size_t first, size_t last) const {
    for (size_t i = 0; i < outputs_.size(); i++) {
        const Buffer &y = outputs_[i];
        const size_t elements = y.elements();
        isa_.scalar.widen(batch.at(y, first), y.element, y.zero, (last - first) * elements,
                          arrays.outputs[i] + (start + first) * elements);
    }
}

// Share of the values of a tensor that are not 0.
static double density(const Batch &batch, const Buffer &buffer) {
    const uint8_t *x = batch.at(buffer);
    const size_t count = buffer.elements() * batch.images;
    size_t nonzero = 0;
    for (size_t i = 0; i < count; i++) nonzero += x[i] != buffer.zero;
    return static_cast<double>(nonzero) / static_cast<double>(count);
}

void Model::step(size_t index, const Batch &batch, uint8_t *scratch, std::vector<StepProfile> *profile) const {
    using clock = std::chrono::steady_clock;
    const Step &step = *steps_[index];
    const auto start = profile ? clock::now() : clock::time_point();
    const int choice = step.choose(batch);
    step.run(batch, choice, 0, step.parts(batch, choice), scratch);
    if (!profile) return;
    StepProfile &entry = (*profile)[index];
    entry.seconds += std::chrono::duration<double>(clock::now() - start).count();
    entry.kernel = step.kernel(choice);
    if (step.input() && step.input()->element == MAQD_U8) entry.density = density(batch, *step.input());
}

// Runs a stage, and the stages before it, for images that run together there.
void Model::stage(size_t stage, const Arrays &arrays, size_t start, const Batch &batch, uint8_t *scratch,
                  std::vector<StepProfile> *profile) const {
    if (stage == 0) load(arrays, start, batch, 0, batch.images);
    for (size_t first = 0; stage > 0 && first < batch.images; first += stages_[stage - 1].images) {
        Batch some = batch;
        some.images = std::min(stages_[stage - 1].images, batch.images - first);
        for (size_t s = stage; s < stages_.size(); s++) some.start[s] += first;
        this->stage(stage - 1, arrays, start + first, some, scratch, profile);
    }
    const size_t end = stage + 1 == stages_.size() ? steps_.size() : stages_[stage].steps;
    for (size_t i = stage ? stages_[stage - 1].steps : 0; i < end; i++) step(i, batch, scratch, profile);
}

// Runs all stages for samples that run together in the last one, beginning with sample `start` of the arrays.
void Model::block(const Arrays &arrays, size_t start, size_t count, Worker &worker,
                  std::vector<StepProfile> *profile) const {
    const Batch all = batch(worker, count);
    stage(stages_.size() - 1, arrays, start, all, worker.scratch.data(), profile);
    store(arrays, start, all, 0, count);
}

void Model::run(const Arrays &arrays, size_t count) const {
    if (count == 0) return;
    const size_t most = stages_.back().images;
    auto context = acquire();
    const auto members = static_cast<size_t>(threads_);
    const auto some = [&](Worker &worker, size_t first, size_t last) {
        block(arrays, first, last - first, worker, nullptr);
    };
    // With enough images each thread takes its own; otherwise they share the parts of each step.
    bool done = false;
    const bool together = team_ && !forked();
    if (together && count >= members) {
        const size_t portion = std::min(most, (count + members - 1) / members);
        std::atomic<size_t> next{0};
        done = team_->run([&](int member) {
            for (size_t first = next.fetch_add(portion); first < count; first = next.fetch_add(portion))
                some((*context)[static_cast<size_t>(member)], first, std::min(count, first + portion));
        });
    } else if (together) {
        Barrier barrier(threads_);
        done = team_->run([&](int member) {
            const auto me = static_cast<size_t>(member);
            const Batch all = batch((*context)[0], count);
            const auto mine = share(count, me, members);
            load(arrays, 0, all, mine.first, mine.second);
            for (const auto &step : steps_) {
                barrier.wait();
                const int choice = step->choose(all);
                const auto part = share(step->parts(all, choice), me, members);
                step->run(all, choice, part.first, part.second, (*context)[me].scratch.data());
            }
            barrier.wait();
            store(arrays, 0, all, mine.first, mine.second);
        });
    }
    if (!done)
        for (size_t first = 0; first < count; first += most) some((*context)[0], first, std::min(count, first + most));
    release(std::move(context));
}

void Model::inspect(const Arrays &arrays, size_t count, std::vector<StepProfile> *profile,
                    const std::vector<Copy> &copies) const {
    if (!copies.empty() && count > stages_.front().images) throw std::invalid_argument("more images than run together");
    auto context = acquire();
    Worker &worker = (*context)[0];
    if (profile) profile->resize(steps_.size());
    const size_t most = stages_.back().images;
    for (size_t first = 0; first < count; first += most)
        block(arrays, first, std::min(most, count - first), worker, profile);
    const Batch all = batch(worker, count);
    for (const Copy &copy : copies)
        isa_.scalar.widen(all.at(copy.buffer), copy.buffer.element, copy.buffer.zero, count * copy.buffer.elements(),
                          copy.values);
    release(std::move(context));
}

size_t Model::constants() const {
    size_t total = 0;
    for (const auto &step : steps_) total += step->constants();
    return total;
}

size_t Model::working() const {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t total = 0;
    for (const auto &context : idle_)
        for (const Worker &worker : *context) {
            total += worker.scratch.size();
            for (const Memory &memory : worker.stages) total += memory.size();
        }
    return total;
}

}  // namespace maqd
