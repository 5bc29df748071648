"""Channels over their places are not Gaussian: places are long or short by chance.

A channel ``y = sum_i w_i x_i`` is divided by its own deviation over places. Given its weights it is a sum of n terms
that are not Gaussian, of the excess kurtosis ``E[u^4]/E[u^2]^2 - 3 =: e`` with ``u = x - E x``, so that its own is

    e sum_i w_i^4 / (sum_i w_i^2)^2,    on average e k / (k + n - 1) with k the kurtosis of the weights' law,

beside what the terms have in common: a place that was long is long in all of them. Two channels' squares have the
covariance ``e / n`` over places, relative to their mean squares; what is left of it behind a function is
``s^2``, with s the relative slope of ``E u^2`` on the square of the length, and less behind the mean over taps.

By Edgeworth's series the mean of ``f(z)`` is ``a_0 + (excess / 24) E[f He_4]``, and the mean product of two places,
which batch normalization takes away, is the square of this: behind a ReLU it is smaller by ``excess / 12`` of itself,
and the variance that is left larger.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from math import comb

import numpy as np
from scipy.special import ndtr, ndtri

from fanin.theory import descent, grid
from fanin.theory.kurtosis import kurtosis
from fanin.theory.latent import Uneven
from fanin.theory.law import Law, latent_for
from fanin.theory.records import remembered, replace


def shortfall(x: Law) -> float:
    """How much less the mean product of two places is than that of Gaussian latents."""
    latent = x.latent
    if not (any(latent.uneven) or latent.aside):
        return 0.0
    return latent.aside * float(x.level_weight @ x.slopes**2) + _curved(x, latent.uneven) + _on_sphere(x)


def _curved(x: Law, uneven: Uneven) -> float:
    """``a_0^2 - (E a_0(L))^2`` with a_0(L) = E f(L z); to the first order where tails are thinner than a Gaussian's."""
    if uneven.own <= 0:
        a = x.coefficients
        return -uneven.own / 4 * np.sqrt(24) * float(x.level_weight @ (a[:, 0] * a[:, 4]))
    mean = _powers(x.values, uneven.own, 1) @ _WEIGHTS
    return float(x.level_weight @ (x.means**2 - mean**2))


def _on_sphere(x: Law) -> float:
    """What few places, whose squares sum to their number, have less in common than the tails of one of them say.

    Fourth cumulants ``3 few`` of one place and ``few`` of two change E f f' by
    ``few (sqrt(24) a_0 a_4 / 4 + a_2^2 / 2)``, which is nothing for functions of degree one: lengths are divided out.
    The values have the first of the two. The second is taken in proportion to that of |z|, where the whole is known.
    """
    uneven = x.latent.uneven
    if not (uneven.inside and uneven.few):
        return 0.0
    return _of_length(uneven.inside, uneven.few, x.correlation(x.groups)) * float(
        x.level_weight @ x.coefficients[:, 2] ** 2
    )


@lru_cache(maxsize=256)
def _of_length(inside: float, few: float, r: float) -> float:
    """What E|h||h'| of two places is too large by with the tails of one, over the squared coefficient a_2 of |h|."""
    tails, plain = _tails(inside), _tails(inside - few)
    one, other = (grid.hermite_coefficients(t) for t in (tails, plain))
    degree = np.arange(len(one))
    same = min(max(float(one**2 @ r**degree) / other[1] ** 2, -1.0), 1.0)  # h has one correlation, whatever its tails
    one, other = (grid.hermite_coefficients(np.abs(t)) for t in (tails, plain))
    return float((one**2 @ r**degree - other**2 @ same**degree) / one[2] ** 2)


