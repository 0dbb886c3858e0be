"""Text of convolutions: by events, and with the plain kernels."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.activations import PixelActivation, pixel_activation
from maqd.export.c99.operations import Codes, EventConv, FieldConv, Pass, PlainConv, Unturned
from maqd.export.c99.program import Strategy
from maqd.export.c99.text import TYPES, Body, Traced, Writer, brackets, codes_struct, element, tensor_struct
from maqd.numerics.fixedpoint import clip_thresholds

FUSED_LEVELS = 3
"""Most thresholds that are compared in code for each output apart."""

SMALL = 16
"""Layers whose share of the work is less than one in this many have no code of their own."""

OPEN = 24
"""Inputs of a window from which on masks are saved."""

PAIRED_LEVELS, PAIRED = 7, 2**14 - 1
"""Most thresholds that are compared for two outputs at once, and what no magnitude of a sum may reach for that."""


@dataclass(frozen=True, kw_only=True)
class Fused:
    """An activation that passes compute themselves.

    Args:
        codes: Where its result goes.
        addend: What is added before, or None.
        thresholds: int64, outputs x levels.
        paired: Whether two outputs are compared at once (`maqd_events_pairs`).
    """

    codes: Codes
    thresholds: NDArray[np.int64]
    addend: Codes | None
    paired: bool

    @property
    def levels(self) -> int:
        """Thresholds of an output."""
        return self.thresholds.shape[1]

    @property
    def table(self) -> NDArray[np.int64]:
        """Thresholds in the order in which passes read them: pairs of outputs that lie 8 apart in 16, if paired."""
        if not self.paired:
            return self.thresholds
        # No sum of an output that there is not is above 0.
        padded = np.pad(self.thresholds, ((0, -len(self.thresholds) % 16), (0, 0)), constant_values=1)
        low, high = np.split(padded.reshape(-1, 2, 8, self.levels), 2, axis=1)
        pairs = (low + (high << 16))[:, 0] % 2**32  # 16 outputs x 8 x levels
        return pairs.reshape(-1, 2, 4, self.levels).swapaxes(1, 2).reshape(-1, self.levels)  # registers x halves

    def arguments(self, index: int, done: int, part: Pass) -> str:
        """What a pass needs to know: thresholds, word (and bit) of its first output; where the addend is."""
        first = f"({done} + p * {part.outputs})" if len(part.data) > 1 else str(done)
        pixel = f"(maqd_word *)codes + {_pixel(self.codes)} * {self.codes.pixel_bytes // 4}"
        pixel += f" + {first} * {self.codes.bits} / 32"
        if not self.paired:
            pixel += f", {first} * {self.codes.bits} % 32"
        more = ""
        if self.addend is not None and self.addend.packed:
            more = f", addend + {_pixel(self.addend)} * {self.addend.pixel_bytes // 4}"
            more += f" + {first} * {self.addend.bits} / 32"
        elif self.addend is not None:
            more = f", addend + {_pixel(self.addend)} * {self.addend.channels} + {first}"
        table = f"thresholds{index} + {first} * {self.levels}{' / 2' if self.paired else ''}"
        return f",\n                {table}, {pixel}{more}"


def _pixel(codes: Codes) -> str:
    """Which of the pixels of a tensor the one at `row` and `column` is."""
    return f"({codes.at('row')} * {codes.columns} + column)"


def events(w: Writer, index: int, conv: EventConv) -> Body | list[str]:
    step = conv.step
    x, out = w.program.stored(step.links.inputs[0]), step.links.outputs[0]
    outputs = step.weight.shape[0]
    fused = _fused_activation(w, conv)
    if fused is not None and fused.paired:
        w.tables.add(f"thresholds{index}", "uint32_t", fused.table)
    elif fused is not None:
        w.tables.narrowest(f"thresholds{index}", fused.table, (16, 32))
    tables = [
        w.tables.add(f"weights{index}{letter}", f"uint{8 * element_bytes(conv, part)}_t", weights(conv, part))
        for letter, part in zip("ab", conv.passes, strict=False)
    ]
    lines = [
        f"    const void *const x = {w.at(x)};",
        w.sums(index),
        f"    maqd_list lists[{conv.lists}];",
        *([] if fused is None else [f"    void *const codes = {w.at(fused.codes)};"]),
        *([] if fused is None or fused.addend is None else [_addend(w, fused.addend)]),
    ]
    if conv.whole:
        return [
            *lines,
            f"    lists[0].first = (uint16_t *)(void *)(sums + {conv.held});",
            f"    for (int32_t o = 0; o < {outputs}; o++) sums[o] = 0;",
            f"    for (int32_t j = 0; j < {x.pixels}; j++) {{",
            f"        {_kernel(w, 'gather', index, conv)}x, 0, j, lists);",
            "        if (lists[0].last == lists[0].first) continue;",
            *_passes(w, index, conv, tables, "0"),
            "    }",
            *finish(w, index, conv, "    "),
        ]
    return Body(
        start=[
            *lines,
            "    int32_t slot = 0;",
            f"    for (int32_t i = 0; i < {conv.lists}; i++)",
            f"        lists[i].first = (uint16_t *)(void *)(sums + {conv.held}) + i * {conv.list_bytes // 2};",
        ],
        rows=out.rows,
        row=[
            f"    for (int32_t column = 0; column < {out.columns}; column++) {{",
            f"        {_kernel(w, 'slide', index, conv)}x, row, column, lists, &slot);",
            *_passes(w, index, conv, tables, "slot"),
            *([] if conv.direct else finish(w, index, conv, "        ")),
            "    }",
        ],
    )


def _addend(w: Writer, addend: Codes) -> str:
    """Declaration of what is added."""
    kind = "maqd_word" if addend.packed else TYPES[addend.bits]
    return f"    const {kind} *const addend = {w.at(addend)};"


def fields(w: Writer, index: int, conv: FieldConv) -> list[str]:
    """A dense layer on the whole image, eight outputs at a time."""
    step = conv.step
    x, states = w.program.stored(step.links.inputs[0]), step.weight.states
    codes = step.weight.unpack().astype(np.int64)
    outputs, inputs = len(codes), codes[0].size
    codes = codes.transpose(0, 2, 3, 1).reshape(outputs, inputs)
    indices = np.zeros((8 * conv.passes, inputs), np.int64)
    indices[:outputs] = (codes - states.low) // states.spacing
    words = (indices.reshape(conv.passes, 8, inputs) << 4 * np.arange(8)[:, None]).sum(1)
    offsets = (0 if step.bias is None else step.bias) - x.zero * codes.sum(1)
    weights = w.tables.add(f"weights{index}", "uint32_t", words)
    added, _ = w.tables.narrowest(f"constants{index}", offsets, (16, 32))
    chunk = (2**16 - 1) // (255 * (states.count - 1))
    return [
        w.sums(index),
        "    int32_t total = 0;",
        f"    for (int32_t i = 0; i < {inputs}; i++) total += {x.caller}[i];",
        f"    for (int32_t p = 0; p < {conv.passes}; p++)",
        f"        maqd_fields_pass({x.caller}, {inputs}, {chunk}, {weights} + p * {inputs}, sums + p * 8);",
        f"    for (int32_t o = 0; o < {outputs}; o++)",
        f"        sums[o] = {states.spacing} * sums[o] + {states.low} * total + {added}[o];",
        *finish(w, index, conv, "    "),
    ]


def _geometry(w: Writer, index: int, conv: EventConv) -> str:
    """The name of a layer's maqd_events."""
    return w.constant("maqd_events", f"events{index}", _events_struct(w, conv))


