"""Verdicts and the sentences that users read."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fanin.errors import StudyError
from fanin.study.statistics import (
    VERDICTS,
    Margin,
    as_family,
    compare,
    compare_all,
    detectable,
    differences,
    improvement,
    interim,
    plan_looks,
    sign_flip,
    tost,
)

BASE = [0.352, 0.341, 0.366, 0.349, 0.318, 0.374, 0.361, 0.344]
SHIFT = [-0.040, -0.049, -0.035, -0.048, -0.037, -0.051, -0.059, -0.032]
NOISE = [0.001, -0.002, 0.001, 0.002, -0.001, -0.001, 0.002, -0.001]
WIDE = [0.03, -0.02, 0.05, -0.04, 0.01, -0.03, 0.02, -0.01]
NAMED = {"arm": "he", "baseline": "glorot", "task": "digits", "outcome": "test loss", "unit": "nats"}


def moved(by, n=8):
    return [round(b + d, 6) for b, d in zip(BASE[:n], by)]


def found(by=NOISE, n=8, **options):
    return compare(moved(by, n), BASE[:n], **{**NAMED, **options})


# --- the verdict ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "n", "options", "verdict"),
    [
        (SHIFT, 8, {}, "better"),
        (SHIFT, 8, {"better": "higher"}, "worse"),
        (SHIFT, 8, {"margin": "2%"}, "better"),
        (SHIFT, 8, {"margin": 0.1}, "equivalent"),  # told from zero, and smaller than what matters
        (NOISE, 8, {"margin": "2%"}, "equivalent"),
        (NOISE, 8, {"margin": "2%", "equivalence": "t"}, "equivalent"),
        (NOISE, 8, {}, "undecided"),
        (WIDE, 8, {"margin": "2%"}, "undecided"),
        (SHIFT, 5, {}, "cannot be shown"),
        (SHIFT, 6, {}, "better"),
        (SHIFT, 6, {"alpha": 0.01}, "cannot be shown"),
        (NOISE, 5, {"margin": "2%"}, "equivalent"),  # one-sided, five pairs reach 1 / 32
        (NOISE, 4, {"margin": "2%"}, "cannot be shown"),
    ],
)
def test_verdicts(by, n, options, verdict):
    c = found(by, n, **options)
    assert c.verdict == verdict and verdict in VERDICTS
    assert str(n) in c.reason and "he" in c.reason and "glorot" in c.reason and "digits" in c.reason


def test_the_record_holds_what_the_parts_say():
    c, a = found(WIDE, margin="2%"), moved(WIDE)
    d = differences(a, BASE)
    assert c.p == sign_flip(d).p == c.p_holm and c.family == 1
    assert c.tost_p == tost(a, BASE, "2%").p == c.tost_p_holm and c.margin == Margin(0.02, relative=True)
    assert c.mean_difference == c.difference.estimate == pytest.approx(np.mean(WIDE))
    assert c.median_difference == pytest.approx(np.median(WIDE))
    assert c.relative_difference == pytest.approx(np.mean(WIDE) / np.mean(BASE))
    assert c.improvement == improvement(a, BASE)
    assert c.detectable == detectable(8, c.spread) and c.spread == pytest.approx(np.std(WIDE, ddof=1))
    assert tost(a, BASE, Margin(c.equivalent_within.size * 1.001, True)).p <= 0.05
    assert (c.n, c.diverged_arm.count, c.diverged_baseline.count, c.statistic) == (8, 0, 0, "mean")


def test_seeds_pair_whatever_their_order():
    by_seed = compare(dict(enumerate(moved(SHIFT))), dict(reversed([*enumerate(BASE)])), **NAMED)
    assert by_seed == found(SHIFT)
    assert compare(moved(SHIFT), BASE, seed=1, **NAMED) != by_seed  # draws are seeded


def test_rows_are_ready_for_a_table():
    row = found(SHIFT, margin="2%").row()
    assert json.loads(json.dumps(row, allow_nan=False))["margin"] == "2 %"
    assert row["difference_low"] < row["difference"] < row["difference_high"] and row["verdict"] == "better"
    diverged = compare([math.nan] * 8, BASE).row()
    assert diverged["difference"] is None and diverged["diverged_arm"] == 8 and json.dumps(diverged, allow_nan=False)


# --- diverged runs --------------------------------------------------------------------------------------------------


def test_diverged_runs_decide():
    broken = [None, math.nan, math.inf, -math.inf, None, None, 0.3, 0.3]
    c = compare(broken, BASE, **NAMED)
    assert (c.verdict, c.statistic, c.n, c.diverged_arm.count) == ("worse", "median", 8, 6)
    assert c.difference.estimate == math.inf and math.isnan(c.mean_difference) and c.improvement.estimate < 0.3
    assert "6 of 8 runs of he and 0 of 8 of glorot diverged; they rank worst." in c.reason
    higher = compare(broken, [1 - b for b in BASE], **{**NAMED, "better": "higher"})
    assert higher.verdict == "worse" and higher.direction == -1
    assert compare(BASE, broken, **NAMED).verdict == "better"


def test_arms_that_always_diverge_are_not_called_equivalent():
    c = compare([None] * 8, [math.nan] * 8, margin=0.1, **NAMED)
    assert c.verdict == "undecided" and "every run of both diverged" in c.reason and c.improvement.estimate == 0.5


def test_diverged_runs_are_no_reason_to_fail():
    """Any mixture gives a verdict, and no nan where a number is promised."""
    stream = np.random.default_rng(0)
    for n in (1, 2, 3, 6, 9):
        for _ in range(30):
            a, b = (
                np.where(stream.random(n) < 0.4, stream.choice([np.nan, np.inf], n), stream.normal(size=n))
                for _ in "ab"
            )
            for better in ("lower", "higher"):
                c = compare(a, b, better=better, margin=0.5, draws=50)
                assert c.verdict in VERDICTS and 0 < c.p <= 1 and 0 < c.tost_p <= 1 and c.reason
                assert not math.isnan(c.difference.low) and not math.isnan(c.improvement.estimate)


def test_a_relative_margin_around_zero_is_said_and_does_not_lose_the_rest():
    shifted = [b - 0.35 for b in BASE]
    c = compare([b - 0.1 for b in shifted], shifted, margin="2%", **NAMED)
    assert c.verdict == "better" and "Equivalence was not tested" in c.reason and math.isnan(c.tost_p_holm)
    zeros = compare([0.0, 0.1] * 4, [0.0, 0.1] * 4, margin="2%")  # an error of zero is fine
    assert zeros.tost_p == 2**-4 and compare([0.1] * 8, [None] * 8, margin="2%").verdict == "better"


# --- families -------------------------------------------------------------------------------------------------------


def family(n=8, **options):
    arms = {"glorot": BASE[:n], "he": moved(SHIFT, n), "lecun": moved(NOISE, n), "tiny": moved(WIDE, n)}
    return compare_all({"digits": arms, "shapes": dict(reversed(arms.items()))}, baseline="glorot", **options)


def test_holm_is_applied_over_all_tasks_and_arms():
    cs = family()
    assert [c.arm for c in cs] == ["he", "lecun", "tiny", "tiny", "lecun", "he"]
    assert [c.task for c in cs] == ["digits"] * 3 + ["shapes"] * 3
    np.testing.assert_allclose([c.p_holm for c in cs], multipletests([c.p for c in cs], method="holm")[1])
    assert {c.family for c in cs} == {6} and cs[0].detectable > found(SHIFT).detectable


def test_equivalence_is_a_family_of_those_that_have_a_margin():
    with_margin, without = found(NOISE, margin="2%"), found(NOISE)
    first, second, third = as_family([with_margin, without, with_margin])
    assert first.tost_p_holm == third.tost_p_holm == 2 * first.tost_p and math.isnan(second.tost_p_holm)
    assert first.verdict == "equivalent" and second.verdict == "undecided"


def test_a_family_needs_more_pairs():
    assert family()[0].verdict == "better"  # 6 * 2 / 2^8 = 0.047
    fewer = family(n=7)[0]
    assert fewer.verdict == "cannot be shown" and fewer.smallest_p_holm == 6 * 2 / 2**7
    assert "after Holm's correction over 6 comparisons is 0.0938, above 0.05; 8 pairs can" in fewer.reason


def test_a_comparison_of_more_pairs_does_not_suffer_from_one_of_few():
    many, few = as_family([found(SHIFT), found(SHIFT, 5)])
    assert many.verdict == "better" and few.verdict == "cannot be shown"


def test_looks_are_allowed_for():
    """Stopped early, a comparison keeps to what its looks may spend; its interval is wider."""
    stream = np.random.default_rng(0)
    b = stream.normal(1.0, 0.1, 20)
    a = b - 0.1 + stream.normal(0, 0.05, 20)
    looks = [8, 12, 16, 20]
    early, plain = compare(a[:12], b[:12], looks=looks, **NAMED), compare(a[:12], b[:12], **NAMED)
    assert early.verdict == "better" and early.p == interim(a[:12] - b[:12], looks).p
    assert "These are 12 of 20 planned pairs" in early.reason and (early.n, early.planned) == (12, 20)
    assert early.difference.confidence == 1 - plan_looks(looks)[1].level > plain.difference.confidence
    assert early.difference.low < plain.difference.low and early.difference.high > plain.difference.high
    none_yet = compare(a[:5], b[:5], looks=looks, **NAMED)
    assert none_yet.p == 1 and none_yet.verdict == "cannot be shown"
    weak = compare(b[:8] + WIDE, b[:8], looks=looks)
    assert weak.verdict == "undecided" and weak.p == 1 and "no boundary of a look has been crossed" in weak.reason


def test_nothing_is_claimed_before_a_boundary_is_crossed():
    """p <= 0.05 half way is no finding, whatever the plain test says."""
    d = np.array([-0.5, -0.4, -0.3, -0.6, -0.2, -0.5, -0.4, 0.05])
    assert sign_flip(d).p < 0.05 and not interim(d, [8, 16]).stop
    assert compare(d, np.zeros(8), looks=[8, 16]).verdict == "undecided"
    assert compare(d, np.zeros(8), looks=[8]).verdict == "better"


def test_a_family_divides_what_looks_may_spend():
    runs = {"glorot": BASE, "he": moved(SHIFT), "lecun": moved(WIDE)}
    alone = compare_all({"digits": runs}, against=[("he", "glorot")], looks=[8, 12])[0]
    assert alone.p == interim(np.subtract(runs["he"], BASE), [8, 12]).p and alone.verdict == "better"
    assert compare_all({"digits": runs}, baseline="glorot", looks=[8, 12])[0].p == 1  # 0.0079 of 0.0044


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "which arms to compare"),
        ({"baseline": "a", "against": [("b", "a")]}, "which arms to compare"),
        ({"against": [("b", "c")]}, "task 't' has no arm 'c'"),
        ({"baseline": "c"}, "task 't' has no arm 'c'"),
        ({"against": []}, "nothing to compare"),
    ],
)
def test_bad_families(options, says):
    with pytest.raises(StudyError, match=says):
        compare_all({"t": {"a": [1.0], "b": [2.0]}}, **options)


# --- what is said ---------------------------------------------------------------------------------------------------

SAID = [
    (
        SHIFT, 8, {},
        "he is better than glorot on digits: test loss lower by 0.0439 nats on average over 8 pairs (95 % interval "
        "0.0369 to 0.052 nats; 13 % of the baseline); p = 0.0078.",
    ),
    (
        NOISE, 8, {"margin": "2%"},
        "he and glorot are equivalent within 2 % on digits: test loss higher by 0.000125 nats on average over 8 pairs "
        "(95 % interval -0.00112 to 0.00138 nats; 0.036 % of the baseline); two one-sided tests give p = 0.0039.",
    ),
    (
        WIDE, 8, {"margin": 0.01},
        "he against glorot on digits: neither a difference nor equivalence within 0.01 nats is shown; test loss higher "
        "by 0.00125 nats on average over 8 pairs (95 % interval -0.0237 to 0.0275 nats; 0.36 % of the baseline); "
        "p = 1. 8 pairs would show a difference of 0.0363 nats with probability 80 %. A margin of 0.0225 nats or "
        "more would have shown equivalence.",
    ),
    (
        SHIFT, 5, {},
        "5 pairs cannot show a difference between he and glorot on digits: the smallest p is 0.0625, above 0.05; "
        "6 pairs can. Test loss lower by 0.0418 nats on average over 5 pairs (95 % interval 0.0358 to 0.0488 nats; "
        "12 % of the baseline). A margin of 0.049 nats or more would have shown equivalence.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("by", "n", "options", "sentence"), SAID)
def test_reasons(by, n, options, sentence):
    assert found(by, n, **options).reason == sentence


def test_the_numbers_said_are_those_of_students_test_too():
    """An independent reading of the first sentence: the t test's interval is close to the one quoted."""
    there = stats.ttest_rel(moved(SHIFT), BASE).confidence_interval()
    c = found(SHIFT)
    np.testing.assert_allclose((c.difference.low, c.difference.high), (there.low, there.high), atol=0.002)


def test_the_page_says_what_is_printed(capsys):
    page = (Path(__file__).parent.parent / "docs" / "statistics.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, {})
    printed = " ".join(capsys.readouterr().out.split())
    assert printed and printed in " ".join(page.split())
