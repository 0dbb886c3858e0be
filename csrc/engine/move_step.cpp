// Steps that move elements, and products of two tensors.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "engine/model.h"

namespace maqd {

namespace {

// Elements in another order or place: nested loops, one a table; see MoveStep in src/maqd/plan/steps.py.
class MoveStep final : public Step {
  public:
    MoveStep(const Isa &isa, Buffer x, Buffer y, std::vector<std::vector<int32_t>> tables, int32_t fill)
        : isa_(isa),
          x_(x),
          y_(y),
          tables_(std::move(tables)),
          fill_(fill + y.zero),
          same_(x.element == y.element && x.zero == y.zero) {
        if (tables_.empty()) throw std::invalid_argument("a move needs a table");
        size_t elements = 1;
        int64_t reach = 0;
        for (const auto &table : tables_) {
            elements *= table.size();
            if (table.empty()) throw std::invalid_argument("a table of a move is empty");
            const auto [low, high] = std::minmax_element(table.begin(), table.end());
            if (*low < -1) throw std::invalid_argument("an entry of a move's table is below -1");
            reach += std::max(*high, 0);
        }
        if (elements != y.elements() || reach >= static_cast<int64_t>(x.elements()))
            throw std::invalid_argument("the tables of a move do not fit its buffers");
        inner_.resize(tables_.size(), 1);
        for (size_t level = tables_.size() - 1; level > 0; level--)
            inner_[level - 1] = inner_[level] * tables_[level].size();
        // Neighbours that stay neighbours are copied together.
        const auto &last = tables_.back();
        for (size_t begin = 0, end; begin < last.size(); begin = end) {
            for (end = begin + 1; end < last.size(); end++)
                if (last[begin] < 0 ? last[end] >= 0 : last[end] != last[begin] + static_cast<int32_t>(end - begin))
                    break;
            runs_.push_back({begin, end - begin, last[begin]});
        }
    }
    // Entries of the first table.
    size_t parts(const Batch &batch, int) const override { return batch.images * outermost(); }
    void run(const Batch &batch, int, size_t first, size_t last, uint8_t *scratch) const override {
        for (size_t part = first; part < last; part++) {
            const size_t image = part / outermost(), entry = part % outermost();
            const uint8_t *x = batch.at(x_, image);
            uint8_t *y = batch.at(y_, image);
            if (tables_.size() == 1) {
                row(x, y, 0, scratch);
            } else {
                loops(1, x, y + entry * inner_[0] * size(y_), tables_[0][entry], scratch);
            }
        }
    }
    size_t scratch() const override { return tables_.back().size() * 4; }
    size_t constants() const override {
        size_t bytes = runs_.size() * sizeof(Run);
        for (const auto &table : tables_) bytes += table.size() * 4;
        return bytes;
    }
    const char *kernel(int) const override { return "move"; }

  private:
    struct Run {
        size_t to, count;
        int32_t from;  // or -1
    };
    static size_t size(const Buffer &buffer) { return maqd_element_size(buffer.element); }
    size_t outermost() const { return tables_.size() > 1 ? tables_[0].size() : 1; }

