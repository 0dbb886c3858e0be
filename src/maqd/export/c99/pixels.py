"""First layers on pixels (csrc/c99/pixels.h): their tables and their text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.convolution import finish
from maqd.export.c99.operations import Codes, PixelConv, Pixels, PixelSums
from maqd.export.c99.text import Body, Writer, codes_struct
from maqd.numerics.fixedpoint import clip_thresholds

PAIRS = 4
"""Of outputs in a pass: words of sums that stay in registers beside a pixel, a weight and the pointers."""

UNROLLED = 16
"""Most pixels of a row of the window that are written out."""


def take(w: Writer, index: int, conv: Pixels) -> str:
    """The name of the function that keeps a row of the image, or one beyond it that is NULL."""
    x, (top, side) = w.program.stored(conv.step.links.inputs[0]), conv.step.padding
    row_bytes = conv.width * x.channels
    return w.share(
        f"take{index}",
        f"MAQD_SHARED void take{index}(maqd_word *ring, const uint8_t *from, int32_t row) {{\n"
        f"    static const maqd_codes x = {codes_struct(x)};\n"
        f"    uint8_t *const to = (uint8_t *)ring + (row + {top}) % {conv.ring} * {row_bytes};\n"
        f"    maqd_pixels_row(&x, from, {side}, {conv.width}, to);\n}}",
    )


def _window(w: Writer, index: int, conv: Pixels) -> tuple[list[str], list[str]]:
    """What comes before the first row; and what makes `rows` point to the rows of the image under an output row."""
    step = conv.step
    x = w.program.stored(step.links.inputs[0])
    ring, row_bytes, high = conv.ring, conv.width * x.channels, step.weight.shape[2]
    stride, padding, keep = step.stride[0], step.padding[0], take(w, index, conv)
    inside = f"next >= 0 && next < {x.rows}"
    if x.held == 0:  # rows are kept as they come, but for those beyond the image
        load = f"        if (!({inside})) {keep}((maqd_word *)ring, NULL, next);"
    else:
        from_row = f"(const uint8_t *){w.at(x)} + {x.at('next')} * {x.columns * x.channels}"
        load = f"        {keep}((maqd_word *)ring, {inside} ? {from_row} : NULL, next);"
    start = [f"    uint8_t *const ring = (uint8_t *)(arena + {w.program.memory.scratch[index] // 4});"]
    return start, [
        f"    const uint8_t *rows[{high}];",
        f"    for (int32_t next = row == 0 ? -{padding} : (row - 1) * {stride} - {padding} + {ring};",
        f"         next < row * {stride} - {padding} + {ring}; next++)",
        load,
        f"    for (int32_t i = 0, from = row * {stride} % {ring}; i < {high}; i++) {{",
        f"        rows[i] = ring + from * {row_bytes};",
        f"        from += {step.dilation[0]};",
        f"        if (from >= {ring}) from -= {ring};",
        "    }",
    ]


def pixels(w: Writer, index: int, conv: PixelConv) -> Body:
    """The body of a layer's function."""
    step = conv.step
    assert step.codes is not None
    x, out = w.program.stored(step.links.inputs[0]), w.program.stored(step.codes)
    passes = conv.passes(out.bits)
    words = _weights(conv, [pairs for _, pairs in passes])
    table = w.tables.add(f"weights{index}", "uint32_t", words)
    cuts = clip_thresholds(conv.thresholds + conv.starts[:, None], 1, 0, 2 ** (15 if conv.paired else 16) - 1)
    name = _declare(w, index, conv, out, passes, cuts, words.shape[2])
    start, lines = _window(w, index, conv)
    lines += [
        f"    maqd_word *codes = arena + {_offset(out)} + {out.at('row')} * {out.columns * out.pixel_bytes // 4};",
        f"    for (int32_t column = 0; column < {out.columns}; column++) {{",
    ]
    first = 0
    for word in range(out.pixel_bytes // 4):
        lines.append("        uint32_t word = 0;" if word == 0 else "        word = 0;")
        mine = [one for one in passes if one[0] == word]
        for turn in range(len(mine)):
            shift = turn * PAIRS * out.bits
            at, place = f"column * {step.stride[1] * x.channels}", first * words[0].size
            call = f"{name}(rows, {at}, {table} + {place}, {first})"
            lines.append(f"        word |= {call}{f' << {shift}' if shift else ''};")
            first += 1
        apart = 16 - out.bits * _distance(conv.outputs, out.bits, word)
        if apart:
            lines.append(f"        word = (word & 0xffffu) | (word >> 16 << {16 - apart});")
        lines.append("        *codes++ = word;")
    return Body(start=start, rows=out.rows, row=[*lines, "    }"])


def sums(w: Writer, index: int, conv: PixelSums) -> Body:
    """The body of a function whose sums are stored, or compared one by one."""
    step, out = conv.step, conv.step.links.outputs[0]
    channels = step.links.inputs[0].channels
    groups = [[(8 * one + 2 * k, 8 * one + 2 * k + 1) for k in range(PAIRS)] for one in range(conv.passes)]
    pairs = [[tuple(o if o < conv.outputs else -1 for o in pair) for pair in mine] for mine in groups]
    words = _weights(conv, pairs)
    table = w.tables.add(f"weights{index}", "uint32_t", words)
    padded = np.zeros(8 * conv.passes, np.int64)
    padded[: conv.outputs] = conv.added
    added, width = w.tables.narrowest(f"constants{index}", padded, (16, 32))
    text = [
        *_sums(conv, PAIRS),
        *(
            f"    y[{2 * k + half}] = (int32_t)(f{k} {'>> 16' if half else '& 0xffffu'}) + added[{2 * k + half}];"
            for k in range(PAIRS)
            for half in range(2)
        ),
    ]
    body = "\n".join(text)
    name = w.share(
        f"pixels{index}",
        f"MAQD_SHARED void pixels{index}(const uint8_t *const *rows, int32_t at, const MAQD_FLASH uint32_t *w,\n"
        f"        const MAQD_FLASH int{width}_t *added, int32_t *y) {{\n{body}\n}}",
    )
    start, lines = _window(w, index, conv)
    start.append(f"    int32_t *const sums = (int32_t *)(void *)(ring + {conv.kept});")
    lines += [
        f"    for (int32_t column = 0; column < {out.columns}; column++) {{",
        f"        for (int32_t p = 0; p < {conv.passes}; p++)",
        f"            {name}(rows, column * {step.stride[1] * channels}, {table} + p * {words[0].size},",
        f"                {added} + p * 8, sums + p * 8);",
        *finish(w, index, conv, "        "),
        "    }",
    ]
    return Body(start=start, rows=out.rows, row=lines)


def _distance(outputs: int, bits: int, word: int) -> int:
    """How many channels the halves of a word of sums are apart."""
    each = 32 // bits
    return -(-min(each, outputs - word * each) // 2)


def _weights(conv: Pixels, passes: Sequence[Sequence[tuple[int, ...]]]) -> NDArray[np.uint32]:
    """Passes x (1 + taps) x pairs: what sums begin with, then the weights of each pixel of the window."""
    outputs = conv.outputs
    taps = np.concatenate([conv.starts[:, None], conv.weights.reshape(outputs, -1)], 1)
    taps = np.concatenate([taps, np.zeros((1, taps.shape[1]), np.int64)])  # an output that there is not
    found = [[taps[low] + (taps[high] << 16) for low, high in pairs] for pairs in passes]
    return np.ascontiguousarray(np.moveaxis(np.array(found), 1, 2) % 2**32).astype(np.uint32)


def _sums(conv: Pixels, pairs: int) -> list[str]:
    """Text of the sums of a pass, f0 to f3."""
    high, run = conv.weights.shape[1:]
    weights = [f"w{k}" for k in range(pairs)]
    loads = ", ".join(f"{name} = w[{pairs} * (j) + {k}]" for k, name in enumerate(weights))
    # Weights are loaded together, and each product is added at once: or compilers add up products of several pixels
    # first, and load each weight on its own.
    lines = [
        "#define MAQD_PIXEL(j) \\",
        "    { \\",
        "        const uint32_t a = p[j]; \\",
        f"        uint32_t {loads}; \\",
        *([f"        MAQD_TOGETHER({', '.join(weights)}); \\"] if pairs == PAIRS else []),
        *(f"        f{k} += a * {name}; MAQD_REGISTER(f{k}); \\" for k, name in enumerate(weights)),
        "    }",
        *(f"    uint32_t f{k} = w[{k}];" for k in range(pairs)),
    ]
    lines += [
        f"    w += {pairs};",
        f"    for (int32_t i = 0; i < {high}; i++) {{",
        "        const uint8_t *p = rows[i] + at;",
    ]
    if run <= UNROLLED:
        each, tail, indent = run, 0, "        "
    else:
        each, tail, indent = 8, run % 8, "            "
        lines.append(
            f"        for (const uint8_t *const end = p + {run - tail}; p != end; p += {each}, w += {each * pairs}) {{"
        )
    body = [f"{indent}MAQD_PIXEL({j})" for j in range(each)]
    lines += body
    if run > UNROLLED:
        lines.append("        }")
        lines += [line.replace(indent, "        ", 1) for line in body[:tail]]
        lines.append(f"        w += {tail * pairs};")
    else:
        lines.append(f"        w += {each * pairs};")
    return [*lines, "    }", "#undef MAQD_PIXEL"]


def _declare(
    w: Writer,
    index: int,
    conv: PixelConv,
    out: Codes,
    passes: list[tuple[int, list[tuple[int, int]]]],
    cuts: NDArray[np.int64],
    pairs: int,
) -> str:
    """The function of a pass, by its name: sums of its pairs of outputs at a pixel, then their codes."""
    levels = cuts.shape[1]
    never = np.full((1, levels), 2**15 if conv.paired else 2**16)
    cuts = np.concatenate([cuts, never])
    chosen = np.array([[cuts[list(pair)] for pair in mine] for _, mine in passes])  # passes x pairs x 2 x levels
    lines = _sums(conv, pairs)
    if conv.paired:
        table = w.tables.add(
            f"thresholds{index}", "uint32_t", (chosen[:, :, 0] | chosen[:, :, 1] << 16).astype(np.uint32)
        )
        lines += [
            f"    const MAQD_FLASH uint32_t *const t = {table} + part * {pairs * levels};",
            "    uint32_t codes = 0;",
        ]
        for k in range(pairs):
            lines.append(f"    f{k} |= 0x80008000u;")
            names = [f"e{k}_{level}" for level in range(levels)]
            lines += [
                f"    const uint32_t {name} = f{k} - t[{k * levels + level}];" for level, name in enumerate(names)
            ]
            for bit in range(levels.bit_length()):
                terms = " ^ ".join(names[one - 1] for one in range(1, levels + 1) if one % 2**bit == 0)
                terms = f"({terms})" if "^" in terms else terms
                lines.append(
                    f"    codes |= (({terms} >> {15 - bit}) & {hex(0x00010001 << bit)}u)"
                    f"{f' << {k * out.bits}' if k else ''};"
                )
    else:
        flat, width = w.tables.narrowest(f"thresholds{index}", np.swapaxes(chosen, 1, 2).copy(), (16, 32))
        kind = f"int{width}_t"
        w.tables.declare(f"static const maqd_steps s{index} = {{{levels}, {int(width == 32)}, {out.bits}, 1, 0}};")
        lines += [
            f"    const MAQD_FLASH {kind} *const t = {flat} + part * {pairs * 2 * levels};",
            "    uint32_t codes = 0;",
        ]
        for half in range(2):
            for k in range(pairs):
                value = f"(int32_t)(f{k} >> 16)" if half else f"(int32_t)(f{k} & 0xffffu)"
                at = (half * pairs + k) * levels
                lines.append(f"    codes |= maqd_count(&s{index}, t + {at}, {value}) << {k * out.bits + 16 * half};")
    text = "\n".join(lines)
    return w.share(
        f"pixels{index}",
        f"MAQD_SHARED uint32_t pixels{index}(const uint8_t *const *rows, int32_t at, const MAQD_FLASH uint32_t *w,\n"
        f"        int32_t part) {{\n"
        f"{text}\n    return codes;\n}}",
    )


def _offset(codes: Codes) -> int:
    assert codes.offset is not None
    return codes.offset // 4
