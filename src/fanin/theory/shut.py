"""Places that a mask shuts: numbers beside which all else is nothing, which say nothing of what the others are.

A causal mask adds minus 3.4e38, the smallest number there is, or minus infinity; a softmax behind it sees no more of
these places. Moments over all places would be those of the mask alone: what logits have in common is asked of the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.theory.law import Law
from fanin.theory.records import replace

LARGER = 1e3
"""How many times larger than the smallest signal beside it is what a mask adds, a negative number."""


def is_mask(array: np.ndarray) -> bool:
    """Whether known numbers are zeros and such as shut a place, beside signals of the order of one."""
    rest = array[array != 0]
    return 0 < rest.size < array.size and not np.iscomplexobj(rest) and bool((rest < -LARGER).all())


def levels(law: Law) -> np.ndarray:
    """Which levels are shut."""
    if len(law.values) == 1:
        return np.zeros(1, bool)
    low, top = law.moments.ends
    if (top >= 0).all():
        return np.zeros(len(top), bool)
    largest = np.maximum(np.abs(low), np.abs(top))
    with np.errstate(invalid="ignore"):
        alike = (law.values == top[:, None]).all(1) | (np.ptp(law.values, axis=1) < largest / 100)
    return alike & (-top > LARGER * min(largest[largest > 0], default=np.inf))


def opened(law: Law) -> Law:
    """With what the other places have, in their mean, where places are shut."""
    shut = levels(law)
    if not shut.any():
        return law
    share = np.where(shut, 0.0, law.level_weight)
    others = share @ np.where(shut[:, None], 0.0, law.values) / share.sum() if share.sum() > 0 else np.zeros(())
    return law.with_values(np.where(shut[:, None], others, law.values))


def around(work: Callable[[Law, Law], Law], x: Law, y: Law) -> Law:
    """A sum by ``work``, of x and y where neither is shut, with what shuts the others."""
    shut = [levels(x), levels(y)]
    if not any(s.any() for s in shut):
        return work(x, y)
    law = work(opened(x), opened(y))
    rank = law.level.ndim
    numbers, level = list(law.values), law.level
    for one, which in zip((x, y), shut, strict=True):
        lead = (1,) * (rank - one.level.ndim)
        for k in np.flatnonzero(which):
            level = np.where((one.level == k).reshape(*lead, *one.level.shape), len(numbers), level)
            numbers.append(one.values[k])
    used, found = np.unique(level, return_inverse=True)
    values = np.stack([numbers[k] for k in used])
    return replace(law, values=values, level=found.reshape(level.shape).astype(np.int32), loose=None, given={})