def _events_struct(w: Writer, conv: EventConv) -> str:
    """A maqd_events."""
    step, rows = conv.step, conv.rows
    x, states, (_, _, high, wide) = w.program.stored(step.links.inputs[0]), step.weight.states, step.weight.shape
    seen, window = codes_struct(x), (high, wide, *step.stride, *step.padding, *step.dilation)
    if conv.whole:  # the pixels in a row, one after the other
        seen = codes_struct(replace(x, rows=1, columns=x.pixels, kept=1))
        window = (1, 1, 1, 1, 0, 0, 1, 1)
    return brackets((seen, *window, states.low, states.spacing, rows.capacity, rows.largest))


def _steps(w: Writer, index: int, fused: Fused) -> str:
    """The name of a fused activation's maqd_steps."""
    wide = fused.thresholds.min() < -(2**15) or fused.thresholds.max() >= 2**15
    settings = (fused.thresholds.shape[1], int(wide), fused.codes.bits, 1, 0)
    return w.constant("maqd_steps", f"steps{index}", brackets(settings))


def _repeated(w: Writer, conv: EventConv) -> bool:
    """Whether another layer has the same form, so that a function for both saves code."""
    mine = _events_struct(w, conv)
    return sum(isinstance(one, EventConv) and _events_struct(w, one) == mine for one in w.program.operations) > 1


