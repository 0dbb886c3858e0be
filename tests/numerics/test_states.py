"""States, grids and the two numbers derived from them."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maqd import Grid, States
from maqd.errors import ConfigError
from maqd.numerics.states import MAX_STATES, PIXELS, gaussian_step, power_of_two_exponent

ALL_COUNTS = range(2, 257)


def test_unsigned_codes_count_from_zero_for_every_state_count():
    for count in ALL_COUNTS:
        states = States(count=count, signed=False)
        assert list(states.codes) == list(range(count))
        assert (states.low, states.high, states.spacing, states.origin) == (0, count - 1, 1, 0.0)


def test_signed_codes_are_those_of_the_definition_for_every_state_count():
    for count in ALL_COUNTS:
        states = States(count=count, signed=True)
        if count % 2:
            expected = list(range(-(count - 1) // 2, (count - 1) // 2 + 1))
        else:
            expected = [2 * j - (count - 1) for j in range(count)]
        assert list(states.codes) == expected
        assert list(states.codes) == [-code for code in reversed(states.codes)]
        assert (states.low, states.high) == (expected[0], expected[-1])
        assert states.spacing == expected[1] - expected[0] == (1 if count % 2 else 2)


@pytest.mark.parametrize("signed", [False, True])
def test_origin_is_the_fractional_index_of_zero(signed: bool):
    for count in ALL_COUNTS:
        states = States(count=count, signed=signed)
        assert states.low + states.spacing * Fraction(states.origin) == 0


def test_bits_are_the_information_of_a_code():
    assert [States(count=m, signed=True).bits for m in (2, 4, 256)] == [1.0, 2.0, 8.0]
    assert 2 ** States(count=3, signed=True).bits == pytest.approx(3, rel=1e-15)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("count", [1, 0, -1, -3, 65537, 10**9, True, False, 3.0, 2.5, "3", None, math.nan, Fraction(3)])
def test_anything_but_an_integer_from_2_to_65536_is_refused(count: object, signed: bool):
    with pytest.raises(ConfigError, match=r"2 \.\. 65536"):
        States(count=count, signed=signed)  # type: ignore[arg-type]


def test_largest_state_count_is_the_last_accepted_one():
    assert States(count=MAX_STATES, signed=False).high == 65535
    with pytest.raises(ConfigError):
        States(count=MAX_STATES + 1, signed=False)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("exponent", [-9, 0, 3])
def test_neighbouring_values_of_a_grid_differ_by_the_step(signed: bool, exponent: int):
    for count in ALL_COUNTS:
        states = States(count=count, signed=signed)
        grid = states.grid(exponent)
        values = [code * Fraction(grid.unit) for code in states.codes]
        assert {b - a for a, b in pairwise(values)} == {Fraction(2) ** exponent}
        assert (grid.low, grid.high) == (states.low, states.high)


@pytest.mark.parametrize(("low", "high", "magnitude"), [(-3, 2, 3), (-2, 3, 3), (0, 0, 0), (-7, -5, 7), (1, 4, 4)])
def test_magnitude_is_the_largest_absolute_code(low: int, high: int, magnitude: int):
    assert Grid(low=low, high=high, exponent=0).magnitude == magnitude


def test_empty_grid_is_refused():
    with pytest.raises(ConfigError, match="low <= high"):
        Grid(low=1, high=0, exponent=0)


def test_pixels_are_bytes_minus_128_in_64ths():
    assert (PIXELS.low, PIXELS.high, PIXELS.unit) == (0 - 128, 255 - 128, 1 / 64)


@pytest.mark.parametrize("exponent", [-1074, -1022, -149, -1, 0, 1, 52, 127, 1023])
def test_power_of_two_exponent_inverts_ldexp(exponent: int):
    assert power_of_two_exponent(math.ldexp(1.0, exponent), "it") == exponent


@settings(deadline=None, derandomize=True, database=None)
@given(st.floats(min_value=1e-300, max_value=1e300))
def test_power_of_two_exponent_accepts_exactly_the_powers_of_two(value: float):
    numerator, denominator = value.as_integer_ratio()
    if numerator & (numerator - 1) == 0 and denominator & (denominator - 1) == 0:
        assert Fraction(2) ** power_of_two_exponent(value, "it") == Fraction(value)
    else:
        with pytest.raises(ConfigError, match="the step must be a positive power of two"):
            power_of_two_exponent(value, "the step")


LARGE = 1.7e308


@pytest.mark.parametrize("value", [0, 0.0, -1.0, -2, 3, 1.5, math.nan, math.inf, -math.inf, 5e-324 * 3, 1.2e308, LARGE])
def test_values_that_are_no_positive_power_of_two_are_refused(value: float):
    with pytest.raises(ConfigError, match=r"act_step must be a positive power of two, got .*nearest one is"):
        power_of_two_exponent(value, "act_step")


def test_refusal_names_the_nearest_power_of_two():
    with pytest.raises(ConfigError, match=r"nearest one is 0\.25$"):
        power_of_two_exponent(0.3, "it")


# ---- the best step of a Gaussian -------------------------------------------------------------------------------------

# J. Max, "Quantizing for minimum distortion", IRE Trans. Inf. Theory 6 (1960), table II (uniform spacing).
MAX_1960 = {2: 1.596, 3: 1.224, 4: 0.9957, 5: 0.8430, 6: 0.7334, 7: 0.6508, 8: 0.5860, 16: 0.3352, 32: 0.1881}


@pytest.mark.parametrize(("count", "step"), MAX_1960.items())
def test_gaussian_step_agrees_with_the_published_table(count: int, step: float):
    assert gaussian_step(count) == pytest.approx(step, abs=0.5 * 10 ** -(4 if step < 1 else 3) + 1e-9)


def mean_square_error(count: int, step: float) -> float:
    """By the midpoint rule on a fine lattice, quantizing sample by sample: independent of the closed form."""
    x = (np.arange(100_000) + 0.5) * (20 / 100_000) - 10
    index = np.clip(np.floor(x / step + count / 2), 0, count - 1)
    error = x - (index - (count - 1) / 2) * step
    return float(np.sum(error**2 * np.exp(-x * x / 2)) * (20 / 100_000) / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("count", [2, 3, 4, 9, 17, 64, 255, 256])
def test_gaussian_step_minimizes_the_measured_error(count: int):
    step = gaussian_step(count)
    candidates = step * np.linspace(0.9, 1.1, 41)
    errors = [mean_square_error(count, s) for s in candidates]
    # A parabola through the error near its minimum: the vertex is the optimum up to its cubic term.
    near = slice(16, 25)
    a, b, _ = np.polyfit(candidates[near] / step - 1, errors[near], 2)
    assert a > 0
    assert abs(-b / (2 * a)) < 2e-3
    assert np.argmin(errors) in (19, 20, 21)


def test_gaussian_step_falls_with_the_number_of_states():
    steps = [gaussian_step(count) for count in (*range(2, 40), 64, 128, 255, 256)]
    assert all(a > b for a, b in pairwise(steps))


@pytest.mark.parametrize("count", [1, 257])
def test_gaussian_step_needs_a_valid_state_count(count: int):
    with pytest.raises(ConfigError):
        gaussian_step(count)
