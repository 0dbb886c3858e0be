"""The functions of a program: one for each step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ExportError
from maqd.export.c99.program import (
    TRITS,
    Codes,
    EventConv,
    Operation,
    Pass,
    PlainConv,
    Program,
    Strategy,
    channel_thresholds,
    step_of,
    turned_signs,
)
from maqd.export.c99.tables import Tables
from maqd.plan import (
    AddStep,
    ConcatStep,
    PoolStep,
    Quantization,
    QuantizeStep,
    SumStep,
    TransposeStep,
)

FUSED_LEVELS = 3
"""Most thresholds that are compared in code for each output apart."""

ELEMENTS = {8: "MAQD_U8", 16: "MAQD_I16", 32: "MAQD_I32"}
TYPES = {8: "uint8_t", 16: "int16_t", 32: "int32_t"}


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A tensor that programs compiled with MAQD_TRACE pass to `<prefix>_trace`.

    Args:
        name: Of the graph's tensor.
        flips: What to multiply its channels by.
        bias: What to add then.
    """

    name: str
    flips: NDArray[np.int8] | None = None
    bias: NDArray[np.int32] | None = None

    def as_computed(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The graph's tensor, N x channels x .., as the program has it."""
        if self.bias is not None:
            values = values - _column(self.bias, values)
        return values if self.flips is None else values * _column(self.flips, values)

    def as_in_graph(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse."""
        if self.flips is not None:
            values = values * _column(self.flips, values)
        return values if self.bias is None else values + _column(self.bias, values)


def _column(channels: NDArray[np.signedinteger], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each channel, which is dimension 1."""
    return channels.astype(np.int64).reshape(-1, *[1] * (values.ndim - 2))


@dataclass(frozen=True, kw_only=True)
class PixelActivation:
    """How sums become codes.

    Args:
        quantization: As the plan has it.
        thresholds: int64, channels x levels, on the sums as they are; None if the fixed-point map is used.
        signs: int8, channels, what sums are multiplied by before, or None.
        reach: No |sum| is larger.
    """

    quantization: Quantization
    thresholds: NDArray[np.int64] | None
    signs: NDArray[np.int8] | None
    reach: int


@dataclass(frozen=True, kw_only=True)
class Fused:
    """An activation that passes compute themselves.

    Args:
        codes: Where its result goes.
        thresholds: int64, outputs x levels.
    """

    codes: Codes
    thresholds: NDArray[np.int64]

    def arguments(self, index: int, done: int, part: Pass) -> str:
        """What a pass needs to know: thresholds, word and bit of its first output."""
        first = f"({done} + p * {part.outputs})" if len(part.data) > 1 else str(done)
        pixel = f"(maqd_word *)codes + (row * {self.codes.columns} + column) * {self.codes.pixel_bytes // 4}"
        return (
            f",\n                thresholds{index} + {first} * {self.thresholds.shape[1]}, "
            f"{pixel} + {first} * {self.codes.bits} / 32, {first} * {self.codes.bits} % 32"
        )


class Layers:
    """Writes functions, and remembers what they need.

    Args:
        program: Whose steps they are.
        prefix: Of names that are visible outside.
    """

    def __init__(self, program: Program, prefix: str) -> None:
        self.program = program
        self.prefix = prefix
        self.tables = Tables()
        self.shared: dict[str, str] = {}
        self.traced: list[Traced] = []
        if any(isinstance(one, EventConv) and one.rows.trits for one in program.operations):
            self.tables.add("trits", "uint16_t", TRITS)
        self.functions = [self.function(index, operation) for index, operation in enumerate(program.operations)]

    @property
    def sharing(self) -> bool:
        """Whether layers of the same kind share code."""
        return self.program.strategy is Strategy.SIZE

    def function(self, index: int, operation: Operation) -> str:
        """The function of an operation."""
        links = step_of(operation).links
        shapes = " -> ".join(
            " and ".join(f"{b.rows} x {b.columns} x {b.channels}" for b in side)
            for side in (links.inputs, links.outputs)
        )
        match operation:
            case EventConv():
                lines = self.events(index, operation)
            case PlainConv():
                lines = self.convolution(index, operation)
            case QuantizeStep():
                lines = self.activation(index, operation)
            case PoolStep() | SumStep():
                lines = self.pooling(index, operation)
            case AddStep():
                lines = self.addition(index, operation)
            case ConcatStep():
                lines = self.concatenation(index, operation)
            case TransposeStep():
                lines = self.transposition(operation)
        body = "\n".join([*lines, *self.trace(operation), "    (void)image;"])
        return (
            f"/* {', '.join(links.nodes) or 'reorder'}: {shapes} */\n"
            f"static void layer{index}(const uint8_t *image, maqd_word *arena) {{\n{body}\n}}"
        )

    # ---- pieces -----------------------------------------------------------------------------------------------------

    def at(self, codes: Codes) -> str:
        """Where a tensor begins."""
        return "(const void *)image" if codes.offset is None else f"(void *)(arena + {codes.offset // 4})"

    def read(self, codes: Codes, offset: str) -> str:
        """Pointer to an element of a tensor."""
        return f"(const {TYPES[codes.bits]} *){self.at(codes)} + {offset}"

    def write(self, codes: Codes, offset: str) -> str:
        """Pointer to an element of a tensor that is written."""
        return f"({TYPES[codes.bits]} *){self.at(codes)} + {offset}"

    def narrow(self, codes: Codes, count: int, to: str) -> str:
        """Stores sums as elements of a tensor."""
        return f"maqd_narrow(sums, {count}, {element(codes)}, {to});"

    def sums(self, index: int) -> str:
        """Declaration of an operation's scratch memory."""
        return f"    int32_t *const sums = (int32_t *)(void *)(arena + {self.program.scratch[index] // 4});"

    def share(self, name: str, text: str) -> str:
        """A function beside those of the layers."""
        self.shared[name] = text
        return name

    def trace(self, operation: Operation) -> list[str]:
        """Passes on the graph's tensors that the operation has stored."""
        plan, lines = self.program.plan, []
        written = {buffer.storage for buffer in step_of(operation).links.outputs}
        for name, (buffer, _) in plan.tensors.items():
            if buffer.storage not in written or buffer.storage == plan.input.storage:
                continue
            codes = self.program.stored(buffer)
            lines += [
                "    {",
                f"        static const maqd_codes traced = {codes_struct(codes)};",
                f"        trace_codes({len(self.traced)}, &traced, {self.at(codes)});",
                "    }",
            ]
            self.traced.append(Traced(name=name))
        return ["#ifdef MAQD_TRACE", *lines, "#endif"] if lines else []

    # ---- convolutions -----------------------------------------------------------------------------------------------

    def events(self, index: int, conv: EventConv) -> list[str]:
        step, rows = conv.step, conv.rows
        x, out = self.program.stored(step.links.inputs[0]), step.links.outputs[0]
        outputs, _, high, wide = step.weight.shape
        states = step.weight.states
        if conv.whole:  # the pixels in a row, one after the other
            seen = f"{{1, {x.pixels}, {x.channels}, {x.bits}, {x.zero}}}"
            window = (1, 1, 1, 1, 0, 0, 1, 1)
        else:
            seen = codes_struct(x)
            window = (high, wide, *step.stride, *step.padding, *step.dilation)
        geometry = (seen, *window, states.low, states.spacing)
        self.tables.declare(
            f"static const maqd_events g{index} = {brackets((*geometry, rows.capacity, rows.largest))};"
        )
        fused = self.fused(conv)
        if fused is not None:
            _, width = self.tables.narrowest(f"thresholds{index}", fused.thresholds, (16, 32))
            settings = (fused.thresholds.shape[1], int(width == 32), fused.codes.bits, 1, 0)
            self.tables.declare(f"static const maqd_steps s{index} = {brackets(settings)};")
        tables = [
            self.tables.add(f"weights{index}{letter}", f"uint{8 * element_bytes(conv, part)}_t", weights(conv, part))
            for letter, part in zip("ab", conv.passes, strict=False)
        ]
        lines = [
            f"    const void *const x = {self.at(x)};",
            self.sums(index),
            f"    maqd_list lists[{conv.lists}];",
            *([] if fused is None else [f"    void *const codes = {self.at(fused.codes)};"]),
        ]
        if conv.whole:
            return [
                *lines,
                f"    lists[0].first = (uint16_t *)(void *)(sums + {outputs});",
                f"    for (int32_t o = 0; o < {outputs}; o++) sums[o] = 0;",
                f"    for (int32_t j = 0; j < {x.pixels}; j++) {{",
                f"        {self.kernel('gather', index, conv)}x, 0, j, lists);",
                "        if (lists[0].last == lists[0].first) continue;",
                *self.passes(index, conv, tables, "0"),
                "    }",
                *self.finish(index, conv, "    ", "0"),
            ]
        return [
            *lines,
            "    int32_t slot = 0;",
            f"    for (int32_t i = 0; i < {conv.lists}; i++)",
            f"        lists[i].first = (uint16_t *)(void *)(sums + {outputs}) + i * {conv.list_bytes // 2};",
            f"    for (int32_t row = 0; row < {out.rows}; row++)",
            f"        for (int32_t column = 0; column < {out.columns}; column++) {{",
            f"            {self.kernel('slide', index, conv)}x, row, column, lists, &slot);",
            *("    " + line for line in self.passes(index, conv, tables, "slot")),
            *self.finish(index, conv, "            ", f"(row * {out.columns} + column)"),
            "        }",
        ]

    def kernel(self, what: str, index: int, conv: EventConv) -> str:
        """A call up to its first argument of gather or slide, which layers with the same inputs can share."""
        rows = rows_struct(conv)
        if not self.sharing:
            return f"maqd_{what}(&g{index}, &(const maqd_rows){rows}, "
        bits = self.program.stored(conv.step.links.inputs[0]).bits
        name = f"{what}_{bits}_{int(conv.rows.ones)}"
        more = ", int32_t *slot" if what == "slide" else ""
        self.share(
            name,
            f"MAQD_SHARED void {name}(const maqd_events *g, const void *x, int32_t row, int32_t column,\n"
            f"        maqd_list *lists"
            f"{more}) {{\n    static const maqd_rows w = {rows};\n"
            f"    maqd_{what}(g, &w, x, row, column, lists{', slot' if more else ''});\n}}",
        )
        return f"{name}(&g{index}, "

    def passes(self, index: int, conv: EventConv, tables: list[str], slot: str) -> list[str]:
        """Calls of all passes. They are functions of their own: the fewer variables, the more stay in registers."""
        lines, done, fused = [], 0, self.fused(conv)
        for name, part in zip(tables, conv.passes, strict=True):
            count, _, column_rows, size = part.data.shape
            each = element_bytes(conv, part)
            step = part.data[0].size // each
            sums, weights = f"sums + {done}", name
            if count > 1:
                sums, weights = f"{sums} + p * {part.outputs}", f"{weights} + p * {step}"
                lines.append(f"        for (int32_t p = 0; p < {count}; p++)")
            if conv.whole:
                weights += f" + j * {column_rows * size // each}"
            call = f"{self.pass_function(index, conv, part)}lists, {slot}, {weights}, {sums}"
            if fused is not None:
                call += fused.arguments(index, done, part)
            lines.append(f"        {'    ' if count > 1 else ''}{call});")
            done += count * part.outputs
        return lines

    def pass_function(self, index: int, conv: EventConv, part: Pass) -> str:
        """A call of a pass up to its first argument."""
        rows, columns = conv.rows, 1 if conv.whole else conv.step.weight.shape[3]
        column_bytes, accumulate = part.data.shape[2] * part.bytes, int(conv.whole)
        form = f"{rows.bits}_{rows.lane}_{int(rows.ones)}_{int(rows.trits)}_{part.bytes}_{part.outputs}_{accumulate}"
        name = f"pass_{form}" if self.sharing else f"pass{index}_{part.outputs}"
        variables = "const maqd_events *g, int32_t columns, ptrdiff_t column_bytes, " if self.sharing else ""
        g, wide, step = ("g", "columns", "column_bytes") if self.sharing else (f"&g{index}", columns, column_bytes)
        store = f"maqd_events_store({g}, &w, &s, {part.outputs}, {accumulate}, y);"
        more, lines = "", []
        if rows.lane == 16 and not accumulate:
            lines.append(f"for (int32_t o = 0; o < {part.outputs}; o++) y[o] = 0;")
        lines.append(
            f"maqd_events_pass({g}, &w, lists, slot, {wide}, weights, {part.bytes}, {step}, {part.outputs}, y, &s);"
        )
        if self.fused(conv) is None:
            lines.append(store)
        else:
            more = ",\n        const void *thresholds, maqd_word *codes, int32_t shift"
            lines.append(f"maqd_events_codes({g}, &w, &s, {part.outputs}, y, &s{index}, thresholds, codes, shift);")
            lines += ["#ifdef MAQD_TRACE", store, "#else", "(void)y;", "#endif"]
        body = "\n".join(line if line.startswith("#") else f"    {line}" for line in lines)
        self.share(
            name,
            f"MAQD_SHARED void {name}({variables}const maqd_list *lists, int32_t slot,\n"
            f"        const void *weights, int32_t *y{more}) {{\n"
            f"    static const maqd_rows w = {rows_struct(conv)};\n    maqd_sums s;\n{body}\n}}",
        )
        return f"{name}(&g{index}, {columns}, {column_bytes}, " if self.sharing else f"{name}("

    def fused(self, conv: EventConv) -> Fused | None:
        """The activation, if passes compute the codes of their sums, with code for each output apart."""
        step, thresholds = conv.step, conv.thresholds
        if (
            self.program.strategy is not Strategy.FAST
            or step.codes is None
            or thresholds is None
            or thresholds.shape[1] > FUSED_LEVELS
            or any(one is not None for one in (step.raw, conv.bias, conv.signs))
            or len(step.links.inputs) > 1
            or conv.whole
        ):
            return None
        codes = self.program.stored(step.codes)
        return Fused(codes=codes, thresholds=thresholds) if codes.packed else None

    def finish(self, index: int, conv: EventConv | PlainConv, indent: str, pixel: str) -> list[str]:
        """What follows the sums of a pixel: bias, addend, storing, activation."""
        step, stored = conv.step, self.program.stored
        outputs, lines = step.weight.shape[0], []
        if conv.bias is not None and isinstance(conv, EventConv):
            bias = self.tables.add(f"bias{index}", "int32_t", conv.bias)
            lines.append(f"for (int32_t o = 0; o < {outputs}; o++) sums[o] += {bias}[o];")
        if len(step.links.inputs) > 1:
            addend = stored(step.links.inputs[1])
            lines += [
                f"maqd_add_shifted(sums, {step.shift}, {self.read(addend, f'{pixel} * {outputs}')},",
                f"                 {element(addend)}, {step.addend_shift}, {outputs});",
            ]
        if step.raw is not None:
            raw = stored(step.raw)
            lines.append(self.narrow(raw, outputs, self.write(raw, f"{pixel} * {outputs}")))
        else:
            lines += ["#ifdef MAQD_TRACE", f"{self.prefix}_trace({len(self.traced)}, sums, {outputs});", "#endif"]
            folded = step.bias if conv.bias is None else None
            self.traced.append(Traced(name=step.links.nodes[-2], flips=conv.flips, bias=folded))
        fused = self.fused(conv) if isinstance(conv, EventConv) else None
        if step.codes is not None and step.quantization is not None and fused is None:
            codes = stored(step.codes)
            how = PixelActivation(
                quantization=step.quantization, thresholds=conv.thresholds, signs=conv.signs, reach=step.reach
            )
            to = f"(uint8_t *){self.at(codes)} + {pixel} * {codes.pixel_bytes}"
            lines += self.pixel_activation(index, how, codes, to)
        return [line if line.startswith("#") else indent + line for line in lines]

    def pixel_activation(self, index: int, how: PixelActivation, codes: Codes, to: str) -> list[str]:
        """Codes of the sums of a pixel."""
        quantization = how.quantization
        form = (codes.bits, quantization.spacing, quantization.base)
        if quantization.affine is not None:
            affine = quantization.affine
            a, a_bits = self.tables.narrowest(f"multipliers{index}", affine.multiplier, (16, 32, 64))
            b, b_bits = self.tables.narrowest(f"offsets{index}", affine.offset, (32, 64))
            if a_bits == 64:
                raise ExportError(
                    f"layer {index}: a fixed-point multiplier does not fit 32 bits; lower with --affine thresholds"
                )
            reach = int(np.abs(affine.multiplier).max()) * how.reach + int(np.abs(affine.offset).max())
            settings = (affine.shift, len(quantization.thresholds), a_bits, b_bits, int(reach >= 2**31), *form)
            return [
                f"{{ static const maqd_affine f = {brackets(settings)};",
                f"  maqd_affine_pixel(&f, sums, {codes.channels}, {a}, {b}, {to}); }}",
            ]
        if how.thresholds is None:
            raise ExportError(f"layer {index}: an activation needs thresholds or a fixed-point map")
        name, width = self.tables.narrowest(f"thresholds{index}", how.thresholds, (16, 32))
        signs = "NULL" if how.signs is None else self.tables.add(f"signs{index}", "int8_t", how.signs)
        settings = (how.thresholds.shape[1], int(width == 32), *form)
        if self.sharing:
            shared = f"steps_{'_'.join(str(value).replace('-', 'm') for value in settings)}"
            self.share(
                shared,
                f"MAQD_SHARED void {shared}(const int32_t *x, int32_t channels, const void *thresholds,\n"
                f"        const int8_t *signs, void *y) {{\n"
                f"    static const maqd_steps s = {brackets(settings)};\n"
                "    maqd_quantize_pixel(&s, x, channels, thresholds, signs, y);\n}",
            )
            return [f"{shared}(sums, {codes.channels}, {name}, {signs}, {to});"]
        return [
            f"{{ static const maqd_steps s = {brackets(settings)};",
            f"  maqd_quantize_pixel(&s, sums, {codes.channels}, {name}, {signs}, {to}); }}",
        ]

    def convolution(self, index: int, conv: PlainConv) -> list[str]:
        step = conv.step
        x, out = self.program.stored(step.links.inputs[0]), step.links.outputs[0]
        codes = step.weight.unpack()
        outputs, inputs, high, wide = codes.shape
        # O x I/g x rows x columns to rows x columns x groups x I/g x O/g
        grouped = codes.reshape(step.groups, outputs // step.groups, inputs, high, wide).transpose(3, 4, 0, 2, 1)
        kind, suffix = ("int8_t", "") if codes.dtype == np.int8 else ("int16_t", "_wide")
        weights = self.tables.add(f"weights{index}", kind, np.ascontiguousarray(grouped))
        bias = "NULL" if step.bias is None else self.tables.add(f"bias{index}", "int32_t", step.bias)
        window = brackets((high, wide, *step.stride, *step.padding, *step.dilation))
        settings = brackets((tensor_struct(x), out.rows, out.columns, outputs, step.groups, window))
        return [
            f"    static const maqd_conv conv = {settings};",
            f"    int32_t *const row_sums = (int32_t *)(void *)(arena + {self.program.scratch[index] // 4});",
            f"    for (int32_t row = 0; row < {out.rows}; row++) {{",
            f"        maqd_conv_row{suffix}(&conv, {self.at(x)}, {weights}, {bias}, row, row_sums);",
            f"        for (int32_t column = 0; column < {out.columns}; column++) {{",
            f"            int32_t *const sums = row_sums + column * {outputs};",
            *self.finish(index, conv, "            ", f"(row * {out.columns} + column)"),
            "        }",
            "    }",
        ]

    # ---- other steps ------------------------------------------------------------------------------------------------

    def activation(self, index: int, step: QuantizeStep) -> list[str]:
        x, y = (self.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
        axis, q = step.axis, step.quantization
        length = axis.channels * axis.inner
        lines = [
            self.sums(index),
            f"    for (int32_t i = 0; i < {axis.outer}; i++) {{",
            f"        maqd_widen({self.read(x, f'i * {length}')}, {element(x)}, {length}, sums);",
        ]
        if axis.inner == 1 and y.bits <= 8:
            interval = self.program.graph.types[self.program.graph[step.links.nodes[0]].inputs[0]].interval
            how = PixelActivation(
                quantization=q,
                thresholds=channel_thresholds(q),
                signs=turned_signs(q),
                reach=max(-interval.lowest, interval.highest),
            )
            pixel = Codes(rows=1, columns=1, channels=length, bits=y.bits, zero=0, offset=y.offset)
            to = f"(uint8_t *){self.at(y)} + i * {pixel.pixel_bytes}"
            lines += ["        " + line for line in self.pixel_activation(index, how, pixel, to)]
        else:
            thresholds = self.tables.add(f"thresholds{index}", "int32_t", q.thresholds)
            signs = self.tables.add(f"signs{index}", "int8_t", q.signs)
            lines += [
                f"        uint8_t *const indices = (uint8_t *)(sums + {length});",
                f"        maqd_quantize(sums, 1, {axis.channels}, {axis.inner}, {thresholds}, {signs}, "
                f"{len(q.thresholds)}, 1, 0, indices);",
                f"        for (int32_t k = 0; k < {length}; k++)",
                f"            sums[k] = {q.base - y.zero} + {q.spacing} * indices[k];",
                f"        {self.narrow(y, length, self.write(y, f'i * {length}'))}",
            ]
        return [*lines, "    }"]

    def pooling(self, index: int, step: PoolStep | SumStep) -> list[str]:
        x, y = (self.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
        if isinstance(step, SumStep):
            kernel, stride, padding, maximum = (x.rows, x.columns), (1, 1), (0, 0), False
        else:
            kernel, stride, padding, maximum = step.kernel, step.stride, step.padding, step.maximum
        if x.packed:
            numbers = ", ".join(map(str, (y.rows, y.columns, *kernel, *stride, *padding)))
            return [
                f"    static const maqd_codes x = {codes_struct(x)};",
                f"    maqd_max_pool_fields(&x, {self.at(x)}, {numbers}, {self.at(y)});",
            ]
        row = y.columns * y.channels
        to = self.write(y, f"row * {row}")
        lines = [
            *([] if maximum else [self.sums(index)]),
            f"    static const maqd_tensor x = {tensor_struct(x)};",
            f"    static const maqd_window window = {brackets((*kernel, *stride, *padding, 1, 1))};",
            f"    for (int32_t row = 0; row < {y.rows}; row++) {{",
        ]
        if maximum:
            lines.append(f"        maqd_max_pool_row(&x, &window, {self.at(x)}, {y.columns}, row, {to});")
        else:
            lines += [
                f"        maqd_sum_pool_row(&x, &window, {self.at(x)}, {y.columns}, row, sums);",
                f"        {self.narrow(y, row, to)}",
            ]
        return [*lines, "    }"]

    def addition(self, index: int, step: AddStep) -> list[str]:
        y = self.program.stored(step.links.outputs[0])
        row = y.columns * y.channels
        lines = [
            self.sums(index),
            f"    for (int32_t row = 0; row < {y.rows}; row++) {{",
            f"        for (int32_t i = 0; i < {row}; i++) sums[i] = 0;",
        ]
        for buffer, shift in zip(step.links.inputs, step.shifts, strict=True):
            x = self.program.stored(buffer)
            at = self.read(x, f"row * {row}")
            lines.append(f"        maqd_add_shifted(sums, 0, {at}, {element(x)}, {shift}, {row});")
        return [*lines, f"        {self.narrow(y, row, self.write(y, f'row * {row}'))}", "    }"]

    def concatenation(self, index: int, step: ConcatStep) -> list[str]:
        y = self.program.stored(step.links.outputs[0])
        lengths = [axis.channels * axis.inner for axis in step.axes]
        lines = [
            self.sums(index),
            f"    {TYPES[y.bits]} *to = {self.at(y)};",
            f"    for (int32_t i = 0; i < {step.axes[0].outer}; i++) {{",
        ]
        for buffer, shift, length in zip(step.links.inputs, step.shifts, lengths, strict=True):
            x = self.program.stored(buffer)
            at = self.read(x, f"i * {length}")
            lines += [
                f"        for (int32_t k = 0; k < {length}; k++) sums[k] = 0;",
                f"        maqd_add_shifted(sums, 0, {at}, {element(x)}, {shift}, {length});",
                f"        {self.narrow(y, length, 'to')}",
                f"        to += {length};",
            ]
        return [*lines, "    }"]

    def transposition(self, step: TransposeStep) -> list[str]:
        x, y = (self.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
        return [f"    maqd_transpose({self.at(x)}, {step.height}, {step.width}, {x.bits // 8}, {self.at(y)});"]


def brackets(values: tuple[object, ...]) -> str:
    """An initializer."""
    return "{" + ", ".join(str(value) for value in values) + "}"


def element(codes: Codes) -> str:
    """Two arguments: how integers that are not packed are stored, and which one stands for 0."""
    return f"{ELEMENTS[codes.bits]}, {codes.zero}"


def codes_struct(codes: Codes) -> str:
    """A maqd_codes."""
    return brackets((codes.rows, codes.columns, codes.channels, codes.bits, codes.zero))


def tensor_struct(codes: Codes) -> str:
    """A maqd_tensor."""
    return brackets((codes.rows, codes.columns, codes.channels, ELEMENTS[codes.bits], codes.zero))


def rows_struct(conv: EventConv) -> str:
    """A maqd_rows."""
    rows = conv.rows
    return brackets((rows.bits, rows.lane, int(rows.ones), "trits" if rows.trits else "NULL"))


def element_bytes(conv: EventConv, part: Pass) -> int:
    """Rows of weights are words if they are whole ones, else bytes."""
    return 1 if conv.rows.trits or part.bytes % 4 else 4


def weights(conv: EventConv, part: Pass) -> NDArray[np.integer]:
    """Rows of weights as a table's elements."""
    return part.data if element_bytes(conv, part) == 1 else part.data.view("<u4").astype(np.uint32)
