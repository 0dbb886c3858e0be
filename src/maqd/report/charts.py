"""Charts as SVG text: pure functions of numbers, without a library. Colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 220
"""A phone shows this width without making letters much smaller."""
SMALL = 330
"""Width of charts that stand side by side."""
LABELLED = 9
"""Most values of an axis that are all written."""

COLOURS = 5
"""Colours of lines and bars; further ones begin again."""

LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Args:
        title: Its name.
        x, y: Its points.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]


def lines(title: str, given: Sequence[Line], *, x_title: str, y_title: str) -> str:
    """Lines over a common axis; the legend is below the chart."""
    points = [(x, y) for line in given for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return ""
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    span = right - left or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - left) / span * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    body = [*_y_axis(low, high, y_title), *_x_axis([left, right], left, span, x_title)]
    for number, line in enumerate(given):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in zip(line.x, line.y, strict=True)))
        dash = f' stroke-dasharray="{3 * number + 1} 3"' if number else ""  # lines differ without colour as well
        body.append(f'<polyline class="line c{number % COLOURS}"{dash} points="{path}"/>')
    return f"{_svg(title, body, HEIGHT)}{_legend([line.title for line in given])}"


def histogram(title: str, values: Sequence[float], counts: Sequence[float], marks: Sequence[float], *, x: str) -> str:
    """Bars at values of equal distance, with dashed lines at `marks`, of which those outside are left out."""
    low, high = min(values), max(values)
    step = (high - low) / (len(values) - 1) if len(values) > 1 else 1.0
    left, span = low - step / 2, high - low + step
    top = max(counts) or 1.0
    inner = SMALL - LEFT - RIGHT
    ticks = values if len(values) <= LABELLED else (low, high)
    body = [*_y_axis(0, top, "values"), *_x_axis(ticks, left, span, x, SMALL)]
    wide = max(inner * step / span * 0.9, 0.6)
    for value, count in zip(values, counts, strict=True):
        tall = count / top * (HEIGHT - TOP - BOTTOM)
        across = LEFT + (value - left) / span * inner - wide / 2
        body.append(
            f'<rect class="bar c0" x="{across:.1f}" y="{HEIGHT - BOTTOM - tall:.1f}" width="{wide:.1f}" '
            f'height="{tall:.1f}"/>'
        )
    for mark in marks:
        if left <= mark <= left + span:
            across = LEFT + (mark - left) / span * inner
            body.append(f'<line class="mark" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    return _svg(title, body, HEIGHT, SMALL)


def bars(title: str, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Horizontal bars from 0 to 1: one group of bars for each name, one bar in it for each group's value."""
    row, name_width = 14, 150
    height = TOP + len(names) * (len(groups) * row + 8) + 18
    inner = WIDTH - name_width - 60
    body = []
    for place, name in enumerate(names):
        top = TOP + place * (len(groups) * row + 8)
        body.append(
            f'<text x="{name_width - 8}" y="{top + len(groups) * row / 2 + 4}" class="end">{escape(name)}</text>'
        )
        for number, (_, values) in enumerate(groups):
            value = values[place]
            if value is None:
                continue
            y, long = top + number * row, max(inner * value, 1)
            color = number % COLOURS
            body.append(
                f'<rect class="bar c{color}" x="{name_width}" y="{y}" width="{long:.1f}" height="{row - 2}"/>'
                f'<text x="{name_width + long + 5:.1f}" y="{y + row - 4}">{value:.3f}</text>'
            )
    return f"{_svg(title, body, height)}{_legend([name for name, _ in groups])}"


def matrix(title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: rows are true classes, columns answers; darker cells hold a larger share of their row."""
    cell = max(5, min(34, (WIDTH - 110) // len(names)))
    left, top = 96, 20
    readable = cell >= 10
    body = []
    for row, (name, own) in enumerate(zip(names, counts, strict=True)):
        total = sum(own) or 1
        y = top + row * cell
        if readable:
            body.append(f'<text class="end" x="{left - 6}" y="{y + cell / 2 + 4}">{escape(name[:12])}</text>')
        for column, count in enumerate(own):
            share = count / total
            kind = "right" if row == column else "wrong"
            body.append(
                f'<rect class="{kind}" style="fill-opacity:{0.6 * share**0.5:.3f}" x="{left + column * cell}" y="{y}" '
                f'width="{cell - 1}" height="{cell - 1}"><title>{escape(name)} taken for {escape(names[column])}: '
                f"{count}</title></rect>"
            )
            if cell >= 24 and count:
                x = left + (column + 0.5) * cell
                body.append(f'<text class="middle strong" x="{x:.1f}" y="{y + cell / 2 + 4}">{count}</text>')
    if len(names) <= 12:
        body += [
            f'<text class="middle" x="{left + (column + 0.5) * cell:.1f}" y="{top - 6}">{escape(name[:4])}</text>'
            for column, name in enumerate(names)
        ]
    return _svg(title, body, top + len(names) * cell + 4, max(WIDTH, left + len(names) * cell + 4))


def _legend(names: Sequence[str]) -> str:
    keys = "".join(f'<span class="key k{number % COLOURS}">{escape(name)}</span>' for number, name in enumerate(names))
    return f'<p class="legend">{keys}</p>'


def _svg(title: str, body: Sequence[str], height: float, width: int = WIDTH) -> str:
    size = f'viewBox="0 0 {width} {height:.0f}" style="max-width:{width}px"'
    return (
        f'<svg {size} role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _y_axis(low: float, high: float, title: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    return [
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}"/>',
        f'<text class="end" x="{LEFT - 6}" y="{TOP + 8}">{high:.4g}</text>',
        f'<text class="end" x="{LEFT - 6}" y="{bottom}">{low:.4g}</text>',
        f'<text class="middle" transform="translate(12 {(TOP + bottom) / 2:.0f}) rotate(-90)">{escape(title)}</text>',
    ]


def _x_axis(ticks: Sequence[float], left: float, span: float, title: str, width: int = WIDTH) -> list[str]:
    bottom, inner = HEIGHT - BOTTOM, width - LEFT - RIGHT
    marks = [
        f'<text class="middle" x="{LEFT + (value - left) / span * inner:.1f}" y="{bottom + 14}">{value:.3g}</text>'
        for value in ticks
    ]
    return [
        f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{bottom}" y2="{bottom}"/>',
        *marks,
        f'<text class="middle" x="{LEFT + inner / 2:.0f}" y="{bottom + 28}">{escape(title)}</text>',
    ]
