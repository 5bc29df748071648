"""From finished trials to what they say: comparisons as one family, summaries, and counts.

Numbers only; ``remarks`` puts them into sentences.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fanin.study.effective import Curves, curves
from fanin.study.grid import Condition, conditions
from fanin.study.layers import LayerTrend, trends
from fanin.study.outcome import STATUSES
from fanin.study.pooled import Pooled, pooled
from fanin.study.results import Results
from fanin.study.spec import Study
from fanin.study.statistics import (
    Collapse,
    Comparison,
    Interval,
    Margin,
    as_family,
    bca,
    compare,
    improvement,
    iqm_difference,
    iqm_interval,
)

Runs = dict[int, float]
"""Outcome by initialization seed; NaN where it diverged."""


@dataclass(frozen=True)
class Summary:
    """One arm in one condition.

    Attributes:
        rate: chosen learning rate; None while it is not chosen.
        edge: "lowest" or "highest" where it is the end of its grid.
        counts: status -> trials of the comparison.
        values: outcome by seed.
        mean: with a BCa interval; None where a run diverged or there are fewer than two.
        iqm: interquartile mean; a diverged run counts as the worst. None without runs.
    """

    condition: Condition
    arm: str
    rate: float | None
    edge: str | None
    counts: Mapping[str, int]
    values: Mapping[int, float]
    mean: Interval | None
    iqm: Interval | None

    @property
    def label(self) -> str:
        return label(self.condition)

    @property
    def trials(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Overall:
    """One arm over all conditions, against the baseline.

    Attributes:
        conditions: how many it was taken over.
        difference: of the interquartile means, each condition in units of the baseline's median there; None where a
            baseline has no such unit.
        improvement: probability that a run of the arm is better than one of the baseline in the same condition.
        pooled: the comparison of seeds' means over the conditions, with its verdict.
    """

    arm: str
    baseline: str
    conditions: int
    difference: Interval | None
    improvement: Interval
    pooled: Pooled | None = None


@dataclass(frozen=True)
class Analysis:
    """What a study found.

    Attributes:
        results: what it rests on.
        summaries: every condition and arm, in the order of the study.
        comparisons: every arm with the baseline in every condition where two or more pairs are done; one Holm family.
        overall: an arm each, over the conditions that are compared; empty for a single one.
        missing: trials that have not been run.
    """

    results: Results
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    overall: tuple[Overall, ...]
    missing: int

    @property
    def study(self) -> Study:
        return self.results.study

    @property
    def labelled(self) -> bool:
        """Whether conditions have something to be told apart by."""
        return bool(self.study.factors or self.study.cases)

    @property
    def margin(self) -> Margin:
        return Margin.of(self.study.compare.margin)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before trusting the verdict, a sentence or two each."""
        from fanin.study.remarks import warnings

        return warnings(self)

    @cached_property
    def verdict_parts(self) -> tuple[str, ...]:
        """The answer to the study's question in one sentence, then how each arm fares and the largest differences."""
        from fanin.study.remarks import verdict

        return verdict(self)

    @property
    def verdict(self) -> str:
        """The same as one paragraph."""
        return " ".join(self.verdict_parts)

    @cached_property
    def collapses(self) -> tuple[tuple[Curves, Collapse], ...]:
        """Conditions where arms differ in scale alone: whether an effective learning rate explains them."""
        return tuple((found, told) for found in curves(self.results) if (told := found.told()) is not None)

    @cached_property
    def trends(self) -> tuple[LayerTrend, ...]:
        """What was observed in trained networks, layer by layer: the first against the rest, and with depth."""
        return tuple(trends(self.results))

    def told(self, condition: Condition) -> str:
        """A condition by the levels that differ among the conditions: a heading."""
        places = self.results.conditions
        return label(tuple(part for part in condition if any(part not in other for other in places)))

    def of(self, condition: Condition, arm: str) -> Summary:
        return next(s for s in self.summaries if s.condition == condition and s.arm == arm)

    def comparison(self, condition: Condition, arm: str) -> Comparison | None:
        task = label(condition)
        return next((c for c in self.comparisons if c.task == task and c.arm == arm), None)


def analyse(results: Results, *, draws: int = 10_000) -> Analysis:
    """Compare, summarize and count the trials of a study, finished or not.

    Args:
        draws: of every bootstrap of a difference.
    """
    summaries = tuple(_summary(results, c, arm.name) for c in results.conditions for arm in results.study.arms)
    comparisons, compared = _comparisons(results, summaries, draws)
    overall = _overall(results.study, compared, draws) if len(compared) > 1 else ()
    return Analysis(results, summaries, comparisons, overall, len(results.missing) + results.blocked)


