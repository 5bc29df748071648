"""Comparing arms with a baseline: every test and interval of a pair of arms, and the family that they belong to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fanin.errors import StudyError
from fanin.study.statistics.aggregate import improvement
from fanin.study.statistics.bootstrap import DRAWS, bca
from fanin.study.statistics.comparison import Comparison
from fanin.study.statistics.equivalence import Margin, tost
from fanin.study.statistics.interval import check_level
from fanin.study.statistics.margin import smallest_margin
from fanin.study.statistics.median import median_interval
from fanin.study.statistics.multiplicity import holm
from fanin.study.statistics.paired import EXACT_UP_TO, FLIPS, Outcomes, differences, pairs, sign_flip, smallest_p
from fanin.study.statistics.power import detectable
from fanin.study.statistics.ranks import divergence
from fanin.study.statistics.sequential import interim
from fanin.study.statistics.spending import plan_looks
from fanin.study.statistics.verdict import judge


def compare(
    a: Outcomes,
    b: Outcomes,
    *,
    better: str = "lower",
    margin: Margin | float | str | None = None,
    alpha: float = 0.05,
    arm: str = "arm",
    baseline: str = "baseline",
    task: str = "",
    outcome: str = "outcome",
    unit: str = "",
    equivalence: str = "sign-flip",
    power: float = 0.8,
    looks: Sequence[int] = (),
    comparisons: int = 1,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare the runs of one arm with those of a baseline that shares their seeds.

    Args:
        a, b: outcomes of the arm and of the baseline, by seed or in order; None, nan and inf are diverged runs.
        better: "lower" or "higher".
        margin: the smallest difference that matters, in the unit of the outcome or as "2%" of the baseline.
        alpha: level of both tests.
        equivalence: "sign-flip" or "t" (which gives way to "sign-flip" where a run diverged).
        looks: pairs at which the study might have stopped (see `interim`), in the order of a's seeds; the last is all
            that were planned. p then allows for them, and intervals are those that hold at every look (their level is
            that of the last look reached).
        comparisons: for looks, the size of the family that was planned: each comparison spends alpha / comparisons.
        draws, seed: of the bootstrap, and of sign flips where there are too many to count.

    Example:
        >>> a = [0.31, 0.29, 0.33, 0.30, 0.28, 0.32, 0.30, 0.31]
        >>> b = [0.35, 0.34, 0.36, 0.35, 0.31, 0.37, 0.36, 0.34]
        >>> found = compare(a, b, arm="he", baseline="glorot", outcome="test error")
        >>> found.verdict, found.p
        ('better', 0.0078125)
        >>> compare(a[:5], b[:5]).verdict
        'cannot be shown'
    """
    check_level("alpha", alpha)
    terms = _Terms(better, margin, alpha, equivalence, power, tuple(looks), comparisons, draws, seed)
    names = {"arm": arm, "baseline": baseline, "task": task, "outcome": outcome, "unit": unit}
    return as_family([_compared(*pairs(a, b), terms, names)])[0]


@dataclass(frozen=True)
class _Terms:
    """How two arms are compared: what `compare` is told, but for names."""

    better: str
    margin: Margin | float | str | None
    alpha: float
    equivalence: str
    power: float
    looks: tuple[int, ...]
    comparisons: int
    draws: int
    seed: int


def _compared(x: np.ndarray, y: np.ndarray, terms: _Terms, names: dict[str, Any]) -> Comparison:
    """Every number of the pair, a family of its own as yet."""
    d = differences(x, y, terms.better)
    whole = bool(np.isfinite(x).all() and np.isfinite(y).all())
    confidence = _confidence(len(d), terms.looks, terms.alpha)
    seed, few = terms.seed, min(terms.draws, 2_000)
    return Comparison(
        **names,
        better=terms.better,
        n=len(d),
        planned=max([len(d), *terms.looks]),
        alpha=terms.alpha,
        power=terms.power,
        **_effect(d, y, whole, confidence, terms.draws, seed),
        **_tests(d, terms.looks, terms.alpha / terms.comparisons, seed),
        **_equivalence(x, y, whole, terms),
        improvement=improvement(x, y, terms.better, confidence=confidence, draws=few, seed=seed),
        diverged_arm=divergence(x, confidence=1 - terms.alpha),
        diverged_baseline=divergence(y, confidence=1 - terms.alpha),
    )


def _effect(
    d: np.ndarray, baseline: np.ndarray, whole: bool, confidence: float, draws: int, seed: int
) -> dict[str, Any]:
    """How large the difference is: its mean, or its median where a run diverged."""
    median = median_interval(d, confidence=confidence)
    difference = bca(d, confidence=confidence, draws=draws, seed=seed) if whole else median
    fine = baseline[np.isfinite(baseline)]
    size = abs(float(fine.mean() if whole else np.median(fine))) if len(fine) else 0.0
    return {
        "difference": difference,
        "statistic": "mean" if whole else "median",
        "mean_difference": float(d.mean()) if whole else math.nan,
        "median_difference": median.estimate,
        "relative_difference": difference.estimate / size if size > 0 else math.nan,
        "spread": float(d.std(ddof=1)) if whole and len(d) > 1 else math.nan,
        "detectable": math.nan,  # known once the family is
    }


