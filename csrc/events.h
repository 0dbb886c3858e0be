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
//         static T xor2(T, T), and2(T, T), xor3(T, T, T);
//         static T carry(T b, T sum, T c);  // majority(a, b, c), where sum = a ^ b ^ c: needs no copy of a
//         static void tail(const uint32_t *list, size_t count, uint32_t zero, uint32_t *to);  // see Counters::add
//         static H::T low(T), high(T);  // halves
//     }
#pragma once

#include <cstring>

#include "isa.h"
#include "panel.h"

namespace maqd {
namespace {

constexpr int MAX_SLICES = 24;

template <class V>
struct Counters {
    using T = typename V::T;

    // a, b, c of one weight: a becomes their sum's bit of that weight, the result that of the next one.
    static inline T full_add(T &a, T b, T c) {
        a = V::xor3(a, b, c);
        return V::carry(b, a, c);
    }

    // Adds eight rows to the slices of weight 1, 2 and 4; returns what has weight 8. Shaped as a tree, so that the chain
    // through each slice is one adder for eight rows.
    static inline T add8(const uint8_t *rows, const uint32_t *list, T &s1, T &s2, T &s4) {
        const auto row = [&](int i) { return V::load(rows + list[i]); };
        T a = row(0), b = row(3);
        T c0 = full_add(a, row(1), row(2));
        const T c1 = full_add(b, row(4), row(5));
        const T c2 = full_add(a, b, row(6));
        const T c3 = full_add(s1, a, row(7));
        const T d0 = full_add(c0, c1, c2);
        const T d1 = full_add(s2, c0, c3);
        return full_add(s4, d0, d1);
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

    // Adds the rows of a list. `zero` is the offset of a row of zeros.
    template <int SLICES>
    static inline void add(const uint8_t *rows, const uint32_t *list, size_t count, uint32_t zero, T (&s)[SLICES]) {
        const auto sixteen = [&](const uint32_t *from) {
            const T e0 = add8(rows, from, s[0], s[1], s[2]);
            const T e1 = add8(rows, from + 8, s[0], s[1], s[2]);
            ripple(s, 4, full_add(s[3], e0, e1));
        };
        for (; count >= 16; count -= 16, list += 16) sixteen(list);
        if (count == 0) return;
        alignas(64) uint32_t rest[16];
        V::tail(list, count, zero, rest);
        if (count > 8)
            sixteen(rest);
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

inline size_t event_scratch(const Events &e) {
    const auto planes = static_cast<size_t>(e.planes);
    const size_t lanes = static_cast<size_t>(e.chunks) * static_cast<size_t>(e.lanes);
    return planes * (list_stride(e) + static_cast<size_t>(e.conv.x.columns) + 1) * 4 + (lanes + 64) * 4;
}

// `Extract` appends the offsets of the channels of one pixel whose bit `plane` is set: base + channel * row_bytes.
template <class Extract>
inline void build_lists(const Events &e, EventRow place, const Lists &lists) {
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
                to = Extract::append(pixel, channels, plane, static_cast<uint32_t>(before * e.row_bytes),
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

}  // namespace
}  // namespace maqd