def label(condition: Condition) -> str:
    """A condition as it is written.

    Example:
        >>> label((("norm", "batch"), ("bias", True), ("depth", 3)))
        'norm=batch, bias=true, depth=3'
    """
    return ", ".join(f"{name}={level(value)}" for name, value in condition)


def level(value: Any) -> str:
    """A level of a factor as it is written."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def outcome_name(study: Study) -> str:
    """Of the compared outcome, in words."""
    return study.compare.outcome.replace("_", " ")


def _summary(results: Results, condition: Condition, arm: str) -> Summary:
    choice = results.choices.get((condition, arm))
    found = Counter(trial.outcome.status for trial in results.compared(condition, arm))
    values = _whole(results, condition, arm)
    runs, confidence = np.array(list(values.values())), 1 - results.study.compare.alpha
    fine = len(runs) > 1 and bool(np.isfinite(runs).all())
    return Summary(
        condition,
        arm,
        choice.rate if choice else None,
        choice.edge if choice else None,
        {status: found[status] for status in STATUSES},
        values,
        bca(runs, confidence=confidence) if fine else None,
        iqm_interval({"": list(runs)}, confidence=confidence) if len(runs) else None,
    )


def _whole(results: Results, condition: Condition, arm: str) -> Runs:
    """Outcomes of the initialization seeds whose data orders are all done."""
    wanted = max(1, results.study.seeds.data)
    done = Counter(trial.cell.init_seed for trial in results.compared(condition, arm))
    values = results.outcomes(condition, arm, results.study.compare.outcome)
    return {seed: value for seed, value in values.items() if done[seed] == wanted}


Compared = dict[str, dict[str, Runs]]
"""Condition's label -> arm -> runs; the baseline's among them."""


def _comparisons(results: Results, summaries: Sequence[Summary], draws: int) -> tuple[tuple[Comparison, ...], Compared]:
    study, base = results.study, results.study.baseline
    by_place = {(s.condition, s.arm): s.values for s in summaries}
    found: list[Comparison] = []
    compared: Compared = {}
    for condition in results.conditions:
        for arm in [arm.name for arm in study.arms if arm.name != base]:
            a, b = _shared(by_place[condition, arm], by_place[condition, base])
            if len(a) < 2:
                continue
            found.append(_compared(study, condition, arm, a, b, draws))
            compared.setdefault(label(condition), {base: b})[arm] = a
    return (as_family(found) if found else ()), compared


def _compared(study: Study, condition: Condition, arm: str, a: Runs, b: Runs, draws: int) -> Comparison:
    return compare(
        a,
        b,
        margin=study.compare.margin,
        alpha=study.compare.alpha,
        arm=arm,
        baseline=study.baseline,
        task=label(condition),
        outcome=outcome_name(study),
        looks=(*study.seeds.looks, study.seeds.compare) if study.seeds.looks else (),
        comparisons=max(1, (len(study.arms) - 1) * len(conditions(study))),
        draws=draws,
    )


def _shared(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[Runs, Runs]:
    """Runs of the seeds that both have: of a study that is not finished, the pairs that are."""
    seeds = sorted(set(a) & set(b))
    return {seed: a[seed] for seed in seeds}, {seed: b[seed] for seed in seeds}


def _overall(study: Study, compared: Compared, draws: int) -> tuple[Overall, ...]:
    base, confidence = study.baseline, 1 - study.compare.alpha
    found = []
    others = [arm.name for arm in study.arms if arm.name != base]
    together = pooled(study, compared, others, draws)
    for arm in others:
        tasks = {task: _shared(arms[arm], arms[base]) for task, arms in compared.items() if arm in arms}
        if not tasks:
            continue
        a, b = ({task: runs[side] for task, runs in tasks.items()} for side in (0, 1))
        chance = improvement(a, b, confidence=confidence)
        found.append(Overall(arm, base, len(tasks), _gap(a, b, confidence), chance, together.get(arm)))
    return tuple(found)


def _gap(a: Mapping[str, Runs], b: Mapping[str, Runs], confidence: float) -> Interval | None:
    """Difference of interquartile means, where each condition is measured in its baseline's median."""
    units = {task: _unit(runs) for task, runs in b.items()}
    if not all(units.values()):
        return None
    found = iqm_difference(_scaled(a, units), _scaled(b, units), confidence=confidence)
    return found if math.isfinite(found.estimate) else None


def _scaled(runs: Mapping[str, Runs], units: Mapping[str, float]) -> dict[str, list[float]]:
    return {task: [value / units[task] for value in runs[task].values()] for task in runs}


def _unit(runs: Runs) -> float:
    fine = [value for value in runs.values() if math.isfinite(value)]
    return abs(float(np.median(fine))) if fine else 0.0
