// Bit-sliced events: convolutions at a cost that follows the number of bits set in the input.
//
// Every set bit of an input fetches a row of weights, one plane of bits per kind of weight, and rows are summed in
// vertical counters: slice k holds bit k of as many sums as a vector has bits. Carry-save adders take two operations a
// row, however many outputs there are. Subtraction and comparison with thresholds stay bit-sliced as well.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags and its own vectors:
//
//     struct V {                  // vectors of V::BYTES bytes
//         using T, H;             // H: vectors of half the bits, with the operations below and some more
//         static T load(const uint8_t *), zero(); static void store(uint8_t *, T)
//         static T xor2(T, T), and2(T, T);
//         static T full_add(T &a, T b, T c);  // a becomes a ^ b ^ c; returns majority(a, b, c)
//         static void tail(const uint32_t *list, size_t count, uint32_t zero, uint32_t *to);  // see Counters::add
//         static H::T low(T), high(T);  // halves
//     }
//     struct H {                  // and for halves
//         static T or2(T, T), and_not(T a, T b);  // a & ~b
//         static T xor3(T, T, T), not_xor3(T, T, T);
//         static T borrow(T a, T b, T c);  // of a - b - c
//     }
#pragma once

#include <cstring>

#include "finish.h"
#include "isa.h"
#include "panel.h"

namespace maqd {
namespace {

constexpr int MAX_SLICES = 24;

// The last entries of a list, filled up to 16.
inline void plain_tail(const uint32_t *list, size_t count, uint32_t zero, uint32_t *to) {
    for (size_t i = 0; i < 16; i++) to[i] = i < count ? list[i] : zero;
}

inline size_t plain_count_bits(const uint8_t *x, size_t size) {
    size_t count = 0;
    for (; size >= 8; x += 8, size -= 8) {
        uint64_t word;
        std::memcpy(&word, x, 8);
        count += static_cast<size_t>(__builtin_popcountll(word));
    }
    for (; size; x++, size--) count += static_cast<size_t>(__builtin_popcount(*x));
    return count;
}

template <class V>
struct Counters {
    using T = typename V::T;

    // Adds eight rows to the slices of weight 1, 2 and 4; returns what has weight 8. Shaped as a tree, so that the chain
    // through each slice is one adder for eight rows.
    template <class Entry>
    static inline T add8(const uint8_t *rows, const Entry *list, T &s1, T &s2, T &s4) {
        const auto row = [&](int i) { return V::load(rows + list[i]); };
        T a = row(0), b = row(3);
        T c0 = V::full_add(a, row(1), row(2));
        const T c1 = V::full_add(b, row(4), row(5));
        const T c2 = V::full_add(a, b, row(6));
        const T c3 = V::full_add(s1, a, row(7));
        const T d0 = V::full_add(c0, c1, c2);
        const T d1 = V::full_add(s2, c0, c3);
        return V::full_add(s4, d0, d1);
    }

    // Adds a carry from slice `first` on.
    template <int SLICES>
    static inline void ripple(T (&s)[SLICES], int first, T carry) {
#pragma GCC unroll 24
        for (int k = first; k < SLICES; k++) {
            const T old = s[k];
            s[k] = V::xor2(old, carry);
            carry = V::and2(old, carry);
        }
    }

    template <class Entry, int SLICES>
    static inline void add16(const uint8_t *rows, const Entry *list, T (&s)[SLICES]) {
        const T e0 = add8(rows, list, s[0], s[1], s[2]);
        const T e1 = add8(rows, list + 8, s[0], s[1], s[2]);
        ripple(s, 4, V::full_add(s[3], e0, e1));
    }

