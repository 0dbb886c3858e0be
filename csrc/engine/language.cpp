#include "engine/language.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace maqd {

namespace {

size_t pitch_of(size_t row_bytes) { return (row_bytes + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN; }

size_t pitch_of(size_t inputs, size_t digits) { return pitch_of((inputs + digits - 1) / digits); }

// Of sums of tokens: not a multiple of pages, whose lines would share few places in the cache.
size_t stride_of(size_t outputs) { return (outputs + 15) / 16 * 16 + 16; }
size_t stride_of(const RowsMap &map) { return stride_of(map.outputs); }

int32_t *integers(Memory &memory) { return reinterpret_cast<int32_t *>(memory.data()); }
float *numbers(Memory &memory) { return reinterpret_cast<float *>(memory.data()); }

}  // namespace

Language::Language(const Isa &isa, int threads, const LanguageSizes &sizes, const RowsMap &embedding,
                   const RowsMap &head, const float *norm)
    : kernels_(isa.language),
      sizes_(sizes),
      embedding_(embedding),
      head_(head),
      norm_(norm),
      team_(threads),
      barrier_(threads),
      positions_(sizes.sequences) {
    const size_t inputs = std::max(sizes.width, sizes.hidden);
    const size_t sums = std::max({stride_of(sizes.width) + 2 * stride_of(sizes.kv_width()), 2 * stride_of(sizes.hidden),
                                  stride_of(sizes.vocabulary)});
    codes_.planes[0] = Memory(CHUNK * TRITS * pitch_of(inputs, TRITS));
    codes_.planes[1] = Memory(CHUNK * pitch_of(sizes.width, 1));
    codes_.totals = Memory(CHUNK * 4);
    codes_.exponents = Memory(CHUNK * 4);
    stream_ = Memory(CHUNK * sizes.width * 4);
    sums_ = Memory(CHUNK * sums * 4);
    mixed_ = Memory(CHUNK * sizes.width * 4);
    queries_ = Memory(CHUNK * sizes.width);
    query_units_ = Memory(CHUNK * sizes.heads * 4);
    const size_t rows =
        std::max(kernels_.rows_memory(TRITS, pitch_of(inputs, TRITS)), kernels_.rows_memory(1, pitch_of(inputs, 1)));
    const size_t own = std::max({sizes.context * 4 + 64 + sizes.head() * 8, inputs * 5, rows});
    for (int member = 0; member < threads; member++) own_.emplace_back(own);
}

void Language::add(const LanguageBlock &block) {
    blocks_.push_back(block);
    if (block.down.digits == 1) codes_.planes[1] = Memory(CHUNK * pitch_of(std::max(sizes_.width, sizes_.hidden), 1));
    const size_t rings = sizes_.sequences * sizes_.kv_heads, places = rings * sizes_.context;
    Ring ring;
    ring.keys = Memory(places * sizes_.head());
    ring.values = Memory(rings * value_rows() * sizes_.head());
    ring.key_units = Memory(places * 4);
    ring.value_units = Memory(places * 4);
    rings_.push_back(std::move(ring));
}

size_t Language::working() const {
    size_t bytes = 0;
    for (const Memory *memory : {&codes_.planes[0], &codes_.planes[1], &codes_.totals, &codes_.exponents, &stream_,
                                 &sums_, &mixed_, &queries_, &query_units_})
        bytes += memory->size();
    for (const Memory &memory : own_) bytes += memory.size();
    return bytes;
}

size_t Language::cached() const {
    size_t bytes = 0;
    for (const Ring &ring : rings_)
        bytes += ring.keys.size() + ring.values.size() + ring.key_units.size() + ring.value_units.size();
    return bytes;
}

void Language::feed(const int32_t *tokens, const int32_t *sequences, size_t count, const float *cosine,
                    const float *sine, float *scores) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t half = sizes_.head() / 2;
    for (size_t done = 0; done < count;) {
        Chunk chunk{tokens + done,
                    sequences + done,
                    0,
                    cosine + done * half,
                    sine + done * half,
                    scores + done * sizes_.vocabulary,
                    {}};
        for (; chunk.count < CHUNK && done + chunk.count < count; chunk.count++) {
            const int32_t sequence = chunk.sequences[chunk.count];
            size_t &position = positions_[static_cast<size_t>(sequence)];
            // Where a ring is full, a token takes the place of one that those before it still see.
            const int32_t *end = chunk.sequences + chunk.count;
            if (position >= sizes_.context && std::find(chunk.sequences, end, sequence) != end) break;
            chunk.positions[chunk.count] = position++;
        }
        team_.run([&](int member) { forward(member, chunk); });
        done += chunk.count;
    }
}

