"""Charts and pages: numbers land where they belong, texts are escaped, and nothing is fetched."""

import re
from xml.etree import ElementTree

import pytest

from maqd.report.charts import Line, bars, histogram, lines, matrix
from maqd.report.energy import DRAM_WORD, SRAM_WORD, Operations, Traffic
from maqd.report.page import Section, Table, page


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text[: text.index("</svg>") + len("</svg>")])


def numbers(element: ElementTree.Element, key: str) -> float:
    return float(element.attrib[key])


def test_a_line_spans_its_axes():
    drawn = svg(lines("t", [Line(title="a", x=[1, 2, 5], y=[10.0, 0.0, 5.0])], x_title="x", y_title="y"))
    (line,) = drawn.findall("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1 - x0) / (x2 - x0) == pytest.approx(1 / 4, abs=1e-3)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert y0 < y1


def test_bars_of_a_histogram_stand_at_their_values():
    drawn = svg(histogram("t", [-1, 0, 1], [10, 40, 20], [0.5, 99], x="code"))
    left, middle, right = drawn.findall("rect")
    centres = [numbers(bar, "x") + numbers(bar, "width") / 2 for bar in (left, middle, right)]
    assert centres[1] == pytest.approx((centres[0] + centres[2]) / 2, abs=0.1)
    assert numbers(left, "height") / numbers(middle, "height") == pytest.approx(0.25, abs=1e-2)
    (mark,) = [line for line in drawn.findall("line") if line.attrib["class"] == "mark"]
    assert numbers(mark, "x1") == pytest.approx((centres[1] + centres[2]) / 2, abs=0.1)


def test_missing_values_have_no_bar():
    drawn = svg(bars("t", ["one", "two"], [("R", [0.5, None])]))
    assert len(drawn.findall("rect")) == 1
    assert "0.500" in [text.text for text in drawn.findall("text")]


def test_a_cell_of_the_confusion_matrix_names_its_count():
    drawn = svg(matrix("t", ["cat", "<dog>"], [[3, 1], [0, 4]]))
    titles = [title.text for title in drawn.iter("title")]
    assert "cat taken for <dog>: 1" in titles
    assert [cell.attrib["class"] for cell in drawn.findall("rect")] == ["right", "wrong", "wrong", "right"]


def test_a_page_escapes_and_fetches_nothing():
    table = Table(headings=["name", "n"], rows=[("<b>", 1234), ("x", None)])
    text = page("a & b", [("k", "<v>")], [Section(title="T", text="1 < 2", table=table)])
    assert "a &amp; b" in text
    assert "&lt;v&gt;" in text
    assert "<td class=text>&lt;b&gt;</td><td>1,234</td>" in text
    assert "<td>–</td>" in text
    assert not re.search(r"https?:|src=|href=|<script|@import|url\(", text)


def test_energy_counts_events_once():
    ternary = Operations(macs=1000, events=250, products=False)
    assert ternary.float_picojoules == pytest.approx(4600)
    assert ternary.picojoules == pytest.approx(25)
    assert Operations(macs=1000, events=250, products=True).picojoules == pytest.approx(75)


def test_traffic_counts_weights_once_and_inputs_twice():
    layer = Traffic(weights=64, weight_states=4, inputs=16, input_states=2)
    assert layer.float_picojoules(SRAM_WORD) == pytest.approx((64 + 2 * 16) * 5)
    assert layer.picojoules(DRAM_WORD) == pytest.approx(64 * 2 / 32 * 640 + 2 * 16 / 32 * 5)


def test_a_hundred_classes_fit_into_the_matrix():
    names = [f"class {number}" for number in range(100)]
    drawn = svg(matrix("t", names, [[int(row == column) for column in range(100)] for row in range(100)]))
    wide = float(drawn.attrib["viewBox"].split()[2])
    assert max(numbers(cell, "x") + numbers(cell, "width") for cell in drawn.findall("rect")) <= wide < 800