def _kernel(w: Writer, what: str, index: int, conv: EventConv) -> str:
    """A call up to its first argument of gather or slide, which layers with the same inputs can share."""
    rows, g = rows_struct(w, conv), _geometry(w, index, conv)
    if not w.sharing and not _repeated(w, conv):
        return f"maqd_{what}(&{g}, &{w.constant('maqd_rows', f'rows{index}', rows)}, "
    more = ", int32_t *slot" if what == "slide" else ""
    bits = w.program.stored(conv.step.links.inputs[0]).bits
    variable, used, name = "const maqd_events *g, ", "g", f"{what}_{bits}_{int(conv.rows.ones)}_{conv.unit}"
    if not w.sharing:
        variable, used, name = "", f"&{g}", f"{what}{index}"
    name = w.share(
        name,
        f"MAQD_SHARED void {name}({variable}const void *x, int32_t row, int32_t column,\n"
        f"        maqd_list *lists{more}) {{\n    static const maqd_rows w = {rows};\n"
        f"    maqd_{what}({used}, &w, x, row, column, lists{', slot' if more else ''});\n}}",
    )
    return f"{name}(&{g}, " if w.sharing else f"{name}("


def _passes(w: Writer, index: int, conv: EventConv, tables: list[str], slot: str) -> list[str]:
    """Calls of all passes. They are functions of their own: the fewer variables, the more stay in registers."""
    lines, done, fused = [], 0, _fused_activation(w, conv)
    outputs, raw = conv.step.weight.shape[0], conv.step.raw
    bias = None
    if conv.direct and conv.bias is not None:
        bias = w.tables.add(f"bias{index}", "int32_t", conv.bias)
    for name, part in zip(tables, conv.passes, strict=True):
        count, _, column_rows, size = part.data.shape
        each = element_bytes(conv, part)
        step = part.data[0].size // each
        first, weights = str(done), name
        if count > 1:
            first, weights = f"{done} + p * {part.outputs}", f"{weights} + p * {step}"
            lines.append(f"        for (int32_t p = 0; p < {count}; p++)")
        if conv.whole:
            weights += f" + j * {column_rows * size // each}"
        y = f"sums + {first}"
        if conv.direct and raw is not None:
            stored = w.program.stored(raw)
            y = w.write(stored, f"{_pixel(stored)} * {outputs} + {first}")
        call = f"{_pass_function(w, index, conv, part)}lists, {slot}, {weights}, {y}"
        if conv.direct:
            call += ", NULL" if bias is None else f", {bias} + {first}"
        if fused is not None:
            call += fused.arguments(index, done, part)
        lines.append(f"        {'    ' if count > 1 else ''}{call});")
        done += count * part.outputs
    return lines


def _small(w: Writer, conv: EventConv) -> bool:
    """Whether a layer is a small part of the work."""

    def work(one: EventConv) -> int:
        out = one.step.links.outputs[0]
        return out.rows * out.columns * math.prod(one.step.weight.shape)

    return SMALL * work(conv) <= sum(work(one) for one in w.program.operations if isinstance(one, EventConv))


