"""Text of steps without weights: activations, pooling, sums and moves."""

from dataclasses import replace

import numpy as np

from maqd.export.c99.activations import PixelActivation, pixel_activation
from maqd.export.c99.operations import Codes, channel_thresholds, turned_signs
from maqd.export.c99.text import TYPES, Body, Writer, brackets, codes_struct, element, tensor_struct
from maqd.plan import (
    AddStep,
    ConcatStep,
    FixedPointStep,
    MoveStep,
    MultiplyStep,
    PoolStep,
    QuantizeStep,
    SumStep,
    TransposeStep,
)


def activation(w: Writer, index: int, step: QuantizeStep) -> Body | list[str]:
    x, y = (w.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
    axis, q = step.axis, step.quantization
    length = axis.channels * axis.inner
    if axis.inner > 1 or y.bits > 8:
        thresholds = w.tables.add(f"thresholds{index}", "int32_t", q.thresholds)
        signs = w.tables.add(f"signs{index}", "int8_t", q.signs)
        return [
            w.sums(index),
            f"    for (int32_t i = 0; i < {axis.outer}; i++) {{",
            f"        maqd_widen({w.read(x, f'i * {length}')}, {element(x)}, {length}, sums);",
            f"        uint8_t *const indices = (uint8_t *)(sums + {length});",
            f"        maqd_quantize(sums, 1, {axis.channels}, {axis.inner}, {thresholds}, {signs}, "
            f"{len(q.thresholds)}, 1, 0, indices);",
            f"        for (int32_t k = 0; k < {length}; k++)",
            f"            sums[k] = {q.base - y.zero} + {q.spacing} * indices[k];",
            f"        {w.narrow(y, length, w.write(y, f'i * {length}'))}",
            "    }",
        ]
    interval = w.program.graph.types[w.program.graph[step.links.nodes[0]].inputs[0]].interval
    how = PixelActivation(
        quantization=q,
        thresholds=channel_thresholds(q),
        signs=turned_signs(q),
        reach=interval.magnitude,
    )
    pixel = Codes(rows=1, columns=1, channels=length, bits=y.bits, zero=0, offset=y.offset)
    rows = y.rows if axis.outer % y.rows == 0 else 1
    columns = axis.outer // rows
    places = [f"({codes.at('row')} * {columns} + column)" for codes in (x, y)]
    to = f"(uint8_t *){w.at(y)} + {places[1]} * {pixel.pixel_bytes}"
    return Body(
        start=[w.sums(index)],
        rows=rows,
        row=[
            f"    for (int32_t column = 0; column < {columns}; column++) {{",
            f"        maqd_widen({w.read(x, f'{places[0]} * {length}')}, {element(x)}, {length}, sums);",
            *("        " + line for line in pixel_activation(w, index, how, pixel, to)),
            "    }",
        ],
    )


def fixed_point(w: Writer, index: int, step: FixedPointStep) -> list[str]:
    """An activation of many states."""
    x, y = (w.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
    axis, affine = step.axis, step.affine
    length = axis.channels * axis.inner
    a = w.tables.add(f"multipliers{index}", "int64_t", affine.multiplier)
    b = w.tables.add(f"offsets{index}", "int64_t", affine.offset)
    return [
        w.sums(index),
        f"    for (int32_t i = 0; i < {axis.outer}; i++) {{",
        f"        maqd_widen({w.read(x, f'i * {length}')}, {element(x)}, {length}, sums);",
        f"        maqd_fixed_point(sums, 1, {axis.channels}, {axis.inner}, {a}, {b}, {affine.shift}, {step.last}, "
        f"{step.spacing}, {step.low}, sums);",
        f"        {w.narrow(y, length, w.write(y, f'i * {length}'))}",
        "    }",
    ]


def pooling(w: Writer, index: int, step: PoolStep) -> Body:
    x, y = (w.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
    window = (*step.kernel, *step.stride, *step.padding)
    if x.packed:
        kind = "max" if step.maximum else "sum"
        to = f"(uint8_t *){w.at(y)} + {y.at('row')} * {y.columns * y.pixel_bytes}"
        more = "" if step.maximum else f"{y.bits}, "
        return Body(
            start=[
                f"    static const maqd_codes x = {codes_struct(x)};",
                f"    static const maqd_pool pool = {brackets(window)};",
            ],
            rows=y.rows,
            row=[f"    maqd_{kind}_pool_fields(&x, &pool, {w.at(x)}, row, {y.columns}, {more}{to});"],
        )
    row = y.columns * y.channels
    to = w.write(y, f"row * {row}")
    call = f"_pool_row(&x, &window, {w.at(x)}, {y.columns}, row, "
    return Body(
        start=[
            *([] if step.maximum else [w.sums(index)]),
            f"    static const maqd_tensor x = {tensor_struct(x)};",
            f"    static const maqd_window window = {brackets((*window, 1, 1))};",
        ],
        rows=y.rows,
        row=[f"    maqd_max{call}{to});"]
        if step.maximum
        else [f"    maqd_sum{call}sums);", f"    {w.narrow(y, row, to)}"],
    )


def total(w: Writer, index: int, step: SumStep) -> Body | list[str]:
    x, y = (w.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
    zeros = f"for (int32_t c = 0; c < {x.channels}; c++) sums[c] = 0;"
    narrow = w.narrow(y, y.channels, w.write(y, "0"))
    if index < w.program.memory.early:
        if x.packed:
            start = [f"    static const maqd_codes x = {codes_struct(replace(x, rows=1, kept=1))};"]
            from_row = f"(const uint8_t *){w.at(x)} + {x.at('row')} * {x.columns * x.pixel_bytes}"
            lines = [f"    maqd_sum_fields(&x, {from_row}, sums);"]
        else:
            start = []
            pixel = w.read(x, f"({x.at('row')} * {x.columns} + column) * {x.channels}")
            lines = [
                f"    for (int32_t column = 0; column < {x.columns}; column++)",
                f"        maqd_add_shifted(sums, 0, {pixel}, {element(x)}, 0, {x.channels});",
            ]
        return Body(
            start=[w.sums(index), *start],
            rows=x.rows,
            row=["    if (row == 0)", f"        {zeros}", *lines, f"    if (row == {x.rows - 1}) {narrow}"],
        )
    if x.packed:
        lines = [
            f"    static const maqd_codes x = {codes_struct(x)};",
            f"    {zeros}",
            f"    maqd_sum_fields(&x, {w.at(x)}, sums);",
        ]
    else:
        lines = [
            f"    static const maqd_tensor x = {tensor_struct(x)};",
            f"    static const maqd_window window = {brackets((x.rows, x.columns, 1, 1, 0, 0, 1, 1))};",
            f"    maqd_sum_pool_row(&x, &window, {w.at(x)}, 1, 0, sums);",
        ]
    return [w.sums(index), *lines, f"    {narrow}"]


def addition(w: Writer, index: int, step: AddStep) -> Body:
    y = w.program.stored(step.links.outputs[0])
    row = y.columns * y.channels
    lines = [f"    for (int32_t i = 0; i < {row}; i++) sums[i] = 0;"]
    for buffer, shift in zip(step.links.inputs, step.shifts, strict=True):
        x = w.program.stored(buffer)
        at = w.read(x, f"{x.at('row')} * {row}")
        lines.append(f"    maqd_add_shifted(sums, 0, {at}, {element(x)}, {shift}, {row});")
    to = w.write(y, f"{y.at('row')} * {row}")
    return Body(start=[w.sums(index)], rows=y.rows, row=[*lines, f"    {w.narrow(y, row, to)}"])


def concatenation(w: Writer, index: int, step: ConcatStep) -> Body:
    y = w.program.stored(step.links.outputs[0])
    lengths = [axis.channels * axis.inner for axis in step.axes]
    rows = y.rows if index < w.program.memory.early else 1
    each = step.axes[0].outer // rows
    place = f"{y.at('row')} * {each * sum(lengths)}"
    lines = [
        f"    {TYPES[y.bits]} *to = {w.write(y, place)};",
        f"    for (int32_t i = 0; i < {each}; i++) {{",
    ]
    for buffer, shift, length in zip(step.links.inputs, step.shifts, lengths, strict=True):
        x = w.program.stored(buffer)
        at = w.read(x, f"({x.at('row')} * {each} + i) * {length}")
        lines += [
            f"        for (int32_t k = 0; k < {length}; k++) sums[k] = 0;",
            f"        maqd_add_shifted(sums, 0, {at}, {element(x)}, {shift}, {length});",
            f"        {w.narrow(y, length, 'to')}",
            f"        to += {length};",
        ]
    return Body(start=[w.sums(index)], rows=rows, row=[*lines, "    }"])


def transposition(w: Writer, _index: int, step: TransposeStep) -> list[str]:
    x, y = (w.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
    return [f"    maqd_transpose({w.at(x)}, {step.height}, {step.width}, {x.bits // 8}, {w.at(y)});"]


def product(w: Writer, index: int, step: MultiplyStep) -> Body:
    a, b = (w.program.stored(buffer) for buffer in step.links.inputs)
    y = w.program.stored(step.links.outputs[0])
    row, gate = y.columns * y.channels, b.rows * b.columns == 1
    factor = f"factors[i % {y.channels}]" if gate else "factors[i]"
    other = (w.read(b, "0"), y.channels) if gate else (w.read(b, f"{b.at('row')} * {row}"), row)
    first, to = w.read(a, f"{a.at('row')} * {row}"), w.write(y, f"{y.at('row')} * {row}")
    return Body(
        start=[w.sums(index), f"    int32_t *const factors = sums + {row};"],
        rows=y.rows,
        row=[
            f"    maqd_widen({first}, {element(a)}, {row}, sums);",
            f"    maqd_widen({other[0]}, {element(b)}, {other[1]}, factors);",
            f"    for (int32_t i = 0; i < {row}; i++) sums[i] *= {factor};",
            f"    {w.narrow(y, row, to)}",
        ],
    )


def move(w: Writer, index: int, step: MoveStep) -> list[str]:
    """Nested loops, one a table; a table that only counts needs none."""
    x, y = (w.program.stored(side[0]) for side in (step.links.inputs, step.links.outputs))
    lines = [
        f"    {TYPES[y.bits]} *to = ({TYPES[y.bits]} *){w.at(y)};",
        f"    const {TYPES[x.bits]} *const from = (const {TYPES[x.bits]} *){w.at(x)};",
    ]
    places, filled = [], []
    for level, table in enumerate(step.tables):
        indent, i = "    " * (level + 1), f"i{level}"
        lines.append(f"{indent}for (int32_t {i} = 0; {i} < {len(table)}; {i}++) {{")
        if len(table) > 1 and (np.diff(table) == table[1] - table[0]).all() and table[0] >= 0:
            step_size = int(table[1] - table[0])
            places.append(f"{int(table[0])} + {i} * {step_size}")
            continue
        entries = w.tables.add(f"move{index}_{level}", "int32_t", table)
        lines.append(f"{indent}    const int32_t at{level} = {entries}[{i}];")
        places.append(f"at{level}")
        if (table < 0).any():
            filled.append(f"at{level} < 0")
    indent = "    " * (len(step.tables) + 1)
    value = f"from[{' + '.join(places)}]"
    if (x.bits, x.zero) != (y.bits, y.zero):
        value = f"({TYPES[y.bits]})((int32_t){value} + {y.zero - x.zero})"
    if filled:
        value = f"{' || '.join(filled)} ? ({TYPES[y.bits]})({step.fill + y.zero}) : {value}"
    return [*lines, f"{indent}*to++ = {value};", *("    " * (n + 1) + "}" for n in reversed(range(len(step.tables))))]
