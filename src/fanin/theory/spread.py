"""How much the correlation of two places differs from pair to pair.

One number a set of groups is the mean correlation of all pairs of places. Pairs scatter around it, in two ways:

- Known inputs: two patches of 27 pixels have a correlation of their own, the same for every feature. What is not
  linear in the correlation sees it: the mean of a ReLU over positions takes the mean of Mehler's sums.
- By chance: over n random features even independent places agree, by ``1 / sqrt(n)``, anew in every network. In the
  mean over networks pair moments do not see it to the first order (the mean squares of the two places fluctuate, too);
  what is quadratic in the correlation does: the variance of a channel over its places, to which a pair adds 2 r^2.
  Where all features sum over the same n, they share it, and later layers pass it on by the slope of the correlation
  map; where every group of features sums over its own, it averages out over the groups that are summed next.

Of sums ``y = sum_i w_i x_i`` with n fresh weights the correlation of two places is that of their inputs over these n:
to the first order in its fluctuations ``r + mean_i (x_i x_i' - r (x_i^2 + x_i'^2) / 2) / q``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fanin.theory import descent, folds, grid, uneven
from fanin.theory.latent import Scatter
from fanin.theory.law import FEATURE, Axis, Groups, Law, subsets, two_points
from fanin.theory.records import replace

PAIRS = 4096  # drawn of known places, to estimate a standard deviation
_SEED = 0


def pair_deviation(x: Law, differ: Groups) -> Scatter:
    """Standard deviations of E[x x'] over pairs of places."""
    scatter = x.spread(differ)
    s = scatter.whole
    if not s or FEATURE in differ:
        return Scatter()
    (w, up), (v, down) = two_points(x.correlation(differ), s)
    slope = math.sqrt(w * v) * abs(x.moment_at(differ, up) - x.moment_at(differ, down)) / s
    return scatter.times(slope)


def summed(x: Law, n: float, law: Law, channels: float, grouped: bool = False) -> Law:
    """The Gaussian law of sums of n elements of x with fresh weights, with the spread of its correlations.

    Chance of each feature averages out over channels; that of all features does not, but over the taps of a kernel,
    which read other places (``folds``).
    """
    if x.deterministic or x.second <= 0 or not np.isfinite(x.second):
        return law
    spread, powers, told = {}, Powers.of(x), ()
    left = folds.over_taps(x, law, n / channels, x.spread(x.groups))
    for differ in subsets(law.groups):
        before = pair_deviation(x, differ).times(1 / x.second)
        earlier, own = math.hypot(before.earlier * left.earlier, before.latest * left.latest), before.own * left.latest
        fresh = chance(x, differ, powers) / n
        latest = math.hypot(math.sqrt(fresh), uneven.along(x) * left.chance)
        own /= math.sqrt(channels)
        inherited = Scatter(before.known * left.known, earlier, 0.0, own, before.single)
        there = before._replace(own=before.own / math.sqrt(channels))
        latest, own = (0.0, math.hypot(own, latest)) if grouped else (math.hypot(own, latest), 0.0)
        spread[differ] = Scatter(before.known * left.known, earlier, latest, own, before.single)
        if differ == law.groups:
            kept = _over(spread[differ].whole, math.hypot(there.whole, math.sqrt(fresh * n / channels)))
            near = (kept, _over(inherited.whole, there.whole)) if n > channels else (1.0, 1.0)
            told = descent.summed(x.latent, inherited, spread[differ], near)
    return replace(law, latent=replace(law.latent, spread=spread, reach=left.reach, descent=told))


def _over(kept: float, whole: float) -> float:
    return min(kept / whole, 1.0) if whole > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Powers:
    """Of u = (x - E x) / rms: Hermite coefficients of u, u^2 and u^3, and E[u^4]; means over places."""

    first: np.ndarray
    second: np.ndarray
    third: np.ndarray
    fourth: float

    @staticmethod
    def of(x: Law) -> Powers:
        u = (x.values - x.mean) / x.rms
        square = u * u
        means = np.stack([x.level_weight @ f for f in (u, square, square * u)])
        first, second, third = grid.hermite_coefficients(means)
        return Powers(first, second, third, float(x.level_weight @ grid.expectation(square * square)))


def chance(x: Law, differ: Groups, powers: Powers) -> float:
    """n times the variance that the correlation of two sums of n has by chance.

    Of ``u = x - E x`` with correlation r: ``(m2 - 2 r m3 + r^2 (m4 + m2) / 2) / q^2`` with ``m2 = E[u^2 u'^2]``,
    ``m3 = E[u^3 u']``, ``m4 = E[u^4]``. What the mean adds belongs to one place each and shifts all its pairs alike.
    """
    if not differ & x.groups:
        return 0.0
    f, power = powers, x.correlation(differ) ** np.arange(len(powers.first))
    m2, m3, own = float(f.second**2 @ power), float(f.first * f.third @ power), float(f.second[0])
    r = float(np.clip((f.first**2 @ power) / own, -1, 1)) if own > 0 else 0.0
    return max(m2 - 2 * r * m3 + r**2 * (f.fourth + m2) / 2, 0.0)


def by_atoms(array: np.ndarray, axes: Sequence[Axis], reduce: int) -> tuple[np.ndarray, list[str]]:
    """An array with an axis for every atom of its axes but one, which comes last; and the atoms' groups."""
    x = np.moveaxis(array, reduce, -1)
    shape, groups = [], []
    for size, axis in zip(x.shape, (a for i, a in enumerate(axes) if i != reduce), strict=False):
        atoms = [atom for atom in axis if atom.size > 1]
        whole = math.prod(atom.size for atom in atoms) == size
        shape += [atom.size for atom in atoms] if whole else [size]
        groups += [atom.group for atom in atoms] if whole else [atoms[0].group if atoms else ""]
    return x.reshape(*shape, x.shape[-1]), groups


def known(array: np.ndarray, axes: Sequence[Axis], reduce: int) -> dict[Groups, Scatter]:
    """Standard deviation of the correlation between known rows (along one axis), by the groups in which they differ."""
    x, owner = by_atoms(np.asarray(array, complex if np.iscomplexobj(array) else float), axes, reduce)
    rng = np.random.default_rng(_SEED)
    spread = {}
    for differ in subsets(frozenset(owner) - {""}):
        first = [rng.integers(0, size, PAIRS) for size in x.shape[:-1]]
        second = [
            _another(at, size, rng) if o in differ else at for at, size, o in zip(first, x.shape, owner, strict=False)
        ]
        cosines = _cosines(x, tuple(first), tuple(second))
        spread[differ] = Scatter(float(np.std(cosines)) if len(cosines) else 0.0)
    return spread


_AT_ONCE = 1 << 22
"""Numbers gathered at a time: a row may be an image of 480,000."""


def _cosines(x: np.ndarray, first: tuple, second: tuple) -> np.ndarray:
    """Of pairs of rows, those of zero length left out. A pair that was drawn many times is computed once."""
    rows, shape = x.reshape(-1, x.shape[-1]), x.shape[:-1]
    drawn = np.stack([np.ravel_multi_index(at, shape) if shape else np.zeros(PAIRS, int) for at in (first, second)])
    pairs, where = np.unique(drawn, axis=1, return_inverse=True)
    products = np.empty((3, pairs.shape[1]))
    step = max(1, _AT_ONCE // rows.shape[-1])
    for start in range(0, pairs.shape[1], step):
        a, b = (rows[side[start : start + step]] for side in pairs)
        for place, (u, v) in enumerate(((a, b), (a, a), (b, b))):
            products[place, start : start + step] = np.real(np.einsum("ij,ij->i", u, v.conj()))
    norms = np.sqrt(products[1] * products[2])
    cosines = np.divide(products[0], norms, out=np.full_like(norms, np.nan), where=norms > 0)[where.reshape(-1)]
    return cosines[~np.isnan(cosines)]


def _another(at: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Places along an axis that are not these."""
    return (at + rng.integers(1, size, len(at))) % size if size > 1 else at


def of_sum(law: Law, parts: Sequence[Law]) -> dict[Groups, Scatter]:
    """Spread of the correlations of a sum of independent parts: pair moments add, and so do squares of deviations.

    Of two parts that have heard of one tensor the deviations add that are its (see ``descent``).
    """
    spread = {}
    for differ in subsets(law.groups):
        grows = slope(law, differ)
        each = [pair_deviation(part, differ) for part in parts]
        whole = Scatter(*(math.hypot(*kind) for kind in zip(*each, strict=True)))
        if len(parts) == 2:
            whole = _together(whole, parts, each, differ)
        spread[differ] = whole.times(1 / grows) if grows > 0 else Scatter()
    return spread


def _together(whole: Scatter, parts: Sequence[Law], each: Sequence[Scatter], differ: Groups) -> Scatter:
    """With twice the product of what both parts have of the nearest tensor that both have heard, or are."""
    if (heard := _heard(parts, each, differ)) is None:
        return whole
    sizes, found = heard
    cross = 2 * found.alike * sizes[0] * sizes[1]
    known = math.prod(_over(s.known, size) for s, size in zip(each, sizes, strict=True))
    return whole._replace(
        known=math.sqrt(whole.known**2 + cross * known), earlier=math.sqrt(whole.earlier**2 + cross * (1 - known))
    )


def _heard(parts: Sequence[Law], each: Sequence[Scatter], differ: Groups) -> tuple[list[float], descent.Met] | None:
    """The nearest tensor that two parts have heard, or are, and what pairs of each stray by that is its."""
    lines = [((p.latent.id, 1.0, 1.0), *p.latent.descent) for p in parts]
    found = descent.met(lines[0], lines[1])
    if found is None or found.id == descent.ROOT or parts[0].latent.id == parts[1].latent.id:
        return None
    sizes = []
    for part, scatter, share in zip(parts, each, found.shares, strict=True):
        if part.latent.id == found.id:
            fresh = _of_features(part, differ)
            sizes.append(math.sqrt(scatter.known**2 + scatter.earlier**2 + scatter.latest**2 + fresh))
        else:
            sizes.append(scatter.whole * math.sqrt(share))
    return sizes, found


def same_lengths(x: Law, y: Law) -> float:
    """Covariance of the squared lengths of the places of two summands, beside what chance says of them (``uneven``).

    A branch is long where the stream is that it has read: of squared lengths, whose relative variance is ``V + 2 S``
    (``Uneven.common`` and the scatter), each has a share of the nearest tensor that both have heard. Functions of
    degree one hand lengths on whole, and of the scatter what their correlation map leaves, which adds up by itself.
    """
    parts, differ = (x, y), x.groups | y.groups
    if not differ or x.latent.id == y.latent.id or not any(v.latent.uneven.common > 0 for v in parts):
        return 0.0
    lines = [((v.latent.id, 1.0, 1.0), *v.latent.lineage) for v in parts]
    found = descent.met(lines[0], lines[1])
    if found is None or found.id == descent.ROOT:
        return 0.0
    each = [pair_deviation(v, differ)._replace(known=0.0, single=0.0) for v in parts]  # what is known, levels have
    whole = found.alike
    for v, scatter, share in zip(parts, each, found.shares, strict=True):
        agree = scatter.earlier**2 + scatter.latest**2 + (_of_features(v, differ) if v.latent.id == found.id else 0.0)
        length = max(v.latent.uneven.common, 0.0) + 2 * agree / (v.second - v.mean**2) ** 2
        whole *= math.sqrt(length * share)
    chance = 0.0
    if (heard := _heard(parts, each, differ)) is not None:
        sizes, of_chance = heard
        chance = 2 * of_chance.alike * math.prod(s / (v.second - v.mean**2) for s, v in zip(sizes, parts, strict=True))
    return max(whole - chance, 0.0)


def _of_features(x: Law, differ: Groups) -> float:
    """Squared deviation of the covariance of two places by the chance of the very features of a tensor."""
    features = math.prod(a.size for axis in x.axes for a in axis if a.group == FEATURE)
    return chance(x, differ, Powers.of(x)) / features * x.second**2


def slope(law: Law, differ: Groups) -> float:
    """By how much the pair moment grows with the latents' correlation."""
    r = law.correlation(differ)
    low, high = max(r - 0.01, -1.0), min(r + 0.01, 1.0)
    found = (law.moment_at(differ, high) - law.moment_at(differ, low)) / (high - low)
    return found if found > 1e-9 * law.second else 0.0


def divided(scatter: Scatter, places: float) -> Scatter:
    """Behind a batch norm over so many independent places: what they have in common by chance is in what it divides by.

    With C the matrix of places' products, ``E[y y' / s^2]`` is ``C - 2 C^2 / tr C`` to the first order, so that
    ``P = tr C^2 / (tr C)^2 = 1/N + S`` loses ``4 (tr C^3 / (tr C)^3 - P^2)``, which is ``4 S/N + 2 S^2`` behind many
    layers of random weights (the moments of free products of Wishart matrices).
    """
    chance = math.hypot(scatter.earlier, scatter.latest)
    return scatter.times((1 + 4 / places + 2 * chance**2) ** -0.5)


Kind = tuple[float, Law, Groups]
"""How frequent a kind of pairs is, whose law they are of, and the groups in which they differ there."""


def of_mixture(one: Kind, other: Kind) -> Scatter:
    """Scatter of a mixture of two independent laws by known place: pairs of one law, of the other, and of both.

    A place of one law agrees on average with all others to another degree than a place of the other law does: that part
    is single, and the rest is the agreement of those of one law.
    """
    (a, r, left), (b, s, right) = (_of_kind(kind) for kind in (one, other))
    mixed = max(1 - a - b, 0.0)
    squares = a * np.array(left) ** 2 + b * np.array(right) ** 2
    mean = a * r + b * s
    rows = sum((w * t) ** 2 / (w + mixed / 2) for w, t in ((a, r), (b, s)) if w > 0) - mean**2
    squares[4] += 2 * rows
    squares[0] += max(a * r**2 + b * s**2 - mean**2 - 2 * rows, 0.0)
    return Scatter(*(float(v) for v in np.sqrt(squares)))


def _of_kind(kind: Kind) -> tuple[float, float, Scatter]:
    """Its frequency, and the correlation of its pairs about their mean with its scatter."""
    share, law, differ = kind
    variance = law.second - law.mean**2
    if variance <= 1e-14 * law.second:
        return share, 0.0, Scatter()
    r = min(max((law.pair(differ) - law.mean**2) / variance, -1.0), 1.0)
    return share, r, pair_deviation(law, differ).times(1 / variance)
