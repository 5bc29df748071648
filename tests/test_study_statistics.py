"""A study's statistics against scipy, statsmodels and brute force; diverged runs; bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from fanin.errors import ArgumentError, FaninError, StudyError
from fanin.study.statistics import (
    Margin,
    bca,
    difference_power,
    differences,
    divergence,
    holm,
    improvement,
    interim,
    iqm,
    iqm_difference,
    iqm_interval,
    median_interval,
    pairs_for,
    pairs_needed,
    plan_looks,
    proportion,
    sign_flip,
    smallest_margin,
    smallest_p,
    stratified,
    tost,
    worst_last,
)
from fanin.study.statistics.paired import signed_ranks

inf, nan = math.inf, math.nan


def sample(seed, n=12, shift=0.3):
    return np.random.default_rng(seed).normal(shift, 1.0, n)


# --- ranks ----------------------------------------------------------------------------------------------------------


def test_ranks_are_scipys_with_diverged_runs_at_the_end():
    values = [0.3, 0.1, 0.3, nan, 0.2, inf, None, -inf]
    assert worst_last(values).tolist() == [3.5, 1, 3.5, 6.5, 2, 6.5, 6.5, 6.5]
    assert worst_last(values, "higher").tolist() == [1.5, 4, 1.5, 6.5, 3, 6.5, 6.5, 6.5]
    finite = np.random.default_rng(0).integers(0, 5, 40).astype(float)
    assert worst_last(finite).tolist() == stats.rankdata(finite).tolist()
    assert worst_last(finite, "higher").tolist() == stats.rankdata(-finite).tolist()


@pytest.mark.parametrize(("method", "theirs"), [("wilson", "wilson"), ("clopper-pearson", "beta")])
@pytest.mark.parametrize(("count", "runs"), [(0, 8), (1, 8), (4, 9), (8, 8), (30, 100)])
def test_intervals_of_proportions(method, theirs, count, runs):
    ours = proportion(count, runs, method=method)
    np.testing.assert_allclose((ours.low, ours.high), proportion_confint(count, runs, 0.05, theirs), atol=1e-12)


def test_divergence_counts_everything_that_is_not_finite():
    found = divergence([0.1, None, nan, inf, 0.2])
    assert (found.count, found.runs) == (3, 5) and found.rate.low < 0.6 < found.rate.high


# --- pairs and signs ------------------------------------------------------------------------------------------------


def test_pairs_are_matched_by_seed_whatever_the_order():
    assert differences({1: 1.0, 2: 5.0}, {2: 3.0, 1: 0.5}).tolist() == [0.5, 2.0]


def test_a_diverged_run_is_the_worst_of_its_pair():
    a, b = [0.1, nan, 0.1, None, 0.3], [0.2, 0.2, inf, -inf, 0.3]
    assert differences(a, b).tolist() == [-0.1, inf, -inf, 0, 0]
    assert differences(a, b, "higher").tolist() == [-0.1, -inf, inf, 0, 0]


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("seed", range(4))
def test_sign_flips_are_scipys_permutation_test(alternative, seed):
    d = sample(seed, n=11) if seed else np.round(sample(seed, n=11), 0)  # with ties
    theirs = stats.permutation_test(
        (d,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=inf, alternative=alternative
    )
    assert sign_flip(d, alternative).p == pytest.approx(min(theirs.pvalue, 1.0), abs=1e-12)


def test_halves_give_the_count_of_all_flips():
    d = np.array([0.3, -0.1, 0.2, 0.2, 0.4, -0.3, 0.1, 0.2, 0.5, 0.1, 0.1])
    sums = [abs(sum(s * v for s, v in zip(signs, d))) for signs in itertools.product((-1, 1), repeat=len(d))]
    assert sign_flip(d).p == np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)
    assert sign_flip(d[:5], "greater").p == 2 / 32  # as seen, and with -0.1 turned; turning any other loses 0.4


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_signed_ranks_stand_in_where_a_run_diverged(alternative):
    d = np.array([0.5, -0.25, inf, 1.5, 0.75, -1.0, inf, 2.0, 3.0])
    finite = np.where(np.isinf(d), 10.0, d)  # any two equal values beyond the others
    theirs = stats.permutation_test(
        (signed_ranks(finite),), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=inf,
        alternative=alternative,
    )  # fmt: skip
    ours = sign_flip(d, alternative)
    assert ours.ranked and ours.p == pytest.approx(theirs.pvalue)
    untied = np.array([0.5, -0.25, inf, 1.5, 0.75, -1.0])
    there = stats.wilcoxon(np.where(np.isinf(untied), 9.0, untied), alternative=alternative, method="exact")
    assert sign_flip(untied, alternative).p == pytest.approx(there.pvalue)


def test_drawn_flips_agree_with_all_flips():
    d = sample(5, n=16)
    exact, drawn = sign_flip(d), sign_flip(d, exact_up_to=8, draws=20_000, seed=1)
    assert not drawn.exact and abs(drawn.p - exact.p) < 4 * math.sqrt(exact.p * (1 - exact.p) / 20_000)
    assert drawn == sign_flip(d, exact_up_to=8, draws=20_000, seed=1)
    assert sign_flip(np.ones(50)).p == 1 / 100_000  # never zero


def test_zeros_say_nothing_and_are_counted():
    found = sign_flip([0.0, 0.0, 1.0, 1.0, 1.0])
    assert (found.pairs, found.informative, found.p) == (5, 3, 0.25)
    assert sign_flip([0.0, 0.0]).p == 1.0


def test_the_smallest_p_is_reached():
    for n in (1, 5, 6, 10):
        assert sign_flip(np.arange(1.0, n + 1)).p == smallest_p(n)
        assert sign_flip(np.arange(1.0, n + 1), "greater").p == smallest_p(n, "greater")
    assert smallest_p(5) == 2 / 32 and pairs_for(0.05) == 6


# --- bootstrap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["mean", "median", lambda x: float(np.mean(x**2))])
@pytest.mark.parametrize("seed", range(3))
def test_bca_is_scipys_on_the_same_draws(statistic, seed):
    d = np.random.default_rng(seed).lognormal(size=15)
    theirs_of = (
        {"mean": np.mean, "median": np.median}.get(statistic, statistic) if isinstance(statistic, str) else statistic
    )
    theirs = stats.bootstrap(
        (d,), theirs_of, n_resamples=999, method="BCa", rng=np.random.default_rng(seed), vectorized=False
    ).confidence_interval
    ours = bca(d, statistic, draws=999, seed=seed, expand=False)
    np.testing.assert_allclose((ours.low, ours.high), (theirs.low, theirs.high), rtol=1e-12)


def test_the_expanded_interval_is_students_for_normal_scores():
    d = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    ours, students = bca(d, draws=40_000), stats.ttest_1samp(d, 0).confidence_interval()
    np.testing.assert_allclose((ours.low, ours.high), (students.low, students.high), rtol=0.05)
    plain = bca(d, draws=40_000, expand=False)
    assert plain.high - plain.low < 0.93 * (students.high - students.low)


def test_samples_that_bound_nothing_say_so():
    alone, equal = bca([0.3]), bca([0.3, 0.3, 0.3])
    assert (alone.low, alone.high) == (-inf, inf) and "one value" in alone.note
    assert (equal.low, equal.high) == (0.3, 0.3) and "all 3 values are equal" in equal.note
    assert "5 pairs" in median_interval([1.0, 2, 3, 4, 5]).note


@pytest.mark.parametrize("n", [6, 9, 20, 41])
def test_the_medians_interval_is_the_sign_tests(n):
    d = sample(n, n=n)
    theirs = stats.quantile_test(d, p=0.5).confidence_interval(0.95)
    ours = median_interval(d)
    assert ours.low >= theirs.low and ours.high <= theirs.high  # scipy's may be one order statistic wider
    k = int(np.searchsorted(np.sort(d), ours.low))
    assert 1 - 2 * stats.binom.cdf(k, n, 0.5) >= 0.95 > 1 - 2 * stats.binom.cdf(k + 1, n, 0.5)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_values_and_high_confidence_give_wide_intervals_and_no_nan(n):
    for d in (np.arange(n) ** 4.0, -(np.arange(n) ** 4.0)):
        for confidence in (0.95, 0.9999):
            ours = bca(d, confidence=confidence)
            assert (ours.low, ours.high) == (d.min(), d.max())


def test_the_medians_interval_takes_infinities():
    ours = median_interval([-0.2, -0.1, 0.1, 0.2, 0.3, inf, inf, inf])
    assert (ours.estimate, ours.low, ours.high) == (0.25, -0.2, inf)


def test_strata_keep_their_sizes():
    seen = []
    found = stratified(
        [np.zeros((3, 2)), np.ones(5)], lambda x: seen.append([s.shape for s in x]) or x[1].mean(axis=1), draws=7
    )
    assert seen == [[(7, 3, 2), (7, 5)], [(1, 3, 2), (1, 5)]] and found.low == found.high == 1.0


# --- aggregates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 4, 7, 20])
def test_iqm_is_the_trimmed_mean(n):
    values = sample(n, n=n)
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25)) == pytest.approx(iqm(values, "higher"))


def test_iqm_cuts_a_quarter_of_diverged_runs_and_no_more():
    assert iqm([0.1, 0.2, 0.3, None]) == pytest.approx(0.25)
    assert iqm([0.1, 0.2, None, None]) == inf and iqm([0.1, 0.2, None, None], "higher") == -inf


def test_iqm_over_tasks():
    tasks = {task: sample(i, n=10) for i, task in enumerate("abc")}
    found = iqm_interval(tasks)
    assert found.estimate == pytest.approx(stats.trim_mean(np.concatenate(list(tasks.values())), 0.25))
    assert found.low < found.estimate < found.high
    moved = {task: values + 0.1 for task, values in tasks.items()}
    gap = iqm_difference(moved, tasks)  # pairs stay together: a constant shift has no spread
    np.testing.assert_allclose((gap.estimate, gap.low, gap.high), 0.1, atol=1e-12)


def test_improvement_is_mann_whitneys_u():
    a, b = np.round(sample(1, n=9), 1), np.round(sample(2, n=9), 1)
    u = stats.mannwhitneyu(b, a).statistic / 81
    assert improvement(a, b).estimate == pytest.approx(u)
    assert improvement(a, b, "higher").estimate == pytest.approx(1 - u)
    assert improvement({"s": a, "t": a}, {"s": b, "t": a}).estimate == pytest.approx((u + 0.5) / 2)
    assert improvement(a, b[:5], paired=False).estimate == pytest.approx(stats.mannwhitneyu(b[:5], a).statistic / 45)


def test_diverged_runs_lose_and_tie_with_each_other():
    assert improvement([1.0, None], [2.0, nan]).estimate == (1 + 1 + 0 + 0.5) / 4
    assert improvement([1.0, None], [2.0, nan], "higher").estimate == (0 + 1 + 0 + 0.5) / 4


def test_improvement_resamples_the_runs():
    a, b = sample(3, n=7), sample(4, n=7)
    stream, drawn = np.random.default_rng(0), []
    for _ in range(4000):
        i = stream.integers(0, 7, 7)
        drawn.append((a[i][:, None] < b[i]).mean())
    found = improvement(a, b, draws=4000, expand=False)
    np.testing.assert_allclose((found.low, found.high), np.quantile(drawn, (0.025, 0.975)), atol=0.03)
    certain = improvement([0.1, 0.2, 0.3], [1.1, 1.2, 1.3])
    assert certain.estimate == certain.high == 1 and certain.low == pytest.approx(0.025 ** (1 / 3))


# --- equivalence and families ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_tost_is_statsmodels(seed):
    a, b = sample(seed, n=14), sample(seed + 10, n=14)
    p, below, above = ttost_paired(a, b, -0.8, 0.8)
    ours = tost(a, b, 0.8, method="t")
    np.testing.assert_allclose((ours.p, ours.p_below, ours.p_above), (p, below[1], above[1]), rtol=1e-9)


def test_a_relative_margin_is_a_margin_of_each_pair():
    a, b = 5 + sample(0, n=10), 5 + sample(1, n=10)
    ours = tost(a, b, "20%", method="t")
    assert ours.p_below == pytest.approx(stats.ttest_1samp(a - 0.8 * b, 0, alternative="greater").pvalue)
    assert ours.p_above == pytest.approx(stats.ttest_1samp(1.2 * b - a, 0, alternative="greater").pvalue)
    assert tost(-a, -b, "20%", method="t").p == pytest.approx(ours.p)


@pytest.mark.parametrize("method", ["t", "sign-flip"])
@pytest.mark.parametrize("relative", [False, True])
def test_the_smallest_margin_is_where_equivalence_begins(method, relative):
    a, b = 5 + sample(0, n=10), 5 + sample(1, n=10)
    least = smallest_margin(a, b, method=method, relative=relative)
    assert tost(a, b, Margin(least.size * 1.001, relative), method=method).p <= 0.05
    assert tost(a, b, Margin(least.size * 0.999, relative), method=method).p > 0.05


def test_the_smallest_t_margin_is_the_end_of_the_90_percent_interval():
    a, b = sample(0, n=10), sample(1, n=10)
    ends = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert smallest_margin(a, b, method="t").size == pytest.approx(max(-ends.low, ends.high), rel=2e-4)


@pytest.mark.parametrize("relative", [False, True])
def test_the_smallest_margin_of_many_pairs_is_the_drawn_tests_own(relative):
    a, b = 5 + sample(0, n=45), 5 + sample(1, n=45)
    least = smallest_margin(a, b, relative=relative)
    assert tost(a, b, Margin(least.size, relative)).p <= 0.05 < tost(a, b, Margin(least.size * 0.99999, relative)).p
    there = smallest_margin(a, b, relative=relative, method="t").size
    assert least.size == pytest.approx(there, rel=0.05)
    assert smallest_margin(a, b, alpha=1e-6) is None  # more than drawn flips can show


def test_a_diverged_run_counts_against_equivalence():
    a, b = np.full(8, 0.5), np.full(8, 0.5)
    assert tost(a, b, 0.1).p == 1 / 256
    assert tost([nan, *a[1:]], b, 0.1).p > 1 / 256
    assert tost([nan, nan, nan, *a[3:]], b, 0.1).p > 0.05
    assert smallest_margin([nan] * 4 + [0.5] * 4, b) is None


def test_holm_is_statsmodels():
    for seed in range(5):
        ps = np.round(np.random.default_rng(seed).uniform(0, 0.2, 9), 2)  # with ties
        np.testing.assert_allclose(holm(ps), multipletests(ps, method="holm")[1], atol=1e-12)
    assert holm([]).tolist() == []


# --- bad input ------------------------------------------------------------------------------------------------------

BAD = [
    (lambda: worst_last([1.0], better="faster"), ArgumentError, "better is 'faster'"),
    (lambda: worst_last(["low"]), StudyError, "no number"),
    (lambda: differences([1.0], [1.0, 2.0]), StudyError, "1 outcomes against 2"),
    (lambda: differences([], []), StudyError, "0 outcomes"),
    (lambda: differences({1: 1.0}, {2: 1.0}), StudyError, r"2 seeds were run for one arm alone \(1, 2\)"),
    (lambda: differences({1: 1.0}, [1.0]), StudyError, "by seed"),
    (lambda: sign_flip([nan, 1.0]), StudyError, "with nan"),
    (lambda: sign_flip([1.0], "smaller"), ArgumentError, "alternative is 'smaller'"),
    (lambda: bca([1.0, inf]), StudyError, "1 of 2 values are not finite"),
    (lambda: bca([]), StudyError, "not finite"),
    (lambda: bca([1.0], "mode"), ArgumentError, "statistic is 'mode'"),
    (lambda: bca([1.0], confidence=95), ArgumentError, "confidence is 95"),
    (lambda: median_interval([]), StudyError, "0 differences"),
    (lambda: stratified([], lambda x: 0.0), StudyError, "without runs"),
    (lambda: iqm([]), StudyError, "no outcomes"),
    (lambda: improvement({"a": [1.0]}, {"b": [1.0]}), StudyError, "tasks a against b"),
    (lambda: proportion(3, 2), StudyError, "3 of 2"),
    (lambda: Margin.of("2 percent"), ArgumentError, "2 percent"),
    (lambda: Margin.of(-0.1), ArgumentError, "margin is -0.1"),
    (lambda: tost([1.0, -1.0], [1.0, -1.0], "2%"), StudyError, "between -1 and 1"),
    (lambda: tost([1.0, nan], [1.0, 2.0], 0.1, method="t"), StudyError, "1 of them infinite"),
    (lambda: tost([1.0], [1.0], 0.1, method="z"), ArgumentError, "method is 'z'"),
    (lambda: holm([0.1, nan]), StudyError, "p-values"),
    (lambda: difference_power(1.0, 0.0, 10), ArgumentError, "spread is 0"),
    (lambda: pairs_needed(0.0, 1.0), ArgumentError, "effect is 0"),
    (lambda: pairs_needed(1e-9, 1.0), ArgumentError, "more than 1,000,000 pairs"),
    (lambda: pairs_needed(0.1, 1.0, margin=0.1), ArgumentError, "not within the margin"),
    (lambda: plan_looks([10, 5]), StudyError, r"looks after \[10, 5\]"),
    (lambda: plan_looks([10], spending="all"), ArgumentError, "spending is 'all'"),
    (lambda: interim([0.1], [5, 10]), StudyError, "the first look is at 5"),
]


@pytest.mark.parametrize(("call", "kind", "says"), BAD, ids=[says for _, _, says in BAD])
def test_bad_input(call, kind, says):
    with pytest.raises(kind, match=says) as caught:
        call()
    assert isinstance(caught.value, FaninError) and caught.value.remedy
