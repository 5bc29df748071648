"""How much of the error rate each planned look at the data may spend, and the boundaries that follow.

Looking at every fifth seed and stopping at p <= 0.05 finds a difference between equal arms far more often than one time
in twenty. A spending function divides alpha among the looks; looks may be spaced as one likes, but must be planned.

Sources: Lan and DeMets, "Discrete Sequential Boundaries for Clinical Trials"; Armitage, McPherson and Rowe, "Repeated
Significance Tests on Accumulating Data" (the recursion).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from fanin.errors import StudyError
from fanin.study.statistics.interval import check_choice, check_level
from fanin.study.statistics.quadrature import legendre

SPENDING: dict[str, Callable[[float, float], float]] = {
    "obrien-fleming": lambda t, alpha: 4 * float(ndtr(ndtri(alpha / 4) / math.sqrt(t))),
    "pocock": lambda t, alpha: alpha * math.log(1 + (math.e - 1) * t),
}
"""Two-sided error that may be spent up to a fraction t of the pairs; both reach alpha at t = 1. The first saves nearly
all of it for the end, the second spends evenly."""

FARTHEST = 8.5
"""Standard deviations beyond which a boundary is none."""


@dataclass(frozen=True)
class Look:
    """A planned look at the data.

    Attributes:
        n: pairs that are there by then; ``fraction`` of all that are planned.
        spent: two-sided error that may be spent up to here.
        boundary: |z| at which to stop, for a statistic that is normal (or a t statistic of many pairs).
        level: its two-sided level, P(|Z| >= boundary); 1 - level is the confidence of the interval that holds at
            every look at once (Jennison and Turnbull's repeated interval).
    """

    n: int
    fraction: float
    spent: float
    boundary: float
    level: float


def plan_looks(ns: Sequence[int], *, alpha: float = 0.05, spending: str = "obrien-fleming") -> tuple[Look, ...]:
    """Boundaries of all planned looks.

    The score S_k of look k moves from look to look by normal steps of variance t_k - t_{k-1}. Its density on paths that
    have not stopped is carried along by quadrature, and each boundary is where the next step leaves with the
    probability that may be spent.

    Args:
        ns: numbers of pairs, growing; the last is the number planned.
        alpha: two-sided error of the whole.
        spending: "obrien-fleming" or "pocock".

    Example:
        >>> [round(look.boundary, 2) for look in plan_looks([5, 10, 15, 20, 25])]
        [4.88, 3.36, 2.68, 2.29, 2.03]
        >>> [round(look.boundary, 2) for look in plan_looks([5, 10, 15, 20, 25], spending="pocock")]
        [2.44, 2.43, 2.41, 2.4, 2.39]
    """
    fractions = check_looks(ns)
    allowed = spent_by(fractions, alpha, spending)
    steps = np.sqrt(np.diff(fractions, prepend=0.0))
    at, mass, looks = np.zeros(1), np.ones(1), []  # all paths start at 0
    inside, weights = legendre(256)
    for n, t, step, so_far, before in zip(ns, fractions, steps, allowed, [0.0, *allowed]):
        edge = _edge(at, mass, float(step), so_far - before, FARTHEST * math.sqrt(t))
        z = edge / math.sqrt(t)
        looks.append(Look(n, float(t), so_far, z if z < FARTHEST else math.inf, 2 * float(ndtr(-z))))
        nodes = edge * inside
        density = (np.exp(-(((nodes[:, None] - at) / step) ** 2) / 2) @ mass) / (step * math.sqrt(2 * math.pi))
        at, mass = nodes, edge * weights * density
    return tuple(looks)


def _edge(at: np.ndarray, mass: np.ndarray, step: float, spend: float, farthest: float) -> float:
    """Where the next step leaves with probability ``spend``."""

    def leaving(edge: float) -> float:
        return float(mass @ (ndtr((at - edge) / step) + ndtr((-at - edge) / step)))

    if leaving(farthest) >= spend:
        return farthest
    return cast(float, brentq(lambda edge: leaving(edge) - spend, 0.0, farthest, xtol=1e-10))


def spent_by(fractions: np.ndarray, alpha: float, spending: str) -> list[float]:
    """Error that may be spent up to each fraction of the pairs."""
    check_level("alpha", alpha)
    check_choice("spending", spending, tuple(SPENDING))
    return [SPENDING[spending](float(t), alpha) for t in fractions]


def check_looks(ns: Sequence[int]) -> np.ndarray:
    """Fractions of the pairs at each look."""
    counts = np.asarray(ns, dtype=np.float64)
    if not len(counts) or counts[0] < 1 or (np.diff(counts) <= 0).any() or (counts != np.floor(counts)).any():
        raise StudyError(f"looks after {list(ns)} pairs", remedy="give growing whole numbers such as [8, 12, 16, 20]")
    return counts / counts[-1]
