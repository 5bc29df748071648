"""Power before the run, and planned looks: against statsmodels, published boundaries and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from fanin.study.statistics import (
    detectable,
    difference_power,
    equivalence_power,
    interim,
    pairs_for,
    pairs_needed,
    plan_looks,
    sign_flip,
)

inf = math.inf


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize(
    ("effect", "n", "alpha"), [(0.5, 34, 0.05), (1.2, 8, 0.05), (0.1, 400, 0.01), (-0.7, 12, 0.05)]
)
def test_power_is_statsmodels(effect, n, alpha, alternative):
    theirs = TTestPower().power(
        effect, n, alpha, alternative={"less": "smaller", "greater": "larger"}.get(alternative, alternative)
    )
    ours = difference_power(2 * effect, 2.0, n, alpha=alpha, alternative=alternative)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_pairs_needed_and_detectable_effects_invert_power():
    assert pairs_needed(0.5, 1.0) == math.ceil(TTestPower().solve_power(0.5, power=0.8, alpha=0.05))
    assert pairs_needed(0.5, 1.0, comparisons=12) == math.ceil(
        TTestPower().solve_power(0.5, power=0.8, alpha=0.05 / 12)
    )
    assert difference_power(detectable(12, 0.3), 0.3, 12) == pytest.approx(0.8, abs=1e-5)
    assert detectable(12, 0.3, alternative="less") == pytest.approx(detectable(12, 0.3, alternative="greater"))
    assert equivalence_power(detectable(12, 0.3, equivalence=True), 0.3, 12) == pytest.approx(0.8, abs=1e-5)
    n = pairs_needed(0.05, 0.3, margin=0.2)
    assert equivalence_power(0.2, 0.3, n, effect=0.05) >= 0.8 > equivalence_power(0.2, 0.3, n - 1, effect=0.05)


def test_power_never_promises_what_flips_cannot_show():
    assert difference_power(100.0, 1.0, 5) == 0 < difference_power(100.0, 1.0, 5, floor=False)
    assert pairs_needed(100.0, 1.0, comparisons=12) == pairs_for(0.05 / 12) == 9
    assert detectable(5, 1.0) == detectable(4, 1.0, equivalence=True) == inf


def test_boundaries_are_the_published_ones():
    """Five equal looks, two-sided 0.05, as in Reboussin, DeMets, Kim and Lan, "Computations for Group Sequential
    Boundaries Using the Lan-DeMets Spending Function Method"."""
    obrien, pocock = (plan_looks([1, 2, 3, 4, 5], spending=s) for s in ("obrien-fleming", "pocock"))
    np.testing.assert_allclose([look.boundary for look in obrien], [4.877, 3.357, 2.680, 2.290, 2.031], atol=6e-4)
    np.testing.assert_allclose([look.boundary for look in pocock], [2.438, 2.427, 2.410, 2.397, 2.386], atol=6e-4)
    assert plan_looks([20])[0].boundary == pytest.approx(stats.norm.isf(0.025))


def test_boundaries_spend_what_they_may():
    looks = plan_looks([3, 10, 11, 24], alpha=0.1, spending="pocock")
    steps = np.random.default_rng(0).normal(size=(400_000, 4)) * np.sqrt(
        np.diff([0, *(look.fraction for look in looks)])
    )
    z = np.abs(np.cumsum(steps, axis=1)) / np.sqrt([look.fraction for look in looks])
    stopped = np.logical_or.accumulate(z >= [look.boundary for look in looks], axis=1).mean(axis=0)
    spent = np.array([look.spent for look in looks])
    assert (np.abs(stopped - spent) < 4 * np.sqrt(spent / 400_000)).all()


def test_one_look_is_the_plain_sign_flip_test():
    d = np.random.default_rng(2).normal(0.3, 1.0, 12)
    exact = sign_flip(d).p
    assert abs(interim(d, [12]).p - exact) < 4 * math.sqrt(exact / 32_768)


def test_later_looks_remember_earlier_stops():
    d = np.concatenate([np.full(12, 0.5), np.full(8, -3.0)])  # clear at first, then turned round
    first, last = interim(d[:12], [12, 20]), interim(d, [12, 20])
    assert first.stop and first == last and first.look == 0 and not first.final


def test_looks_take_diverged_runs():
    assert interim([-inf] * 9 + [-0.1] * 3, [6, 12]).stop and not interim([-inf, inf] * 6, [6, 12]).stop
