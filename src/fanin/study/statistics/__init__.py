"""Statistics of a study: from outcomes paired by seed to a verdict that states a difference, or equivalence.

Plain NumPy and SciPy: nothing here knows what a trial is.
"""

from __future__ import annotations

from fanin.study.statistics.aggregate import improvement, iqm, iqm_difference, iqm_interval
from fanin.study.statistics.bootstrap import bca, stratified
from fanin.study.statistics.collapse import Collapse, collapse
from fanin.study.statistics.comparing import as_family, compare, compare_all
from fanin.study.statistics.comparison import Comparison
from fanin.study.statistics.equivalence import Equivalence, Margin, tost
from fanin.study.statistics.interval import Interval
from fanin.study.statistics.margin import smallest_margin
from fanin.study.statistics.median import median_interval
from fanin.study.statistics.multiplicity import holm
from fanin.study.statistics.paired import Outcomes, SignFlip, differences, pairs, pairs_for, sign_flip, smallest_p
from fanin.study.statistics.power import (
    detectable,
    difference_power,
    equivalence_power,
    pairs_needed,
)
from fanin.study.statistics.ranks import Divergence, divergence, proportion, worst_last
from fanin.study.statistics.sequential import Interim, interim
from fanin.study.statistics.spending import Look, plan_looks
from fanin.study.statistics.verdict import VERDICTS, judge

__all__ = [
    "Outcomes",
    "worst_last",
    "Divergence",
    "divergence",
    "proportion",
    "pairs",
    "differences",
    "SignFlip",
    "sign_flip",
    "smallest_p",
    "pairs_for",
    "Interval",
    "bca",
    "median_interval",
    "stratified",
    "iqm",
    "iqm_interval",
    "iqm_difference",
    "improvement",
    "Margin",
    "Equivalence",
    "tost",
    "smallest_margin",
    "holm",
    "difference_power",
    "equivalence_power",
    "pairs_needed",
    "detectable",
    "Look",
    "plan_looks",
    "Interim",
    "interim",
    "Comparison",
    "compare",
    "as_family",
    "compare_all",
    "Collapse",
    "collapse",
    "VERDICTS",
    "judge",
]
