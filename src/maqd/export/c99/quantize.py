"""The text of the functions that quantize floats, in files of their own: programs are free of floats without them."""

from math import prod

from maqd import __version__
from maqd.export.c99.ends import Ends, Entry

CODE = """/* The code of a number: clip(floor(x * multiplier * 2^-shift + 1/2) + offset). In integers: compilers and
 * processors differ in how they compute with doubles. Not-a-number has the lowest code. */
static int64_t code(float x, int32_t multiplier, int32_t offset, int32_t shift, int32_t lowest, int32_t highest) {
    union {
        float number;
        uint32_t bits;
    } word;
    int32_t exponent, up;
    uint32_t fraction;
    int64_t product, found;
    word.number = x;
    exponent = (int32_t)(word.bits >> 23 & 255u);
    fraction = word.bits & 0x7fffffu;
    if (exponent == 255 && fraction != 0) return lowest;
    product = (int64_t)(exponent != 0 ? fraction | 0x800000u : fraction) * multiplier; /* below 2^53 */
    if (word.bits >> 31 != 0) product = -product;
    up = (exponent != 0 ? exponent : 1) - 150 - shift;
    if (up >= 0) {
        /* From 2^31 on offsets and clipping leave nothing of the number but its sign. */
        const int64_t far = (int64_t)1 << 31;
        if (up > 31 || product >= far || product <= -far) found = product == 0 ? 0 : product > 0 ? far : -far;
        else found = product * ((int64_t)1 << up);
    } else {
        const int32_t down = up < -62 ? 62 : -up;
        const int64_t sum = product + ((int64_t)1 << (down - 1));
        found = sum < 0 ? ~(~sum >> down) : sum >> down;
    }
    found += offset;
    return found < lowest ? lowest : found > highest ? highest : found;
}"""


def quantized(ends: Ends) -> tuple[Entry, ...]:
    """The inputs that are made of floats."""
    return tuple(end for end in ends.inputs if end.node.border is not None)


def write_quantizers(ends: Ends, prefix: str) -> dict[str, str]:
    """The files of the quantizers, by name; none where no input is made of floats.

    Args:
        ends: Of the program.
        prefix: Of every name that is visible outside.
    """
    entries = quantized(ends)
    if not entries:
        return {}
    upper = prefix.upper()
    header = "\n".join(_declaration(end, prefix) + ";" for end in entries)
    code = "\n\n".join(_function(end, prefix) for end in entries)
    return {
        f"{prefix}_quantize.h": f"""/* Floats as integers for {prefix}_run. Written by maqd {__version__}. */
#ifndef {upper}_QUANTIZE_H
#define {upper}_QUANTIZE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Each reads as many numbers as it writes, in the same order: the channels innermost. */
{header}

#ifdef __cplusplus
}}
#endif
#endif
""",
        f"{prefix}_quantize.c": f"""/* Written by maqd {__version__}. See README.md. */
#include "{prefix}_quantize.h"

typedef char {prefix}_floats_have_32_bits[sizeof(float) == 4 ? 1 : -1];

{CODE}

{code}
""",
    }


def quantizer(end: Entry, prefix: str) -> str:
    """The name of an input's function."""
    return f"{prefix}_quantize_{end.argument.removeprefix('in_')}"


def _declaration(end: Entry, prefix: str) -> str:
    return f"void {quantizer(end, prefix)}(const float *numbers, {end.type} *integers)"


def _function(end: Entry, prefix: str) -> str:
    node, border = end.node, end.node.border
    assert border is not None
    channels = node.shape[border.axis]
    # In memory the first dimension is innermost, and the others follow in their order.
    inner = 1 if border.axis == 0 else prod(node.shape[border.axis + 1 :]) * node.shape[0]

    def values(array) -> tuple[str, str]:
        numbers = [int(value) for value in array]
        if len(set(numbers)) == 1:
            return "", str(numbers[0])
        return ", ".join(map(str, numbers)), "[c]"

    multipliers, a = values(border.multiplier)
    offsets, b = values(border.offset)
    lines = [f"{_declaration(end, prefix)} {{"]
    if multipliers:
        lines.append(f"    static const int32_t multipliers[{channels}] = {{{multipliers}}};")
    if offsets:
        lines.append(f"    static const int32_t offsets[{channels}] = {{{offsets}}};")
    lines += ["    int32_t i;", f"    for (i = 0; i < {prod(node.shape)}; i++) {{"]
    if multipliers or offsets:
        lines.append(f"        const int32_t c = i / {inner} % {channels};")
    a, b = f"multipliers{a}" if multipliers else a, f"offsets{b}" if offsets else b
    call = f"code(numbers[i], {a}, {b}, {border.shift}, {node.grid.low}, {node.grid.high})"
    return "\n".join([*lines, f"        integers[i] = ({end.type})({call} + {end.zero});", "    }", "}"])
