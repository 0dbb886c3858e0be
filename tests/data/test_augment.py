"""Vectorized augmentation against a loop over images and pixels."""

import numpy as np
import pytest

from maqd.data import AugmentConfig
from maqd.data.augment import FILL, Draw, apply, crop, cutout, draw, mirror
from maqd.errors import ConfigError


def images(count, size, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def slowly(batch, config, drawn):
    result = np.empty_like(batch)
    count, height, width, _ = batch.shape
    for n in range(count):
        for y in range(height):
            for x in range(width):
                # From the output's pixel back to the source's.
                column = width - 1 - x if drawn.flip is not None and drawn.flip[n] else x
                top, left = (drawn.crop[n] - config.crop_padding) if drawn.crop is not None else (0, 0)
                source_y, source_x = y + top, column + left
                inside = 0 <= source_y < height and 0 <= source_x < width
                result[n, y, x] = batch[n, source_y, source_x] if inside else FILL
                if drawn.cutout is not None:
                    cut_y, cut_x = drawn.cutout[n]
                    if cut_y <= y < cut_y + config.cutout and cut_x <= x < cut_x + config.cutout:
                        result[n, y, x] = FILL
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(crop_padding=4),
        AugmentConfig(crop_padding=9),
        AugmentConfig(flip=True),
        AugmentConfig(cutout=1),
        AugmentConfig(cutout=5),
        AugmentConfig(cutout=9),
        AugmentConfig(crop_padding=2, flip=True, cutout=4),
    ],
)
def test_equals_loop_over_pixels(config, channels):
    batch = images(24, 9, channels)
    before = batch.copy()
    drawn = draw(config, np.random.default_rng(5), count=24, size=9)
    result = apply(batch, config, drawn)
    np.testing.assert_array_equal(result, slowly(batch, config, drawn))
    np.testing.assert_array_equal(batch, before)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous


def test_every_offset_of_a_crop():
    batch = np.repeat(images(1, 6, 3), 25, axis=0)
    offsets = np.array([(y, x) for y in range(5) for x in range(5)])
    result = crop(batch, offsets, padding=2)
    padded = np.pad(batch[0], ((2, 2), (2, 2), (0, 0)), constant_values=FILL)
    for (y, x), image in zip(offsets, result, strict=True):
        np.testing.assert_array_equal(image, padded[y : y + 6, x : x + 6])


def test_every_place_of_a_cutout():
    corners = np.array([(y, x) for y in range(-3, 7) for x in range(-3, 7)])
    batch = np.zeros((len(corners), 6, 6, 1), np.uint8)
    result = cutout(batch, corners, size=3)
    for (y, x), image in zip(corners, result, strict=True):
        expected = np.zeros((6, 6, 1), np.uint8)
        expected[max(y, 0) : max(y + 3, 0), max(x, 0) : max(x + 3, 0)] = FILL
        np.testing.assert_array_equal(image, expected)


def test_mirror_keeps_channels_together():
    batch = images(2, 5, 3)
    result = mirror(batch, np.array([True, False]))
    np.testing.assert_array_equal(result[0], batch[0, :, ::-1])
    np.testing.assert_array_equal(result[1], batch[1])


def test_mirror_takes_a_strided_view():
    batch = images(4, 5, 3).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(mirror(batch, np.full(4, True)), batch[:, :, ::-1])


def test_draws_are_per_sample_and_reach_their_whole_range():
    config = AugmentConfig(crop_padding=2, flip=True, cutout=4)
    drawn = draw(config, np.random.default_rng(0), count=2000, size=8)
    assert drawn.crop is not None
    assert drawn.flip is not None
    assert drawn.cutout is not None
    assert {tuple(c) for c in drawn.crop} == {(y, x) for y in range(5) for x in range(5)}
    assert {tuple(c) for c in drawn.cutout} == {(y, x) for y in range(-2, 6) for x in range(-2, 6)}
    assert 900 < drawn.flip.sum() < 1100


def test_switching_one_change_on_leaves_the_others_as_they_were():
    alone = draw(AugmentConfig(crop_padding=3), np.random.default_rng(0), count=50, size=8)
    both = draw(AugmentConfig(crop_padding=3, flip=True, cutout=2), np.random.default_rng(0), count=50, size=8)
    assert alone.crop is not None
    assert both.crop is not None
    np.testing.assert_array_equal(alone.crop, both.crop)
    assert alone.flip is None
    assert alone.cutout is None


def test_nothing_drawn_gives_the_same_array():
    batch = images(3, 4, 1)
    assert apply(batch, AugmentConfig(), Draw(crop=None, flip=None, cutout=None)) is batch


@pytest.mark.parametrize("options", [{"crop_padding": -1}, {"cutout": -1}, {"cutout": 1.5}, {"crop_padding": True}])
def test_bad_amounts_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        AugmentConfig(**options)
