"""Thresholds against exact rational arithmetic: for each one, the float32 at it and the one below it."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maqd import States
from maqd.errors import NonFiniteError
from maqd.numerics.fixedpoint import activation_cuts, float32_at_least, input_thresholds

BOUNDED = settings(deadline=None, derandomize=True, database=None)
LARGEST = float(np.finfo(np.float32).max)
TINY = 2.0**-149  # the smallest positive float32


def below(value: np.float32) -> np.float32:
    """The next smaller float32."""
    with np.errstate(all="ignore"):
        return np.nextafter(value, np.float32(-np.inf))


# ---- float32_at_least ------------------------------------------------------------------------------------------------


def check_at_least(value: Fraction) -> None:
    result = float32_at_least(value)
    assert isinstance(result, np.float32)
    if np.isinf(result):
        assert result > 0
        assert value > Fraction(LARGEST)
        return
    assert Fraction(float(result)) >= value
    smaller = below(result)
    assert smaller == -np.inf or Fraction(float(smaller)) < value


fractions = st.fractions() | st.builds(
    lambda n, e: Fraction(n) * Fraction(2) ** e, st.integers(-(2**60), 2**60), st.integers(-260, 60)
)


@settings(BOUNDED, max_examples=300)
@given(fractions)
def test_float32_at_least_is_the_smallest_float32_not_below(value: Fraction):
    check_at_least(value)


@settings(BOUNDED, max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([-1, 0, 1]), st.integers(20, 400))
def test_float32_at_least_a_hair_beside_a_float32(value: float, side: int, distance: int):
    check_at_least(Fraction(value) + side * Fraction(1, 2**distance))


EXTREMES = {
    "smallest positive": Fraction(TINY),
    "below the smallest positive": Fraction(TINY) / 3,
    "below the smallest double": Fraction(1, 10**400),
    "above minus the smallest": -Fraction(TINY) / 3,
    "minus below the smallest double": -Fraction(1, 10**400),
    "zero": Fraction(0),
    "largest": Fraction(LARGEST),
    "minus the largest": -Fraction(LARGEST),
    "above the smallest normal": Fraction(2) ** -126 + Fraction(TINY) / 2,
    "beyond every double": Fraction(10) ** 400,
    "below every double": -(Fraction(10) ** 400),
    "above the largest": Fraction(LARGEST) + 1,
    "below minus the largest": -Fraction(LARGEST) - 1,
    "between the largest and infinity": Fraction(LARGEST) + Fraction(2) ** 102,
    "a double beyond float32": Fraction(10) ** 100,
    "a negative double beyond float32": -(Fraction(10) ** 100),
}


@pytest.mark.parametrize("value", EXTREMES.values(), ids=EXTREMES.keys())
def test_float32_at_least_at_extremes(value: Fraction):
    check_at_least(value)


def test_float32_at_least_raises_no_warnings():
    for value in EXTREMES.values():
        float32_at_least(value)


# ---- input_thresholds ------------------------------------------------------------------------------------------------


def check_thresholds(gain: Sequence[float], mean: Sequence[float], bias: Sequence[float], cuts: Sequence[float]):
    """Every threshold against the rational map, at itself, at its predecessor and at the extremes of float32."""
    thresholds, signs = input_thresholds(*(np.array(v, dtype=np.float64) for v in (gain, mean, bias, cuts)))
    assert thresholds.dtype == np.float32
    assert signs.dtype == np.float32
    assert thresholds.shape == (len(cuts), len(gain))
    assert not np.isnan(thresholds).any()
    for c, (g, m, b) in enumerate(zip(map(Fraction, gain), map(Fraction, mean), map(Fraction, bias), strict=True)):
        assert signs[c] == (-1 if g < 0 else 1)
        assert (thresholds[:-1, c] <= thresholds[1:, c]).all()
        for k, cut in enumerate(map(Fraction, cuts)):
            threshold = thresholds[k, c]
            for signed in (threshold, below(threshold), np.float32(LARGEST), np.float32(-LARGEST), np.float32(0)):
                if np.isfinite(signed):
                    x = Fraction(float(signs[c])) * Fraction(float(signed))
                    assert (g * (x - m) + b >= cut) == bool(signed >= threshold), (k, c, float(signed))
    return thresholds, signs


reals = st.floats(-1e6, 1e6, allow_nan=False)
wide = st.floats(-1e100, 1e100, allow_nan=False)
any_double = st.floats(allow_nan=False, allow_infinity=False)
cuts_of = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4).map(sorted)


@settings(BOUNDED, max_examples=300)
@given(st.lists(st.tuples(reals, reals, reals), min_size=1, max_size=4), cuts_of)
def test_thresholds_are_exact_for_ordinary_parameters(channels: list[tuple[float, float, float]], cuts: list[float]):
    check_thresholds(*zip(*channels, strict=True), cuts)


@settings(BOUNDED, max_examples=300)
@given(
    st.lists(st.tuples(wide, wide, wide), min_size=1, max_size=3)
    | st.lists(st.tuples(any_double, any_double, any_double), min_size=1, max_size=3),
    cuts_of,
)
def test_thresholds_are_exact_for_parameters_of_every_size(channels: list[tuple[float, ...]], cuts: list[float]):
    check_thresholds(*zip(*channels, strict=True), cuts)


dyadic = st.builds(lambda n, e: float(n) * 2.0**e, st.integers(-64, 64), st.integers(-4, 4))


@settings(BOUNDED, max_examples=300)
@given(
    st.builds(lambda s, e: s * 2.0**e, st.sampled_from([-1, 1]), st.integers(-6, 6)),
    dyadic,
    dyadic,
    st.integers(2, 9),
    st.booleans(),
)
def test_a_tie_exactly_on_a_cut_takes_the_higher_state(gain: float, mean: float, bias: float, count: int, signed: bool):
    cuts = activation_cuts(States(count=count, signed=signed), 0.5)
    thresholds, signs = check_thresholds([gain], [mean], [bias], cuts.tolist())
    for cut, threshold in zip(cuts, thresholds[:, 0], strict=True):
        on_cut = mean + (cut - bias) / gain  # exact: everything is a short dyadic number
        assert signs[0] * on_cut == threshold


@settings(BOUNDED, max_examples=200)
@given(
    st.floats(1e-3, 1e3).flatmap(lambda g: st.sampled_from([g, -g])),
    st.floats(-1e8, 1e8),
    st.floats(-8, 8),
    st.floats(-1e-3, 1e-3),
)
def test_thresholds_are_exact_where_mean_and_quotient_cancel(gain: float, mean: float, cut: float, rest: float):
    """The threshold is small although both of its terms are large, so float64 keeps few of its digits."""
    check_thresholds([gain], [mean], [cut + gain * mean + rest], [cut])


@pytest.mark.parametrize("cut", [0.5, 100.3])
def test_thresholds_are_exact_within_roundings_of_a_float32(cut: float):
    """Real thresholds a unit of float64 or so from a float32, on the side that rounding may not tell."""
    random = np.random.default_rng(11)
    gain = random.uniform(0.1, 10, 3000) * random.choice([-1, 1], 3000)
    bias = random.uniform(-1e4, 1e4, 3000)
    target = random.uniform(-4, 4, 3000).astype(np.float32).astype(np.float64)
    mean = target - (cut - bias) / np.abs(gain)
    mean += random.integers(-2, 3, 3000) * np.spacing(mean)
    check_thresholds(gain.tolist(), (np.sign(gain) * mean).tolist(), bias.tolist(), [cut])


HARD = {
    "subnormal gain": (5e-324, 0.0, 0.0),
    "subnormal negative gain": (-5e-324, 1.0, 0.25),
    "subnormal mean": (1.0, 5e-324, 0.5),
    "huge gain": (1e308, 3.0, 0.0),
    "huge negative gain": (-1e308, 3.0, 0.0),
    "threshold between two subnormals of float32": (1.0, 0.5 * TINY - 0.5, 0.0),
    "mean a float32, quotient below float64": (1e308, 2.0**-20, 0.5 - 2.0**-53),
    "quotient below the smallest double": (1e308, 0.0, 0.5 - 2.0**-53),
    "mean a float32, tiny quotient": (2.0**60, 1.0, 0.5 - 2.0**-30),
    "halfway between two float32": (1.0, 1.0 + 2.0**-24 - 0.5, 0.0),
    "just above halfway": (1.0, 1.0 + 2.0**-24 + 2.0**-52 - 0.5, 0.0),
    "just above a float32": (1.0, 1.0 + 2.0**-52 - 0.5, 0.0),
    "just below a float32": (1.0, 1.0 - 2.0**-53 - 0.5, 0.0),
    "thirds": (3.0, 0.0, 0.5 - 1.0),
    "minus zero gain": (-0.0, 1.0, 1.0),
    "zero gain, bias on the cut": (0.0, 1.0, 0.5),
    "zero gain, bias below the cut": (0.0, 7.0, np.nextafter(0.5, 0)),
    "overflowing float32": (1e-30, 0.0, -1e10),
    "overflowing float64": (1e-300, 0.0, -1e30),
    "overflowing float64 at negative gain": (-1e-300, 1e300, -1e200),
    "overflow of both terms": (1e-10, -1.7e308, -1.7e308),
    "threshold on the largest float32": (1.0, LARGEST, 0.5),
    "threshold above the largest float32": (1.0, LARGEST * (1 + 2.0**-52), 0.5),
    "threshold below minus the largest float32": (1.0, -LARGEST * (1 + 2.0**-52), 0.5),
}


@pytest.mark.parametrize("channel", HARD.values(), ids=HARD.keys())
def test_thresholds_are_exact_in_hard_cases(channel: tuple[float, float, float]):
    check_thresholds(*([value] for value in channel), [0.5])


def test_thresholds_of_finite_parameters_raise_no_warnings():
    for channel in HARD.values():
        input_thresholds(*(np.array([value]) for value in channel), np.array([0.5]))


def test_a_zero_gain_leaves_only_always_and_never():
    thresholds, signs = input_thresholds(np.zeros(3), np.ones(3), np.array([0.0, 1.0, 9.0]), np.array([0.5, 1.0, 1.5]))
    inf = np.inf
    assert thresholds.T.tolist() == [[inf, inf, inf], [-inf, -inf, inf], [-inf, -inf, -inf]]
    assert signs.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["gain", "mean", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_parameter_that_is_not_finite_is_refused_with_its_name_and_channel(name: str, value: float):
    parameters = {key: np.ones(4) for key in ("gain", "mean", "bias")}
    parameters[name][2] = value
    with pytest.raises(NonFiniteError, match=rf"{name} must be finite, got -?(nan|inf) in channel 2"):
        input_thresholds(**parameters, cuts=np.array([0.5]))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("step", [2.0**-7, 0.5, 1.0, 4.0])
def test_cuts_lie_exactly_halfway_between_states(signed: bool, step: float):
    for count in range(2, 257):
        states = States(count=count, signed=signed)
        values = [(j - Fraction(states.origin)) * Fraction(step) for j in range(count)]
        halfway = [(a + b) / 2 for a, b in pairwise(values)]
        assert [Fraction(cut) for cut in activation_cuts(states, step).tolist()] == halfway


def test_wide_thresholds_decide_every_number_of_32_bits_exactly():
    rng = np.random.default_rng(0)
    channels = 40
    gain = np.concatenate([rng.normal(size=channels - 4) * 2.0 ** rng.integers(-30, 30, channels - 4), [0, 1, -1, 0.5]])
    mean = np.concatenate([rng.normal(size=channels - 4) * 1e6, [0, 2.0**20 + 1, -3, 2.0**31]])
    bias = np.concatenate([rng.normal(size=channels - 4), [0, 0.5, 0, 0.25]])
    cuts = np.array([-2.5, -0.5, 0.0, 0.5, 1.5])
    thresholds, signs = input_thresholds(gain, mean, bias, cuts, wide=True)
    assert thresholds.dtype == np.float64
    for k, c in np.ndindex(thresholds.shape):
        t = float(thresholds[k, c])
        if not math.isfinite(t):
            assert gain[c] == 0
            continue
        unit = math.ldexp(1.0, math.frexp(t)[1] - 32)
        for signed in (t - unit, t, t + unit):
            y = Fraction(gain[c]) * (Fraction(signed * float(signs[c])) - Fraction(mean[c])) + Fraction(bias[c])
            assert (y >= Fraction(cuts[k])) == (signed >= t)
