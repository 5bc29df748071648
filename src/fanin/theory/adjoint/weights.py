"""Gradients of weights: sums over samples and positions of g x, squared pair by pair.

    E[(sum_i g_i x_i)^2] = sum over pairs of places of E[g g'] E[x x'],

with the pair moments of both sides: one number for every set of groups in which two places differ, a profile over
places where they differ in scale, and a matrix over positions where pairs of them differ (see ``sequence``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fanin.theory import border, grid, lags, places, zero_sum
from fanin.theory.adjoint import lagged, sequence
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.orthogonal import least
from fanin.theory.contraction import known_pairs
from fanin.theory.latent import group_sizes
from fanin.theory.law import FEATURE, Axis, Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.state import Known, Value

ALONG = frozenset((places.POSITION,))


@dataclass(frozen=True)
class Moments:
    """What stands beside the cotangent in the sum.

    Attributes:
        pair: E[x x'] of places that differ in a set of groups; the mean square for none.
        profile: mean square at every place, with the axes of the cotangent (each full or one); None where unknown.
        matrix: E[x x'] between every two positions of a sequence of the given length; None where one number will do.
        lags: E[x x'] by how far apart two places of a map are; None where one number will do.
    """

    pair: Callable[[Groups], float]
    profile: np.ndarray | None = None
    matrix: Callable[[int], np.ndarray | None] = lambda size: None
    lags: np.ndarray | None = None

    def __call__(self, differ: Groups) -> float:
        """The pair moment."""
        return self.pair(differ)


def _ones(size: int) -> np.ndarray:
    return np.ones((len(places.runs(size).index),) * 2)


ONE = Moments(lambda s: 1.0, np.ones(()), _ones)
"""Beside a bias stands one."""


def moments_of(x: Value, feature: int) -> Moments:
    """Pair moments of an input per feature, whether it is a law or known."""
    if isinstance(x, Law):
        profile = x.profile(x.seconds).mean(feature % len(x.shape), keepdims=True)
        return Moments(lambda s: x.pair(s) if s else x.second, profile, lambda size: _matrix(x, size))
    if not isinstance(x, Known):
        return Moments(lambda s: 0.0)
    second, pairs = known_pairs(x.array, x.axes, feature % len(x.shape))
    mean = float(second.mean())
    return Moments(lambda s: pairs.get(s, mean) if s else mean, np.expand_dims(second, feature % len(x.shape)))


def _matrix(x: Law, size: int) -> np.ndarray | None:
    return places.pair_matrix(x, size) if places.length(x) == size else None


def weight_part(weight: Law, second: float) -> Part:
    """The same mean square at every element."""
    return fresh(np.full((1,) * len(weight.shape), second), {})


def standardized(part: Part, weight: Law, n: float, g: Cotangent, pairs: Callable[[Groups], float], axes, total: float):
    """The same of a weight that a norm over its n inputs made: it knows what inputs have in common, their mean."""
    if not zero_sum.centred(weight, n) or total <= 0:
        return part
    return replace(part, common=min(paired(g, lambda s: pairs(s | {FEATURE}), axes) / total, 1.0))


def paired(g: Cotangent, x: Moments | Callable[[Groups], float], axes: tuple[Axis, ...]) -> float:
    """Mean over one place, sum over the other, of E[g g'] E[x x']: the square of a sum over places, per place."""
    x = x if isinstance(x, Moments) else Moments(x)
    sizes = group_sizes(axes)
    if x is ONE and g.balanced and g.balanced <= frozenset(sizes):
        return 0.0
    total = _own(g, x)
    if g.met and places.POSITION in sizes:
        total += g.second * g.met * max(x(frozenset()) - x(ALONG), 0.0)
    for s in subsets(frozenset(n for n, k in sizes.items() if k > 1)):
        between = _by_lag(g, x) if s == ALONG else None
        between = _between_positions(g, x, sizes) if s == ALONG and between is None else between
        total += between if between is not None else float(np.prod([sizes[n] - 1 for n in s])) * g.pair(s) * x(s)
    return max(total, sum(least(p, g.law) for p in g.parts) if x is ONE else 0.0)


def _own(g: Cotangent, x: Moments) -> float:
    """Mean over places of E[g^2] E[x^2]."""
    profile = g.profile()
    if x.profile is None or x.profile.size == 1 or profile.size == 1:
        return g.second * x(frozenset())
    features = tuple(i for i, a in enumerate(g.law.axes) if {t.group for t in a} <= {FEATURE} and profile.shape[i] > 1)
    profile = profile.mean(features, keepdims=True)
    if any(n != m and 1 not in (n, m) for n, m in zip(profile.shape, x.profile.shape, strict=False)):
        return g.second * x(frozenset())
    return float(np.mean(profile * x.profile))


def _by_lag(g: Cotangent, x: Moments) -> float | None:
    """Sum over other places of a map, by how far they are; None where one number does for one side."""
    sizes, table = border.sizes_of(g.law), lagged.moments(g) if x.lags is not None else None
    if sizes is None or table is None or x.lags is None or table.shape != x.lags.shape:
        return None
    table = lags.levelled(table, g.second, g.pair(ALONG), sizes)
    return (float(np.prod(sizes)) - 1) * lags.mean(table * x.lags, sizes)


def _between_positions(g: Cotangent, x: Moments, sizes: dict[str, float]) -> float | None:
    """Sum over other positions with a matrix on one side; None where one number does for both."""
    size = places.length(g.law)
    if size is None or sizes.get(places.POSITION) != size:
        return None
    right = x.matrix(size)
    if right is None or (sequence.carried(g) is None and np.ptp(_beside(right)) == 0):
        return None
    both = sequence.pair_matrix(g, size) * right
    return (size - 1) * sequence.mean_pair(both, size)


def _beside(matrix: np.ndarray) -> np.ndarray:
    """The entries off the diagonal."""
    return matrix[~np.eye(len(matrix), dtype=bool)] if len(matrix) > 1 else np.zeros(1)


def along_weights(g: Cotangent, x: Callable[[Groups], float], n: float, axes: tuple[Axis, ...]) -> float:
    """What ``paired`` misses behind an activation: d(z) follows z = w x, so a part of g x along w does not average out.

    Splitting x into its part along w and the rest gives
    E[g g' x x'] = E[d d'] E[x x'] + (q_x / n) (E[d z d' z'] - r E[d d']).
    """
    law = g.law
    if all(p.values is None for p in g.parts) or not law.gaussian:
        return 0.0
    sizes = group_sizes(axes)
    total = 0.0
    followed = [replace(p, values=p.values * grid.Z_UNIT) for p in g.parts if p.values is not None]
    plain = [p for p in g.parts if p.values is not None]
    for s in [frozenset(), *subsets(frozenset(k for k, size in sizes.items() if size > 1))]:
        many = float(np.prod([sizes[k] - 1 for k in s])) if s else 1.0
        r = law.correlation(s) if s else 1.0
        extra = sum(f.pair(law, s) - r * p.pair(law, s) for f, p in zip(followed, plain, strict=True))
        total += many * extra
    return total * x(frozenset()) / n
