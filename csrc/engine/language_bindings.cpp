// Language models in Python. Everything is checked in maqd/runtime/language_native.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <stdexcept>

#include "engine/language.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace maqd {

namespace {

template <class T>
using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Written = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

const float *pointer(const std::optional<Array<float>> &norm) { return norm ? norm->data() : nullptr; }

const Isa &isa_of(const std::string &name) {
    const Isa *found = find_isa(name.c_str());
    if (!found) throw std::invalid_argument("no such instruction set");
    return *found;
}

// The sums of a map for codes that are given, [tokens][inputs] -> [tokens][outputs].
void sums(const std::string &isa, const RowsMap &map, const Array<int8_t> &codes, const Written<int32_t> &found) {
    const size_t tokens = codes.shape(0);
    if (codes.ndim() != 2 || codes.shape(1) != map.inputs || found.size() != tokens * map.outputs)
        throw std::invalid_argument("codes do not fit the map");
    const size_t pitch = (map.row_bytes + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN, depth = map.digits * pitch;
    const LanguageKernels &kernels = isa_of(isa).language;
    Memory x(tokens * depth), totals(tokens * 4), memory(kernels.rows_memory(map.digits, pitch));
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < map.inputs; i++) {
            const int8_t code = codes.data()[t * map.inputs + i];
            x.data()[t * depth + i % map.digits * pitch + i / map.digits] = static_cast<uint8_t>(code);
            reinterpret_cast<int32_t *>(totals.data())[t] += code;
        }
    const RowsCall call{map.weights,
                        map.outputs,
                        map.row_bytes,
                        map.digits,
                        reinterpret_cast<const int8_t *>(x.data()),
                        pitch,
                        tokens,
                        reinterpret_cast<const int32_t *>(totals.data()),
                        map.low,
                        map.spacing,
                        found.data(),
                        map.outputs};
    kernels.rows(call, 0, map.outputs, memory.data());
}

}  // namespace

void bind_language(nb::module_ &m) {
    nb::class_<RowsMap>(m, "RowsMap")
        .def(
            "__init__",
            [](RowsMap *self, const Array<uint8_t> &weights, size_t inputs, size_t digits, int32_t low, int32_t spacing,
               int32_t exponent) {
                if (weights.ndim() != 2 || weights.shape(1) != (inputs + digits - 1) / digits)
                    throw std::invalid_argument("weights do not fit their inputs");
                new (self)
                    RowsMap{weights.data(), weights.shape(0), inputs, weights.shape(1), digits, low, spacing, exponent};
            },
            "weights"_a, "inputs"_a, "digits"_a, "low"_a, "spacing"_a, "exponent"_a);

    m.def("language_sums", &sums, "isa"_a, "map"_a, "codes"_a, "sums"_a);

    nb::class_<Language>(m, "Language")
        .def(
            "__init__",
            [](Language *self, const std::string &isa, int threads, size_t width, size_t heads, size_t kv_heads,
               size_t hidden, size_t vocabulary, size_t context, size_t sequences, int32_t limit, int32_t bits,
               int32_t cached_limit, int32_t cached_bits, int32_t embedding_exponent, double eps, float factor,
               bool gated, const RowsMap &embedding, const RowsMap &head, const Array<float> &norm) {
                const LanguageSizes sizes{width,     heads,  kv_heads, hidden,       vocabulary,  context,
                                          sequences, limit,  bits,     cached_limit, cached_bits, embedding_exponent,
                                          eps,       factor, gated};
                new (self) Language(isa_of(isa), threads, sizes, embedding, head, norm.data());
            },
            "isa"_a, "threads"_a, "width"_a, "heads"_a, "kv_heads"_a, "hidden"_a, "vocabulary"_a, "context"_a,
            "sequences"_a, "limit"_a, "bits"_a, "cached_limit"_a, "cached_bits"_a, "embedding_exponent"_a, "eps"_a,
            "factor"_a, "gated"_a, "embedding"_a, "head"_a, "norm"_a)
        .def(
            "add",
            [](Language &self, const Array<float> &attention_norm, const RowsMap &query, const RowsMap &key,
               const RowsMap &value, std::optional<Array<float>> mixed_norm, const RowsMap &output,
               const Array<float> &feed_norm, const RowsMap &gate, const RowsMap &up,
               std::optional<Array<float>> hidden_norm, const RowsMap &down) {
                self.add({attention_norm.data(), pointer(mixed_norm), feed_norm.data(), pointer(hidden_norm), query,
                          key, value, output, gate, up, down});
            },
            "attention_norm"_a, "query"_a, "key"_a, "value"_a, "mixed_norm"_a.none(), "output"_a, "feed_norm"_a,
            "gate"_a, "up"_a, "hidden_norm"_a.none(), "down"_a)
        .def("reset", &Language::reset, "sequence"_a)
        .def(
            "feed",
            [](Language &self, const Array<int32_t> &tokens, const Array<int32_t> &sequences,
               const Array<float> &cosine, const Array<float> &sine, const Written<float> &scores) {
                const LanguageSizes &sizes = self.sizes();
                const size_t count = tokens.size(), angles = count * (sizes.head() / 2);
                if (sequences.size() != count || cosine.size() != angles || sine.size() != angles ||
                    scores.size() != count * sizes.vocabulary)
                    throw std::invalid_argument("angles and scores do not fit the tokens");
                for (size_t i = 0; i < count; i++)
                    if (tokens.data()[i] < 0 || static_cast<size_t>(tokens.data()[i]) >= sizes.vocabulary)
                        throw std::invalid_argument("a token is not in the vocabulary");
                for (size_t i = 0; i < count; i++)
                    if (sequences.data()[i] < 0 || static_cast<size_t>(sequences.data()[i]) >= sizes.sequences)
                        throw std::invalid_argument("there is no such sequence");
                nb::gil_scoped_release release;
                self.feed(tokens.data(), sequences.data(), count, cosine.data(), sine.data(), scores.data());
            },
            "tokens"_a, "sequences"_a, "cosine"_a, "sine"_a, "scores"_a)
        .def("position", &Language::position, "sequence"_a)
        .def_prop_ro("working_bytes", &Language::working)
        .def_prop_ro("cache_bytes", &Language::cached);
}

}  // namespace maqd
