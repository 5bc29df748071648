"""How far along a map the agreement of two places by chance reaches, and what the taps of a kernel leave of it.

Two places a, b agree by ``d(a, b)``, a sum of products ``x_(a+t) x_(b+t)`` over what was read. A kernel averages
``d(a + t, b + t)`` over its taps. Fresh products differ from tap to tap, and ``1 / T`` of the variance is left; what
kernels have summed before shares terms with its neighbours, and is smooth. Along each axis sums over boxes widen: their
variances add, ``(k^2 - 1) / 12`` a kernel of k taps, and with S of them before and s of this one

    (S / (S + s))^(axes / 2)

of the variance of d is left: 1/2, 2/3, 3/4, ... along a chain of like kernels over images (.495 at first, exactly).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fanin.theory import lags
from fanin.theory.latent import FEATURE, Scatter
from fanin.theory.law import Law


class Left(NamedTuple):
    """Standard deviations that taps leave, relative to what was there: of each kind, and of all chance together."""

    known: float
    earlier: float
    latest: float
    chance: float
    reach: tuple[float, float, float]


def over_taps(x: Law, law: Law, taps: float, scatter: Scatter) -> Left:
    """What sums over so many taps a feature leave of the scatter of x.

    Places that are alike agree alike, whatever was summed: ``1/T + (1 - 1/T) rho^2`` of the variance at least, with the
    mean of rho^2 over pairs of taps where neighbours are more alike than others.
    """
    variance = x.second - x.mean**2
    others = x.groups - {"sample"}
    if taps <= 1 or not others or variance <= 0:
        earlier = _mixed((x.latent.reach[1], x.latent.reach[2]), (scatter.earlier**2, scatter.latest**2))
        return Left(1.0, 1.0, 1.0, 1.0, (x.latent.reach[0], earlier, 0.0))
    rho = (x.pair(others) - x.mean**2) / variance
    near = lags.within(x, round(taps ** (1 / _map(x)[0])), m2=x.mean**2)
    least = 1 / taps + (1 - 1 / taps) * min(rho**2, 1.0) if near is None else near
    axes, places = _map(law)
    added, strides = widening(taps, axes), min(places / _map(x)[1], 1.0) ** (2 / axes)
    kept = [max((s / (s + added)) ** (axes / 2), least) for s in x.latent.reach]
    squares = [s**2 * k for s, k in zip((scatter.earlier, scatter.latest), kept[1:], strict=True)]
    whole = scatter.earlier**2 + scatter.latest**2
    earlier = _mixed((x.latent.reach[1] + added, x.latent.reach[2] + added), squares)
    chance = sum(squares) / whole if whole else kept[2]
    reach = [r * strides for r in (x.latent.reach[0] + added, earlier, added)]
    known, before, latest = (math.sqrt(k) for k in kept)
    return Left(known, before, latest, math.sqrt(chance), (reach[0], reach[1], reach[2]))


def widening(taps: float, axes: int) -> float:
    """What a kernel of so many taps adds to the variance of positions along each axis."""
    return (taps ** (2 / axes) - 1) / 12


def _map(law: Law) -> tuple[int, float]:
    """How many axes positions have, at least one, and how many positions there are."""
    sizes = [[a.size for a in axis if a.size > 1 and a.group not in (FEATURE, "sample")] for axis in law.axes]
    return max(sum(1 for s in sizes if s), 1), float(math.prod(n for s in sizes for n in s))


def _mixed(reach: Sequence[float], weights: Sequence[float]) -> float:
    """Of kinds that are one from here on, by their variances."""
    whole = sum(weights)
    return sum(r * w for r, w in zip(reach, weights, strict=True)) / whole if whole else max(reach)


def of_sum(parts: Sequence[Law]) -> tuple[float, float, float]:
    """Of a sum, by the squares of what its summands have."""
    found = []
    for i, kind in enumerate(("known", "earlier", "latest")):
        weights = [(getattr(p.spread(p.groups), kind) * p.second) ** 2 for p in parts]
        found.append(_mixed([p.latent.reach[i] for p in parts], weights))
    return (found[0], found[1], found[2])
