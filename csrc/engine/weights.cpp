#include "engine/weights.h"

#include <algorithm>

namespace maqd {

namespace {

// Reads the state indices of one output at a time.
class Reader {
  public:
    explicit Reader(const PackedWeights &packed) : packed_(packed), indices_(packed.depth() + 2 * MAX_DIGITS + 64) {
        const auto base = static_cast<size_t>(packed.count);
        const size_t most = packed.group_bytes == 1 ? static_cast<size_t>(packed.digits) : MAX_DIGITS;
        do {
            part_ *= base;
            part_digits_++;
        } while (part_digits_ < most && part_ * base <= PART);
        table_.resize(std::max<size_t>(256, part_) * MAX_DIGITS);
        for (size_t number = 0; number < part_; number++)
            for (size_t digit = 0, rest = number; digit < part_digits_; digit++, rest /= base)
                table_[number * MAX_DIGITS + digit] = static_cast<uint8_t>(rest % base);
    }

    // Indices of an output in the order of the file, with at least 64 readable bytes after them.
    const uint8_t *row(size_t output) {
        const uint8_t *from = packed_.data + output * packed_.row_bytes;
        const size_t depth = packed_.depth(), digits = static_cast<size_t>(packed_.digits);
        if (packed_.group_bytes == 1) {
            for (size_t k = 0; k < depth; k += digits)
                std::memcpy(&indices_[k], &table_[*from++ * MAX_DIGITS], MAX_DIGITS);
        } else {
            for (size_t k = 0; k < depth; k += digits) {
                uint64_t number = 0;
                for (int byte = 0; byte < packed_.group_bytes; byte++)
                    number |= static_cast<uint64_t>(*from++) << (8 * byte);
                // A lookup may write too much: the next one overwrites it.
                for (size_t digit = 0; digit < digits && k + digit < depth; digit += part_digits_, number /= part_)
                    std::memcpy(&indices_[k + digit], &table_[number % part_ * MAX_DIGITS], MAX_DIGITS);
            }
        }
        return indices_.data();
    }

    int code(uint8_t index) const { return packed_.low + packed_.spacing * index; }

