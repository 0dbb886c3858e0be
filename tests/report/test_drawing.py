"""Drawn networks: no wire runs through a layer that does not read it; images survive as PNG."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from maqd.report.image import data_uri
from maqd.report.network import Step, drawing, lanes


def chain(*reads: tuple[str, ...]) -> list[Step]:
    """Layers a, b, c, ..., each with the inputs given."""
    return [Step(name=chr(97 + place), text="conv", kind="weights", inputs=names) for place, names in enumerate(reads)]


def test_a_chain_stays_in_one_lane():
    assert lanes(chain((), ("a",), ("b",), ("c",))) == [0, 0, 0, 0]


def test_a_shortcut_keeps_its_lane_until_it_is_read():
    # b and c beside a's shortcut; e reads both.
    steps = chain((), ("a",), ("b",), ("a", "c"), ("d",))
    assert lanes(steps) == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_no_layer_stands_in_the_lane_of_a_tensor_that_is_still_needed(seed: int):
    random = np.random.default_rng(seed)
    reads: list[tuple[str, ...]] = [()]
    for place in range(1, 25):
        reads.append(
            tuple(chr(97 + int(one)) for one in random.integers(max(0, place - 6), place, random.integers(1, 4)))
        )
    steps = chain(*reads)
    places = dict(zip([step.name for step in steps], lanes(steps), strict=True))
    last = {name: row for row, step in enumerate(steps) for name in step.inputs}
    for row, step in enumerate(steps):
        held = [places[one.name] for one in steps[:row] if last.get(one.name, -1) > row]
        assert len(set(held)) == len(held)
        assert places[step.name] not in held


def test_a_drawing_has_a_dot_a_layer_and_a_wire_an_input():
    drawn = ElementTree.fromstring(drawing("t", chain((), ("a",), ("a", "b"), ("c", "c"))))
    assert len(drawn.findall("circle")) == 4
    assert len(drawn.findall("path")) == 4
    assert [text[0].text for text in drawn.findall("text")] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_image(channels: int):
    image = np.random.default_rng(channels).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    kind, _, text = data_uri(image).partition(",")
    assert kind == "data:image/png;base64"
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    assert np.array_equal(read.reshape(5, 7, channels), np.moveaxis(image, 0, 2))
