// Lists of the rows of weights that events fetch.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags.
#pragma once

#include <cstring>

#include "kernels/window.h"

namespace maqd {
namespace {

struct EventRow {
    size_t image;
    int32_t row;
};

// The place of a row of weights, in bytes from the row of zeros of its chunk:
// first + input column * column + kernel row * row + channel * EventsCall::row_bytes.
struct EventOffsets {
    size_t first, column, row;
};

// Entries of 16 bits are in units of 8 bytes, which costs nothing where addresses can scale a register.
template <class Entry>
constexpr size_t UNIT = sizeof(Entry) == 2 ? 8 : 1;

// The lists of a band of output rows: for each plane of the input, output row by output row, column by column. An entry
// is the offset of a row of weights.
template <class Entry>
class ListStore {
  public:
    ListStore(const EventsCall &e, uint8_t *memory)
        : e_(e),
          columns_(columns(e)),
          band_(band(e)),
          stride_(stride(e)),
          entries_(reinterpret_cast<Entry *>(memory)),
          starts_(reinterpret_cast<uint32_t *>(memory + planes(e) * stride(e) * sizeof(Entry))) {}

    static size_t size(const EventsCall &e) {
        return planes(e) * (stride(e) * sizeof(Entry) + rounded((band(e) * columns(e) + 1) * sizeof(uint32_t)));
    }

    // Capacity in output rows.
    size_t band() const { return band_; }
    Entry *entries(size_t plane) const { return entries_ + plane * stride_; }
    // Where the entries of each column of a row of the band begin, and the last ones end.
    uint32_t *starts(size_t plane, size_t row) const {
        return starts_ + plane * (band_ * columns_ + 1) + row * columns_;
    }

  protected:
    static constexpr size_t FILL = 8;    // lists of a column may be padded to a multiple of it
    static constexpr size_t SPILL = 64;  // entries that may be written past a list

    static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }
    static size_t planes(const EventsCall &e) { return static_cast<size_t>(e.planes); }
    static size_t columns(const EventsCall &e) { return static_cast<size_t>(e.conv.x.columns); }
    static size_t rows(const EventsCall &e) { return static_cast<size_t>(e.conv.window.kernel_rows); }

    const EventsCall e_;
    const size_t columns_;

  private:
    static constexpr size_t BAND_BYTES = 1 << 18;

    // Entries of an output row at most, in a plane.
    static size_t most(const EventsCall &e) {
        return columns(e) * (rows(e) * static_cast<size_t>(e.conv.x.channels) + FILL);
    }
    static size_t stride(const EventsCall &e) { return (band(e) * most(e) + 2 * SPILL - 1) / SPILL * SPILL; }
    // One output row if there is one chunk of outputs; otherwise as many as leave their lists in a near cache until the
    // next chunk reads them.
    static size_t band(const EventsCall &e) {
        const size_t bytes = planes(e) * most(e) * sizeof(Entry);
        const size_t room = bytes < BAND_BYTES ? BAND_BYTES / bytes : 1, all = static_cast<size_t>(e.conv.rows);
        return e.chunks == 1 ? 1 : room < all ? room : all;
    }

    const size_t band_, stride_;
    Entry *const entries_;    // [planes] lists, `stride_` apart
    uint32_t *const starts_;  // [planes][rows of the band x columns + 1]
};

// Neighbouring output rows read the same pixels, so the set bits of a pixel are listed once, for kernel row 0. `Ops`
// has
//
//     static uint32_t *append(const uint8_t *x, size_t channels, int plane, uint32_t step, uint32_t *to);
//         // appends c * step for every channel c whose bit `plane` is set; may write past the end, up to as many
//         // entries as there are channels, rounded up to a multiple of 64
template <class Ops>
class EventLists : public ListStore<uint32_t> {
    using Store = ListStore<uint32_t>;

  public:
    using Entry = uint32_t;

    EventLists(const EventsCall &e, EventOffsets offsets, uint8_t *memory)
        : Store(e, memory), by_(offsets), capacity_(capacity(e)), slots_(slots(e)) {
        const Layout at = layout(e);
        found_ = reinterpret_cast<uint32_t *>(memory + Store::size(e));
        counts_ = reinterpret_cast<uint32_t *>(memory + at.counts);
        held_ = reinterpret_cast<uint32_t *>(memory + at.held);
        seen_ = reinterpret_cast<size_t *>(memory + at.seen);
    }

    static size_t size(const EventsCall &e) { return layout(e).end; }

