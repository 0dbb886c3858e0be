// Bit-sliced events: convolutions at a cost that follows the number of bits set in the input.
//
// Every set bit of an input fetches a row of weights, one plane of bits per kind of weight, and rows are summed in
// vertical counters: slice k holds bit k of as many sums as a vector has bits. Carry-save adders take two operations a
// row, however many outputs there are. Subtraction and comparison with thresholds stay bit-sliced as well.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags and its own
// vectors:
//
//     struct V {                  // vectors of V::BYTES bytes
//         using T, H;             // H: vectors of half the bits, with the operations of V and those below
//         static T load(const uint8_t *), zero(); static void store(uint8_t *, T)
//         static T xor2(T, T), and2(T, T);
//         static T full_add(T &a, T b, T c);  // a becomes a ^ b ^ c; returns majority(a, b, c)
//         static H::T low(T), high(T);  // halves
//     }
//     struct H {
//         static T or2(T, T), and_not(T a, T b);  // a & ~b
//         static T xor3(T, T, T), not_xor3(T, T, T);
//         static T borrow(T a, T b, T c);  // of a - b - c
//     }
#pragma once

#include <cstring>

#include "kernels/calls.h"
#include "kernels/epilogue.h"
#include "kernels/event_lists.h"

namespace maqd {
namespace {

constexpr int MAX_SLICES = 24;

inline size_t plain_count_bits(const uint8_t *x, size_t size, size_t count, size_t stride) {
    size_t set = 0;
    for (; count; x += stride, count--) {
        uint64_t piece[8] = {};
        std::memcpy(piece, x, size);
        for (const uint64_t word : piece) set += static_cast<size_t>(__builtin_popcountll(word));
    }
    return set;
}

// Prefetches bytes while something else is computed.
class Ahead {
  public:
    void ask(Bytes bytes) {
        next_ = bytes.data;
        end_ = bytes.data + bytes.size;
    }
    // Prefetches a few lines, if any are left, and perhaps some past the end. Only a few: outstanding loads are
    // limited, and the computation needs some of them.
    inline __attribute__((always_inline)) void some() {
        if (next_ >= end_) return;
        for (size_t i = 0; i < LINES; i++) __builtin_prefetch(next_ + i * LINE, 0, 2);
        next_ += LINES * LINE;
    }

  private:
    static constexpr size_t LINE = 64, LINES = 8;
    const uint8_t *next_ = nullptr, *end_ = nullptr;
};

template <class V>
struct Counters {
    using T = typename V::T;

    // Adds eight rows to the slices of weight 1, 2 and 4; returns the carries, of weight 8. A tree, so that the
    // dependency chain through each slice is one adder for eight rows.
    template <class Entry>
    static inline __attribute__((always_inline)) T add8(const uint8_t *rows, const Entry *list, T &s1, T &s2, T &s4) {
        const auto row = [&](int i) { return V::load(rows + UNIT<Entry> * list[i]); };
        T a = row(0), b = row(3);
        T c0 = V::full_add(a, row(1), row(2));
        const T c1 = V::full_add(b, row(4), row(5));
        const T c2 = V::full_add(a, b, row(6));
        const T c3 = V::full_add(s1, a, row(7));
        const T d0 = V::full_add(c0, c1, c2);
        const T d1 = V::full_add(s2, c0, c3);
        return V::full_add(s4, d0, d1);
    }

    // Adds a carry to the slices from `first`.
    template <int SLICES>
    static inline __attribute__((always_inline)) void ripple(T (&s)[SLICES], int first, T carry) {
#pragma GCC unroll 24
        for (int k = first; k < SLICES; k++) {
            const T old = s[k];
            s[k] = V::xor2(old, carry);
            carry = V::and2(old, carry);
        }
    }

    // Adds 16 rows to the slices of weight 1, 2, 4 and 8; returns the carries, of weight 16.
    template <class Entry, int SLICES>
    static inline __attribute__((always_inline)) T add16(const uint8_t *rows, const Entry *list, T (&s)[SLICES]) {
        const T e0 = add8(rows, list, s[0], s[1], s[2]);
        const T e1 = add8(rows, list + 8, s[0], s[1], s[2]);
        return V::full_add(s[3], e0, e1);
    }