def lengths(excess: float) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of places and their weights: lognormal squares of mean one and of this relative variance.

    Layers multiply a length by factors of their own.
    """
    deviation = np.sqrt(np.log1p(excess))
    return np.exp(deviation / 2 * _NODES - deviation**2 / 4), _WEIGHTS


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def _powers(values: np.ndarray, excess: float, power: int) -> np.ndarray:
    """``E f(L z)^p`` for every length L, (levels, lengths), of values that are linear between the points of the grid.

    ``(f_i + t (f_j - f_i))^p`` at ``L z = z_i + t (z_j - z_i)`` is a sum of products of a value and the step to its
    neighbour, whose weights are the same for all f. (In powers of both values what is far out would cancel.)
    """
    low, step, total = values[:, :-1], np.diff(values), 0.0
    for k, weights in enumerate(_neighbours(float(excess), power)):
        total = total + _power(low, power - k, step, k) @ weights
    return np.asarray(total)


def _power(a: np.ndarray, p: int, b: np.ndarray, q: int) -> np.ndarray:
    """``a^p b^q`` by products: powers of arrays are ten times slower."""
    return reduce(np.multiply, [a] * p + [b] * q) if p + q else np.ones_like(a)


@lru_cache(maxsize=256)
def _neighbours(excess: float, power: int) -> np.ndarray:
    """Weights of ``f_i^(p - k) (f_j - f_i)^k`` in the mean over z of ``f(L z)^p``: (p + 1, i, lengths)."""
    cell, t = _cells(excess)
    count = (grid.POINTS - 1) * len(t)
    found = [np.bincount(cell, (comb(power, k) * t**k * grid.WEIGHT).ravel(), count) for k in range(power + 1)]
    return np.stack(found).reshape(power + 1, len(t), -1).transpose(0, 2, 1).copy()


@lru_cache(maxsize=8)  # several powers are asked for in turn
def _cells(excess: float) -> tuple[np.ndarray, np.ndarray]:
    """In which cell of the grid every ``L z`` lies, all lengths in one row, and how far it is to the next."""
    length, _ = lengths(max(excess, 0.0))
    left, t = grid.between(length[:, None] * grid.Z_UNIT)
    return (left + (grid.POINTS - 1) * np.arange(len(length))[:, None]).ravel(), t


def summed(law: Law, x: Law, weight: Law, n: float, left: float, group: float | None = None) -> Law:
    """The Gaussian law of sums of n elements of x with fresh weights.

    Of channels that are summed in groups of c, with T taps each, ``(c - 1)/(n - 1)`` of the pairs of terms are at one
    place and share its length; two channels have no terms in common, but the lengths of places.

    Args:
        left: what the mean over the taps of a kernel leaves of what differs by chance from place to place.
        group: how many channels are summed together; None for all.
    """
    if not law.groups or x.deterministic or x.second <= 0 or not np.isfinite(x.second):
        return law
    if float(x.level_weight @ x.variances) <= 1e-13 * x.second:
        return law
    excess, straight = _fourth(x) - 3, _straight(x)
    kept = (_kept(x, straight) + _by_chance(x, straight)) * left**2
    k = kurtosis(weight)
    pairs, shared = (n - 1, excess / n + kept * (n - 1) / n) if group is None else (0.0, kept)
    if group is not None and n > 1:
        pairs = (group - 1) * n / group
    own = Uneven((excess * k / 3 + kept * pairs) / (k + n - 1), shared)
    told = descent.of_lengths(x.latent, _inherited(law, shared, excess / n if group is None else 0.0), left)
    return replace(law, latent=replace(law.latent, uneven=own, aside=shortfall(x) / x.second, lineage=told))


def _inherited(law: Law, shared: float, fresh: float) -> float:
    """Share of the variance of squared lengths that was there before these features were drawn."""
    chance = law.spread(law.groups)
    whole = shared + 2 * (chance.earlier**2 + chance.latest**2)
    return float(np.clip(1 - (max(fresh, 0.0) + 2 * chance.latest**2) / whole, 0.0, 1.0)) if whole > 0 else 0.0


def across(x: Law, weight: Law, group: float, taps: float) -> float:
    """A third of the excess kurtosis, over features, of sums over few inputs: their patches differ in length.

    Given a patch a sum is Gaussian with fresh Gaussian weights, of variance in proportion to ``|x|^2``, whose relative
    variance is that of a channel's squares at ``taps`` places, over the channels of a group. Batch norm divides it out.
    """
    along = x.groups - {"sample"}
    if x.deterministic or x.second <= 0 or not along:
        return 0.0
    squares = x.with_values(x.values**2)
    own, beside = squares.second, min(squares.pair(along), squares.second)
    n = group * taps
    whole = (own + (taps - 1) * beside + (n - taps) * squares.mean**2) / n / squares.mean**2 - 1
    return whole + (kurtosis(weight) / 3 - 1) * own / squares.mean**2 / n


def with_tails(law: Law, excess: float) -> Law:
    """The law of sums whose lengths differ from feature to feature, of the same mean square and pair moments."""
    if abs(excess) < _SLIGHT or not law.gaussian:
        return law
    found = law.with_values(grid.at(law.values, _tails(max(excess, 1.5 * _STEEPEST))))
    latent = latent_for(found, lambda s: law.pair(s), found.groups)
    return replace(found, latent=replace(latent, excess=law.latent.excess))


def _fourth(x: Law) -> float:
    """``E[u^4] / E[u^2]^2`` of a channel over its places."""
    own = max(x.latent.uneven.own, 0.0)

    if own < 1e-12:
        square = (x.values - x.mean) ** 2
        mean = lambda f: float(x.level_weight @ grid.expectation(f))  # noqa: E731
        return mean(square**2) / mean(square) ** 2
    values, own = _straight(x), own + max(x.latent.uneven.inside, 0.0)  # f(L z) of values with tails would bend L
    moment = lambda values, power: float(x.level_weight @ _powers(values, own, power) @ _WEIGHTS)  # noqa: E731
    u = values - moment(values, 1)
    return moment(u, 4) / moment(u, 2) ** 2


def _kept(x: Law, values: np.ndarray) -> float:
    """Relative variance, over lengths that all channels have in common, of the mean square about the mean."""
    common, mean_of = x.latent.uneven.common, lambda f: float(x.level_weight @ grid.expectation(f))
    if common <= 0:
        squares = (values - mean_of(values)) ** 2
        return (float(x.level_weight @ (squares @ _CURVE)) / 2 / mean_of(squares)) ** 2 * common
    u = values - float(x.level_weight @ _powers(values, common, 1) @ _WEIGHTS)
    squares = x.level_weight @ _powers(u, common, 2)
    return float(_WEIGHTS @ squares**2 / (_WEIGHTS @ squares) ** 2 - 1)


_CURVE = grid.WEIGHT * (grid.Z_UNIT**2 - 1)


def _by_chance(x: Law, values: np.ndarray) -> float:
    """What functions make of features that agree by chance: the covariance of squares beyond twice that of features."""
    scatter = x.spread(x.groups) if x.groups else None
    if scatter is None or not (agree := scatter.earlier**2 + scatter.latest**2):
        return 0.0
    u = values - float(x.level_weight @ grid.expectation(values))
    first, bent = grid.hermite_coefficients(u)[:, 1], grid.hermite_coefficients(u**2)[:, 2]
    return (
        agree * float(x.level_weight @ (bent**2 - 2 * first**4)) / float(x.level_weight @ grid.expectation(u**2)) ** 2
    )


def shaped(law: Law, uneven: Uneven) -> tuple[Law, Uneven]:
    """The law with the kurtosis of a channel over its places in its values; what is left is what channels share.

    The latent is taken for a Gaussian of random length, by its quantiles.
    """
    whole = max(uneven.own + uneven.few, 1.5 * _STEEPEST)
    if abs(whole) < _SLIGHT:
        return law, uneven._replace(few=0.0)
    values = grid.at(law.values, _tails(whole))
    mean = float(law.level_weight @ grid.expectation(values))
    return law.with_values(values + (law.mean - mean)), uneven._replace(own=0.0, inside=whole)


@remembered
def _straight(x: Law) -> np.ndarray:
    """The values as a function of the Gaussian whose length is random."""
    inside = x.latent.uneven.inside
    return grid.at(x.values, np.interp(grid.Z_UNIT, _tails(inside), grid.Z_UNIT)) if inside else x.values


_SLIGHT = 4e-3  # of it the mean square of a smooth function changes by less than a thousandth


@lru_cache(maxsize=64)
def _tails(own: float) -> np.ndarray:
    """Quantiles at those of the grid of a law of this excess; thinner tails by Cornish and Fisher's first term."""
    z = grid.Z_UNIT[: grid.POINTS // 2]
    if own < 0:
        low = z + own / 8 * (z**3 - 3 * z)
        low = np.minimum.accumulate(low[::-1])[::-1]
    else:
        at, (length, weight) = np.linspace(-40.0, 0.0, 4001), lengths(own)
        low = np.interp(z, ndtri(np.minimum(weight @ ndtr(at / length[:, None]), 0.5)), at)
    both = np.concatenate([low, -low[::-1]])
    return both / np.sqrt(grid.expectation(both**2))


def divided(uneven: Uneven, places: float) -> Uneven:
    """Behind a batch norm over so many independent places: a long place has a part in what it is divided by.

    ``h^2 = L^2 z^2 / (1 + (L^2 z^2 - 1) / N)``, whose mean over z is what channels have in common. Of the kurtosis of
    one channel, what Gaussians have less than 3 is nothing for pairs, which lie on a sphere, and kept apart.
    """
    if not np.isfinite(places):
        return uneven
    few = -2 / (places + 2)
    (own, _), (_, common) = (_held_down(max(k, 0.0), places) for k in (uneven.own, uneven.common))
    return uneven._replace(
        own=own if uneven.own > 0 else uneven.own,
        common=common if uneven.common > 0 else uneven.common,
        few=few if few > _STEEPEST else 0.0,
    )


_STEEPEST = -8 / 45  # Cornish and Fisher's term increases to four sigma; for fewer places the series says nothing


def _held_down(excess: float, places: float) -> tuple[float, float]:
    """Relative to a Gaussian's the fourth moment of h, less one, and the relative variance of ``E_z h^2``."""
    length, weight = lengths(excess)
    squares = (length[:, None] * grid.Z_UNIT) ** 2
    left = squares / (1 + (squares - 1) / max(places, 1.0))
    plain = grid.Z_UNIT**2 / (1 + (grid.Z_UNIT**2 - 1) / max(places, 1.0))
    means, fourths = grid.expectation(left), weight @ grid.expectation(left**2)
    whole, gaussian = weight @ means, grid.expectation(plain**2) / grid.expectation(plain) ** 2
    return float(fourths / whole**2 / gaussian - 1), float(weight @ means**2 / whole**2 - 1)


@remembered
def along(x: Law) -> float:
    """Variance over lengths of the mean of f(L z), relative to the mean square.

    Features have a mean, which is larger where places are long. Of what all places have in common this is left behind
    centring: a direction along the lengths, the same for all features.
    """
    common = x.latent.uneven.common
    if common < _SLIGHT or x.gaussian:
        return 0.0
    means = x.level_weight @ _powers(_straight(x), common, 1)
    return max(float(_WEIGHTS @ means**2 - (_WEIGHTS @ means) ** 2), 0.0) / x.second


def of_sum(law: Law, x: Law, y: Law, together: float = 0.0) -> Law:
    """The law of an independent sum: cumulants add, and so do mean products of places.

    Args:
        together: covariance of the squared lengths of both summands' places (``spread.same_lengths``).
    """
    whole = law.second - law.mean**2
    if whole <= 0 or not (together or any(any(v.latent.uneven) or v.latent.aside for v in (x, y))):
        return law
    parts = [(v.second - v.mean**2) / whole for v in (x, y)]
    shares, both = [s**2 for s in parts], 2 * parts[0] * parts[1] * together
    each = zip(x.latent.uneven, y.latent.uneven, strict=True)
    uneven = Uneven(*(shares[0] * a + shares[1] * b for a, b in each))
    uneven = uneven._replace(own=uneven.own + both, common=uneven.common + both)
    straight = float(law.level_weight @ law.slopes**2)
    short = shortfall(x) + shortfall(y) - _curved(law, uneven)
    return replace(law, latent=replace(law.latent, uneven=uneven, aside=short / straight if straight > 0 else 0.0))