    // For an output row, as row `row` of the band; those before it are there.
    void build(EventRow place, size_t row) {
        if (place.image + 1 != image_) std::memset(held_, 0, slots_ * sizeof(*held_));
        image_ = place.image + 1;
        const KernelRows seen = kernel_rows(e_.conv, place.row);
        const uint8_t *x = e_.x + place.image * e_.image_size;
        for (int32_t i = seen.first; i < seen.last; i++)
            seen_[i] = find(x, seen.top + i * e_.conv.window.dilation_rows);
        for (size_t plane = 0; plane < planes(e_); plane++) join(plane, seen.first, seen.last, row);
    }

    // The last entries of a list, padded to 16.
    static void tail(const uint32_t *list, size_t count, uint32_t zero, uint32_t *to) {
        for (size_t i = 0; i < 16; i++) to[i] = i < count ? list[i] : zero;
    }

  private:
    struct Layout {
        size_t counts, held, seen, end;
    };

    // Input rows whose lists are kept: as many as an output row spans.
    static size_t slots(const EventsCall &e) {
        return (rows(e) - 1) * static_cast<size_t>(e.conv.window.dilation_rows) + 1;
    }
    static size_t capacity(const EventsCall &e) { return (static_cast<size_t>(e.conv.x.channels) + 63) / 64 * 64; }
    static Layout layout(const EventsCall &e) {
        const size_t lists = slots(e) * columns(e) * planes(e);
        size_t at = Store::size(e);
        const auto after = [&](size_t bytes) { return at += rounded(bytes); };
        Layout made{};
        made.counts = after(lists * capacity(e) * sizeof(uint32_t));
        made.held = after(lists * sizeof(uint32_t));
        made.seen = after(slots(e) * sizeof(uint32_t));
        made.end = after(rows(e) * sizeof(size_t));
        return made;
    }

    // Makes the lists of the pixels of an input row unless they exist; returns the index of the first one.
    size_t find(const uint8_t *x, int32_t row) {
        const size_t slot = static_cast<size_t>(row) % slots_, channels = static_cast<size_t>(e_.conv.x.channels);
        const size_t first = slot * columns_ * planes(e_);
        if (held_[slot] == static_cast<uint32_t>(row) + 1) return first;
        held_[slot] = static_cast<uint32_t>(row) + 1;
        x += static_cast<size_t>(row) * columns_ * channels;
        uint32_t *to = found_ + first * capacity_;
        uint32_t *count = counts_ + first;
        const auto step = static_cast<uint32_t>(e_.row_bytes);
        const size_t capacity = capacity_;
        for (int plane = 0; plane < e_.planes; plane++)
            for (size_t column = 0; column < columns_; column++, to += capacity)
                *count++ = static_cast<uint32_t>(Ops::append(x + column * channels, channels, plane, step, to) - to);
        return first;
    }

    // One plane of the output row, from the lists of its pixels.
    void join(size_t plane, int32_t first, int32_t last, size_t row) {
        const size_t columns = columns_, capacity = capacity_, *seen = seen_;
        const uint32_t *found = found_;
        const uint32_t *counts = counts_;
        const EventOffsets by = by_;
        uint32_t *const begin = entries(plane), *const starts = this->starts(plane, row);
        uint32_t *to = begin + (row ? starts[0] : 0);
        for (size_t column = 0; column < columns; column++) {
            starts[column] = static_cast<uint32_t>(to - begin);
            size_t more = by.first + column * by.column + static_cast<size_t>(first) * by.row;
            for (int32_t i = first; i < last; i++, more += by.row) {
                const size_t list = seen[i] + plane * columns + column, count = counts[list];
                const uint32_t *from = found + list * capacity;
                for (size_t k = 0; k < count; k += PIECE) copy(from + k, static_cast<uint32_t>(more), to + k);
                to += count;
            }
        }
        starts[columns] = static_cast<uint32_t>(to - begin);
    }

    static constexpr size_t PIECE = 32;

    // In loops of fixed length, which compilers vectorize.
    static inline void copy(const uint32_t *__restrict from, uint32_t more, uint32_t *__restrict to) {
        for (size_t k = 0; k < PIECE; k++) to[k] = from[k] + more;
    }

    const EventOffsets by_;
    const size_t capacity_, slots_;
    size_t image_ = 0;  // which image `held_` belongs to, + 1
    uint32_t *found_;   // [slots][planes][columns] lists, `capacity` apart
    uint32_t *counts_;  // of these
    uint32_t *held_;    // [slots] which input row is there, + 1, or 0
    size_t *seen_;      // [kernel rows] first lists of the input rows that the output row sees
};

}  // namespace
}  // namespace maqd
