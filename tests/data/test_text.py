"""Windows of a text: targets are the next bytes, and no part sees another."""

from pathlib import Path

import numpy as np
import pytest

from maqd.data import DataConfig, open_data
from maqd.errors import DataError
from maqd.settings.data import Source


def text_config(path: Path, text: bytes, **options: object) -> DataConfig:
    path.write_bytes(text)
    return DataConfig(source=Source.TEXT, path=str(path), context=8, batch_size=4, **options)  # pyright: ignore[reportArgumentType]


def test_targets_are_the_bytes_that_follow_and_parts_are_apart(tmp_path: Path):
    text = np.random.default_rng(0).permutation(200).astype(np.uint8).tobytes()
    data = open_data(text_config(tmp_path / "t.txt", text, validation=3), seed=0)
    assert data.info.text
    assert (data.info.num_classes, data.info.shape) == (256, (8,))
    place = {byte: position for position, byte in enumerate(text)}  # every byte occurs once
    seen = []
    held = data.validation_loader()
    assert held is not None
    for loader in (data.train_loader(), held, data.test_loader()):
        positions = set()
        for tokens, targets in loader:
            assert (tokens.shape, targets.shape) == (tokens.shape, tokens.shape)
            before = np.vectorize(place.get)(tokens.numpy())
            after = np.vectorize(place.get)(targets.numpy())
            assert (after == before + 1).all()
            positions |= set(before.flatten()) | set(after.flatten())
        seen.append(positions)
    assert max(seen[0]) < min(seen[1])
    assert max(seen[1]) < min(seen[2])
    assert len(data.validation_loader() or ()) == 1


@pytest.mark.parametrize("text", [b"", b"short"])
def test_a_text_shorter_than_a_context_is_refused(tmp_path: Path, text: bytes):
    with pytest.raises(DataError, match=f"t.txt has {len(text)} bytes, and a context of 8 needs 18 or more"):
        open_data(text_config(tmp_path / "t.txt", text), seed=0)


def test_a_missing_text_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"no.txt cannot be read: No such file or directory; name a text file"):
        open_data(DataConfig(source=Source.TEXT, path=str(tmp_path / "no.txt")), seed=0)
    with pytest.raises(DataError, match=r"source text needs a file; name it with --data\.path FILE"):
        open_data(DataConfig(source=Source.TEXT), seed=0)
