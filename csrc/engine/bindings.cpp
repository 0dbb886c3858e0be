// The engine in Python: maqd._native. Everything is planned and checked in maqd/runtime/native.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>

#include "engine/model.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace maqd {

void bind_language(nb::module_ &m);  // language_bindings.cpp

namespace {

template <class T>
using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Input = nb::ndarray<nb::c_contig, nb::ro, nb::device::cpu>;
using Output = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;

struct Pair {
    int32_t rows, columns;
};

Pair pair(const std::vector<int32_t> &values) {
    if (values.size() != 2) throw std::invalid_argument("expected rows and columns");
    return {values[0], values[1]};
}

maqd_window window(const std::vector<int32_t> &kernel, const std::vector<int32_t> &stride,
                   const std::vector<int32_t> &padding, const std::vector<int32_t> &dilation) {
    const Pair k = pair(kernel), s = pair(stride), p = pair(padding), d = pair(dilation);
    return {k.rows, k.columns, s.rows, s.columns, p.rows, p.columns, d.rows, d.columns};
}

Quantization quantization(const Array<int32_t> &thresholds, const Array<int8_t> &signs, int32_t spacing, int32_t base) {
    if (thresholds.ndim() != 2 || signs.ndim() != 1 || thresholds.shape(1) != signs.shape(0))
        throw std::invalid_argument("expected thresholds of shape levels x channels and a sign a channel");
    return {{thresholds.data(), thresholds.data() + thresholds.size()},
            {signs.data(), signs.data() + signs.size()},
            static_cast<int32_t>(thresholds.shape(0)),
            spacing,
            base};
}

// What a call reads and writes, checked; `count` becomes the number of samples.
Model::Arrays arrays_of(const Model &model, const std::vector<Input> &inputs, const std::vector<bool> &channels_last,
                        const std::vector<Output> &outputs, size_t &count) {
    const auto &x = model.inputs(), &y = model.outputs();
    if (inputs.size() != x.size() || channels_last.size() != x.size() || outputs.size() != y.size())
        throw std::invalid_argument("arrays do not fit the model's inputs and outputs");
    Model::Arrays arrays;
    count = inputs[0].size() / x[0].elements();
    for (size_t i = 0; i < x.size(); i++) {
        if (inputs[i].size() != count * x[i].elements() || inputs[i].itemsize() != maqd_element_size(x[i].element))
            throw std::invalid_argument("an array does not fit its input");
        arrays.inputs.push_back({static_cast<const uint8_t *>(inputs[i].data()), channels_last[i]});
    }
    for (size_t i = 0; i < y.size(); i++) {
        if (outputs[i].size() != count * y[i].elements())
            throw std::invalid_argument("an array does not fit its output");
        arrays.outputs.push_back(outputs[i].data());
    }
    return arrays;
}

void add_conv(Model &model, Buffer x, const Array<uint8_t> &weight, int count, int low, int spacing, int digits,
              int group_bytes, size_t inputs, std::optional<Array<int32_t>> bias, const std::vector<int32_t> &kernel,
              const std::vector<int32_t> &stride, const std::vector<int32_t> &padding,
              const std::vector<int32_t> &dilation, int32_t groups, int32_t shift, std::optional<Buffer> addend,
              int32_t addend_shift, int32_t reach, std::optional<Buffer> raw, std::optional<Buffer> codes,
              std::optional<Array<int32_t>> thresholds, std::optional<Array<int8_t>> signs, int32_t step,
              int32_t base) {
    ConvOptions o{};
    o.x = x;
    o.window = window(kernel, stride, padding, dilation);
    const auto taps = static_cast<size_t>(o.window.kernel_rows) * static_cast<size_t>(o.window.kernel_columns);
    o.weights = {weight.data(), weight.shape(1), count,           low,    spacing,
                 digits,        group_bytes,     weight.shape(0), inputs, taps};
    if (bias) o.bias.assign(bias->data(), bias->data() + bias->size());
    o.groups = groups;
    o.shift = shift;
    o.addend_shift = addend_shift;
    o.reach = reach;
    if (addend) o.addend.push_back(*addend);
    if (raw) o.raw.push_back(*raw);
    if (codes) o.codes.push_back(*codes);
    if (thresholds && signs) o.quantization = quantization(*thresholds, *signs, step, base);
    if (o.codes.empty() != !thresholds || (o.raw.empty() && o.codes.empty()))
        throw std::invalid_argument("expected an output, and thresholds if and only if it has codes");
    model.conv(o);
}

}  // namespace
}  // namespace maqd