// Codes of a token, in the planes that maps read; `codes` has room for them.
void Language::encode(const float *x, size_t token, size_t channels, bool packed, bool bytes, int8_t *codes) {
    integers(codes_.exponents)[token] = kernels_.quantize(x, channels, sizes_.limit, sizes_.bits, codes);
    int32_t total = 0;
    if (packed) {
        const size_t pitch = pitch_of(channels, TRITS);
        auto *planes = reinterpret_cast<int8_t *>(codes_.planes[0].data()) + token * TRITS * pitch;
        total = kernels_.spread(codes, channels, pitch, planes);
    } else {
        for (size_t c = 0; c < channels; c++) total += codes[c];
    }
    if (bytes) {
        const size_t pitch = pitch_of(channels, 1);
        auto *plane = reinterpret_cast<int8_t *>(codes_.planes[1].data()) + token * pitch;
        std::memcpy(plane, codes, channels);
        std::memset(plane + channels, 0, pitch - channels);
    }
    integers(codes_.totals)[token] = total;
}

void Language::embed(size_t token, int32_t id) {
    const uint8_t *row = embedding_.weights + static_cast<size_t>(id) * embedding_.row_bytes;
    float *x = stream(token);
    const double unit = std::ldexp(1.0, sizes_.embedding_exponent);
    for (size_t c = 0; c < sizes_.width; c++) {
        int32_t index = row[c / embedding_.digits];
        for (size_t d = 0; d < c % embedding_.digits; d++) index /= 3;
        if (embedding_.digits != 1) index %= 3;
        x[c] = static_cast<float>((embedding_.low + embedding_.spacing * index) * unit);
    }
}

// This member's share of the sums of a map, [tokens][outputs] at `place`.
void Language::rows(const RowsMap &map, size_t tokens, size_t place, int member) {
    const bool bytes = map.digits == 1;
    const size_t pitch = pitch_of(map.row_bytes), shares = static_cast<size_t>(team_.members());
    const size_t step = (map.outputs / shares + 15) / 16 * 16 + 16 * (map.outputs % shares != 0 || shares == 1);
    const size_t first = std::min(map.outputs, step * static_cast<size_t>(member));
    const size_t last = std::min(map.outputs, first + step);
    const RowsCall call{map.weights,
                        map.outputs,
                        map.row_bytes,
                        map.digits,
                        reinterpret_cast<const int8_t *>(codes_.planes[bytes].data()),
                        pitch,
                        tokens,
                        integers(codes_.totals),
                        map.low,
                        map.spacing,
                        sums(place),
                        stride_of(map)};
    if (first < last) kernels_.rows(call, first, last, own_[static_cast<size_t>(member)].data());
}

// A token's sums become floats where they are, and stay until the next map's.
float *Language::scaled(const RowsMap &map, size_t token, size_t place) {
    uint8_t *from = sums_.data() + 4 * (place + token * stride_of(map));
    kernels_.scale(from, map.outputs, integers(codes_.exponents)[token] + map.exponent);
    return reinterpret_cast<float *>(from);
}

void Language::add_to_stream(const RowsMap &map, size_t token) {
    const float *y = scaled(map, token, 0);
    float *x = stream(token);
    for (size_t c = 0; c < sizes_.width; c++) x[c] = x[c] + y[c];
}

// Queries, keys and values of a token to codes; the latter two into the ring.
void Language::attend(const LanguageBlock &block, Ring &ring, const Chunk &chunk, size_t token, int8_t *codes) {
    const size_t size = sizes_.head(), half = size / 2, width = sizes_.width;
    const size_t keys = chunk.count * stride_of(block.query), values = keys + chunk.count * stride_of(block.key);
    const float *cosine = chunk.cosine + token * half, *sine = chunk.sine + token * half;
    const size_t place = chunk.positions[token] % sizes_.context;
    const size_t rings = static_cast<size_t>(chunk.sequences[token]) * sizes_.kv_heads;
    float *query = scaled(block.query, token, 0), *key = scaled(block.key, token, keys);
    const float *value = scaled(block.value, token, values);
    const auto code = [&](const float *x, int8_t *codes) {
        return std::ldexp(1.0f, kernels_.quantize(x, size, sizes_.cached_limit, sizes_.cached_bits, codes));
    };
    for (size_t h = 0; h < sizes_.heads; h++) {
        kernels_.rotate(query + h * size, size, cosine, sine);
        auto *to = reinterpret_cast<int8_t *>(queries_.data()) + token * width + h * size;
        numbers(query_units_)[token * sizes_.heads + h] = code(query + h * size, to);
    }
    for (size_t h = 0; h < sizes_.kv_heads; h++) {
        const size_t row = (rings + h) * sizes_.context + place;
        kernels_.rotate(key + h * size, size, cosine, sine);
        auto *to = reinterpret_cast<int8_t *>(ring.keys.data()) + row * size;
        numbers(ring.key_units)[row] = code(key + h * size, to);
        numbers(ring.value_units)[row] = code(value + h * size, codes);
        to = reinterpret_cast<int8_t *>(ring.values.data()) +
             ((rings + h) * value_rows() + place / GROUP * GROUP) * size;
        for (size_t i = 0; i < size; i++) to[GROUP * i + place % GROUP] = codes[i];
    }
}

