"""First layers on pixels (csrc/c99/pixels.h): their tables and their text."""

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.operations import Codes, PixelConv
from maqd.export.c99.text import Writer, codes_struct
from maqd.numerics.fixedpoint import clip_thresholds

PAIRS = 4
"""Of outputs in a pass: words of sums that stay in registers beside a pixel, a weight and the pointers."""

UNROLLED = 16
"""Most pixels of a row of the window that are written out."""


def pixels(w: Writer, index: int, conv: PixelConv) -> list[str]:
    """The body of a layer's function."""
    step = conv.step
    assert step.codes is not None
    x, out = w.program.stored(step.links.inputs[0]), w.program.stored(step.codes)
    passes = conv.passes(out.bits)
    words = _weights(conv, passes)
    table = w.tables.add(f"weights{index}", "uint32_t", words)
    cuts = clip_thresholds(conv.thresholds + conv.starts[:, None], 1, 0, 2 ** (15 if conv.paired else 16) - 1)
    _declare(w, index, conv, out, passes, cuts, words.shape[2])
    ring, width = conv.ring, conv.width
    row_bytes = width * x.channels
    high = step.weight.shape[2]
    lines = [
        f"    static const maqd_codes x = {codes_struct(x)};",
        f"    uint8_t *const ring = (uint8_t *)(arena + {w.program.scratch[index] // 4});",
        f"    maqd_word *codes = arena + {_offset(out)};",
        f"    int32_t next = -{step.padding[0]}, slot = 0, at = 0;",
        f"    const uint8_t *rows[{high}];",
        f"    for (int32_t row = 0; row < {out.rows}; row++) {{",
        f"        for (; next < row * {step.stride[0]} - {step.padding[0]} + {ring}; next++) {{",
        f"            maqd_pixels_row(&x, {x.caller}, next, {step.padding[1]}, {width}, ring + slot * {row_bytes});",
        f"            slot = slot + 1 == {ring} ? 0 : slot + 1;",
        "        }",
        f"        for (int32_t i = 0, from = at; i < {high}; i++) {{",
        f"            rows[i] = ring + from * {row_bytes};",
        f"            from += {step.dilation[0]};",
        f"            if (from >= {ring}) from -= {ring};",
        "        }",
        f"        for (int32_t column = 0; column < {out.columns}; column++) {{",
    ]
    first = 0
    for word in range(out.pixel_bytes // 4):
        lines.append("            uint32_t word = 0;" if word == 0 else "            word = 0;")
        mine = [one for one in passes if one[0] == word]
        for turn in range(len(mine)):
            shift = turn * PAIRS * out.bits
            at, place = f"column * {step.stride[1] * x.channels}", first * words[0].size
            call = f"pixels{index}(rows, {at}, {table} + {place}, {first})"
            lines.append(f"            word |= {call}{f' << {shift}' if shift else ''};")
            first += 1
        apart = 16 - out.bits * _distance(conv.outputs, out.bits, word)
        if apart:
            lines.append(f"            word = (word & 0xffffu) | (word >> 16 << {16 - apart});")
        lines.append("            *codes++ = word;")
    lines += [
        "        }",
        f"        at += {step.stride[0]};",
        f"        while (at >= {ring}) at -= {ring};",
        "    }",
    ]
    return lines


def _distance(outputs: int, bits: int, word: int) -> int:
    """How many channels the halves of a word of sums are apart."""
    each = 32 // bits
    return -(-min(each, outputs - word * each) // 2)


def _weights(conv: PixelConv, passes: list[tuple[int, list[tuple[int, int]]]]) -> NDArray[np.uint32]:
    """Passes x (1 + taps) x pairs: what sums begin with, then the weights of each pixel of the window."""
    outputs = conv.outputs
    taps = np.concatenate([conv.starts[:, None], conv.weights.reshape(outputs, -1)], 1)
    taps = np.concatenate([taps, np.zeros((1, taps.shape[1]), np.int64)])  # an output that there is not
    found = [[taps[low] + (taps[high] << 16) for low, high in pairs] for _, pairs in passes]
    return np.ascontiguousarray(np.moveaxis(np.array(found), 1, 2) % 2**32).astype(np.uint32)


def _declare(
    w: Writer,
    index: int,
    conv: PixelConv,
    out: Codes,
    passes: list[tuple[int, list[tuple[int, int]]]],
    cuts: NDArray[np.int64],
    pairs: int,
) -> None:
    """The function of a pass: sums of its pairs of outputs at a pixel, then their codes."""
    levels = cuts.shape[1]
    high, run = conv.weights.shape[1:]
    never = np.full((1, levels), 2**15 if conv.paired else 2**16)
    cuts = np.concatenate([cuts, never])
    chosen = np.array([[cuts[list(pair)] for pair in mine] for _, mine in passes])  # passes x pairs x 2 x levels
    lines = [f"    uint32_t f{k} = w[{k}];" for k in range(pairs)]
    tap = [f"f{k} += a * w[{{}}];" for k in range(pairs)]
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
    body = [
        f"{indent}{{ const uint32_t a = p[{j}]; " + " ".join(t.format(j * pairs + k) for k, t in enumerate(tap)) + " }"
        for j in range(each)
    ]
    lines += body
    if run > UNROLLED:
        lines.append("        }")
        lines += [line.replace(indent, "        ", 1) for line in body[:tail]]
        lines.append(f"        w += {tail * pairs};")
    else:
        lines.append(f"        w += {each * pairs};")
    lines.append("    }")
    if conv.paired:
        table = w.tables.add(
            f"thresholds{index}", "uint32_t", (chosen[:, :, 0] | chosen[:, :, 1] << 16).astype(np.uint32)
        )
        lines += [f"    const uint32_t *const t = {table} + part * {pairs * levels};", "    uint32_t codes = 0;"]
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
        lines += [f"    const {kind} *const t = {flat} + part * {pairs * 2 * levels};", "    uint32_t codes = 0;"]
        for half in range(2):
            for k in range(pairs):
                value = f"(int32_t)(f{k} >> 16)" if half else f"(int32_t)(f{k} & 0xffffu)"
                at = (half * pairs + k) * levels
                lines.append(f"    codes |= maqd_count(&s{index}, t + {at}, {value}) << {k * out.bits + 16 * half};")
    text = "\n".join(lines)
    w.share(
        f"pixels{index}",
        f"MAQD_SHARED uint32_t pixels{index}(const uint8_t *const *rows, int32_t at, const uint32_t *w,\n"
        f"        int32_t part) {{\n"
        f"{text}\n    return codes;\n}}",
    )


def _offset(codes: Codes) -> int:
    assert codes.offset is not None
    return codes.offset // 4