def _tests(d: np.ndarray, looks: Sequence[int], alpha: float, seed: int) -> dict[str, Any]:
    """Whether there is a difference, and what the smallest p could have been; a family of one so far."""
    n = len(d)
    if not looks:
        flip = sign_flip(d, seed=seed)
        p, direction = flip.p, int(np.sign(flip.mean))
    elif n < looks[0]:
        p, direction = 1.0, 0  # nothing may be read from the data yet
    else:
        seen = interim(d, looks, alpha=alpha, seed=seed)
        p = seen.p if seen.stop or seen.final else 1.0  # before the end only a crossed boundary counts
        direction = seen.direction
    least = smallest_p(n) if n <= EXACT_UP_TO else max(smallest_p(n), 1 / (FLIPS + 1))
    return {
        "direction": direction,
        "p": p,
        "p_holm": p,
        "smallest_p": least,
        "smallest_p_holm": least,
        "family": 1,
    }


def _confidence(n: int, looks: Sequence[int], alpha: float) -> float:
    """Of intervals: 1 - alpha, or what holds at every look at once."""
    if not looks:
        return 1 - alpha
    reached = [look for look in plan_looks(looks, alpha=alpha) if look.n <= n]
    return 1 - max(reached[-1].level, 1e-9) if reached else 1 - 1e-9


def _equivalence(x: np.ndarray, y: np.ndarray, whole: bool, terms: _Terms) -> dict[str, Any]:
    """Whether the difference is within the margin, and the margin it is within."""
    limit = None if terms.margin is None else Margin.of(terms.margin)
    relative = limit is not None and limit.relative
    method = terms.equivalence if whole else "sign-flip"
    how: dict[str, Any] = {"better": terms.better, "method": method, "seed": terms.seed}
    try:
        p = tost(x, y, limit, **how).p if limit else math.nan
        least = smallest_margin(x, y, alpha=terms.alpha, relative=relative, **how)
    except StudyError:  # a relative margin around zero; `judge` says so
        p, least = math.nan, None
    return {"margin": limit, "tost_p": p, "tost_p_holm": p, "equivalent_within": least}


def as_family(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with p-values corrected as one family, and verdicts that follow from them.

    Differences and equivalences are two families: any false "better" or "worse" among all comparisons has probability
    at most alpha, and so has any false "equivalent". A family is what a reader may pick from: all comparisons of a
    study on one outcome.

    Example:
        >>> one = compare([0.0] * 6, [1.0] * 6)
        >>> [(c.p, c.p_holm, c.verdict) for c in as_family([one, one])]
        [(0.03125, 0.0625, 'cannot be shown'), (0.03125, 0.0625, 'cannot be shown')]
    """
    adjusted = holm([c.p for c in comparisons])
    least = holm([c.smallest_p for c in comparisons])  # Holm grows with every p, so this is the best that can be had
    tested = [i for i, c in enumerate(comparisons) if not math.isnan(c.tost_p)]
    equivalent = dict(zip(tested, holm([comparisons[i].tost_p for i in tested])))
    return tuple(
        _judged(
            replace(
                c,
                p_holm=float(adjusted[i]),
                smallest_p_holm=float(least[i]),
                tost_p_holm=float(equivalent.get(i, math.nan)),
                family=len(comparisons),
                detectable=_detectable(c, len(comparisons)),
            )
        )
        for i, c in enumerate(comparisons)
    )


def _judged(c: Comparison) -> Comparison:
    verdict, reason = judge(c)
    return replace(c, verdict=verdict, reason=reason)


def _detectable(c: Comparison, family: int) -> float:
    if not c.spread > 0:
        return math.nan
    return detectable(c.n, c.spread, power=c.power, alpha=c.alpha, comparisons=family)


def compare_all(
    outcomes: Mapping[str, Mapping[str, Outcomes]],
    *,
    baseline: str | None = None,
    against: Sequence[tuple[str, str]] | None = None,
    **options: Any,
) -> tuple[Comparison, ...]:
    """Compare arms on every task, as one family.

    Args:
        outcomes: task -> arm -> outcomes by seed (or in the order of the seeds).
        baseline: the arm that every other one is compared with.
        against: instead, which (arm, baseline) to compare.
        options: those of `compare`.

    Returns:
        comparisons task by task, in the order of the arms.

    Example:
        >>> runs = {"he": [1.0, 2.0, 3.0], "glorot": [1.5, 2.5, 3.5], "lecun": [1.0, 2.0, 3.0]}
        >>> [(c.task, c.arm, c.n, c.family) for c in compare_all({"digits": runs}, baseline="he")]
        [('digits', 'glorot', 3, 2), ('digits', 'lecun', 3, 2)]
    """
    if (baseline is None) == (against is None):
        raise StudyError("which arms to compare is not clear", remedy="give baseline, or against, and not both")
    wanted = list(_cases(outcomes, baseline, against))
    if not wanted:
        raise StudyError("nothing to compare", remedy="a study needs a task with two arms")
    options = {"comparisons": len(wanted), **options}
    return as_family(
        [
            compare(outcomes[task][arm], outcomes[task][base], arm=arm, baseline=base, task=task, **options)
            for task, arm, base in wanted
        ]
    )


def _cases(
    outcomes: Mapping[str, Mapping[str, Outcomes]], baseline: str | None, against: Sequence[tuple[str, str]] | None
) -> Iterator[tuple[str, str, str]]:
    """Task, arm and baseline of every comparison."""
    for task, arms in outcomes.items():
        wanted = [(arm, baseline) for arm in arms if arm != baseline] if baseline is not None else against or ()
        for arm, base in wanted:
            if missing := [name for name in (arm, base) if name not in arms]:
                raise StudyError(f"task {task!r} has no arm {missing[0]!r}", remedy=f"it has {', '.join(arms)}")
            yield task, arm, base