    void loops(size_t level, const uint8_t *x, uint8_t *y, int32_t from, uint8_t *scratch) const {
        if (from < 0) {
            fill(y, inner_[level - 1]);
        } else if (level + 1 == tables_.size()) {
            row(x, y, from, scratch);
        } else {
            const auto &table = tables_[level];
            for (size_t i = 0; i < table.size(); i++)
                loops(level + 1, x, y + i * inner_[level] * size(y_), table[i] < 0 ? -1 : from + table[i], scratch);
        }
    }
    void row(const uint8_t *x, uint8_t *y, int32_t from, uint8_t *scratch) const {
        for (const Run &run : runs_) {
            uint8_t *to = y + run.to * size(y_);
            if (run.from < 0) {
                fill(to, run.count);
                continue;
            }
            const uint8_t *source = x + static_cast<size_t>(from + run.from) * size(x_);
            if (!same_) {
                auto *values = reinterpret_cast<int32_t *>(scratch);
                isa_.scalar.widen(source, x_.element, x_.zero, run.count, values);
                isa_.scalar.narrow(values, run.count, y_.element, y_.zero, to);
            } else if (run.count == 1 && x_.element == MAQD_U8) {
                *to = *source;
            } else {
                std::memcpy(to, source, run.count * size(x_));
            }
        }
    }
    void fill(uint8_t *y, size_t count) const {
        if (y_.element == MAQD_U8) {
            std::memset(y, fill_, count);
        } else if (y_.element == MAQD_I16) {
            std::fill_n(reinterpret_cast<int16_t *>(y), count, static_cast<int16_t>(fill_));
        } else {
            std::fill_n(reinterpret_cast<int32_t *>(y), count, fill_);
        }
    }

    const Isa &isa_;
    const Buffer x_, y_;
    const std::vector<std::vector<int32_t>> tables_;
    const int32_t fill_;  // as it is stored
    const bool same_;
    std::vector<size_t> inner_;  // elements of the output inside one entry of each table
    std::vector<Run> runs_;
};

// A product; the second tensor is of the first one's shape, or has one code a channel.
class MultiplyStep final : public Step {
  public:
    MultiplyStep(const Isa &isa, Buffer a, Buffer b, Buffer y)
        : isa_(isa), a_(a), b_(b), y_(y), gate_(b.elements() == static_cast<size_t>(b.channels)) {
        if (a.elements() != y.elements() || a.channels != y.channels || b.channels != y.channels ||
            (!gate_ && b.elements() != y.elements()))
            throw std::invalid_argument("the tensors of a product do not fit");
    }
    size_t parts(const Batch &batch, int) const override { return batch.images * rows(); }
    void run(const Batch &batch, int, size_t first, size_t last, uint8_t *scratch) const override {
        const size_t length = y_.elements() / rows(), channels = static_cast<size_t>(y_.channels);
        auto *values = reinterpret_cast<int32_t *>(scratch), *factors = values + length;
        for (size_t part = first; part < last; part++) {
            const size_t image = part / rows(), row = part % rows();
            isa_.scalar.widen(at(batch, a_, image, row * length), a_.element, a_.zero, length, values);
            if (gate_) {
                isa_.scalar.widen(batch.at(b_, image), b_.element, b_.zero, channels, factors);
                for (size_t i = 0; i < length; i += channels)
                    for (size_t c = 0; c < channels; c++) values[i + c] *= factors[c];
            } else {
                isa_.scalar.widen(at(batch, b_, image, row * length), b_.element, b_.zero, length, factors);
                for (size_t i = 0; i < length; i++) values[i] *= factors[i];
            }
            isa_.scalar.narrow(values, length, y_.element, y_.zero, at(batch, y_, image, row * length));
        }
    }
    size_t scratch() const override { return y_.elements() / rows() * 8; }

  private:
    size_t rows() const { return static_cast<size_t>(y_.rows); }
    static uint8_t *at(const Batch &batch, const Buffer &buffer, size_t image, size_t element) {
        return batch.at(buffer, image) + element * maqd_element_size(buffer.element);
    }

    const Isa &isa_;
    const Buffer a_, b_, y_;
    const bool gate_;
};

}  // namespace

std::unique_ptr<Step> make_move(const Isa &isa, Buffer x, Buffer y, std::vector<std::vector<int32_t>> tables,
                                int32_t fill) {
    return std::make_unique<MoveStep>(isa, x, y, std::move(tables), fill);
}

std::unique_ptr<Step> make_multiply(const Isa &isa, Buffer a, Buffer b, Buffer y) {
    return std::make_unique<MultiplyStep>(isa, a, b, y);
}

}  // namespace maqd
