"""A network drawn as a column of layers, with a lane beside them for each tensor that is still needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

ROW, LANE, LEFT = 22, 16, 14


@dataclass(frozen=True, kw_only=True)
class Step:
    """A layer.

    Args:
        name: Its own.
        text: What it is.
        kind: Of its dot: the style sheet has "weights", "codes" and "other".
        inputs: Names of the layers that it reads, which stand before it.
    """

    name: str
    text: str
    kind: str
    inputs: Sequence[str]


def lanes(steps: Sequence[Step]) -> list[int]:
    """In which lane each layer stands: its tensor keeps the lane until its last reader.

    A layer takes over the lane of the first of its inputs that nothing else needs, or else the first free one.
    """
    left: dict[str, int] = {}
    for step in steps:
        for name in dict.fromkeys(step.inputs):
            left[name] = left.get(name, 0) + 1
    busy: list[str | None] = []
    places: dict[str, int] = {}
    for step in steps:
        mine = None
        for name in dict.fromkeys(step.inputs):
            left[name] -= 1
            if not left[name]:
                busy[places[name]] = None
                mine = places[name] if mine is None else mine
        if mine is None:
            mine = busy.index(None) if None in busy else len(busy)
        if mine == len(busy):
            busy.append(None)
        places[step.name] = mine
        busy[mine] = step.name if left.get(step.name) else None
    return [places[step.name] for step in steps]


def drawing(title: str, steps: Sequence[Step]) -> str:
    """The network as SVG text."""
    places = lanes(steps)
    at = {
        step.name: (LEFT + LANE * lane, ROW * (row + 0.7))
        for row, (step, lane) in enumerate(zip(steps, places, strict=True))
    }
    text = LEFT + LANE * (max(places) + 1)
    wide = text + 8 + 6.2 * max(len(f"{step.name} {step.text}") for step in steps)
    body = []
    for step in steps:
        x, y = at[step.name]
        for name in dict.fromkeys(step.inputs):
            x0, y0 = at[name]
            # Down its own lane, then over to the reader within the last row.
            over = f"C{x0} {y - ROW / 3:.1f} {x} {y - 2 * ROW / 3:.1f} {x} {y:.1f}"
            way = f"V{y:.1f}" if x0 == x else f"V{y - ROW:.1f}{over}"
            body.append(f'<path class="wire" d="M{x0} {y0:.1f}{way}"/>')
    for step in steps:
        x, y = at[step.name]
        body.append(
            f'<circle class="dot {step.kind}" cx="{x}" cy="{y:.1f}" r="5"/><text x="{text}" y="{y + 4:.1f}">'
            f'<tspan class="strong">{escape(step.name)}</tspan> {escape(step.text)}</text>'
        )
    size = f'viewBox="0 0 {wide:.0f} {ROW * (len(steps) + 0.4):.0f}" style="width:{wide:.0f}px;max-width:none"'
    label = escape(title, quote=True)
    return f'<svg {size} role="img" aria-label="{label}"><title>{escape(title)}</title>{"".join(body)}</svg>'