    template <class Entry, int SLICES>
    static inline __attribute__((always_inline)) void add32(const uint8_t *rows, const Entry *list, T (&s)[SLICES]) {
        const T f0 = add16(rows, list, s);
        const T f1 = add16(rows, list + 16, s);
        ripple(s, 5, V::full_add(s[4], f0, f1));
    }

    // Adds the rows of a list whose length is a multiple of 8.
    template <class Entry, int SLICES>
    static inline __attribute__((always_inline)) void add_eights(const uint8_t *rows, const Entry *list,
                                                                 const Entry *end, T (&s)[SLICES]) {
        for (; end - list >= 32; list += 32) add32(rows, list, s);
        if (end - list >= 16) {
            ripple(s, 4, add16(rows, list, s));
            list += 16;
        }
        if (list != end) ripple(s, 3, add8(rows, list, s[0], s[1], s[2]));
    }

    // Adds the rows of a list. `zero` is the entry of a row of zeros.
    template <class Lists, class Entry, int SLICES>
    static inline void add(const uint8_t *rows, const Entry *list, size_t count, Entry zero, T (&s)[SLICES],
                           Ahead &ahead) {
        for (; count >= 32; count -= 32, list += 32) {
            ahead.some();
            add32(rows, list, s);
        }
        if (count >= 16) {
            ripple(s, 4, add16(rows, list, s));
            count -= 16;
            list += 16;
        }
        if (count == 0) return;
        alignas(64) Entry rest[16];
        Lists::tail(list, count, zero, rest);
        if (count > 8)
            ripple(s, 4, add16(rows, rest, s));
        else
            ripple(s, 3, add8(rows, rest, s[0], s[1], s[2]));
    }
};

constexpr size_t GROUP = 8;  // pixels that leave the slices together, for sums in 16 bits

template <class Finisher, class Lists>
inline size_t event_scratch(const EventsCall &e) {
    const auto lanes = static_cast<size_t>(e.lanes), outputs = static_cast<size_t>(e.chunks) * lanes;
    return finishers_size<Finisher>(outputs) + lanes * 4 + GROUP * lanes * 4 + Lists::size(e);
}

inline int bit_width(size_t value) { return value ? 64 - __builtin_clzll(value) : 0; }

// Bytes of the rows of a chunk.
inline size_t chunk_bytes(const EventsCall &e) {
    const maqd_window &w = e.conv.window;
    return (static_cast<size_t>(w.kernel_rows) * static_cast<size_t>(w.kernel_columns) *
                static_cast<size_t>(e.conv.x.channels) +
            1) *
           e.row_bytes;
}

// One output pixel, for all chunks.
template <class Entry>
struct EventPixel {
    const Entry *first[8];  // lists of the planes
    size_t count[8];
    const uint8_t *rows;  // of the first chunk, shifted so that entries fit this column
    Entry zero;
    size_t sum;  // of the inputs
};

template <class Lists>
inline EventPixel<typename Lists::Entry> event_pixel(const EventsCall &e, const Lists &lists, size_t row,
                                                     int32_t column) {
    using Entry = typename Lists::Entry;
    const maqd_window &w = e.conv.window;
    const int32_t columns = e.conv.x.columns;
    const int32_t left = column * w.stride_columns - w.padding_columns;
    const int32_t first = left < 0 ? 0 : left < columns ? left : columns;
    const int32_t end = left + w.kernel_columns;
    const int32_t last = end > columns ? columns : end < first ? first : end;
    EventPixel<Entry> p{};
    const size_t shift = static_cast<size_t>(column) * static_cast<size_t>(w.stride_columns) *
                         static_cast<size_t>(e.conv.x.channels) * e.row_bytes;
    p.rows = e.rows - shift;
    p.zero = static_cast<Entry>(shift / UNIT<Entry>);
    for (size_t plane = 0; plane < static_cast<size_t>(e.planes); plane++) {
        const uint32_t *starts = lists.starts(plane, row);
        p.first[plane] = lists.entries(plane) + starts[first];
        p.count[plane] = starts[last] - starts[first];
        p.sum += p.count[plane] << plane;
    }
    return p;
}

// Slices of the sums of one chunk.
template <class V, class Lists, int SLICES>
inline void count_chunk(const EventsCall &e, const EventPixel<typename Lists::Entry> &p, size_t offset,
                        typename V::T (&s)[SLICES], Ahead &ahead) {
#pragma GCC unroll 24
    for (int k = 0; k < SLICES; k++) s[k] = V::zero();
    for (int plane = e.planes - 1; plane >= 0; plane--) {
        // The sums so far are of a higher bit: they count twice.
#pragma GCC unroll 24
        for (int k = SLICES - 1; k > 0; k--) s[k] = s[k - 1];
        s[0] = V::zero();
        Counters<V>::template add<Lists>(p.rows + offset, p.first[plane], p.count[plane], p.zero, s, ahead);
    }
}

// Low half - high half, in two's complement.
template <class V, int SLICES>
inline void subtract_halves(const typename V::T (&slices)[SLICES], typename V::H::T (&difference)[SLICES + 1]) {
    using H = typename V::H;
    auto borrow = H::zero();
#pragma GCC unroll 24
    for (int k = 0; k < SLICES; k++) {
        const auto plus = V::low(slices[k]), minus = V::high(slices[k]);
        difference[k] = H::xor3(plus, minus, borrow);
        borrow = H::borrow(plus, minus, borrow);
    }
    difference[SLICES] = borrow;
}

// Where a value in two's complement reaches a threshold, whose planes are `planes`.
template <class H, int SLICES>
inline typename H::T reached(const typename H::T (&value)[SLICES], const uint8_t *planes, int threshold_bits) {
    static_assert(SLICES <= MAX_THRESHOLD_PLANES);
    const auto threshold = [&](int k) { return H::load(planes + static_cast<size_t>(k) * H::BYTES); };
    auto borrow = H::zero();
#pragma GCC unroll 32
    for (int k = 0; k < SLICES; k++) borrow = H::borrow(value[k], threshold(k), borrow);
    for (int k = SLICES; k < threshold_bits; k++) borrow = H::borrow(value[SLICES - 1], threshold(k), borrow);
    return H::not_xor3(value[SLICES - 1], threshold(MAX_THRESHOLD_PLANES - 1), borrow);
}

// The number of thresholds of a chunk that the values reach, as slices.
template <class H, int SLICES>
inline void count_reached(const typename H::T (&value)[SLICES], const uint8_t *planes, int threshold_bits, int levels,
                          typename H::T (&index)[3]) {
    constexpr size_t LEVEL = MAX_THRESHOLD_PLANES * H::BYTES;
    // A value that reaches a threshold reaches those before it.
    const auto level = [&](size_t k) { return reached<H>(value, planes + k * LEVEL, threshold_bits); };
    if (levels == 1) {
        index[0] = level(0);
    } else if (levels == 3) {
        index[1] = level(1);
        index[0] = H::or2(H::and_not(level(0), index[1]), level(2));
    } else {
        typename H::T all[7];
        for (int k = 0; k < 7; k++) all[k] = k < levels ? level(static_cast<size_t>(k)) : H::zero();
        const auto only = [&](int k) { return H::and_not(all[k], all[k + 1]); };
        index[0] = H::or2(H::or2(only(0), only(2)), H::or2(only(4), all[6]));
        index[1] = H::or2(H::and_not(all[1], all[3]), all[5]);
        index[2] = all[3];
    }
}

// What an instruction set adds:
//
//     struct Ops {
//         static void add_bits(int32_t *acc, const uint8_t *bits, size_t lanes, int32_t weight);
//             // acc[lane] += weight where the bit of the lane is set; lanes is a multiple of 64
//         static void store_codes(const uint8_t (*slices)[64], int bits, uint8_t *codes, size_t outputs);
//             // codes[o] = number whose bits are bit o of the slices
//         class Finisher;  // see epilogue.h
//         static void shorts(const uint8_t *slices, size_t bytes, int16_t *acc);
//             // acc[o] for o < 8 * bytes, at least 64, of 16 slices in two's complement, `bytes` bytes each
//     }

// All of it but Finisher, eight bytes at a time.
struct PlainEventOps {
    static void shorts(const uint8_t *slices, size_t bytes, int16_t *acc) {
        for (size_t byte = 0; byte < bytes; byte++, acc += 8) {
            uint64_t low = 0, high = 0;
            for (size_t k = 0; k < 8; k++) {
                low |= static_cast<uint64_t>(slices[k * bytes + byte]) << 8 * k;
                high |= static_cast<uint64_t>(slices[(k + 8) * bytes + byte]) << 8 * k;
            }
            low = transposed(low);
            high = transposed(high);
            for (size_t o = 0; o < 8; o++)
                acc[o] = static_cast<int16_t>((low >> 8 * o & 255) | (high >> 8 * o & 255) << 8);
        }
    }
    // A matrix of 8 x 8 bits, one row a byte (Warren, Hacker's Delight, 7-3).
    static inline uint64_t transposed(uint64_t x) {
        uint64_t t = (x ^ x >> 7) & 0x00aa00aa00aa00aau;
        x ^= t ^ t << 7;
        t = (x ^ x >> 14) & 0x0000cccc0000ccccu;
        x ^= t ^ t << 14;
        t = (x ^ x >> 28) & 0x00000000f0f0f0f0u;
        return x ^ t ^ t << 28;
    }
    static uint32_t *append(const uint8_t *x, size_t channels, int plane, uint32_t step, uint32_t *to) {
        uint32_t base = 0;
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

inline EventOffsets event_offsets(const EventsCall &e) {
    const size_t column = static_cast<size_t>(e.conv.x.channels) * e.row_bytes;
    return {e.row_bytes + static_cast<size_t>(e.conv.window.padding_columns) * column, column,
            static_cast<size_t>(e.conv.window.kernel_columns) * column};
}

// All output rows of a layer: counts chunk by chunk, and the epilogue.
template <class V, class Ops, class Lists>
class EventRows {
    using H = typename V::H;
    using Finisher = typename Ops::Finisher;

  public:
    EventRows(const EventsCall &events, const Finish &finish_, uint8_t *scratch)
        : e(events),
          finish(finish_),
          finishers(make_finishers<Finisher>(finish, 0, finish.outputs, scratch)),
          lanes(static_cast<size_t>(e.lanes)),
          chunk_size(chunk_bytes(e)),
          threshold_size(static_cast<size_t>(finish.levels) * MAX_THRESHOLD_PLANES * H::BYTES),
          index_bits(bit_width(static_cast<size_t>(finish.levels))),
          is_short(!e.threshold_planes && e.weight_planes == 2 && e.coefficients[0] == 1 && e.coefficients[1] == -1 &&
                   maqd::is_short(finish)),
          lists(e, event_offsets(e), scratch + event_scratch<Finisher, Lists>(e) - Lists::size(e)) {
        acc = reinterpret_cast<int32_t *>(scratch + finishers_size<Finisher>(finish.outputs));
        group_slices = reinterpret_cast<uint8_t *>(acc + lanes);
        words = reinterpret_cast<int16_t *>(group_slices + GROUP * lanes * 2);
    }

    void run(size_t first, size_t last) {
        const auto rows = static_cast<size_t>(e.conv.rows), columns = static_cast<size_t>(e.conv.columns);
        const size_t band = lists.band();
        for (size_t part = first; part < last;) {
            const size_t row = part % rows, left = rows - row < last - part ? rows - row : last - part;
            const size_t count = band < left ? band : left;
            for (size_t i = 0; i < count; i++) lists.build({part / rows, static_cast<int32_t>(row + i)}, i);
            for (size_t chunk = 0; chunk < static_cast<size_t>(e.chunks); chunk++) {
                // The latency of weights is shared by many images.
                if (part == first && last - first <= rows) ahead.ask(wanted_after(chunk));
                for (size_t i = 0; i < count; i++)
                    for (size_t column = 0; column < columns; column++)
                        one((part + i) * columns + column, i, column, chunk);
                if (waiting) finish_group((part + count) * columns, chunk);
            }
            part += count;
        }
    }

  private:
    Bytes wanted_after(size_t chunk) const {
        if (chunk + 1 == static_cast<size_t>(e.chunks)) return e.next;
        return {e.rows + (chunk + 1) * chunk_size, e.most ? chunk_size : 0};
    }

    // One chunk of a pixel, in column `column` of row `row` of the band.
    inline void one(size_t pixel, size_t row, size_t column, size_t chunk) {
        const auto p = event_pixel(e, lists, row, static_cast<int32_t>(column));
        const int bits = bit_width(p.sum);
        if (bits <= 6)
            count<6>(p, pixel, chunk);
        else if (bits <= 7)
            count<7>(p, pixel, chunk);
        else if (bits <= 8)
            count<8>(p, pixel, chunk);
        else if (bits <= 10)
            count<10>(p, pixel, chunk);
        else if (bits <= 13)
            count<13>(p, pixel, chunk);
        else
            count<MAX_SLICES>(p, pixel, chunk);
        if (is_short && ++waiting == GROUP) finish_group(pixel + 1, chunk);
    }

    // Slices stay in registers.
    template <int SLICES>
    __attribute__((noinline)) void count(const EventPixel<typename Lists::Entry> &p, size_t pixel, size_t chunk) {
        typename V::T slices[SLICES];
        count_chunk<V, Lists>(e, p, chunk * chunk_size, slices, ahead);
        const size_t output = chunk * lanes;
        const size_t outputs = finish.outputs - output < lanes ? finish.outputs - output : lanes;
        if (e.threshold_planes) {
            typename H::T value[SLICES + 1], index[3];
            subtract_halves<V>(slices, value);
            count_reached<H>(value, e.threshold_planes + chunk * threshold_size, e.threshold_bits, finish.levels,
                             index);
            alignas(64) uint8_t bytes[3][64];
            for (int k = 0; k < index_bits; k++) H::store(bytes[k], index[k]);
            Ops::store_codes(bytes, index_bits, finish.codes + pixel * finish.outputs + output, outputs);
        } else if (is_short) {
            typename H::T value[SLICES + 1];
            subtract_halves<V>(slices, value);
            uint8_t *to = group_slices + waiting * lanes * 2;
#pragma GCC unroll 16
            for (int k = 0; k < 16; k++)
                H::store(to + static_cast<size_t>(k) * H::BYTES, value[k < SLICES ? k : SLICES]);
        } else {
            expand(slices, bit_width(p.sum), p.sum);
            for (size_t o = 0; o < outputs; o += 32) finishers[(output + o) / 32].block(acc + o, lanes, pixel, 1);
        }
    }

    // Sums of one chunk as integers; slices from `bits` on are 0.
    template <int SLICES>
    inline void expand(const typename V::T (&slices)[SLICES], int bits, size_t sum) {
        const int32_t start = e.input_sum_coefficient * static_cast<int32_t>(sum);
        for (size_t lane = 0; lane < lanes; lane++) acc[lane] = start;
        alignas(64) uint8_t bytes[64];
        for (int k = 0; k < bits; k++) {
            V::store(bytes, slices[k]);
            for (int plane = 0; plane < e.weight_planes; plane++)
                Ops::add_bits(acc, bytes + static_cast<size_t>(plane) * lanes / 8, lanes,
                              e.coefficients[plane] * (1 << k));
        }
    }

    // Finishes the pending pixels, the last one before `end`. In groups: reading partial stores back at once would
    // defeat store forwarding.
    void finish_group(size_t end, size_t chunk) {
        for (size_t i = 0; i < waiting; i++) Ops::shorts(group_slices + i * lanes * 2, H::BYTES, words + i * lanes);
        const size_t first = chunk * lanes, last = finish.outputs - first < lanes ? finish.outputs : first + lanes;
        for (size_t o = first; o < last; o += 32)
            finishers[o / 32].rows(words + (o - first), lanes, end - waiting, waiting);
        waiting = 0;
    }

    const EventsCall e;  // copies: stores of bytes may alias references
    const Finish finish;
    const Finisher *const finishers;
    const size_t lanes;       // outputs of a chunk
    const size_t chunk_size;  // bytes of its rows
    const size_t threshold_size;
    const int index_bits;
    const bool is_short;
    size_t waiting = 0;
    Ahead ahead;
    int32_t *acc;
    uint8_t *group_slices;  // [GROUP][16][lanes / 8]
    int16_t *words;         // [GROUP][lanes]
    Lists lists;  // with offsets as seen from the output column 0
};

}  // namespace
}  // namespace maqd
