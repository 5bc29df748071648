"""Before a study is run: how many trials it takes, and what so many pairs can and cannot show."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fanin.study.grid import choosing, conditions
from fanin.study.spec import Study
from fanin.study.statistics import (
    Margin,
    detectable,
    pairs_for,
    smallest_p,
)

POWER = 0.8


@dataclass(frozen=True)
class Power:
    """What a design can show.

    Attributes:
        choosing, comparing: trials that choose learning rates, and that are compared; at most, for arms may share some.
        conditions, arms: of the study.
        family: comparisons that Holm's correction is applied to.
        pairs: a comparison.
        smallest_p: after the correction, if every pair of every comparison agrees.
        needed: pairs a comparison from which on a single one can be shown at all.
        effect: the difference that is found with probability 0.8, in standard deviations of the paired differences;
            infinite if none can be.
        margin: the margin within which no difference is shown to be none with that probability, in the same unit.
        stated: margin of the study.
    """

    choosing: int
    comparing: int
    conditions: int
    arms: int
    family: int
    pairs: int
    alpha: float
    smallest_p: float
    needed: int
    effect: float
    margin: float
    stated: Margin

    @property
    def trials(self) -> int:
        return self.choosing + self.comparing

    def __str__(self) -> str:
        return f"{self._size()} {self._shown()}"

    def _size(self) -> str:
        picked = f"{self.choosing} to choose learning rates, " if self.choosing else ""
        return (
            f"{self.trials} trials: {picked}{self.comparing} to compare {self.arms} arms in "
            f"{self.conditions} condition{'s' if self.conditions > 1 else ''} over {self.pairs} pairs of seeds."
        )

    def _shown(self) -> str:
        if not self.family:
            return "One arm: nothing is compared."
        many = f"{self.family} comparisons" if self.family > 1 else "one comparison"
        if self.smallest_p > self.alpha:
            return (
                f"{self.pairs} pairs cannot show a single difference: with {many} the smallest p is "
                f"{self.smallest_p:.3g}, above {self.alpha:g}. {self.needed} pairs can."
            )
        effect = (
            f"Differences of {self.effect:.2g} standard deviations of the paired differences are found with "
            f"probability {POWER:g}, with {many} corrected for."
        )
        if math.isinf(self.margin):
            return f"{effect} Equivalence cannot be shown."
        return f"{effect} Equivalence within {self.stated} is, where that margin is {self.margin:.2g} of them or more."


def plan_power(study: Study) -> Power:
    """What a study can show with the seeds it has, before it is run.

    Example:
        >>> from fanin.study import read
        >>> study = read({
        ...     "name": "a", "rates": [0.1, 0.3], "task": {"model": "dense", "data": "digits"},
        ...     "arms": {"he": {"recipe": "he"}, "lecun": {"recipe": "lecun"}}, "seeds": {"compare": 5}})
        >>> print(plan_power(study))
        18 trials: 8 to choose learning rates, 10 to compare 2 arms in 1 condition over 5 pairs of seeds. 5 pairs cannot
        show a single difference: with one comparison the smallest p is 0.0625, above 0.05. 6 pairs can.
    """
    places = conditions(study)
    n, alpha = study.seeds.compare, study.compare.alpha
    family = (len(study.arms) - 1) * len(places)
    many = max(1, family)
    return Power(
        choosing=sum(1 for condition in places for arm in study.arms for _ in choosing(study, condition, arm)),
        comparing=len(places) * len(study.arms) * n * max(1, study.seeds.data),
        conditions=len(places),
        arms=len(study.arms),
        family=family,
        pairs=n,
        alpha=alpha,
        smallest_p=min(1.0, many * smallest_p(n)),
        needed=pairs_for(alpha / many),
        effect=detectable(n, 1.0, power=POWER, alpha=alpha, comparisons=many),
        margin=detectable(n, 1.0, equivalence=True, power=POWER, alpha=alpha, comparisons=many),
        stated=Margin.of(study.compare.margin),
    )
