"""Streamed sets: the same as cached ones, whatever the number of workers; random resized crops."""

import numpy as np
import pytest
import torch
from image_sets import png, random_pixels, write_parquet

from maqd.data import AugmentConfig, DataConfig, Source, open_data
from maqd.data import dataset as dataset_module
from maqd.data.streaming import AREA, RATIO, random_box
from maqd.errors import DataError


def equal(a, b):
    return all(torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True))


def test_without_augmentation_streamed_equals_cached(parquet_config):
    cached = open_data(parquet_config(stream=False), seed=0)
    streamed = open_data(parquet_config(stream=True), seed=0)
    assert cached.info == streamed.info
    assert equal(cached.train_loader(), streamed.train_loader())
    assert equal(cached.test_loader(), streamed.test_loader())


def test_workers_change_nothing(parquet_config):
    augment = AugmentConfig(crop_padding=2, flip=True, cutout=3)
    alone = open_data(parquet_config(stream=True, augment=augment, image_size=6), seed=0)
    helped = open_data(parquet_config(stream=True, augment=augment, image_size=6, workers=2), seed=0)
    assert equal(alone.train_loader(), helped.train_loader())
    assert equal(alone.test_loader(), helped.test_loader())
    loader = helped.train_loader()
    passed = iter(loader)
    next(passed)
    # Workers run ahead; only what was handed out counts.
    assert loader.state_dict() == {"epoch": 0, "batch": 1}
    resumed = helped.train_loader()
    resumed.load_state_dict(loader.state_dict())
    assert equal(list(passed), list(resumed))
    assert next(iter(helped.train_loader()))[0].is_contiguous(memory_format=torch.channels_last)


def test_large_sets_are_streamed_and_leave_no_cache(parquet_config, monkeypatch, tmp_path):
    monkeypatch.setattr(dataset_module, "STREAMED_BYTES", 50 * 8 * 8 * 3 - 1)
    open_data(parquet_config(), seed=0)
    assert not (tmp_path / "cache").exists()
    open_data(parquet_config(stream=False), seed=0)
    assert (tmp_path / "cache").exists()


def test_errors_of_workers_keep_their_kind(tmp_path):
    good = [png(p) for p in random_pixels(200)]
    write_parquet(tmp_path / "train.parquet", good, [0] * 200)
    write_parquet(tmp_path / "test.parquet", [*good[:101], b"?", *good[102:]], [0] * 200)
    config = DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path), stream=True, workers=1, classes=2)
    with pytest.raises(DataError, match=r"test\.parquet, row 101"):
        list(open_data(config, seed=0).test_loader())


def test_random_resized_crop_only_of_larger_images_and_when_asked_for(tmp_path):
    # Constant images: any crop of them is the image, padding would show.
    encoded = [png(np.full((size, size, 3), 10 * size, np.uint8)) for size in (4, 8, 8, 4)]
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", encoded, [0, 0, 1, 1])

    def pixels(padding):
        augment = AugmentConfig(crop_padding=padding)
        config = DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path), image_size=4, stream=True, augment=augment)
        loader = open_data(config, seed=0).train_loader()
        found = []
        for epoch in range(8):
            loader.set_epoch(epoch)
            found += [set(image.flatten().tolist()) for images, _ in loader for image in images]
        return found

    assert all(len(values) == 1 for values in pixels(0))
    cropped = pixels(3)
    assert {80} in cropped
    assert {80, 128} not in cropped
    assert {40, 128} in cropped


def test_random_boxes_fit_and_have_the_stated_areas_and_ratios():
    rng = np.random.default_rng(0)
    for width, height in ((300, 200), (200, 300), (64, 64)):
        for numbers in rng.random((500, 4)):
            left, top, right, bottom = random_box(width, height, numbers)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            wanted = width * height * (AREA[0] + (AREA[1] - AREA[0]) * numbers[0])
            narrowed = right - left == width or bottom - top == height
            if not narrowed:
                assert abs((right - left) * (bottom - top) - wanted) <= width + height
                assert RATIO[0] * 0.85 < (right - left) / (bottom - top) < RATIO[1] * 1.15
    extreme = np.nextafter(1.0, 0.0)
    assert random_box(1, 1, np.full(4, extreme)) == (0, 0, 1, 1)
    assert random_box(1, 1, np.zeros(4)) == (0, 0, 1, 1)
