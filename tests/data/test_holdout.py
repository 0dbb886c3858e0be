"""Which training images are held out."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maqd.data import AugmentConfig, DataConfig, Source, open_data
from maqd.data.holdout import held_out_count, hold_out
from maqd.errors import ConfigError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_every_class_gives_its_share(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(labels) - 1))
    kept, held = hold_out(np.array(labels, np.int64), count, data.draw(st.integers(0, 3)))
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(held) == count
    assert list(held) == sorted(held)
    given_by = Counter(labels[i] for i in held)
    for label, size in Counter(labels).items():
        assert size * count // len(labels) <= given_by[label] <= size * count // len(labels) + 1


def test_the_seed_decides_and_nothing_else() -> None:
    labels = np.arange(1000) % 10
    first, again, other = (hold_out(labels, 100, seed)[1] for seed in (0, 0, 1))
    assert list(first) == list(again)
    assert list(first) != list(other)
    assert set(Counter(labels[first]).values()) == {10}


@pytest.mark.parametrize(("size", "count"), [(0, 0), (0.1, 5), (0.25, 12), (1, 1), (49, 49)])
def test_fractions_and_counts(size: float, count: int) -> None:
    assert held_out_count(size, 50) == count


@pytest.mark.parametrize("size", [50, 0.001, 0.999])
def test_something_must_be_left(size: float) -> None:
    with pytest.raises(ConfigError, match="validation must be 0, a fraction"):
        held_out_count(size, 50)


@pytest.mark.parametrize("size", [-1, 1.5, float("nan")])
def test_sizes_that_are_none(size: float) -> None:
    with pytest.raises(ConfigError, match="validation must be 0, a fraction below 1"):
        DataConfig(validation=size)


def test_held_out_images_are_never_trained_on() -> None:
    config = DataConfig(source=Source.DIGITS, batch_size=64, validation=200, augment=AugmentConfig())
    data = open_data(config, seed=3)
    assert (data.info.train_size, data.info.validation_size, data.info.test_size) == (1237, 200, 360)
    loader = data.validation_loader()
    assert loader is not None
    held = {images.numpy().tobytes() for batch, _ in loader for images in batch}
    whole = open_data(DataConfig(source=Source.DIGITS, batch_size=1437), seed=0)
    everything = {image.numpy().tobytes() for batch, _ in whole.train_loader() for image in batch}
    trained = {image.numpy().tobytes() for _ in range(2) for batch, _ in data.train_loader() for image in batch}
    assert sum(len(labels) for _, labels in loader) == 200
    assert held <= everything
    assert trained <= everything
    assert not held & trained


def test_processes_share_the_held_out_images() -> None:
    config = DataConfig(source=Source.DIGITS, batch_size=32, validation=0.1, eval_batch_size=7)
    shares = [open_data(config, seed=0, rank=rank, world_size=2).validation_loader() for rank in (0, 1)]
    counts = [sum(len(labels) for _, labels in share) for share in shares if share is not None]
    assert counts == [72, 72]


def test_without_held_out_images_there_is_no_loader() -> None:
    data = open_data(DataConfig(source=Source.DIGITS), seed=0)
    assert data.validation_loader() is None
    assert data.info.validation_size == 0
