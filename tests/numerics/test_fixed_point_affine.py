"""The fixed-point map: right on every integer, with the smallest shift, against exhaustive search."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maqd.numerics.fixedpoint import fixed_point_affine, input_thresholds, integer_thresholds

BOUNDED = settings(deadline=None, derandomize=True, database=None)


def count(cuts: NDArray[np.integer], sign: int, x: NDArray[np.integer]) -> NDArray[np.integer]:
    return np.array([sum(sign * value >= cut for cut in cuts.tolist()) for value in x.tolist()], np.int64)


def solvable(cuts: NDArray[np.integer], sign: int, x: NDArray[np.integer], shift: int) -> bool:
    """Whether any A and B at all do it with this shift, by trying them."""
    wanted, last = count(cuts, sign, x), len(cuts)
    steepest, reach = (last + 1) << shift, int(abs(x).max()) + 1
    a, b = np.meshgrid(np.arange(-steepest, steepest + 1), np.arange(-steepest * reach, steepest * (reach + 1) + 1))
    right = np.ones(a.shape, bool)
    for value, code in zip(x.tolist(), wanted.tolist(), strict=True):
        right &= np.clip((a * value + b) >> shift, 0, last) == code
    return bool(right.any())


@st.composite
def channels(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Thresholds (M-1) x C of affine maps, signs, and bounds of small integers."""
    last, size = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    columns, signs, lows, highs = [], [], [], []
    for _ in range(size):
        distance = Fraction(draw(st.integers(1, 40)), draw(st.integers(1, 12)))
        first = Fraction(draw(st.integers(-60, 60)), draw(st.integers(1, 12)))
        columns.append([-(-(first + k * distance) // 1) for k in range(last)])
        signs.append(draw(st.sampled_from([1, -1])))
        lows.append(draw(st.integers(-7, 4)))
        highs.append(lows[-1] + draw(st.integers(0, 8)))
    cuts = np.array(columns, np.int64).T
    return cuts, np.array(signs), np.array(lows, np.int64), np.array(highs, np.int64)


@settings(BOUNDED, max_examples=200)
@given(channels())
def test_equals_the_thresholds_everywhere_and_no_smaller_shift_does(case):
    cuts, signs, low, high = case
    found = fixed_point_affine(cuts, signs, low, high)
    assert found is not None
    ranges = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
    for c, x in enumerate(ranges):
        got = np.clip((found.multiplier[c] * x + found.offset[c]) >> found.shift, 0, len(cuts))
        np.testing.assert_array_equal(got, count(cuts[:, c], signs[c], x))
    if 0 < found.shift <= 4:
        smaller = [solvable(cuts[:, c], signs[c], x, found.shift - 1) for c, x in enumerate(ranges)]
        assert not all(smaller)


def test_two_states_need_no_shift():
    found = fixed_point_affine(np.array([[3, -5]]), np.array([1, -1]), np.array([-9, -9]), np.array([9, 9]))
    assert found is not None
    assert found.shift == 0
    x = np.arange(-9, 10)
    np.testing.assert_array_equal(np.clip(found.multiplier[0] * x + found.offset[0], 0, 1), x >= 3)
    np.testing.assert_array_equal(np.clip(found.multiplier[1] * x + found.offset[1], 0, 1), -x >= -5)


@pytest.mark.parametrize("reached", [0, 1, 2, 3])
def test_constant_channels_need_no_multiplier(reached: int):
    cuts = np.where(np.arange(3) < reached, -100, 100)[:, None]
    found = fixed_point_affine(cuts, np.array([1]), np.array([-50]), np.array([50]))
    assert found is not None
    assert found.multiplier.tolist() == [0]
    assert found.offset.tolist() == [reached]
    assert found.shift == 0


def test_one_shift_serves_all_channels():
    cuts = np.array([[0, 10, -3], [1, 17, 4], [2, 23, 10]])  # the last two are not evenly spaced
    low, high = np.full(3, -40), np.full(3, 40)
    alone = [fixed_point_affine(cuts[:, c : c + 1], np.array([1]), low[c : c + 1], high[c : c + 1]) for c in range(3)]
    together = fixed_point_affine(cuts, np.array([1, 1, 1]), low, high)
    assert together is not None
    assert together.shift == max(single.shift for single in alone if single is not None) > 0


def test_no_line_passes_through_steps_that_no_affine_map_has():
    # 0 at 0, 1 at 1, 1 up to 99, 2 at 100, 3 at 101: no line does that.
    assert fixed_point_affine(np.array([[1], [100], [101]]), np.array([1]), np.array([0]), np.array([200])) is None


def test_products_that_would_not_fit_64_bits_are_not_offered():
    # 255 steps over 2**24 integers: the slope must be known to more bits than are there.
    cuts = np.ceil(np.arange(1, 256)[:, None] * 65536.37 + 0.5).astype(np.int64)
    assert fixed_point_affine(cuts, np.array([1]), np.array([0]), np.array([2**24 - 1])) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_large_accumulators_are_exact(sign: int):
    cuts = np.ceil(np.arange(1, 16)[:, None] * 5461.7 - 40_000.3).astype(np.int64)
    low, high = np.array([-80_000]), np.array([80_001])
    found = fixed_point_affine(cuts, np.array([sign]), low, high)
    assert found is not None
    x = np.arange(low[0], high[0] + 1)
    wanted = np.searchsorted(cuts[:, 0], sign * x, side="right")
    np.testing.assert_array_equal(np.clip((found.multiplier[0] * x + found.offset[0]) >> found.shift, 0, 15), wanted)


values = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.5, 1.0, -1.0, 1e-30, -1e30, 1e300])


@settings(BOUNDED, max_examples=300)
@given(values, values, values, st.integers(-12, 4), st.integers(-300, 300), st.integers(0, 300))
def test_integer_thresholds_are_those_of_the_real_map(
    gain: float, mean: float, bias: float, exponent: int, low: int, width: int
):
    cuts = np.array([0.5, 1.5, 2.5])
    thresholds, signs = input_thresholds(np.array([gain]), np.array([mean]), np.array([bias]), cuts)
    lows, highs = np.array([low]), np.array([low + width])
    found = integer_thresholds(thresholds, signs, exponent, lows, highs)
    unit = Fraction(2) ** exponent
    for n, k in product({low, low + 1, low + width // 2, low + width}, range(3)):
        if low <= n <= low + width:
            y = Fraction(gain) * (n * unit - Fraction(mean)) + Fraction(bias)
            assert (signs[0] * n >= found[k, 0]) == (y >= Fraction(float(cuts[k])))
    first, last = sorted((signs[0] * low, signs[0] * (low + width)))
    assert ((found >= first) & (found <= last + 1)).all()
