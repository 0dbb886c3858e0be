"""The proof finds every wrong parameter, and counts what it looked at."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from maqd.graph import FixedPoint, Thresholds
from maqd.graph.proof import Candidate, Evaluated, candidate, rounded_affine, signed_bits
from maqd.numerics.bounds import Interval
from maqd.numerics.fixedpoint import AffineForm, FixedAffine, activation_cuts, affine_thresholds, input_thresholds
from maqd.numerics.states import States

LOW, HIGH = np.array([-3000, -2000, -100, 0, -77]), np.array([3000, 5000, 100, 0, 88])
GAIN = np.array([0.37, -0.21, 1.5, 2.0, 0.0])
MEAN = np.array([3.3, -8.5, 0.0, 0.0, 1.0])
BIAS = np.array([1.1, 2.0, 0.5, 7.0, 1.7])
EXPONENT = -5


def evaluated(count: int = 4, *, signed: bool = False) -> Evaluated:
    states = States(count=count, signed=signed)
    thresholds, signs = input_thresholds(GAIN, MEAN, BIAS, activation_cuts(states, 0.5))
    return Evaluated(
        states=states,
        step_exponent=-1,
        thresholds=thresholds,
        signs=signs,
        exponent=EXPONENT,
        interval=Interval(LOW.copy(), HIGH.copy()),
        scale=GAIN / 0.5 * 2.0**EXPONENT,
        offset=(BIAS - GAIN * MEAN) / 0.5 + states.origin + 0.5,
    )


def chosen(form: AffineForm, count: int = 4) -> Candidate:
    found = candidate("a", "x", 0, evaluated(count), form)
    assert found is not None
    return found


@pytest.mark.parametrize("form", list(AffineForm))
@pytest.mark.parametrize("count", [2, 5, 6, 40])
def test_right_forms_have_no_mismatches(form: AffineForm, count: int):
    report = chosen(form, count).prove()
    assert report.mismatches == 0
    assert report.checked == int((HIGH - LOW + 1).sum())
    assert report.operation == (
        "thresholds" if form is AffineForm.THRESHOLDS or (form is AffineForm.AUTO and count < 6) else "fixed_point"
    )
    assert (report.shift is None) == (report.multiplier_bits is None) == (form is AffineForm.THRESHOLDS)


@pytest.mark.parametrize("count", [4, 40])
def test_every_wrong_threshold_is_found(count: int):
    right = chosen(AffineForm.THRESHOLDS, count)
    node = right.node
    assert isinstance(node, Thresholds)
    first = np.where(node.signs > 0, LOW, -HIGH)
    last = np.where(node.signs > 0, HIGH, -LOW)
    changes = 0
    for k, c in np.ndindex(*node.thresholds.shape):
        cut = int(node.thresholds[k, c])
        if not first[c] < cut <= last[c]:
            continue
        cuts = node.thresholds.astype(np.int32)
        cuts[k, c] -= 1
        wrong = Candidate(node=replace(node, thresholds=cuts), evaluated=right.evaluated, fixed=None)
        assert wrong.prove().mismatches == 1
        changes += 1
    assert changes > 1.5 * count


def test_every_wrong_multiplier_offset_shift_and_sign_is_found():
    right = chosen(AffineForm.FIXED_POINT)
    node = right.node
    assert isinstance(node, FixedPoint)
    for c in range(3):
        changes = [("multiplier", 1.5), ("multiplier", -1), ("offset", 2), ("offset", -1)]
        for what, factor in changes:
            values = getattr(node, what).astype(np.int64)
            values[c] = values[c] * factor
            wrong = replace(node, **{what: values})
            assert Candidate(node=wrong, evaluated=right.evaluated, fixed=None).prove().mismatches > 0
    for shift in (node.shift - 1, node.shift + 1):
        wrong = replace(node, shift=shift)
        assert Candidate(node=wrong, evaluated=right.evaluated, fixed=None).prove().mismatches > 0
    compared = chosen(AffineForm.THRESHOLDS)
    assert isinstance(compared.node, Thresholds)
    flipped = replace(compared.node, signs=-compared.node.signs)
    assert Candidate(node=flipped, evaluated=right.evaluated, fixed=None).prove().mismatches > 0


@pytest.mark.parametrize("count", [2, 3, 17, 18, 100])
def test_the_index_is_that_of_the_real_map(count: int):
    """Against exact fractions, for few (compared one by one) and many thresholds (searched)."""
    found = evaluated(count)
    cuts = activation_cuts(found.states, 0.5)
    for c in range(len(LOW)):
        x = np.arange(LOW[c], HIGH[c] + 1)
        index = found.index(x, c)
        for n in x[:: max(1, len(x) // 15)].tolist():
            y = Fraction(GAIN[c]) * (Fraction(n) / 2**5 - Fraction(MEAN[c])) + Fraction(BIAS[c])
            assert index[n - LOW[c]] == sum(y >= Fraction(float(cut)) for cut in cuts)


def test_there_may_be_no_fixed_point_form():
    found = evaluated(3)
    steep = np.array([[-1.0, 5], [-0.5, 6]], np.float32)
    uneven = Evaluated(
        **{
            **vars(found),
            "states": States(count=5, signed=False),
            "thresholds": np.concatenate([steep, steep + np.float32(100)])[:, :1],
            "signs": found.signs[:1],
            "interval": Interval(np.array([-(10**6)]), np.array([10**6])),
            "scale": found.scale[:1],
            "offset": found.offset[:1],
        }
    )
    assert candidate("a", "x", 0, uneven, AffineForm.FIXED_POINT) is None
    compared = candidate("a", "x", 0, uneven, AffineForm.AUTO)
    assert compared is not None
    assert isinstance(compared.node, Thresholds)
    assert compared.prove().mismatches == 0


@pytest.mark.parametrize("shift", [0, 3, 20, 30])
def test_usual_rounding(shift: int):
    found = evaluated()
    usual = rounded_affine(found, shift)
    for values, got in ((found.scale, usual.multiplier), (found.offset, usual.offset)):
        for real, integer in zip(values, got.tolist(), strict=True):
            exact = Fraction(float(np.float32(real))) * 2**shift
            assert abs(exact - integer) <= Fraction(1, 2)


def test_usual_rounding_saturates_instead_of_wrapping():
    found = evaluated()
    huge = Evaluated(**{**vars(found), "scale": np.full(5, 1e30), "offset": np.full(5, -1e30)})
    usual = rounded_affine(huge, 20)
    assert (usual.multiplier > 2**48).all()
    assert (usual.offset == -(2**61)).all()
    assert int(usual.multiplier.max()) * 5000 + 2**61 < 2**63


def test_thresholds_of_a_fixed_point_map():
    random = np.random.default_rng(0)
    for shift in (0, 2, 9):
        a, b = random.integers(-40, 41, 30), random.integers(-5000, 5000, 30)
        a[:3] = 0
        low, high = random.integers(-200, 0, 30), random.integers(0, 200, 30)
        cuts, signs = affine_thresholds(FixedAffine(multiplier=a, offset=b, shift=shift), 6, low, high)
        for c in range(30):
            for x in range(low[c], high[c] + 1):
                wanted = min(max((int(a[c]) * x + int(b[c])) >> shift, 0), 5)
                assert sum(int(signs[c]) * x >= int(cut) for cut in cuts[:, c]) == wanted


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        ([0], 1),
        ([-1], 1),
        ([1], 2),
        ([-2], 2),
        ([2], 3),
        ([127], 8),
        ([-128], 8),
        ([128], 9),
        ([3, -128], 8),
        ([-(2**63)], 64),
    ],
)
def test_signed_bits(values: list[int], bits: int):
    assert signed_bits(np.array(values)) == bits