def _share_passes(w: Writer, conv: EventConv) -> bool:
    """Whether passes are functions that other layers of the same form call, too: where code counts more than time.

    That is so with the strategy `size`, and for layers that are a small part of the work and store their sums.
    """
    if w.sharing:
        return True
    others = [one for one in w.program.operations if isinstance(one, EventConv)]
    alike = [one for one in others if one.direct and (one.rows, one.unit) == (conv.rows, conv.unit)]
    return conv.direct and len(alike) > 1 and all(_small(w, one) for one in alike)


def _alike(w: Writer, conv: EventConv) -> list[tuple[int, EventConv]]:
    """Layers for which passes compute the same: what passes look at of the geometry does not differ."""

    def seen(one: EventConv) -> tuple[object, ...]:
        states, window = one.step.weight.states, (1, 1) if one.whole else (one.lists, one.step.dilation[1])
        return rows_struct(w, one), one.rows, states.low, states.spacing, one.whole, window

    numbered = enumerate(w.program.operations)
    return [(at, one) for at, one in numbered if isinstance(one, EventConv) and seen(one) == seen(conv)]


def _pass_function(w: Writer, index: int, conv: EventConv, part: Pass) -> str:
    """A call of a pass up to its first argument."""
    rows, columns = conv.rows, 1 if conv.whole else conv.step.weight.shape[3]
    column_bytes, accumulate = part.data.shape[2] * part.bytes, int(conv.whole)
    raw = w.program.stored(conv.step.raw) if conv.direct and conv.step.raw is not None else None
    kind = str(accumulate) if raw is None else f"raw{raw.bits}"
    form = f"{rows.bits}_{rows.lane}_{int(rows.ones)}_{int(rows.trits)}_{part.bytes}_{part.outputs}_{conv.unit}_{kind}"
    shared = _share_passes(w, conv)
    name = f"pass_{form}" if shared else f"pass{index}_{part.outputs}"
    variables = "const maqd_events *g, int32_t columns, ptrdiff_t column_bytes, int32_t zero, " if shared else ""
    base = 0 if raw is None else raw.zero
    g, wide, step, zero = "g", "columns", "column_bytes", "zero"
    others = _alike(w, conv)
    steps = {
        one.data.shape[2]
        for _, other in others
        for one in other.passes
        if (one.bytes, one.outputs) == (part.bytes, part.outputs)
    }
    if not shared:
        g, wide, zero = f"&{_geometry(w, *others[0])}", columns, base
        if len(steps) == 1:
            step = column_bytes
        else:
            variables = "ptrdiff_t column_bytes, "
    store = f"maqd_events_store({g}, &w, &s, {part.outputs}, {accumulate}, y);"
    more, lines, y = "", [], "int32_t *y"
    if raw is not None:
        y, more = "void *stored", ", const MAQD_FLASH int32_t *bias"
        lines.append(f"int32_t y[{part.outputs if rows.lane == 16 else 1}];")
        store = f"maqd_events_raw({g}, &w, &s, {part.outputs}, y, bias, {raw.bits}, {zero}, stored);"
    if rows.lane == 16 and not accumulate:
        lines.append(f"for (int32_t o = 0; o < {part.outputs}; o++) y[o] = 0;")
    if shared and raw is None:
        lines.append("(void)zero;")
    lines.append(
        f"maqd_events_pass({g}, &w, lists, slot, {wide}, weights, {part.bytes}, {step}, {part.outputs}, y, &s);"
    )
    fused = _fused_activation(w, conv)
    if fused is None:
        lines.append(store)
    else:
        table = "const MAQD_FLASH uint32_t *thresholds" if fused.paired else "const MAQD_FLASH void *thresholds"
        more = f",\n        {table}, maqd_word *codes{'' if fused.paired else ', int32_t shift'}"
        added, addend, x = (0, 0, 0), "NULL", fused.addend
        if x is not None:
            more += f", const {'maqd_word' if x.packed else TYPES[x.bits]} *addend"
            added, addend = (x.bits, conv.step.shift, conv.step.addend_shift), "addend"
        lines.append(f"static const maqd_addend q = {brackets(added)};")
        if fused.paired:
            lines += [
                f"maqd_events_pairs({g}, &w, &s, {part.outputs}, {fused.levels}, {fused.codes.bits}, thresholds,",
                f"                  codes, &q, {addend});",
            ]
        else:
            lines += [
                f"maqd_events_codes({g}, &w, &s, {part.outputs}, y, &{_steps(w, index, fused)}, thresholds,",
                f"                  codes, shift, &q, {addend});",
            ]
        lines += ["#ifdef MAQD_TRACE", store, "#else", "(void)y;", "#endif"]
    body = "\n".join(line if line.startswith("#") else f"    {line}" for line in lines)
    name = w.share(
        name,
        f"MAQD_SHARED void {name}({variables}const maqd_list *lists, int32_t slot,\n"
        f"        const MAQD_FLASH void *weights, {y}{more}) {{\n"
        f"    static const maqd_rows w = {rows_struct(w, conv)};\n    maqd_sums s;\n{body}\n}}",
    )
    if shared:
        return f"{name}(&{_geometry(w, index, conv)}, {columns}, {column_bytes}, {base}, "
    return f"{name}(" if len(steps) == 1 else f"{name}({column_bytes}, "


