// A test without Python, for processors that are only emulated: random convolutions in every instruction set and kernel
// that there is, against the scalar kernels in C.
//
//     compare_kernels [count]        exits with 1 at the first difference
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "engine/model.h"

using namespace maqd;

namespace {

class Random {
  public:
    explicit Random(unsigned seed) : generator_(seed) {}
    int32_t from(int32_t low, int32_t high) {
        return low + static_cast<int32_t>(generator_() % static_cast<uint32_t>(high - low + 1));
    }
    int32_t of(std::initializer_list<int32_t> values) {
        return values.begin()[from(0, static_cast<int32_t>(values.size()) - 1)];
    }

  private:
    std::mt19937 generator_;
};

struct Case {
    ConvOptions options{};
    std::vector<uint8_t> weights;
    std::vector<uint8_t> arena;  // inputs filled in
    size_t size = 0, images = 0;
    std::string text;

    Buffer place(int32_t rows, int32_t columns, int32_t channels, maqd_element element, int32_t zero, int32_t highest) {
        const Buffer made{size, 0, rows, columns, channels, element, zero, highest};
        size += (made.bytes() + 63) / 64 * 64;
        return made;
    }
};

Case random_case(Random &random) {
    Case c;
    ConvOptions &o = c.options;
    const int32_t channels = random.of({1, 3, 8, 16, 17, 32, 30, 64, 65, 90, 130, 256, 320, 512}),
                  outputs_of_group = random.of({1, 5, 8, 16, 33, 64, 100, 200, 300});
    const bool depthwise = random.from(0, 3) == 0;
    const int32_t groups = depthwise ? channels : channels % 2 == 0 && random.from(0, 5) == 0 ? 2 : 1;
    const int32_t outputs = depthwise ? channels : outputs_of_group * groups;
    const int32_t rows = random.from(1, 7), columns = random.of({1, 2, 3, 7, 12, 16, 19});
    const int32_t highest = random.of({1, 1, 2, 3, 3, 7, 15, 255}),
                  zero = random.from(0, 3) ? 0 : random.from(0, highest);
    auto &w = o.window;
    const bool usual = random.from(0, 1) == 0;  // what Winograd's filtering is for
    const bool pointwise = random.from(0, 6) == 0;
    const auto extent = [&](int32_t size, int32_t &kernel, int32_t &stride, int32_t &padding, int32_t &dilation) {
        if (pointwise) {
            kernel = stride = dilation = 1;
            padding = 0;
            return size;
        }
        if (usual && size > 2) {
            kernel = 3;
            stride = dilation = 1;
            padding = random.from(0, 2);
            return size + 2 * padding - 2;
        }
        kernel = random.from(1, std::min(size, 3));
        dilation = 2 * (kernel - 1) < size ? random.from(1, 2) : 1;
        stride = random.from(1, 2);
        padding = random.from(0, 2);
        return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    };
    const int32_t high = extent(rows, w.kernel_rows, w.stride_rows, w.padding_rows, w.dilation_rows);
    const int32_t wide = extent(columns, w.kernel_columns, w.stride_columns, w.padding_columns, w.dilation_columns);
    o.x = c.place(rows, columns, channels, MAQD_U8, zero, highest);
    const int32_t count = random.of({2, 3, 3, 3, 3, 3, 4, 5, 7, 8, 16, 17}), spacing = count % 2 ? 1 : 2;
    int32_t digits = 0;
    for (int64_t power = count; power <= 256; power *= count) digits++;
    const size_t inputs = static_cast<size_t>(channels / groups),
                 taps = static_cast<size_t>(w.kernel_rows * w.kernel_columns);
    const size_t row_bytes = (inputs * taps + static_cast<size_t>(digits) - 1) / static_cast<size_t>(digits);
    c.weights.resize(static_cast<size_t>(outputs) * row_bytes);
    int32_t limit = 1;
    for (int32_t digit = 0; digit < digits; digit++) limit *= count;
    for (auto &byte : c.weights) byte = static_cast<uint8_t>(random.from(0, limit - 1));
    o.weights = {c.weights.data(), row_bytes, count, -(count - 1) * spacing / 2,
                 spacing,          digits,    1,     static_cast<size_t>(outputs),
                 inputs,           taps};
    o.groups = groups;
    for (int32_t i = 0; i < outputs; i++) o.bias.push_back(random.from(-50, 50));
    const int32_t reach = 60 + static_cast<int32_t>(inputs * taps) * highest * (count - 1) * spacing / 2;
    o.reach = reach;
    const bool add = random.from(0, 2) == 0, raw = random.from(0, 1) == 0;
    if (add) {
        const auto element = static_cast<maqd_element>(random.from(0, 2));
        o.shift = random.from(0, 2);
        o.addend_shift = random.from(0, 2);
        o.addend.push_back(c.place(high, wide, outputs, element, element == MAQD_U8 ? random.from(0, 9) : 0, 255));
        o.reach = (reach << o.shift) + (255 << o.addend_shift);
    }
    if (raw) o.raw.push_back(c.place(high, wide, outputs, o.reach < INT16_MAX ? MAQD_I16 : MAQD_I32, 0, o.reach));
    if (!raw || random.from(0, 1)) {
        auto &q = o.quantization;
        q.levels = random.of({1, 2, 3, 3, 7, 8, 15});
        q.spacing = random.from(1, 2);
        q.base = random.from(0, 3);
        q.thresholds.resize(static_cast<size_t>(q.levels * outputs));
        const int32_t spread = std::min(o.reach, random.of({20, 200, o.reach}));
        for (int32_t i = 0; i < outputs; i++) {
            std::vector<int32_t> cuts;
            for (int32_t k = 0; k < q.levels; k++) cuts.push_back(random.from(-spread, spread));
            std::sort(cuts.begin(), cuts.end());
            for (int32_t k = 0; k < q.levels; k++)
                q.thresholds[static_cast<size_t>(k * outputs + i)] = cuts[static_cast<size_t>(k)];
        }
        const bool falling = random.from(0, 1) == 0;
        for (int32_t i = 0; i < outputs; i++) q.signs.push_back(falling && random.from(0, 1) ? -1 : 1);
        o.codes.push_back(c.place(high, wide, outputs, MAQD_U8, 0, q.base + q.levels * q.spacing));
    }
    c.images = static_cast<size_t>(random.from(1, 3));
    c.arena.resize(c.size * c.images);
    const int32_t density = random.of({0, 5, 30, 100});
    uint8_t *x = c.arena.data() + o.x.offset * c.images;
    for (size_t i = 0; i < o.x.bytes() * c.images; i++)
        x[i] = static_cast<uint8_t>(random.from(1, 100) <= density ? random.from(0, highest) : zero);
    if (add) {
        const Buffer &b = o.addend[0];
        uint8_t *to = c.arena.data() + b.offset * c.images;
        for (size_t i = 0; i < b.elements() * c.images; i++) {
            const int32_t value = random.from(0, 255 - (b.element == MAQD_U8 ? 0 : 128));
            std::memcpy(to + i * maqd_element_size(b.element), &value, maqd_element_size(b.element));  // little endian
        }
    }
    char text[256];
    std::snprintf(text, sizeof text,
                  "%d x %d x %d -> %d x %d x %d, kernel %d x %d, stride %d x %d, %d groups, %d states, codes to %d",
                  rows, columns, channels, high, wide, outputs, w.kernel_rows, w.kernel_columns, w.stride_rows,
                  w.stride_columns, groups, count, highest);
    c.text = text;
    return c;
}

// What the step writes, all outputs one after the other.
std::vector<uint8_t> run(const Case &c, const Isa &isa, Kernel kernel) {
    const auto step = make_conv(isa, kernel, c.options);
    Memory arena(c.size * c.images), scratch(step->scratch());
    std::memcpy(arena.data(), c.arena.data(), c.arena.size());
    const Batch batch{{arena.data()}, {c.images}, {}, c.images};
    const int choice = step->choose(batch);
    const size_t parts = step->parts(batch, choice), middle = parts / 2;
    step->run(batch, choice, 0, middle, scratch.data());
    step->run(batch, choice, middle, parts, scratch.data());
    std::vector<uint8_t> found;
    for (const auto *outputs : {&c.options.raw, &c.options.codes})
        for (const Buffer &b : *outputs) found.insert(found.end(), batch.at(b), batch.at(b) + b.bytes() * c.images);
    return found;
}

}  // namespace

int main(int count, char **arguments) {
    const int cases = count > 1 ? std::atoi(arguments[1]) : 1000;
    size_t compared = 0;
    for (int i = 0; i < cases; i++) {
        Random random(static_cast<unsigned>(i));
        const Case c = random_case(random);
        const auto expected = run(c, *find_isa("scalar"), Kernel::scalar);
        for (const char *const *name = isa_names(); *name; name++)
            for (const Kernel kernel :
                 {Kernel::scalar, Kernel::dense, Kernel::winograd, Kernel::events, Kernel::automatic}) {
                if (run(c, *find_isa(*name), kernel) != expected) {
                    std::printf("case %d, %s, kernel %d: different; %s\n", i, *name, static_cast<int>(kernel),
                                c.text.c_str());
                    return 1;
                }
                compared++;
            }
    }
    std::printf("%d convolutions, %zu comparisons, no difference:", cases, compared);
    for (const char *const *name = isa_names(); *name; name++) std::printf(" %s", *name);
    std::printf("\n");
    return 0;
}
