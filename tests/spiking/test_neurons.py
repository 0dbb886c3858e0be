"""When the counts of integrate-and-fire neurons are right, with exact arithmetic."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maqd.errors import ConfigError
from maqd.spiking import Dynamics, Reset, integrate_and_fire, settled

CURRENTS = st.lists(st.integers(-40, 40), min_size=1, max_size=12)


def wanted(charge: int, threshold: int, steps: int) -> int:
    return min(max(floor(Fraction(charge, threshold)), 0), steps)


@settings(max_examples=300, deadline=None)
@given(currents=CURRENTS, threshold=st.integers(1, 30))
def test_a_free_running_count_is_right_exactly_under_the_condition(currents: list[int], threshold: int):
    spikes, potential = integrate_and_fire(np.array(currents)[:, None], threshold)
    count = int(spikes.sum())
    assert int(potential[0]) == sum(currents) - count * threshold
    right = count == wanted(sum(currents), threshold, len(currents))
    assert bool(settled(spikes.sum(0), potential, threshold, len(currents))[0]) is right


@settings(max_examples=200, deadline=None)
@given(current=st.integers(-200, 200), threshold=st.integers(1, 60), steps=st.integers(1, 16))
def test_a_constant_current_is_counted_exactly(current: int, threshold: int, steps: int):
    spikes, _ = integrate_and_fire(np.full((steps, 1), current), threshold)
    assert int(spikes.sum()) == wanted(steps * current, threshold, steps)


@settings(max_examples=200, deadline=None)
@given(currents=CURRENTS, threshold=st.integers(1, 30), steps=st.integers(1, 9))
def test_a_drained_charge_is_counted_exactly_and_its_spikes_come_first(currents: list[int], threshold: int, steps: int):
    train = np.zeros((steps, 1), np.int64)
    train[0] = sum(currents)
    spikes, _ = integrate_and_fire(train, threshold)
    count = wanted(sum(currents), threshold, steps)
    assert spikes[:, 0].tolist() == [True] * count + [False] * (steps - count)


def test_signed_currents_make_free_running_counts_wrong():
    spikes, potential = integrate_and_fire(np.array([[5], [-5]]), 5)
    assert spikes[:, 0].tolist() == [True, False]  # the charge is 0, but a spike cannot be taken back
    assert not settled(spikes.sum(0), potential, 5, 2)[0]


def test_hard_resets_and_leaks():
    currents = np.array([[7], [3], [-3]])
    spikes, potential = integrate_and_fire(currents, 5, Dynamics(reset=Reset.HARD))
    assert (spikes[:, 0].tolist(), potential.tolist()) == ([True, False, False], [0])
    spikes, potential = integrate_and_fire(currents, 100, Dynamics(leak=1))
    assert potential.tolist() == [((7 - 3 + 3) - 3) - 3]  # 7 leaks 7 >> 1 = 3, then 7 leaks 3 again
    assert not spikes.any()
    with pytest.raises(ConfigError, match=r"leak is a shift in 1 \.\. 62, got 0"):
        Dynamics(leak=0)