def _fused_activation(w: Writer, conv: EventConv) -> Fused | None:
    """The activation, if passes compute the codes of their sums, with code for each output apart."""
    step, thresholds = conv.step, conv.thresholds
    if (
        w.program.strategy is not Strategy.FAST
        or step.codes is None
        or thresholds is None
        or any(one is not None for one in (step.raw, conv.bias, conv.signs))
        or conv.whole
    ):
        return None
    codes, addend = w.program.stored(step.codes), None
    levels, rows, states = thresholds.shape[1], conv.rows, step.weight.states
    if not codes.packed:
        return None
    fan_in = int(np.prod(step.weight.shape[1:]))
    bound = fan_in * rows.largest * states.magnitude << step.shift
    if len(step.links.inputs) > 1:
        buffer = step.links.inputs[1]
        addend = w.program.stored(buffer)
        bound += max(buffer.highest - buffer.zero, buffer.zero - buffer.lowest) << step.addend_shift
    narrow = addend is None or addend.bits <= 16
    if narrow and rows.bits == 2 and rows.lane == 8 and levels <= PAIRED_LEVELS and bound < PAIRED:
        reached = clip_thresholds(thresholds, 1, -bound, bound)
        if addend is not None:  # integers are added as they are stored
            reached = reached + (addend.zero << step.addend_shift)
        return Fused(codes=codes, thresholds=reached, addend=addend, paired=True)
    if levels > FUSED_LEVELS or (addend is not None and (not addend.packed or rows.lane != 8)):
        return None
    return Fused(codes=codes, thresholds=thresholds, addend=addend, paired=False)


