"""Bounds against all inputs of small rows."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maqd.numerics.bounds import Interval, narrow, narrowest, product_sums
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(2, 6), st.integers(-4, 2), st.integers(0, 5), st.integers(0, 2**32), st.booleans())
def test_bounds_hold_and_are_attained(count: int, low: int, width: int, seed: int, biased: bool):
    random = np.random.default_rng(seed)
    states = States(count=count, signed=True)
    codes = random.choice(np.array(states.codes), (3, 4))
    bias = random.integers(-9, 10, 3) if biased else None
    high = low + width
    found = product_sums(PackedCodes.pack(codes, states), low, high, bias)
    inputs = np.array(list(product({low, high, min(low, 0), max(high, 0)}, repeat=4)))
    sums = inputs @ codes.T + (0 if bias is None else bias)
    np.testing.assert_array_equal(sums.min(0), found.low)
    np.testing.assert_array_equal(sums.max(0), found.high)


def test_bounds_hold_for_partial_sums_in_any_order():
    codes = np.array([[2, -1, 1, -2]])
    found = product_sums(PackedCodes.pack(codes, States(count=5, signed=True)), 1, 3, np.array([4]))
    for inputs in product(range(1, 4), repeat=4):
        for order in permutations(range(4)):
            total = 4
            for place in order:
                total += codes[0, place] * inputs[place]
                assert found.low[0] <= total <= found.high[0]


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0, 0, np.int8),
        (-128, 127, np.int8),
        (-129, 0, np.int16),
        (0, 128, np.int16),
        (-(2**15), 2**15 - 1, np.int16),
        (-(2**15) - 1, 0, np.int32),
        (0, 2**15, np.int32),
        (-(2**31), 2**31 - 1, np.int32),
        (0, 2**31, np.int64),
        (-(2**63), 2**63 - 1, np.int64),
    ],
)
def test_narrowest(low: int, high: int, kind: type):
    assert narrowest(low, high) == kind
    np.testing.assert_array_equal(narrow(np.array([low, high], np.int64)), np.array([low, high]))
    assert narrow(np.array([low, high], np.int64)).dtype == kind


def test_beyond_64_bits():
    with pytest.raises(OverflowError, match="does not fit 64 bits"):
        narrowest(0, 2**63)


def test_intervals_cannot_be_written_to():
    interval = Interval.of(-3, 4, 3)
    assert interval.low.shape == (1, 1, 1)
    assert (interval.lowest, interval.highest) == (-3, 4)
    with pytest.raises(ValueError, match="read-only"):
        interval.low[0] = 1