  private:
    static constexpr size_t MAX_DIGITS = 8;  // of an entry of the table
    static constexpr size_t PART = 4096;     // entries, about
    const PackedWeights &packed_;
    size_t part_ = 1, part_digits_ = 0;  // digits of numbers below `part_` are looked up together
    std::vector<uint8_t> indices_;
    std::vector<uint8_t> table_;
};

// Bit i of the result: bit `plane` of byte i.
inline uint64_t gather_bits(const uint8_t *bytes, int plane) {
    uint64_t mask = 0;
    for (int part = 0; part < 8; part++) {
        uint64_t eight;
        std::memcpy(&eight, bytes + 8 * part, 8);
        eight = (eight >> plane) & 0x0101010101010101u;
        mask |= ((eight * 0x0102040810204080u) >> 56) << (8 * part);
    }
    return mask;
}

// Transposes a matrix of 64 x 64 bits (Hacker's Delight, 7-3).
inline void transpose_bits(uint64_t *m) {
    uint64_t mask = 0x00000000FFFFFFFFu;
    for (int j = 32; j != 0; j >>= 1, mask ^= mask << j)
        for (int k = 0; k < 64; k = (k + j + 1) & ~j) {
            const uint64_t t = ((m[k] >> j) ^ m[k + j]) & mask;
            m[k] ^= t << j;
            m[k + j] ^= t;
        }
}

inline bool ternary(const PackedWeights &packed) {
    return packed.low == -1 && packed.highest() == 1 && packed.count == 3;
}

}  // namespace

template <class T>
Memory scalar_weights(const PackedWeights &packed, size_t groups, const std::vector<bool> &negate) {
    Memory made(packed.outputs * packed.depth() * sizeof(T));
    T *to = reinterpret_cast<T *>(made.data());
    Reader reader(packed);
    const size_t share = packed.outputs / groups;
    for (size_t output = 0; output < packed.outputs; output++) {
        const uint8_t *row = reader.row(output);
        const size_t group = output / share;
        for (size_t c = 0; c < packed.inputs; c++)
            for (size_t tap = 0; tap < packed.taps; tap++) {
                const int code = reader.code(row[c * packed.taps + tap]);
                to[((tap * groups + group) * packed.inputs + c) * share + output % share] =
                    static_cast<T>(negate[output] ? -code : code);
            }
    }
    return made;
}
template Memory scalar_weights<int8_t>(const PackedWeights &, size_t, const std::vector<bool> &);
template Memory scalar_weights<int16_t>(const PackedWeights &, size_t, const std::vector<bool> &);

std::vector<int64_t> code_sums(const PackedWeights &packed, const std::vector<bool> &negate) {
    Reader reader(packed);
    std::vector<int64_t> sums(packed.outputs);
    for (size_t output = 0; output < packed.outputs; output++) {
        const uint8_t *row = reader.row(output);
        int64_t sum = 0;
        for (size_t k = 0; k < packed.depth(); k++) sum += reader.code(row[k]);
        sums[output] = negate[output] ? -sum : sum;
    }
    return sums;
}

Memory dense_weights(const PackedWeights &packed, size_t first_output, size_t outputs, const DenseCall &dense,
                     const std::vector<bool> &negate) {
    const size_t depth = dense.depth(), columns = static_cast<size_t>(dense.conv.window.kernel_columns);
    const auto rows = static_cast<size_t>(dense.conv.window.kernel_rows);
    Memory made(dense.outputs * depth);
    Reader reader(packed);
    for (size_t o = 0; o < outputs; o++) {
        const uint8_t *row = reader.row(first_output + o);
        const int sign = negate[first_output + o] ? -1 : 1;
        uint8_t *block = made.data() + o / 16 * 16 * depth + o % 16 * 4;
        for (size_t c = 0; c < packed.inputs; c++)
            for (size_t tap = 0; tap < packed.taps; tap++) {
                const size_t i = tap / columns, j = tap % columns;
                const size_t k =
                    dense.interleaved ? (j * rows + i) * packed.inputs + c : i * dense.run + j * packed.inputs + c;
                block[k / 4 * 64 + k % 4] = static_cast<uint8_t>(sign * reader.code(row[c * packed.taps + tap]));
            }
    }
    return made;
}

Memory compact_weights(const PackedWeights &packed, const DenseCall &dense, const std::vector<bool> &negate) {
    const size_t depth = dense.depth(), share = static_cast<size_t>(8 / dense.compact_bits);
    Memory made(dense.outputs * depth / share);
    Reader reader(packed);
    std::vector<uint8_t> ordered(depth);  // [taps][inputs]
    for (size_t o = 0; o < packed.outputs; o++) {
        const uint8_t *row = reader.row(o);
        const int last = packed.count - 1;  // a code and its negative have indices that add up to it
        for (size_t tap = 0; tap < packed.taps; tap++)
            for (size_t c = 0; c < packed.inputs; c++) ordered[tap * packed.inputs + c] = row[c * packed.taps + tap];
        if (negate[o])
            for (uint8_t &index : ordered) index = static_cast<uint8_t>(last - index);
        // Four inputs of an output are neighbours in a line; `share` lines become one.
        uint8_t *to = made.data() + o / 16 * 16 * depth / share + o % 16 * 4;
        for (size_t k = 0; k < depth; k += 4 * share, to += 64) {
            uint32_t four = 0;
            for (size_t j = 0; j < share; j++) {
                uint32_t indices;
                std::memcpy(&indices, &ordered[k + 4 * j], 4);
                four |= indices << (static_cast<int>(j) * dense.compact_bits);
            }
            std::memcpy(to, &four, 4);
        }
    }
    return made;
}

Memory winograd_weights(const PackedWeights &packed, const WinogradCall &winograd, const std::vector<bool> &negate,
                        int32_t *start) {
    const size_t depth = winograd.depth(), rows = packed.taps / 3;
    Memory made((packed.outputs + 31) / 32 * 32 * 6 * depth);
    Reader reader(packed);
    for (size_t o = 0; o < packed.outputs; o++) {
        const uint8_t *row = reader.row(o);
        const int sign = negate[o] ? -1 : 1;
        uint8_t *to = made.data() + o / 32 * 32 * 6 * depth + o % 32 / 16 * 16 * depth + o % 16 * 4;
        int32_t sums[6] = {};
        for (size_t c = 0; c < packed.inputs; c++)
            for (size_t i = 0; i < rows; i++, row += 3) {
                const int g0 = sign * reader.code(row[0]), g1 = sign * reader.code(row[1]),
                          g2 = sign * reader.code(row[2]);
                const int u[6] = {6 * g0, -(g0 + g1 + g2), g1 - g0 - g2, g0 + 2 * g1 + 4 * g2, g0 - 2 * g1 + 4 * g2,
                                  6 * g2};
                const size_t k = i * winograd.run + c;
                for (size_t t = 0; t < 6; t++) {
                    to[t * 32 * depth + k / 4 * 64 + k % 4] = static_cast<uint8_t>(u[t]);
                    sums[t] += u[t];
                }
            }
        for (size_t t = 0; t < 6; t++) start[(o / 32 * 6 + t) * 32 + o % 32] = -winograd.offset * sums[t];
    }
    return made;
}

WeightPlanes weight_planes(const PackedWeights &packed) {
    if (ternary(packed)) return {2, {1, -1}, 0};
    WeightPlanes made{0, {}, packed.low};
    while ((1 << made.planes) < packed.count) {
        made.coefficients[made.planes] = packed.spacing << made.planes;
        made.planes++;
    }
    return made;
}

Memory event_rows(const PackedWeights &packed, int lanes, int chunks, size_t row_bytes,
                  const std::vector<bool> &negate) {
    const size_t depth = packed.depth();
    const int planes = weight_planes(packed).planes;
    const bool three = ternary(packed);
    Memory made(static_cast<size_t>(chunks) * (depth + 1) * row_bytes);
    Reader reader(packed);
    const size_t words = (depth + 63) / 64;
    std::vector<uint64_t> bits(static_cast<size_t>(planes) * words * 64);  // [planes][words][64 outputs]
    for (size_t base = 0; base < packed.outputs; base += 64) {
        const size_t here = std::min<size_t>(64, packed.outputs - base);
        std::fill(bits.begin(), bits.end(), 0);
        for (size_t o = 0; o < here; o++) {
            const uint8_t *row = reader.row(base + o);
            for (size_t word = 0; word < words; word++) {
                const size_t left = depth - word * 64;
                const uint64_t valid = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
                if (three) {  // indices 0, 1, 2 are codes -1, 0, 1
                    const uint64_t low = gather_bits(row + word * 64, 0), high = gather_bits(row + word * 64, 1);
                    const uint64_t plus = high & valid, minus = ~(low | high) & valid;
                    bits[word * 64 + o] = negate[base + o] ? minus : plus;
                    bits[(words + word) * 64 + o] = negate[base + o] ? plus : minus;
                } else {
                    // A code and its negative have indices that add up to count - 1.
                    uint8_t indices[64];
                    for (size_t k = 0; k < 64; k++) {
                        const uint8_t index = row[word * 64 + k];
                        indices[k] = negate[base + o] ? static_cast<uint8_t>(packed.count - 1 - index) : index;
                    }
                    for (int plane = 0; plane < planes; plane++)
                        bits[(static_cast<size_t>(plane) * words + word) * 64 + o] =
                            gather_bits(indices, plane) & valid;
                }
            }
        }
        const size_t lane = base % static_cast<size_t>(lanes), chunk = base / static_cast<size_t>(lanes);
        if (chunk >= static_cast<size_t>(chunks)) throw std::logic_error("more outputs than lanes");
        const size_t plane_bytes = static_cast<size_t>(lanes) / 8;
        for (int plane = 0; plane < planes; plane++)
            for (size_t word = 0; word < words; word++) {
                uint64_t *block = &bits[(static_cast<size_t>(plane) * words + word) * 64];
                transpose_bits(block);
                const size_t offset =
                    chunk * (depth + 1) * row_bytes + static_cast<size_t>(plane) * plane_bytes + lane / 8;
                for (size_t k = word * 64; k < std::min(depth, word * 64 + 64); k++) {
                    const size_t at = (k % packed.taps) * packed.inputs + k / packed.taps;
                    std::memcpy(made.data() + (at + 1) * row_bytes + offset, &block[k % 64], 8);
                }
            }
    }
    return made;
}

Memory sweep_rows(const PackedWeights &packed, int kernel_columns, const std::vector<bool> &negate) {
    const auto columns = static_cast<size_t>(kernel_columns), rows = packed.taps / columns;
    const Memory plain = event_rows(packed, 64, 1, 16, negate);
    Memory made((rows * packed.inputs + 1) * 64);
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++)
            for (size_t c = 0; c < packed.inputs; c++)
                std::memcpy(made.data() + (1 + row * packed.inputs + c) * 64 + (columns - 1 - column) * 16,
                            plain.data() + (1 + (row * columns + column) * packed.inputs + c) * 16, 16);
    return made;
}

}  // namespace maqd
