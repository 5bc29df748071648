"""What known factors leave of the correlations of a cotangent: behind a mask most pairs of places have no gradient."""

from __future__ import annotations

import math

import numpy as np

from fanin.theory.adjoint.cotangent import Part
from fanin.theory.contraction import apart, axis_groups
from fanin.theory.law import FEATURE, Groups, Law


def thinned(part: Part, second: np.ndarray, law: Law) -> dict[Groups, float]:
    """Correlations of the part with another profile of mean squares, that of a known factor times its own.

    Two places have the product of their roots in common, over the mean square; so much changes as that does.
    """
    before, after = roots(part.second, law), roots(second, law)
    return {s: r * (after[s] / before[s] if before.get(s) else 1.0) for s, r in part.ratio.items()}


def cut(part: Part, before: tuple[np.ndarray, Law], after: tuple[np.ndarray, Law]) -> dict[Groups, float]:
    """Correlations of what is left of places with a profile of mean squares: places without any thin pairs."""
    was, now = roots(*before), roots(*after)
    return {s: r * now[s] / was[s] if was.get(s) and s in now else r for s, r in part.ratio.items()}


def roots(profile: np.ndarray, law: Law) -> dict[Groups, float]:
    """Mean product of the roots of two places that differ in a set of groups, over the mean square."""
    mean = float(np.mean(profile))
    if mean <= 0:
        return {}
    root = np.sqrt(profile / mean)
    names = sorted(law.groups - {FEATURE})
    totals: dict[Groups, tuple[float, int]] = {frozenset(): (1.0, 1)}
    for mask in range(1, 1 << len(names)):
        chosen = frozenset(n for i, n in enumerate(names) if mask >> i & 1)
        dims = tuple(i for i, axis in enumerate(law.axes) if axis_groups(axis) & chosen)
        count = math.prod(law.shape[d] for d in dims)
        totals[chosen] = (float(np.mean(root.mean(dims, keepdims=True) ** 2)), count)
    return apart(totals)