NB_MODULE(_native, m) {
    using namespace maqd;
    nb::set_leak_warnings(false);

    m.def("isas", [] {
        std::vector<std::string> names;
        for (const char *const *name = isa_names(); *name; name++) names.emplace_back(*name);
        return names;
    });

    bind_language(m);

    nb::class_<Buffer>(m, "Buffer")
        .def(
            "__init__",
            [](Buffer *self, size_t offset, size_t stage, int32_t rows, int32_t columns, int32_t channels, int element,
               int32_t zero, int32_t highest) {
                new (self)
                    Buffer{offset, stage, rows, columns, channels, static_cast<maqd_element>(element), zero, highest};
            },
            "offset"_a, "stage"_a, "rows"_a, "columns"_a, "channels"_a, "element"_a, "zero"_a, "highest"_a);

    nb::enum_<Kernel>(m, "Kernel")
        .value("AUTOMATIC", Kernel::automatic)
        .value("SCALAR", Kernel::scalar)
        .value("DENSE", Kernel::dense)
        .value("WINOGRAD", Kernel::winograd)
        .value("EVENTS", Kernel::events);

    nb::class_<Stage>(m, "Stage")
        .def(
            "__init__",
            [](Stage *self, size_t bytes, size_t images, size_t steps) { new (self) Stage{bytes, images, steps}; },
            "bytes"_a, "images"_a, "steps"_a);

    nb::class_<Model>(m, "Model")
        .def(
            "__init__",
            [](Model *self, const std::string &isa, Kernel kernel, int threads, std::vector<Buffer> inputs,
               std::vector<Buffer> outputs, std::vector<Stage> stages) {
                const Isa *found = find_isa(isa.c_str());
                if (!found) throw std::invalid_argument("no such instruction set");
                new (self) Model(*found, kernel, threads, std::move(inputs), std::move(outputs), std::move(stages));
            },
            "isa"_a, "kernel"_a, "threads"_a, "inputs"_a, "outputs"_a, "stages"_a)
        .def("conv", &add_conv, "x"_a, "weight"_a, "count"_a, "low"_a, "spacing"_a, "digits"_a, "group_bytes"_a,
             "inputs"_a, "bias"_a.none(), "kernel"_a, "stride"_a, "padding"_a, "dilation"_a, "groups"_a, "shift"_a,
             "addend"_a.none(), "addend_shift"_a, "reach"_a, "raw"_a.none(), "codes"_a.none(), "thresholds"_a.none(),
             "signs"_a.none(), "step"_a, "base"_a)
        .def(
            "quantize",
            [](Model &model, Buffer x, Buffer y, Array<int32_t> thresholds, Array<int8_t> signs, int32_t step,
               int32_t base, size_t outer, size_t channels, size_t inner) {
                model.quantize(x, y, quantization(thresholds, signs, step, base), outer, channels, inner);
            },
            "x"_a, "y"_a, "thresholds"_a, "signs"_a, "step"_a, "base"_a, "outer"_a, "channels"_a, "inner"_a)
        .def(
            "fixed_point",
            [](Model &model, Buffer x, Buffer y, Array<int64_t> a, Array<int64_t> b, int32_t shift, int32_t last,
               int32_t spacing, int32_t base, size_t outer, size_t inner) {
                FixedPoint map{
                    {a.data(), a.data() + a.size()}, {b.data(), b.data() + b.size()}, shift, last, spacing, base};
                model.fixed_point(x, y, std::move(map), outer, inner);
            },
            "x"_a, "y"_a, "a"_a, "b"_a, "shift"_a, "last"_a, "spacing"_a, "base"_a, "outer"_a, "inner"_a)
        .def(
            "pool",
            [](Model &model, Buffer x, Buffer y, bool maximum, const std::vector<int32_t> &kernel,
               const std::vector<int32_t> &stride, const std::vector<int32_t> &padding) {
                model.pool(x, y, maximum, window(kernel, stride, padding, {1, 1}));
            },
            "x"_a, "y"_a, "maximum"_a, "kernel"_a, "stride"_a, "padding"_a)
        .def("sum", &Model::sum, "x"_a, "y"_a)
        .def("add", &Model::add, "x"_a, "shifts"_a, "y"_a)
        .def("concat", &Model::concat, "x"_a, "shifts"_a, "lengths"_a, "outer"_a, "y"_a)
        .def("transpose", &Model::transpose, "x"_a, "y"_a, "height"_a, "width"_a)
        .def(
            "move",
            [](Model &model, Buffer x, Buffer y, const std::vector<Array<int32_t>> &tables, int32_t fill) {
                std::vector<std::vector<int32_t>> copies;
                for (const auto &table : tables) copies.emplace_back(table.data(), table.data() + table.size());
                model.move(x, y, std::move(copies), fill);
            },
            "x"_a, "y"_a, "tables"_a, "fill"_a)
        .def("multiply", &Model::multiply, "a"_a, "b"_a, "y"_a)
        .def(
            "run",
            [](const Model &model, const std::vector<Input> &inputs, const std::vector<bool> &channels_last,
               const std::vector<Output> &outputs) {
                size_t count;
                const auto arrays = arrays_of(model, inputs, channels_last, outputs, count);
                nb::gil_scoped_release release;
                model.run(arrays, count);
            },
            "inputs"_a, "channels_last"_a, "outputs"_a)
        .def(
            "profile",
            [](const Model &model, const std::vector<Input> &inputs, const std::vector<bool> &channels_last,
               const std::vector<Output> &outputs) {
                size_t count;
                const auto arrays = arrays_of(model, inputs, channels_last, outputs, count);
                std::vector<StepProfile> profile;
                {
                    nb::gil_scoped_release release;
                    model.inspect(arrays, count, &profile, {});
                }
                nb::list found;
                for (const StepProfile &step : profile)
                    found.append(nb::make_tuple(step.seconds, step.density, step.kernel));
                return found;
            },
            "inputs"_a, "channels_last"_a, "outputs"_a)
        .def(
            "inspect",
            [](const Model &model, const std::vector<Input> &inputs, const std::vector<bool> &channels_last,
               const std::vector<Output> &outputs, const std::vector<Buffer> &buffers,
               const std::vector<Output> &values) {
                size_t count;
                const auto arrays = arrays_of(model, inputs, channels_last, outputs, count);
                std::vector<Model::Copy> copies;
                for (size_t i = 0; i < buffers.size(); i++) {
                    if (values.at(i).size() != count * buffers[i].elements())
                        throw std::invalid_argument("an array does not fit its buffer");
                    copies.push_back({buffers[i], values[i].data()});
                }
                nb::gil_scoped_release release;
                model.inspect(arrays, count, nullptr, copies);
            },
            "inputs"_a, "channels_last"_a, "outputs"_a, "buffers"_a, "values"_a)
        .def_prop_ro("isa", [](const Model &model) { return std::string(model.isa().name); })
        .def_prop_ro("threads", &Model::threads)
        .def_prop_ro("first_images", [](const Model &model) { return model.stages().front().images; })
        .def_prop_ro("constant_bytes", &Model::constants)
        .def_prop_ro("working_bytes", &Model::working);
}
