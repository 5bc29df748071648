"""The effective learning rate of a study whose arms differ in the scale of their weights: do their curves collapse?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fanin.study.grid import Condition
from fanin.study.results import Results
from fanin.study.spec import Arm, Study
from fanin.study.statistics import Collapse, collapse

LEAST = 3
"""Scales, and rates, from which on a collapse can be told."""


@dataclass(frozen=True)
class Curves:
    """Outcomes over scale and rate on the seeds that choose a rate, all of which every arm and rate has.

    Args:
        scales: (S,) rising.
        rates: (R,) rising.
        values: (seeds, S, R); NaN where a run diverged.
    """

    condition: Condition
    scales: tuple[float, ...]
    rates: tuple[float, ...]
    values: np.ndarray

    def told(self) -> Collapse | None:
        """None where nothing can be said: a single seed, or all runs diverged, or a value that has no logarithm."""
        fine = self.values[np.isfinite(self.values)]
        if len(self.values) < 2 or not fine.size or fine.min() <= 0 or np.ptp(fine) == 0:
            return None
        return collapse(self.scales, self.rates, self.values)


def scaled(study: Study) -> list[Arm]:
    """Arms that differ in their scale alone, by scale; none where there are fewer than three, or others beside them."""
    starts = {str(sorted((key, str(v)) for key, v in arm.start.items() if key != "scale")) for arm in study.arms}
    scales = {arm.scale for arm in study.arms}
    if len(starts) > 1 or len(scales) < max(LEAST, len(study.arms)):
        return []
    return sorted(study.arms, key=lambda arm: arm.scale)


def curves(results: Results) -> Iterator[Curves]:
    """A record for each condition where all rates of all scales have been run."""
    arms = scaled(results.study)
    for condition in results.conditions if arms else ():
        rates = {tuple(sorted(results.study.rates_of(arm, condition))) for arm in arms}
        if len(rates) != 1 or len(next(iter(rates))) < LEAST:
            continue
        values = _values(results, condition, arms, next(iter(rates)))
        if values is not None:
            yield Curves(condition, tuple(arm.scale for arm in arms), next(iter(rates)), values)


def _values(results: Results, condition: Condition, arms: list[Arm], rates: tuple[float, ...]) -> np.ndarray | None:
    name = results.study.compare.outcome
    found = {
        (trial.cell.init_seed, trial.arm, trial.cell.rate): trial.outcome.value(name)
        for trial in results.trials
        if trial.choosing and trial.condition == condition
    }
    seeds = sorted({seed for seed, _, _ in found})
    rows = [[[found.get((seed, arm.name, rate), math.inf) for rate in rates] for arm in arms] for seed in seeds]
    values = np.array(rows)
    return values if values.size and not np.isposinf(values).any() else None
