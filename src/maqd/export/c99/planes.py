"""Depthwise convolutions on bit planes (csrc/c99/planes.h): their tables, and the text of their sums.

The text of a sum is a network of adders, written out for a window: tables are read in the order in which it needs them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.operations import Codes, PlaneConv
from maqd.export.c99.text import Body, Writer, codes_struct
from maqd.numerics.fixedpoint import clip_thresholds

LANES = 32
"""Channels of a word."""


def lanes(channels: int, bits: int) -> NDArray[np.int64]:
    """The lane of each of 32 or fewer channels, whose codes are fields of that many bits."""
    channel = np.arange(channels)
    return bits * (channel % (LANES // bits)) + channel // (LANES // bits)


@dataclass(frozen=True, kw_only=True)
class PlaneForm:
    """What the text of a sum depends on; layers of the same form share it.

    Args:
        high, wide: The window's rows and columns.
        column_step: Words from column to column of the window.
        planes: Of activation codes.
        magnitudes: Planes of weights' magnitudes.
        largest: No magnitude is larger.
        levels: Thresholds of a channel.
        bits: Of a field of the result.
    """

    high: int
    wide: int
    column_step: int
    planes: int
    magnitudes: int
    largest: int
    levels: int
    bits: int

    @property
    def highest(self) -> int:
        """No sum is larger, where -a is counted as its complement."""
        return self.high * self.wide * self.largest * (2**self.planes - 1)

    @property
    def sum_planes(self) -> int:
        """Planes of thresholds, one of which no sum reaches."""
        return (self.highest + 1).bit_length()

    @property
    def code_planes(self) -> int:
        """Planes of the result."""
        return self.levels.bit_length()

    @property
    def name(self) -> str:
        """Of the function."""
        numbers = (self.high, self.wide, self.column_step, self.planes, self.largest, self.levels, self.bits)
        return "planes_" + "_".join(map(str, numbers))


def plane_form(conv: PlaneConv) -> PlaneForm:
    """The form of a layer whose input and output are fields."""
    step = conv.step
    x, codes = step.links.inputs[0], step.codes
    assert codes is not None
    _, _, high, wide = step.weight.shape
    planes, largest = x.highest.bit_length(), int(step.weight.states.high)
    return PlaneForm(
        high=high,
        wide=wide,
        column_step=step.dilation[1] * planes,
        planes=planes,
        magnitudes=largest.bit_length(),
        largest=largest,
        levels=conv.thresholds.shape[1],
        bits=next(bits for bits in (1, 2, 4) if codes.highest < 2**bits),
    )


def plane_words(conv: PlaneConv, form: PlaneForm, bits: int) -> NDArray[np.uint32]:
    """Words of weights and thresholds, groups x words, in the order in which the text reads them.

    Args:
        conv: The layer.
        form: Its form.
        bits: Of a field of its input; its output must have as many.
    """
    weights = conv.weights  # channels x rows x columns
    channels = len(weights)
    magnitude = np.abs(weights)
    offset = (2**form.planes - 1) * np.where(weights < 0, magnitude, 0).sum((1, 2))
    cuts = clip_thresholds(conv.thresholds + offset[:, None], 1, 0, form.highest)
    groups = -(-channels // LANES)
    rows = []
    for group in range(groups):
        mine = slice(group * LANES, min((group + 1) * LANES, channels))
        place = lanes(mine.stop - mine.start, bits)
        words = []
        for at in range(form.high * form.wide):
            w = weights[mine].reshape(len(place), -1)[:, at]
            words.append(_word(w < 0, place))
            words += [_word(np.abs(w) >> q & 1, place) for q in range(form.magnitudes)]
        # All lanes of a group, those without a channel with thresholds that are not reached.
        all_cuts = np.full((LANES, form.levels), form.highest + 1)
        all_cuts[place] = cuts[mine]
        words += [_word(one, np.arange(LANES)) for one in _threshold_bits(all_cuts, form)]
        rows.append(words)
    return np.array(rows, np.uint32)


def _word(bits: NDArray[np.integer] | NDArray[np.bool_], place: NDArray[np.int64]) -> int:
    return int((bits.astype(np.uint64) << place.astype(np.uint64)).sum())


def _threshold_bits(cuts: NDArray[np.int64], form: PlaneForm) -> Iterator[NDArray[np.int64]]:
    """Complements of thresholds, one bit of each lane, in the order of the text.

    The bits of a code are found from the highest down, by a comparison with a threshold that the bits above select: a
    polynomial over GF(2) in those bits, whose coefficients are the Moebius transform of the thresholds.
    """
    count = form.code_planes
    never = np.full((len(cuts), 1), form.highest + 1)
    # cuts[k] is the threshold of code k.
    all_cuts = np.concatenate([never, cuts, *[never] * (2**count - 1 - form.levels)], axis=1)
    for level in range(count):
        step = 2 ** (count - 1 - level)
        # The thresholds to select from, by the bits above: bit i of the index is the i'th bit from the top.
        chosen = [
            all_cuts[:, step + sum(2 ** (count - 1 - i) for i in range(level) if index >> i & 1)]
            for index in range(2**level)
        ]
        for plane in range(form.sum_planes):
            coefficients = [~one >> plane & 1 for one in chosen]
            for i in range(level):
                for index in range(2**level):
                    if index >> i & 1:
                        coefficients[index] = coefficients[index] ^ coefficients[index ^ (1 << i)]
            yield from coefficients


# ---- text ------------------------------------------------------------------------------------------------------------


def plane_function(form: PlaneForm) -> str:
    """The function that computes a row of the result for 32 channels."""
    lines, table = [], _Reader()
    pending: dict[int, list[str]] = {}

    def add(weight: int, name: str) -> None:
        """Adders take three bits of one weight as soon as there are three."""
        bits = pending.setdefault(weight, [])
        bits.append(name)
        if len(bits) == 3:
            n = table.name()
            lines.append(f"MAQD_FULL(sum{n}, carry{n}, {', '.join(bits)});")
            pending[weight] = []
            add(weight, f"sum{n}")
            add(weight + 1, f"carry{n}")

    for i in range(form.high):
        for j in range(form.wide):
            n = table.name()
            lines.append(f"const uint32_t n{n} = {table.next()};")
            for p in range(form.planes):
                lines.append(f"const uint32_t a{n}_{p} = r{i}[{j * form.column_step + p}] ^ n{n};")
            for q in range(form.magnitudes):
                lines.append(f"const uint32_t m{n}_{q} = {table.next()};")
                for p in range(form.planes):
                    t = table.name()
                    lines.append(f"const uint32_t t{t} = a{n}_{p} & m{n}_{q};")
                    add(p + q, f"t{t}")
    weight = 0
    while weight <= max(pending):
        bits = pending.get(weight, [])
        if len(bits) == 2:
            n = table.name()
            lines.append(f"MAQD_PAIR(sum{n}, carry{n}, {', '.join(bits)});")
            pending[weight] = [f"sum{n}"]
            add(weight + 1, f"carry{n}")
        weight += 1
    sums = [(pending.get(weight) or ["0u"])[0] for weight in range(form.sum_planes)]
    codes: list[str] = []
    products = ["1"]  # of the code's bits found, by index; the first one stands for a constant
    for level in range(form.code_planes):
        g = f"reached{level}"
        for plane, v in enumerate(sums):
            terms = [table.next() if one == "1" else f"({table.next()} & {one})" for one in products]
            n = f"n{table.name()}"
            lines.append(f"const uint32_t {n} = {' ^ '.join(terms)};")
            lines.append(f"uint32_t {g} = {v} | {n};" if plane == 0 else f"MAQD_REACHED({g}, {v}, {n});")
        codes.append(g)
        if level + 1 < form.code_planes:
            more = []
            for one in products:
                if one == "1":
                    more.append(g)
                else:
                    n = f"x{table.name()}"
                    lines.append(f"const uint32_t {n} = {one} & {g};")
                    more.append(n)
            products += more
    codes = codes[::-1] + ["0u"] * (4 - len(codes))
    rows = ", ".join(f"const maqd_word *r{i}" for i in range(form.high))
    body = "\n".join("        " + line for line in lines)
    following = "\n".join(f"        r{i} += step;" for i in range(form.high))
    return (
        f"MAQD_SHARED void {form.name}({rows},\n        int32_t step, int32_t columns, const MAQD_FLASH uint32_t *w, "
        "int32_t words, int32_t codes_step, maqd_word *codes) {\n"
        f"    for (; columns > 0; columns--) {{\n{body}\n"
        f"        maqd_planes_store({', '.join(codes)}, {form.bits}, words, codes);\n"
        f"        codes += codes_step;\n{following}\n    }}\n}}"
    )


class _Reader:
    """Counts the words of the table that the text reads, and the names that it uses."""

    def __init__(self) -> None:
        self.words, self.names = 0, 0

    def next(self) -> str:
        """The next word."""
        self.words += 1
        return f"w[{self.words - 1}]"

    def name(self) -> int:
        """A number that no other name has."""
        self.names += 1
        return self.names


def planes(w: Writer, index: int, conv: PlaneConv) -> Body:
    """The body of a layer's function."""
    step, form = conv.step, plane_form(conv)
    assert step.codes is not None
    x, out = w.program.stored(step.links.inputs[0]), w.program.stored(step.codes)
    function = w.share(form.name, plane_function(form))
    words = plane_words(conv, form, x.bits)
    table = w.tables.add(f"planes{index}", "uint32_t", words)
    groups, length = words.shape
    width, ring, (stride, across), padding = conv.width, conv.ring, step.stride, step.padding
    group_step = ring * width * form.planes
    pixel = out.pixel_bytes // 4
    row_step = width * form.planes
    convert = w.share(
        f"planes_row{index}",
        f"MAQD_SHARED void planes_row{index}(const void *from, int32_t row, maqd_word *to) {{\n"
        f"    static const maqd_codes x = {codes_struct(x)};\n"
        f"    maqd_planes_row(&x, from, row, {padding[1]}, {width}, {form.planes}, {group_step}, to);\n}}",
    )
    rows = ",\n              ".join(
        f"ring + maqd_wrap(at + {i * step.dilation[0]}, {ring}) * {row_step} + g * {group_step}"
        for i in range(form.high)
    )
    body = "\n".join(
        [
            f"    const int32_t at = row * {stride} % {ring};",
            f"    for (int32_t next = row == 0 ? -{padding[0]} : (row - 1) * {stride} - {padding[0]} + {ring};",
            f"         next < row * {stride} - {padding[0]} + {ring}; next++)",
            f"        {convert}(x, next, ring + (next + {padding[0]}) % {ring} * {row_step});",
            f"    for (int32_t g = 0; g < {groups}; g++)",
            f"        {function}({rows},",
            f"              {across * form.planes}, {out.columns}, w + g * {length},",
            f"              {pixel} - g * {form.bits}, {pixel}, codes + g * {form.bits});",
        ]
    )
    layer = w.share(  # layers of the same shape are the same but for their weights
        f"planes_layer{index}",
        f"MAQD_SHARED void planes_layer{index}(const void *x, int32_t row, maqd_word *ring,\n"
        f"        const MAQD_FLASH uint32_t *w, maqd_word *codes) {{\n"
        f"{body}\n}}",
    )
    scratch, to = w.program.memory.scratch[index] // 4, f"{out.at('row')} * {out.columns * pixel}"
    return Body(
        start=[],
        rows=out.rows,
        row=[f"    {layer}({w.at(x)}, row, arena + {scratch}, {table}, arena + {_offset(out)} + {to});"],
    )


def _offset(codes: Codes) -> int:
    assert codes.offset is not None
    return codes.offset // 4
