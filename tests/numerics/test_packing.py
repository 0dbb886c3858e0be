"""Packed codes against Python's big integers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maqd.errors import GraphError
from maqd.numerics.packing import PackedCodes, code_type, group, row_bytes
from maqd.numerics.states import States

BOUNDED = settings(deadline=None, derandomize=True, database=None)


def by_hand(codes: np.ndarray, states: States) -> bytes:
    """Groups as Python integers."""
    layout = group(states.count)
    out = b""
    for row in codes.reshape(len(codes), -1).tolist():
        index = [(code - states.low) // states.spacing for code in row]
        for start in range(0, len(index), layout.digits):
            number = sum(
                digit * states.count**place for place, digit in enumerate(index[start : start + layout.digits])
            )
            out += number.to_bytes(layout.bytes, "little")
    return out


@settings(BOUNDED, max_examples=300)
@given(
    st.integers(2, 256),
    st.booleans(),
    st.lists(st.integers(1, 7), min_size=2, max_size=4),
    st.integers(0, 2**32),
)
def test_packing_is_the_documented_one_and_can_be_undone(count: int, signed: bool, shape: list[int], seed: int):
    states = States(count=count, signed=signed)
    codes = np.random.default_rng(seed).choice(np.array(states.codes), shape).astype(np.int16)
    packed = PackedCodes.pack(codes, states)
    assert packed.data.tobytes() == by_hand(codes, states)
    assert packed.data.shape == (shape[0], row_bytes(count, math.prod(shape[1:])))
    np.testing.assert_array_equal(packed.unpack(), codes)
    assert packed.unpack().dtype == code_type(states)
    rows = codes.reshape(shape[0], -1).astype(int)
    positive, negative = packed.row_sums()
    np.testing.assert_array_equal(positive, np.maximum(rows, 0).sum(1))
    np.testing.assert_array_equal(negative, np.maximum(-rows, 0).sum(1))
    assert packed.nonzero() == np.count_nonzero(rows)
    assert (packed.length, packed.size) == (rows.shape[1], rows.size)


def test_long_rows_and_many_of_them():
    states = States(count=3, signed=True)
    codes = np.random.default_rng(0).integers(-1, 2, (300, 1234)).astype(np.int8)
    packed = PackedCodes.pack(codes, states)
    np.testing.assert_array_equal(packed.unpack(), codes)
    positive, negative = packed.row_sums()
    np.testing.assert_array_equal(positive, (codes > 0).sum(1))
    np.testing.assert_array_equal(negative, (codes < 0).sum(1))


@pytest.mark.parametrize(
    ("count", "digits", "size"), [(2, 8, 1), (3, 5, 1), (4, 4, 1), (8, 8, 3), (16, 2, 1), (256, 1, 1)]
)
def test_familiar_groups(count: int, digits: int, size: int):
    assert (group(count).digits, group(count).bytes) == (digits, size)


@pytest.mark.parametrize("count", range(2, 257))
def test_groups_are_dense(count: int):
    layout = group(count)
    assert count**layout.digits <= 256**layout.bytes < count ** (layout.digits + 1)
    assert 8 * layout.bytes / layout.digits / math.log2(count) < (1.051 if count < 17 else 1.15)


def test_a_worked_example():
    codes = np.array([[1, 0, -1, 1, 1, -1]], np.int8)  # indices 2 1 0 2 2 | 0
    packed = PackedCodes.pack(codes, States(count=3, signed=True))
    assert packed.data.tolist() == [[2 + 1 * 3 + 0 * 9 + 2 * 27 + 2 * 81, 0]]


@pytest.mark.parametrize("codes", [[[2, 0]], [[-2, 0]], [[100, 0]]])
def test_values_that_are_no_codes_are_refused(codes: list[list[int]]):
    with pytest.raises(GraphError, match="codes must be among those of States"):
        PackedCodes.pack(np.array(codes), States(count=3, signed=True))
    with pytest.raises(GraphError, match="codes must be among"):
        PackedCodes.pack(np.array([[0, 1]]), States(count=4, signed=True))


@pytest.mark.parametrize(("count", "shape"), [(3, (2, 5)), (3, (2, 7)), (5, (2, 17)), (5, (2, 20)), (7, (3, 3))])
def test_groups_that_hold_no_codes_are_refused(count: int, shape: tuple[int, int]):
    states = States(count=count, signed=True)
    data = np.zeros((shape[0], row_bytes(count, shape[1])), np.uint8)
    data[-1, -1] = 255
    with pytest.raises(GraphError, match=r"a group of \d+ codes of \d states is a number below \d+, got"):
        PackedCodes(states=states, shape=shape, data=data)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((5,), np.zeros((5, 1), np.uint8)),
        ((5, 0), np.zeros((5, 0), np.uint8)),
        ((5, 6), np.zeros((5, 1), np.uint8)),
        ((5, 5), np.zeros((5, 1), np.int8)),
        ((5, 5), np.zeros(5, np.uint8)),
    ],
)
def test_data_of_another_shape_are_refused(shape: tuple[int, ...], data: np.ndarray):
    with pytest.raises(GraphError):
        PackedCodes(states=States(count=3, signed=True), shape=shape, data=data)


def test_packed_data_cannot_be_written_to():
    packed = PackedCodes.pack(np.zeros((2, 5), np.int8), States(count=3, signed=True))
    with pytest.raises(ValueError, match="read-only"):
        packed.data[0] = 1
