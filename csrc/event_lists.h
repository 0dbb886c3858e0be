// Lists of the rows of weights that events fetch.
//
// Included by the files of instruction sets, each of which compiles its own copy with its own flags. `Ops` has
//
//     static uint32_t *append(const uint8_t *x, size_t channels, int plane, uint32_t step, uint32_t *to);
//         // appends c * step for every channel c whose bit `plane` is set; may write more, but no more entries than there
//         // are channels, rounded up to a multiple of 64
#pragma once

#include <cstring>

#include "isa.h"

namespace maqd {
namespace {

struct EventRow {
    size_t image;
    int32_t row;
};

// The input row that kernel row 0 sees, or would see, and the kernel rows first .. last - 1 that see one.
struct KernelRows {
    int32_t top, first, last;
};

inline KernelRows kernel_rows(const Events &e, int32_t row) {
    const maqd_window &w = e.conv.window;
    const int32_t top = row * w.stride_rows - w.padding_rows;
    int32_t first = 0, last = w.kernel_rows;
    while (first < last && top + first * w.dilation_rows < 0) first++;
    while (first < last && top + (last - 1) * w.dilation_rows >= e.conv.x.rows) last--;
    return {top, first, last};
}

// How offsets of rows of weights are made: channel * Events::row_bytes + kernel row * row + first + input column * column.
struct EventOffsets {
    size_t row, first, column;
};

// The rows that the input pixels of a band of output rows fetch: for each plane of the input, output row by output row,
// column by column. An entry is the offset of a row in a chunk. Neighbouring output rows see the same pixels, so what these
// have is looked up once, for kernel row 0.
class EventLists {
  public:
    EventLists(const Events &e, EventOffsets offsets, uint8_t *memory)
        : e_(e),
          by_(offsets),
          columns_(columns(e)),
          capacity_(capacity(e)),
          stride_(stride(e)),
          slots_(slots(e)),
          band_(band(e)) {
        const Layout at = layout(e);
        entries_ = reinterpret_cast<uint32_t *>(memory);
        found_ = reinterpret_cast<uint32_t *>(memory + at.found);
        starts_ = reinterpret_cast<uint32_t *>(memory + at.starts);
        counts_ = reinterpret_cast<uint32_t *>(memory + at.counts);
        held_ = reinterpret_cast<uint32_t *>(memory + at.held);
        seen_ = reinterpret_cast<size_t *>(memory + at.seen);
    }

    static size_t size(const Events &e) { return layout(e).end; }

    // Output rows that it has room for.
    size_t band() const { return band_; }
    const uint32_t *entries(size_t plane) const { return entries_ + plane * stride_; }
    // Where the part of each column of a row of the band begins, and the last one ends.
    const uint32_t *starts(size_t plane, size_t row) const { return starts_ + plane * (band_ * columns_ + 1) + row * columns_; }

    // For an output row, as row `row` of the band; those before it are there.
    template <class Ops>
    void build(EventRow place, size_t row) {
        if (place.image + 1 != image_) std::memset(held_, 0, slots_ * sizeof(*held_));
        image_ = place.image + 1;
        const KernelRows seen = kernel_rows(e_, place.row);
        const uint8_t *x = e_.x + place.image * e_.image_size;
        for (int32_t i = seen.first; i < seen.last; i++)
            seen_[i] = find<Ops>(x, seen.top + i * e_.conv.window.dilation_rows);
        const auto planes = static_cast<size_t>(e_.planes);
        for (size_t plane = 0; plane < planes; plane++)
            join(plane, seen.first, seen.last, row);
    }

  private:
    struct Layout {
        size_t found, starts, counts, held, seen, end;
    };

    static size_t columns(const Events &e) { return static_cast<size_t>(e.conv.x.columns); }
    static size_t rows(const Events &e) { return static_cast<size_t>(e.conv.window.kernel_rows); }
    // Input rows that are remembered: as many as an output row spans.
    static size_t slots(const Events &e) { return (rows(e) - 1) * static_cast<size_t>(e.conv.window.dilation_rows) + 1; }
    static size_t capacity(const Events &e) { return (static_cast<size_t>(e.conv.x.channels) + 63) / 64 * 64; }
    // One output row is enough where there is only one chunk of outputs; otherwise so many that their lists are still near
    // when the next chunk needs them.
    static size_t band(const Events &e) {
        const size_t bytes = static_cast<size_t>(e.planes) * most(e) * sizeof(uint32_t);
        const size_t rows = bytes < BAND_BYTES ? BAND_BYTES / bytes : 1, all = static_cast<size_t>(e.conv.rows);
        return e.chunks == 1 ? 1 : rows < all ? rows : all;
    }
    // Entries of an output row at most, in a plane.
    static size_t most(const Events &e) { return columns(e) * rows(e) * static_cast<size_t>(e.conv.x.channels); }
    static size_t stride(const Events &e) { return band(e) * most(e) + PIECE; }
    static Layout layout(const Events &e) {
        const auto planes = static_cast<size_t>(e.planes);
        const size_t lists = slots(e) * columns(e) * planes;
        size_t at = 0;
        const auto behind = [&](size_t bytes) { return at += (bytes + 63) / 64 * 64; };
        Layout made{};
        made.found = behind(planes * stride(e) * sizeof(uint32_t));
        made.starts = behind(lists * capacity(e) * sizeof(uint32_t));
        made.counts = behind(planes * (band(e) * columns(e) + 1) * 4);
        made.held = behind(lists * 4);
        made.seen = behind(slots(e) * 4);
        made.end = behind(rows(e) * sizeof(size_t));
        return made;
    }

    // Makes sure that the lists of the pixels of an input row are there; returns the number of the first one.
    template <class Ops>
    size_t find(const uint8_t *x, int32_t row) {
        const size_t slot = static_cast<size_t>(row) % slots_, channels = static_cast<size_t>(e_.conv.x.channels);
        const size_t first = slot * columns_ * static_cast<size_t>(e_.planes);
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
        uint32_t *const begin = entries_ + plane * stride_;
        uint32_t *const starts = starts_ + plane * (band_ * columns + 1) + row * columns;
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

    static constexpr size_t PIECE = 32, BAND_BYTES = 1 << 18;

    // In loops of fixed length, which compilers turn into vectors.
    static inline void copy(const uint32_t *from, uint32_t more, uint32_t *to) {
        uint32_t piece[PIECE];
        for (size_t k = 0; k < PIECE; k++) piece[k] = from[k] + more;
        std::memcpy(to, piece, sizeof(piece));
    }

    const Events e_;
    const EventOffsets by_;
    const size_t columns_, capacity_, stride_, slots_, band_;
    size_t image_ = 0;  // the one that `held_` is about, + 1
    uint32_t *entries_;  // [planes] lists, `stride` apart
    uint32_t *starts_;   // [planes][rows of the band x columns + 1]
    uint32_t *found_;    // [slots][planes][columns] lists, `capacity` apart
    uint32_t *counts_;   // of these
    uint32_t *held_;     // [slots] which input row is there, + 1, or 0
    size_t *seen_;       // [kernel rows] first lists of the input rows that the output row sees
};

}  // namespace
}  // namespace maqd
