"""Encoded images: what messages say of them, and what decoding leaves out of them."""

from pathlib import Path

import pytest
from PIL import Image

from maqd.errors import DataError
from maqd.io.images import losses, open_encoded


def frames_of(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (6, 6), (80 * number, 3, 9)) for number in range(count)]


def test_messages_do_not_speak_of_memory() -> None:
    with pytest.raises(DataError) as caught:
        open_encoded(b"text", "a.png")
    assert "BytesIO" not in str(caught.value)
    assert "a.png: must be a whole image that Pillow can read, got UnidentifiedImageError" in str(caught.value)


def test_later_frames_and_transparency_are_noticed(tmp_path: Path) -> None:
    first, *others = frames_of(3)
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    assert losses(open_encoded((tmp_path / "a.gif").read_bytes(), "a.gif")) == (
        "only the first of its 3 frames is used",
    )
    first.save(tmp_path / "a.png")
    assert losses(open_encoded((tmp_path / "a.png").read_bytes(), "a.png")) == ()
