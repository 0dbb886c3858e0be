// A decoder of text, token by token, with codes of keys and values of several sequences in rings.
#pragma once

#include <mutex>
#include <vector>

#include "engine/memory.h"
#include "engine/threads.h"
#include "kernels/table.h"

namespace maqd {

// A map of few states; the weights belong to the caller.
struct RowsMap {
    const uint8_t *weights;  // indices of states, packed row by row
    size_t outputs, inputs, row_bytes;
    size_t digits;  // of a byte: TRITS or 1
    int32_t low, spacing, exponent;
};

struct LanguageSizes {
    size_t width, heads, kv_heads, hidden, vocabulary, context, sequences;
    int32_t limit, bits;              // of codes in front of maps
    int32_t cached_limit, cached_bits;  // of queries, keys and values
    int32_t embedding_exponent;
    double eps;
    float factor;  // of scores
    bool gated;

    size_t head() const { return width / heads; }
    size_t kv_width() const { return kv_heads * head(); }
};

// Norms belong to the caller, and may be null where there is none.
struct LanguageBlock {
    const float *attention_norm, *mixed_norm, *feed_norm, *hidden_norm;
    RowsMap query, key, value, output, gate, up, down;
};

class Language {
  public:
    Language(const Isa &isa, int threads, const LanguageSizes &sizes, const RowsMap &embedding, const RowsMap &head,
             const float *norm);
    void add(const LanguageBlock &block);
    void reset(size_t sequence) { positions_[sequence] = 0; }
    size_t position(size_t sequence) const { return positions_[sequence]; }
    const LanguageSizes &sizes() const { return sizes_; }
    // Each token goes to the end of its sequence. Scores of the token that follows each, [count][vocabulary]. Angles
    // are [count][head / 2].
    void feed(const int32_t *tokens, const int32_t *sequences, size_t count, const float *cosine, const float *sine,
              float *scores);

    // Bytes of what maps read and write, and of the ring.
    size_t working() const;
    size_t cached() const;

  private:
    static constexpr size_t CHUNK = 32;  // tokens that go through the maps together

    struct Ring {  // of a sequence after the other: keys [kv heads][context][head], values [kv heads][context /
                   // GROUP][head][GROUP], a unit each
        Memory keys, values, key_units, value_units;
    };
    // Codes of some tokens in front of maps.
    struct Codes {
        Memory planes[2], totals, exponents;  // planes of TRITS digits, and of 1
    };
    struct Chunk {
        const int32_t *tokens, *sequences;
        size_t count;
        const float *cosine, *sine;
        float *scores;
        size_t positions[CHUNK];
    };

    void forward(int member, const Chunk &chunk);
    void encode(const float *x, size_t token, size_t channels, bool packed, bool bytes, int8_t *codes);
    void embed(size_t token, int32_t id);
    void rows(const RowsMap &map, size_t tokens, size_t place, int member);
    float *scaled(const RowsMap &map, size_t token, size_t place);
    void add_to_stream(const RowsMap &map, size_t token);
    void attend(const LanguageBlock &block, Ring &ring, const Chunk &chunk, size_t token, int8_t *codes);
    size_t value_rows() const { return (sizes_.context + GROUP - 1) / GROUP * GROUP; }
    int32_t *sums(size_t place) { return reinterpret_cast<int32_t *>(sums_.data()) + place; }
    float *stream(size_t token) { return reinterpret_cast<float *>(stream_.data()) + token * sizes_.width; }
    float *own(int member) { return reinterpret_cast<float *>(own_[static_cast<size_t>(member)].data()); }

    const LanguageKernels &kernels_;
    const LanguageSizes sizes_;
    const RowsMap embedding_, head_;
    const float *norm_;
    std::vector<LanguageBlock> blocks_;
    std::vector<Ring> rings_;
    Codes codes_;
    Memory stream_, sums_, mixed_, queries_, query_units_;
    std::vector<Memory> own_;  // of each thread
    Team team_;
    Barrier barrier_;
    std::mutex mutex_;
    std::vector<size_t> positions_;  // of each sequence
};

}  // namespace maqd