def finish(w: Writer, index: int, conv: EventConv | Unturned, indent: str) -> list[str]:
    """What follows the sums of a pixel: bias, addend, storing, activation."""
    step, stored = conv.step, w.program.stored

    def pixel(codes: Codes) -> str:
        return "0" if codes.pixels == 1 else _pixel(codes)

    outputs, lines = step.weight.shape[0], []
    if conv.bias is not None and isinstance(conv, EventConv):
        bias = w.tables.add(f"bias{index}", "int32_t", conv.bias)
        lines.append(f"for (int32_t o = 0; o < {outputs}; o++) sums[o] += {bias}[o];")
    fused = _fused_activation(w, conv) if isinstance(conv, EventConv) else None
    if len(step.links.inputs) > 1:
        addend = stored(step.links.inputs[1])
        if fused is not None:
            lines.append("#ifdef MAQD_TRACE")
        if addend.packed:
            place = f"(const maqd_word *){w.at(addend)} + {pixel(addend)} * {addend.pixel_bytes // 4}"
            lines.append(
                f"maqd_add_fields(sums, {step.shift}, {place}, {addend.bits}, {step.addend_shift}, {outputs});"
            )
        else:
            lines += [
                f"maqd_add_shifted(sums, {step.shift}, {w.read(addend, f'{pixel(addend)} * {outputs}')},",
                f"                 {element(addend)}, {step.addend_shift}, {outputs});",
            ]
        if fused is not None:
            lines.append("#endif")
    if step.raw is not None:
        raw = stored(step.raw)
        lines.append(w.narrow(raw, outputs, w.write(raw, f"{pixel(raw)} * {outputs}")))
    else:
        lines += ["#ifdef MAQD_TRACE", f"{w.prefix}_trace({len(w.traced)}, sums, {outputs});", "#endif"]
        folded = step.bias if conv.bias is None else None
        w.traced.append(Traced(name=step.links.nodes[-2], flips=conv.flips, bias=folded))
    if step.codes is not None and step.quantization is not None and fused is None:
        codes = stored(step.codes)
        how = PixelActivation(
            quantization=step.quantization, thresholds=conv.thresholds, signs=conv.signs, reach=step.reach
        )
        to = f"(uint8_t *){w.at(codes)} + {pixel(codes)} * {codes.pixel_bytes}"
        lines += pixel_activation(w, index, how, codes, to)
    return [line if line.startswith("#") else indent + line for line in lines]


def plain(w: Writer, index: int, conv: PlainConv) -> list[str]:
    step = conv.step
    x, out = w.program.stored(step.links.inputs[0]), step.links.outputs[0]
    codes = step.weight.unpack()
    outputs, inputs, high, wide = codes.shape
    # O x I/g x rows x columns to rows x columns x groups x I/g x O/g
    grouped = codes.reshape(step.groups, outputs // step.groups, inputs, high, wide).transpose(3, 4, 0, 2, 1)
    kind, suffix = ("int8_t", "") if codes.dtype == np.int8 else ("int16_t", "_wide")
    weights = w.tables.add(f"weights{index}", kind, np.ascontiguousarray(grouped))
    bias = "NULL" if step.bias is None else w.tables.add(f"bias{index}", "int32_t", step.bias)
    window = brackets((high, wide, *step.stride, *step.padding, *step.dilation))
    settings = brackets((tensor_struct(x), out.rows, out.columns, outputs, step.groups, window))
    return [
        f"    static const maqd_conv conv = {settings};",
        f"    int32_t *const row_sums = (int32_t *)(void *)(arena + {w.program.memory.scratch[index] // 4});",
        f"    for (int32_t row = 0; row < {out.rows}; row++) {{",
        f"        maqd_conv_row{suffix}(&conv, {w.at(x)}, {weights}, {bias}, row, row_sums);",
        f"        for (int32_t column = 0; column < {out.columns}; column++) {{",
        f"            int32_t *const sums = row_sums + column * {outputs};",
        *finish(w, index, conv, "            "),
        "        }",
        "    }",
    ]


def rows_struct(w: Writer, conv: EventConv) -> str:
    """A maqd_rows."""
    rows, (_, columns, column_rows, _) = conv.rows, conv.passes[0].data.shape
    inputs = column_rows if conv.whole else columns * column_rows
    loop = int(inputs >= OPEN), int(not w.sharing and not _small(w, conv))
    return brackets((rows.bits, rows.lane, int(rows.ones), conv.unit, *loop, "trits" if rows.trits else "NULL"))


def element_bytes(conv: EventConv, part: Pass) -> int:
    """Rows of weights are words if they are whole ones, else bytes."""
    return 1 if conv.rows.trits or part.bytes % 4 else 4


def weights(conv: EventConv, part: Pass) -> NDArray[np.integer]:
    """Rows of weights as a table's elements."""
    return part.data if element_bytes(conv, part) == 1 else part.data.view("<u4").astype(np.uint32)