// All members run this together; what is between two waits does not depend on each other.
void Language::forward(int member, const Chunk &chunk) {
    const auto members = static_cast<size_t>(team_.members()), me = static_cast<size_t>(member);
    const size_t count = chunk.count, size = sizes_.head(), width = sizes_.width, hidden = sizes_.hidden;
    float *mine = own(member);
    const auto each = [&](auto work) {
        for (size_t token = me; token < count; token += members) work(token);
        barrier_.wait();
    };
    using Maps = std::vector<const RowsMap *>;
    const auto maps = [&](const Maps &some) {
        size_t place = 0;
        for (const RowsMap *map : some) {
            rows(*map, count, place, member);
            place += count * stride_of(*map);
        }
        barrier_.wait();
    };
    const auto normed = [&](const float *x, const float *weight, size_t token, size_t channels, const Maps &next) {
        if (weight) {
            kernels_.norm(x, weight, channels, sizes_.eps, mine);
            x = mine;
        }
        bool packed = false, bytes = false;
        for (const RowsMap *map : next) (map->digits == 1 ? bytes : packed) = true;
        encode(x, token, channels, packed, bytes, reinterpret_cast<int8_t *>(mine + std::max(width, hidden)));
    };
    for (size_t b = 0; b < blocks_.size(); b++) {
        const LanguageBlock &block = blocks_[b];
        Ring &ring = rings_[b];
        each([&](size_t token) {
            if (b == 0)
                embed(token, chunk.tokens[token]);
            else
                add_to_stream(blocks_[b - 1].down, token);
            normed(stream(token), block.attention_norm, token, width, {&block.query, &block.key, &block.value});
        });
        maps({&block.query, &block.key, &block.value});
        each([&](size_t token) { attend(block, ring, chunk, token, reinterpret_cast<int8_t *>(mine)); });
        const size_t groups = sizes_.heads / sizes_.kv_heads;
        for (size_t i = me; i < count * sizes_.heads; i += members) {
            const size_t token = i / sizes_.heads, sequence = static_cast<size_t>(chunk.sequences[token]);
            const size_t ring_of = sequence * sizes_.kv_heads + i % sizes_.heads / groups;
            const size_t row = ring_of * sizes_.context;
            const size_t known = std::min(chunk.positions[token] + 1, sizes_.context);
            auto *mixed = reinterpret_cast<double *>(mine);
            kernels_.mix(reinterpret_cast<int8_t *>(queries_.data()) + i * size, numbers(query_units_)[i],
                         reinterpret_cast<int8_t *>(ring.keys.data()) + row * size, numbers(ring.key_units) + row,
                         reinterpret_cast<int8_t *>(ring.values.data()) + ring_of * value_rows() * size,
                         numbers(ring.value_units) + row, known, size, sizes_.factor, mine + 2 * size, mixed,
                         numbers(mixed_) + i * size);
        }
        barrier_.wait();
        each([&](size_t token) {
            normed(numbers(mixed_) + token * width, block.mixed_norm, token, width, {&block.output});
        });
        maps({&block.output});
        const Maps feed = sizes_.gated ? Maps{&block.gate, &block.up} : Maps{&block.up};
        each([&](size_t token) {
            add_to_stream(block.output, token);
            normed(stream(token), block.feed_norm, token, width, feed);
        });
        maps(feed);
        each([&](size_t token) {
            const float *gate = sizes_.gated ? scaled(block.gate, token, 0) : nullptr;
            const float *up = scaled(block.up, token, sizes_.gated ? count * stride_of(block.gate) : 0);
            float *to =
                reinterpret_cast<float *>(sums(token * stride_of(block.up)));  // where the gate was, or the map itself
            kernels_.gate(gate, up, hidden, to);
            normed(to, block.hidden_norm, token, hidden, {&block.down});
        });
        maps({&block.down});
    }
    each([&](size_t token) {
        add_to_stream(blocks_.back().down, token);
        normed(stream(token), norm_, token, width, {&head_});
    });
    maps({&head_});
    each([&](size_t token) {
        const float *found = scaled(head_, token, 0);
        std::memcpy(chunk.scores + token * sizes_.vocabulary, found, sizes_.vocabulary * 4);
    });
}

}  // namespace maqd