    // Adds the rows of a list. `zero` is the offset of a row of zeros.
    template <int SLICES>
    static inline void add(const uint8_t *rows, const uint32_t *list, size_t count, uint32_t zero, T (&s)[SLICES]) {
        for (; count >= 16; count -= 16, list += 16) add16(rows, list, s);
        if (count == 0) return;
        alignas(64) uint32_t rest[16];
        V::tail(list, count, zero, rest);
        if (count > 8)
            add16(rows, rest, s);
        else
            ripple(s, 3, add8(rows, rest, s[0], s[1], s[2]));
    }
};

// Lists of the rows that the input pixels of one output row fetch: for each plane, column by column. An entry is the
// offset of a row as seen from the output column 0.
struct Lists {
    uint32_t *entries;  // [planes] lists, `stride` apart
    size_t stride;
    uint32_t *starts;  // [planes][columns + 1]
};

struct EventRow {
    size_t image;
    int32_t row;
};

constexpr size_t LIST_SLACK = 64;  // entries that may be written behind the end of a list

inline size_t list_stride(const Events &e) {
    const auto &w = e.conv.window;
    return static_cast<size_t>(w.kernel_rows) * static_cast<size_t>(e.conv.x.columns) *
               static_cast<size_t>(e.conv.x.channels) + LIST_SLACK;
}

template <class Finisher>
inline size_t event_scratch(const Events &e) {
    const auto planes = static_cast<size_t>(e.planes);
    return finishers_size<Finisher>(static_cast<size_t>(e.chunks * e.lanes)) + static_cast<size_t>(e.lanes) * 4 +
           planes * (list_stride(e) + static_cast<size_t>(e.conv.x.columns) + 1) * 4;
}

template <class Ops>
inline void build_lists(const Events &events, EventRow place, const Lists lists) {
    const Events e = events;  // a copy, which stores to the lists cannot change
    const maqd_conv &conv = e.conv;
    const maqd_window &w = conv.window;
    const auto channels = static_cast<size_t>(conv.x.channels);
    const size_t per_row = static_cast<size_t>(w.kernel_columns) * channels;
    const uint8_t *x = e.x + place.image * e.image_size;
    const int32_t top = place.row * w.stride_rows - w.padding_rows;
    for (int plane = 0; plane < e.planes; plane++) {
        uint32_t *const list = lists.entries + static_cast<size_t>(plane) * lists.stride;
        uint32_t *to = list;
        uint32_t *starts = lists.starts + static_cast<size_t>(plane) * (static_cast<size_t>(conv.x.columns) + 1);
        for (int32_t column = 0; column < conv.x.columns; column++) {
            starts[column] = static_cast<uint32_t>(to - list);
            for (int32_t i = 0; i < w.kernel_rows; i++) {
                const int32_t row = top + i * w.dilation_rows;
                if (row < 0 || row >= conv.x.rows) continue;
                const size_t before = static_cast<size_t>(i) * per_row +
                                      static_cast<size_t>(column + w.padding_columns) * channels;
                const uint8_t *pixel = x + (static_cast<size_t>(row) * static_cast<size_t>(conv.x.columns) +
                                            static_cast<size_t>(column)) * channels;
                to = Ops::append(pixel, channels, plane, static_cast<uint32_t>(before * e.row_bytes),
                                     static_cast<uint32_t>(e.row_bytes), to);
            }
        }
        starts[conv.x.columns] = static_cast<uint32_t>(to - list);
    }
}

inline int bit_width(size_t value) {
    int bits = 0;
    for (; value; value >>= 1) bits++;
    return bits;
}

// Everything about one output pixel but its chunk.
struct EventPixel {
    const uint32_t *first[8];  // lists of the planes
    size_t count[8];
    const uint8_t *rows;
    uint32_t zero;
    size_t sum;  // of the inputs
};

inline EventPixel event_pixel(const Events &e, const Lists &lists, int32_t column) {
    const maqd_window &w = e.conv.window;
    const int32_t columns = e.conv.x.columns;
    const int32_t left = column * w.stride_columns - w.padding_columns;
    const int32_t first = left < 0 ? 0 : left < columns ? left : columns;
    const int32_t end = left + w.kernel_columns;
    const int32_t last = end > columns ? columns : end < first ? first : end;
    EventPixel p{};
    const size_t shift = static_cast<size_t>(column) * static_cast<size_t>(w.stride_columns) *
                         static_cast<size_t>(e.conv.x.channels) * e.row_bytes;
    p.rows = e.rows - shift;
    const size_t depth = static_cast<size_t>(w.kernel_rows) * static_cast<size_t>(w.kernel_columns) *
                         static_cast<size_t>(e.conv.x.channels);
    p.zero = static_cast<uint32_t>(depth * e.row_bytes + shift);
    for (int plane = 0; plane < e.planes; plane++) {
        const uint32_t *starts = lists.starts + static_cast<size_t>(plane) * (static_cast<size_t>(columns) + 1);
        p.first[plane] = lists.entries + static_cast<size_t>(plane) * lists.stride + starts[first];
        p.count[plane] = starts[last] - starts[first];
        p.sum += p.count[plane] << plane;
    }
    return p;
}

// Slices of the sums of one chunk.
template <class V, int SLICES>
inline void count_chunk(const Events &e, const EventPixel &p, size_t offset, typename V::T *slices) {
    typename V::T s[SLICES];
#pragma GCC unroll 24
    for (int k = 0; k < SLICES; k++) s[k] = V::zero();
    for (int plane = e.planes - 1; plane >= 0; plane--) {
        // What was counted so far has twice the weight.
#pragma GCC unroll 24
        for (int k = SLICES - 1; k > 0; k--) s[k] = s[k - 1];
        s[0] = V::zero();
        Counters<V>::add(p.rows + offset, p.first[plane], p.count[plane], p.zero, s);
    }
#pragma GCC unroll 24
    for (int k = 0; k < SLICES; k++) slices[k] = s[k];
}

// Returns how many slices are used.
template <class V>
inline int count_chunk(const Events &e, const EventPixel &p, size_t offset, typename V::T *slices) {
    const int bits = bit_width(p.sum);
    if (bits <= 6)
        count_chunk<V, 6>(e, p, offset, slices);
    else if (bits <= 7)
        count_chunk<V, 7>(e, p, offset, slices);
    else if (bits <= 8)
        count_chunk<V, 8>(e, p, offset, slices);
    else if (bits <= 10)
        count_chunk<V, 10>(e, p, offset, slices);
    else if (bits <= 13)
        count_chunk<V, 13>(e, p, offset, slices);
    else
        count_chunk<V, MAX_SLICES>(e, p, offset, slices);
    return bits;
}

// difference[0 .. bits] = low half - high half, in two's complement.
template <class V>
inline void subtract_halves(const typename V::T *slices, int bits, typename V::H::T *difference) {
    using H = typename V::H;
    auto borrow = H::zero();
    for (int k = 0; k < bits; k++) {
        const auto plus = V::low(slices[k]), minus = V::high(slices[k]);
        difference[k] = H::xor3(plus, minus, borrow);
        borrow = H::borrow(plus, minus, borrow);
    }
    difference[bits] = borrow;
}

// Compares with `levels` thresholds: bits of the index of the state, at most 3.
template <class H>
inline void compare(const typename H::T *value, int bits, const uint8_t *planes, int threshold_bits, int levels,
                    typename H::T *index) {
    using T = typename H::T;
    T reached[7];
    const int common = bits + 1 > threshold_bits ? bits + 1 : threshold_bits;
    for (int level = 0; level < levels; level++) {
        const uint8_t *threshold = planes + static_cast<size_t>(level) * static_cast<size_t>(threshold_bits) * H::BYTES;
        T borrow = H::zero();
        for (int k = 0; k < common; k++)
            borrow = H::borrow(value[k < bits ? k : bits],
                               H::load(threshold + static_cast<size_t>(k < threshold_bits ? k : threshold_bits - 1) * H::BYTES),
                               borrow);
        const T sign = value[bits], other = H::load(threshold + static_cast<size_t>(threshold_bits - 1) * H::BYTES);
        reached[level] = H::not_xor3(sign, other, borrow);
    }
    for (int level = levels; level < 7; level++) reached[level] = H::zero();
    // reached[k] holds reached[k + 1]: the binary number is how many there are.
    const auto only = [&](int k) { return H::and_not(reached[k], reached[k + 1]); };
    index[0] = H::or2(H::or2(only(0), only(2)), H::or2(only(4), reached[6]));
    index[1] = H::or2(H::and_not(reached[1], reached[3]), reached[5]);
    index[2] = reached[3];
}

// What an instruction set adds:
//
//     struct Ops {
//         static uint32_t *append(const uint8_t *x, size_t channels, int plane, uint32_t base, uint32_t step, uint32_t *to);
//             // appends base + c * step for every channel c whose bit `plane` is set; may write LIST_SLACK more
//         static void add_bits(int32_t *acc, const uint8_t *bits, size_t lanes, int32_t weight);
//             // acc[lane] += weight where the bit of the lane is set; lanes is a multiple of 64
//         static void store_codes(const uint8_t (*slices)[64], int bits, uint8_t *codes, size_t outputs);
//             // codes[o] = number whose bits are bit o of the slices
//         class Finisher;  // see finish.h
//         static void shorts(uint8_t *slices, size_t bytes, int bits, int16_t *acc);
//             // acc[o] for o < 8 * bytes, at least 64, of slices 0 .. bits in two's complement, `bytes` bytes each; only if
//             // Finisher::is_short(). Slices up to 15 may be written.
//     }

// All of it but Finisher, eight bytes at a time.
struct PlainEventOps {
    static void shorts(uint8_t *, size_t, int, int16_t *) {}
    static uint32_t *append(const uint8_t *x, size_t channels, int plane, uint32_t base, uint32_t step, uint32_t *to) {
        for (size_t c = 0; c < channels; c += 8, base += 8 * step) {
            uint64_t set;
            std::memcpy(&set, x + c, 8);
            set = (set >> plane) & 0x0101010101010101u;
            if (channels - c < 8) set &= (uint64_t{1} << (8 * (channels - c))) - 1;
            for (; set; set &= set - 1) *to++ = base + static_cast<uint32_t>(__builtin_ctzll(set) / 8) * step;
        }
        return to;
    }
    static void add_bits(int32_t *acc, const uint8_t *bits, size_t lanes, int32_t weight) {
        for (size_t lane = 0; lane < lanes; lane += 8) {
            const int32_t byte = bits[lane / 8];
            for (int bit = 0; bit < 8; bit++) acc[lane + static_cast<size_t>(bit)] += (byte >> bit & 1) * weight;
        }
    }
    static void store_codes(const uint8_t (*slices)[64], int bits, uint8_t *codes, size_t outputs) {
        for (size_t o = 0; o < outputs; o++) {
            int code = 0;
            for (int k = 0; k < bits; k++) code |= (slices[k][o / 8] >> (o % 8) & 1) << k;
            codes[o] = static_cast<uint8_t>(code);
        }
    }
};

// Sums of one chunk as integers.
template <class V, class Ops>
inline void expand(const Events &e, const typename V::T *slices, int bits, size_t sum, int32_t *acc) {
    const auto lanes = static_cast<size_t>(e.lanes);
    const int32_t start = e.input_sum_coefficient * static_cast<int32_t>(sum);
    for (size_t lane = 0; lane < lanes; lane++) acc[lane] = start;
    alignas(64) uint8_t bytes[64];
    for (int k = 0; k < bits; k++) {
        V::store(bytes, slices[k]);
        for (int plane = 0; plane < e.weight_planes; plane++)
            Ops::add_bits(acc, bytes + static_cast<size_t>(plane) * lanes / 8, lanes, e.coefficients[plane] * (1 << k));
    }
}

template <class V, class Ops>
inline void event_rows(const Events &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    using H = typename V::H;
    const maqd_conv &conv = e.conv;
    const auto rows = static_cast<size_t>(conv.rows), columns = static_cast<size_t>(conv.columns);
    const auto lanes = static_cast<size_t>(e.lanes), planes = static_cast<size_t>(e.planes);
    auto *finishers = make_finishers<typename Ops::Finisher>(finish, 0, finish.outputs, scratch);
    scratch += finishers_size<typename Ops::Finisher>(finish.outputs);
    auto *acc = reinterpret_cast<int32_t *>(scratch);
    Lists lists{};
    lists.entries = reinterpret_cast<uint32_t *>(scratch + lanes * 4);
    lists.stride = list_stride(e);
    lists.starts = lists.entries + planes * lists.stride;
    const size_t threshold_size = static_cast<size_t>(finish.levels) * static_cast<size_t>(e.threshold_bits) * H::BYTES;
    const int index_bits = bit_width(static_cast<size_t>(finish.levels));
    const bool difference = e.weight_planes == 2 && e.coefficients[0] == 1 && e.coefficients[1] == -1;
    for (size_t part = first; part < last; part++) {
        build_lists<Ops>(e, {part / rows, static_cast<int32_t>(part % rows)}, lists);
        for (size_t column = 0; column < columns; column++) {
            const EventPixel p = event_pixel(e, lists, static_cast<int32_t>(column));
            const size_t pixel = part * columns + column;
            for (size_t chunk = 0; chunk < static_cast<size_t>(e.chunks); chunk++) {
                typename V::T slices[MAX_SLICES];
                const int bits = count_chunk<V>(e, p, chunk * V::BYTES, slices);
                const size_t output = chunk * lanes;
                const size_t outputs = finish.outputs - output < lanes ? finish.outputs - output : lanes;
                if (e.threshold_planes) {
                    typename H::T value[MAX_SLICES + 1], index[3];
                    subtract_halves<V>(slices, bits, value);
                    compare<H>(value, bits, e.threshold_planes + chunk * threshold_size, e.threshold_bits, finish.levels,
                               index);
                    alignas(64) uint8_t bytes[3][64];
                    for (int k = 0; k < index_bits; k++) H::store(bytes[k], index[k]);
                    Ops::store_codes(bytes, index_bits, finish.codes + pixel * finish.outputs + output, outputs);
                } else if (difference && Ops::Finisher::is_short(finish)) {
                    typename H::T value[MAX_SLICES + 1];
                    alignas(64) uint8_t bytes[(MAX_SLICES + 1) * H::BYTES + 64];
                    alignas(64) int16_t shorts[8 * H::BYTES];
                    subtract_halves<V>(slices, bits, value);
                    for (int k = 0; k <= bits; k++) H::store(bytes + static_cast<size_t>(k) * H::BYTES, value[k]);
                    Ops::shorts(bytes, H::BYTES, bits, shorts);
                    for (size_t o = 0; o < outputs; o += 32) finishers[(output + o) / 32].row(shorts + o, pixel);
                } else {
                    expand<V, Ops>(e, slices, bits, p.sum, acc);
                    for (size_t o = 0; o < outputs; o += 32) finishers[(output + o) / 32].block(acc + o, lanes, pixel, 1);
                }
            }
        }
    }
}

}  // namespace
}  // namespace maqd
