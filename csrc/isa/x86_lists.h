// Lists of the rows of weights that events fetch, with AVX-512.
#pragma once

#include <immintrin.h>

#include "kernels/event_lists.h"

namespace maqd {
namespace {

// A pixel is searched again for each output row that reads it, which takes fewer operations than copying its list. If
// FILLED, the list of each column is padded to a multiple of 8 with the row of zeros.
template <class Entry_, bool FILLED>
class LookupLists : public ListStore<Entry_> {
    using Store = ListStore<Entry_>;

  public:
    using Entry = Entry_;

    LookupLists(const EventsCall &e, EventOffsets offsets, uint8_t *memory)
        : Store(e, memory), by_(offsets), channels_(static_cast<size_t>(e.conv.x.channels)) {}

    // Whether entries have enough bits.
    static bool fits(const EventsCall &e, EventOffsets by) {
        const auto &w = e.conv.window;
        // Past the last kernel row, or the row of zeros relative to the last output column.
        const size_t rows = static_cast<size_t>(w.kernel_rows - 1) * by.row;
        const size_t beyond = static_cast<size_t>(w.padding_columns) * by.column;
        const size_t last =
            by.first + static_cast<size_t>(e.conv.x.columns) * by.column + (rows > beyond ? rows : beyond);
        return last / UNIT<Entry> <= static_cast<Entry>(-1);
    }

    // For an output row, as row `row` of the band; those before it are there.
    void build(EventRow place, size_t row) {
        const KernelRows seen = kernel_rows(this->e_.conv, place.row);
        const auto dilation = this->e_.conv.window.dilation_rows;
        const size_t top = seen.first < seen.last ? static_cast<size_t>(seen.top + seen.first * dilation) : 0;
        const size_t line = this->columns_ * channels_, next = static_cast<size_t>(dilation) * line;
        const uint8_t *x = this->e_.x + place.image * this->e_.image_size + top * line;
        for (size_t plane = 0; plane < Store::planes(this->e_); plane++)
            channels_ % 64 ? find<false>(plane, x, next, seen, row) : find<true>(plane, x, next, seen, row);
    }

    // The last entries of a list, padded to 16.
    static void tail(const Entry *list, size_t count, Entry zero, Entry *to) {
        const auto here = static_cast<__mmask16>((1u << count) - 1);
        if constexpr (sizeof(Entry) == 2)
            _mm256_store_si256(reinterpret_cast<__m256i *>(to),
                               _mm256_mask_loadu_epi16(_mm256_set1_epi16(static_cast<int16_t>(zero)), here, list));
        else
            _mm512_store_si512(to, _mm512_mask_loadu_epi32(_mm512_set1_epi32(static_cast<int>(zero)), here, list));
    }

  private:
    static constexpr size_t WIDTH = 64 / sizeof(Entry);  // entries of a vector

    static inline __m512i all(size_t bytes) {
        const size_t value = bytes / UNIT<Entry>;
        if constexpr (sizeof(Entry) == 2)
            return _mm512_set1_epi16(static_cast<int16_t>(value));
        else
            return _mm512_set1_epi32(static_cast<int32_t>(value));
    }
    static inline __m512i add(__m512i a, __m512i b) {
        return sizeof(Entry) == 2 ? _mm512_add_epi16(a, b) : _mm512_add_epi32(a, b);
    }
    // Stores entries FIRST .. FIRST + WIDTH - 1.
    template <size_t FIRST>
    static inline void put(__m512i numbers, __m512i step, __m512i base, Entry *to) {
        if constexpr (sizeof(Entry) == 2)
            numbers = _mm512_mullo_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(numbers, FIRST / 32)), step);
        else
            numbers = _mm512_mullo_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(numbers, FIRST / 16)), step);
        _mm512_storeu_si512(to + FIRST, add(numbers, base));
    }

    // WHOLE if channels are a multiple of 64.
    template <bool WHOLE>
    void find(size_t plane, const uint8_t *x, size_t next, KernelRows seen, size_t row) {
        const size_t columns = this->columns_, channels = channels_;
        const __m512i bit = _mm512_set1_epi8(static_cast<char>(1 << plane));
        const __m512i step = all(this->e_.row_bytes), many = all(64 * this->e_.row_bytes);
        const __m512i by_row = all(by_.row), by_column = all(by_.column);
        __m512i first = all(by_.first + static_cast<size_t>(seen.first) * by_.row);
        Entry *const begin = this->entries(plane);
        uint32_t *const starts = this->starts(plane, row);
        Entry *to = begin + (row ? starts[0] : 0);
        for (size_t column = 0; column < columns; column++, x += channels) {
            Entry *const start = to;
            starts[column] = static_cast<uint32_t>(start - begin);
            const uint8_t *pixel = x;
            __m512i kernel_row = first;
            for (int32_t i = seen.first; i < seen.last; i++, pixel += next) {
                __m512i base = kernel_row;
                for (size_t c = 0; c < channels; c += 64) {
                    to = append<WHOLE>(pixel + c, channels - c, bit, step, base, to);
                    base = add(base, many);
                }
                kernel_row = add(kernel_row, by_row);
            }
            first = add(first, by_column);
            if (FILLED) {
                _mm512_storeu_si512(to, _mm512_setzero_si512());
                to = start + (static_cast<size_t>(to - start) + Store::FILL - 1) / Store::FILL * Store::FILL;
            }
        }
        starts[columns] = static_cast<uint32_t>(to - begin);
    }

    template <bool WHOLE>
    static inline Entry *append(const uint8_t *x, size_t count, __m512i bit, __m512i step, __m512i base, Entry *to) {
        const __m512i numbers =
            _mm512_set_epi8(63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41,
                            40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18,
                            17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i pixel = _mm512_loadu_si512(x);
        const __mmask64 set = WHOLE || count >= 64
                                  ? _mm512_test_epi8_mask(pixel, bit)
                                  : _mm512_mask_test_epi8_mask((__mmask64{1} << count) - 1, pixel, bit);
        const __m512i found = _mm512_maskz_compress_epi8(set, numbers);
        const auto many = static_cast<size_t>(__builtin_popcountll(set));
        put<0>(found, step, base, to);
        if (many > WIDTH) {
            put<WIDTH>(found, step, base, to);
            if constexpr (WIDTH < 32) {
                if (many > 2 * WIDTH) {
                    put<2 * WIDTH>(found, step, base, to);
                    put<3 * WIDTH>(found, step, base, to);
                }
            }
        }
        return to + many;
    }

    const EventOffsets by_;
    const size_t channels_;
};

}  // namespace
}  // namespace maqd
