"""A report as one HTML page that needs nothing else: no file, no request, no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from maqd.io.outputs import GENERATOR

STYLE = """
:root{--ink:#1d2430;--soft:#5b6675;--paper:#fff;--card:#f3f5f8;--rule:#d5dae1;--a:#1f6fb2;--b:#c2571a;
--c:#2a7d3f;--d:#7b3fa0;--e:#7a6200;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebf0;--soft:#a9b3c1;--paper:#14181e;--card:#1e242d;--rule:#38414e;
--a:#6db3ee;--b:#f0975a;
--c:#7ccf92;--d:#c79ae6;--e:#d9bd4f;--bad:#f28b82}}
*{box-sizing:border-box}body{margin:0 auto;max-width:60rem;padding:1.2rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2rem 0 .4rem}
p{margin:.3rem 0 .8rem;color:var(--soft)}dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));
gap:.6rem;margin:1rem 0}dl>div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.15rem;font-weight:600;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th:first-child,td:first-child,td.text,th.text{text-align:left}thead th{color:var(--soft);font-weight:600}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}svg .strong{fill:var(--ink)}
.end{text-anchor:end}.middle{text-anchor:middle}.axis{stroke:var(--rule)}
.mark{stroke:var(--bad);stroke-width:2;stroke-dasharray:4 2}
.line{fill:none;stroke-width:2}.line.c0{stroke:var(--a)}.line.c1{stroke:var(--b)}.line.c2{stroke:var(--c)}
.line.c3{stroke:var(--d)}.line.c4{stroke:var(--e)}.bar.c0,.right,.weights{fill:var(--a)}.bar.c1,.codes{fill:var(--b)}
.bar.c2{fill:var(--c)}.bar.c3{fill:var(--d)}.bar.c4{fill:var(--e)}.other{fill:var(--soft)}
.wire{fill:none;stroke:var(--soft);stroke-width:1.5}.wrong{fill:var(--bad)}.legend{font-size:.85rem}.key{margin-right:1.2rem}
.key::before{content:"";display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:.15em}
.k0::before{background:var(--a)}.k1::before{background:var(--b)}.k2::before{background:var(--c)}
.k3::before{background:var(--d)}.k4::before{background:var(--e)}
.photos{display:grid;grid-template-columns:repeat(auto-fill,minmax(8rem,1fr));gap:1rem}
.photos img{width:6rem;height:6rem;object-fit:contain;image-rendering:pixelated;background:var(--card)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:1rem}figure{margin:0}
figcaption{font-size:.85rem;color:var(--soft)}
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a section.

    Args:
        headings: Of its columns.
        rows: Texts and numbers; None is shown as a dash.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A small image with a caption.

    Args:
        address: A data: address.
        text: Its caption.
        label: What it shows, for who does not see it.
    """

    address: str
    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page.

    Args:
        title: Its heading.
        text: A sentence below it.
        charts: SVG texts, each with a caption.
        wide: SVG text that may be wider than the page: it scrolls.
        photos: Shown side by side.
        table: Shown below the charts.
    """

    title: str
    text: str = ""
    charts: Sequence[tuple[str, str]] = ()
    wide: str = ""
    photos: Sequence[Photo] = ()
    table: Table | None = None


def page(title: str, card: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page.

    Args:
        title: What it is about.
        card: Names and values on top.
        sections: In order.
    """
    values = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in card)
    body = "".join(_section(section) for section in sections)
    top = f"<dl>{values}</dl>" if card else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{GENERATOR}<title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{top}{body}</main></body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    charts = [
        f"<figure>{svg}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"
        for svg, caption in section.charts
        if svg
    ]
    parts.append(f'<div class="charts">{"".join(charts)}</div>' if len(charts) > 1 else "".join(charts))
    if section.photos:
        photos = "".join(
            f'<figure><img src="{photo.address}" alt="{escape(photo.label, quote=True)}">'
            f"<figcaption>{escape(photo.text)}</figcaption></figure>"
            for photo in section.photos
        )
        parts.append(f'<div class="photos">{photos}</div>')
    # What is wide scrolls by itself, also with the keyboard.
    label = escape(section.title, quote=True)
    wide = [section.wide] if section.wide else []
    wide += [] if section.table is None else [_table(section.table)]
    parts += [f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{one}</div>' for one in wide]
    return "".join([*parts, "</section>"])


def _table(table: Table) -> str:
    texts = [all(isinstance(row[place], str | None) for row in table.rows) for place in range(len(table.headings))]
    head = "".join(
        f'<th scope="col"{" class=text" if text else ""}>{escape(heading)}</th>'
        for heading, text in zip(table.headings, texts, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=text' if text else ''}>{escape(_cell(value))}</td>"
            for value, text in zip(row, texts, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else value
