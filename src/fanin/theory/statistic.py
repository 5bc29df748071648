"""The variance that a normalization divides by: its mean, and how it fluctuates where it is over few elements.

Over the N elements that share a statistic, ``s^2`` is the mean of their (centred) squares. Its mean is ``q - p``. Over
random weights it is near enough ``v chi^2 / f``, with as many degrees of freedom f as give it its own relative variance
``2 / f``. For B independent samples of a Gaussian f = B - 1, and this is exact: the direction of the centred vector
is independent of its length, so batch normalization makes of B points one of the sphere in B - 1 dimensions, and the
squared gradient is multiplied by ``E[1/s^2] = (B - 1) / (B - 3) / v``.

Source: Yang et al. 2019, A mean field theory of batch normalization, arXiv:1902.08129; for correlated elements
Satterthwaite 1946, An approximate distribution of estimates of variance components.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.special import gammaincinv, ndtri

from fanin.theory import between, border, border_norm, grid, lags
from fanin.theory.law import FEATURE, Groups, Law
from fanin.theory.mehler import mehler
from fanin.theory.records import remembered
from fanin.theory.spread import pair_deviation

LOG_T = np.linspace(-60.0, 60.0, 2401)  # log of t, for integrals over all t > 0


@remembered
def pair_counts(law: Law, axes: tuple[int, ...], groups: int = 1) -> list[tuple[Groups, float]]:
    """For two elements drawn from the same statistic: the groups in which they differ, with probabilities."""
    parts: list[tuple[str, float]] = []
    sizes: dict[str, float] = {}
    for i in axes:
        for atom in law.axes[i]:
            size = atom.size / (groups if atom.group == FEATURE and groups > 1 else 1)
            sizes[atom.group] = sizes.get(atom.group, 1.0) * max(size, 1.0)
    parts = list(sizes.items())
    outcomes = []
    for same in product((True, False), repeat=len(parts)):
        probability, differ = 1.0, []
        for (group, size), equal in zip(parts, same, strict=True):
            probability *= 1 / size if equal else 1 - 1 / size
            if not equal:
                differ.append(group)
        if probability > 0:
            outcomes.append((frozenset(differ), probability))
    return outcomes


@remembered
def shared_moment(law: Law, axes: tuple[int, ...], groups: int = 1) -> float:
    """Mean pair moment over the elements of one statistic: E[(their mean)^2]."""
    return sum(p * (law.pair(differ) if differ else law.second) for differ, p in pair_counts(law, axes, groups))


def shared_by(law: Law, differ: Groups, axes: tuple[int, ...], groups: int = 1) -> float:
    """E of the product of the means of two statistics that two elements are in; of one where they share it."""
    outside = frozenset(a.group for i, axis in enumerate(law.axes) if i not in axes for a in axis if a.size > 1)
    if not differ & outside:
        return shared_moment(law, axes, groups)
    return sum(p * law.pair(inner | (differ & outside)) for inner, p in pair_counts(law, axes, groups))


@remembered
def freedom(x: Law, axes: tuple[int, ...], groups: int = 1, shared: float | None = None) -> float:
    """Degrees of freedom of the mean square over the elements of one statistic: 2 over its relative variance.

    Pairs of Gaussians give ``2 rho^2``, with rho their correlation after centring; what is not Gaussian adds the joint
    fourth cumulant ``cov(x^2, x'^2) - 2 cov(x, x')^2``. What is not centred has ``cov(x^2, x'^2)`` itself. The law
    of the weights adds its own, the same at every place of a feature, and so do branches of one channel. Where that is
    much, sizes are not chi squared, which has most of its weight at nothing: as of a lognormal of relative variance e,
    ``E[1/s^2] = 1 + e``, it is that of ``2 (1 + e) / e`` degrees of freedom.

    Args:
        x: what is normalized.
        axes, groups: which elements share a statistic.
        shared: E of their squared mean where they are centred, else None.
    """
    removed = 0.0 if shared is None else shared
    variance = x.second - removed
    if variance <= 1e-13 * x.second:
        return np.inf
    if shared is not None and (settled := _settled(x, axes)):
        return settled
    spread, squares = 0.0, {}
    if shared is not None:
        squares = border_norm.squared(x, axes, removed) or _squared(x, axes, groups, removed)
    for differ, p in pair_counts(x, axes, groups):
        spread += 0.0 if FEATURE in differ else p * x.latent.excess / (1 + max(x.latent.excess, 0.0))
        if shared is None:
            spread += p * _squares_covariance(x, differ) / variance**2
            continue
        square = squares.get(differ, ((x.pair(differ) if differ else x.second) - removed) ** 2) / variance**2
        square += uneven_lags(x, differ) / variance**2
        spread += p * (2 * (square + scatter(x, differ, variance)) + _fourth_cumulant(x, differ) / variance**2)
    return 2 / spread if spread > 0 else np.inf


def _settled(x: Law, axes: tuple[int, ...]) -> float | None:
    """Degrees of freedom of a function of what a norm over the same places made; None of what is none.

    Of y that sums to zero over the places of a channel, and whose squares sum to one and the same, the variance of
    ``x = f(y)`` strays by the mean of what ``x^2 - 2 x E x`` has beside one, y and y^2. Of y itself only eps is left.
    """
    told = x.latent.settled
    if told is None or told[0] != frozenset(a.group for i in axes for a in x.axes[i]):
        return None
    made, weight = told[1], (x.level_weight[:, None] * grid.WEIGHT).ravel()
    if len(made) != len(x.values):  # levels were merged behind the norm: of one shape, in proportion to what is there
        made = np.outer(np.sqrt(x.seconds), made.mean(0))
    known = np.stack([np.ones(made.size), made.ravel(), made.ravel() ** 2], -1)
    strays = (x.values**2 - 2 * x.mean * x.values).ravel()
    gram = known.T @ (weight[:, None] * known)
    strays = strays - known @ np.linalg.lstsq(gram, known.T @ (weight * strays), rcond=None)[0]
    rest, variance = x.with_values(strays.reshape(x.values.shape)), x.second - x.mean**2
    spread = sum(p * (rest.pair(s) if s else rest.second) for s, p in pair_counts(x, axes) if FEATURE not in s)
    return 2 / max(spread / variance**2 + 2 / told[2], 1e-300) if variance > 0 else None


def agreement(x: Law, axes: tuple[int, ...], groups: int, variance: float) -> float:
    """Mean over pairs of places of what scatters of their squared correlation: what they agree by chance."""
    return sum(p * scatter(x, differ, variance) for differ, p in pair_counts(x, axes, groups) if differ)


def independent(x: Law, axes: tuple[int, ...], groups: int, shared: float) -> float:
    """As many independent places as those of a statistic count for, by their mean correlations after centring."""
    variance = x.second - shared
    if variance <= 1e-13 * x.second:
        return np.inf
    pairs = [(p, d, x.pair(d) if d else x.second) for d, p in pair_counts(x, axes, groups) if FEATURE not in d]
    return 1 / max(sum(p * ((both - shared) ** 2 + uneven_lags(x, d)) / variance**2 for p, d, both in pairs), 1e-300)


def uneven_lags(x: Law, differ: Groups) -> float:
    """Variance over pairs of places of their pair moment for how far apart they are, beside what scatters anyway."""
    sizes = border.sizes_of(x)
    if differ != lags.PLACES or sizes is None or not lags.told(x):
        return 0.0
    table, known = lags.moments(x, sizes), pair_deviation(x, differ)
    return max(lags.mean(table**2, sizes) - lags.mean(table, sizes) ** 2 - known.certain**2, 0.0)


def scatter(x: Law, differ: Groups, variance: float) -> float:
    """Variance of the covariance of two places over the squared variance; of a place with itself that of its length."""
    if FEATURE in differ or variance <= 0:  # of weights that are zero
        return 0.0
    if differ:
        return (pair_deviation(x, differ).whole / variance) ** 2
    chance = pair_deviation(x, x.groups)
    agree = (chance.earlier**2 + chance.latest**2) / variance**2
    return x.latent.uneven.common + 2 * agree


def _squares_covariance(x: Law, differ: Groups) -> float:
    """cov(x^2, x'^2) of two elements; those of different features are independent."""
    if FEATURE in differ:
        return 0.0
    squares = x.with_values(x.values**2 - x.seconds[:, None])  # levels are known, and do not fluctuate
    return squares.pair(differ) if differ else squares.second


def _fourth_cumulant(x: Law, differ: Groups) -> float:
    """Mean over levels of cov(x^2, x'^2) - 2 E[x x']^2 of two elements about the mean of all; scatter adds apart.

    Levels are known and do not fluctuate: for Gaussians at two levels the first is ``2 c^2 + 4 m m' c`` with c their
    covariance and m, m' what the levels' means have beside that of all.
    """
    if x.gaussian or FEATURE in differ:
        return 0.0
    r = x.correlation(differ)
    if (shared := x.correlation(x.groups)) > COMMON:
        return _beside_common(x, r, shared)
    about = x.with_values(x.values - x.mean)
    squares = about.with_values(about.values**2 - about.seconds[:, None])
    fourth = squares.moment_at(differ, r) if differ else squares.second
    return fourth - 2 * between.mean(between.levels(about, differ, r) ** 2, x.level_weight)


COMMON = 0.02
"""Correlation of all places from which on what they have in common is told apart, as it is centred away."""
_COMMON = ndtri((np.arange(33) + 0.5) / 33)


def _beside_common(x: Law, r: float, shared: float) -> float:
    """The same of what a common part of the latents leaves: its own cumulants, however large, are taken away with it.

    Given ``z = sqrt(s) c + sqrt(1 - s) e`` elements are ``f(z)`` less their mean given c; of two whose latents
    correlate by r the e do by ``(r - s)/(1 - s)``, and all have the variance that they have at c in common.
    """
    z = np.sqrt(shared) * _COMMON[:, None] + np.sqrt(1 - shared) * grid.Z_UNIT
    beside = grid.at(x.level_weight @ x.values, z.ravel()).reshape(z.shape)
    beside -= grid.expectation(beside)[:, None]
    left = float(np.clip((r - shared) / (1 - shared), 0, 1)) if shared < 1 else 0.0
    own, squares = grid.expectation(beside**2), grid.expectation(beside**4)
    both, fourth = own, squares
    if left < 1:
        both = mehler(grid.hermite_coefficients(beside), own, left)
        fourth = mehler(grid.hermite_coefficients(beside**2), squares, left)
    return float(fourth.mean() - own.mean() ** 2 - 2 * both.mean() ** 2)


def _squared(x: Law, axes: tuple[int, ...], groups: int, removed: float) -> dict[Groups, float]:
    """Mean squares, over pairs of levels, of their pair moments about the mean over the elements of a statistic."""
    tables = _by_levels(x, axes, groups)
    if not tables:
        return {}
    common, weight = _with_mean(x, axes, groups, tables), x.level_weight
    beside = {s: 2 * common if t.ndim == 1 else np.add.outer(common, common) for s, t in tables.items()}
    return {s: between.mean((t - beside[s] + removed) ** 2, weight) for s, t in tables.items()}


def about_mean(x: Law, axes: tuple[int, ...], groups: int, removed: float) -> np.ndarray | None:
    """Mean square at each level of what is left by the mean m over a statistic: ``E x^2 - 2 E[x m] + E m^2``.

    A place where all is zero (behind a ReLU) is at -m behind a batch norm. None where all levels are one.
    """
    tables = _by_levels(x, axes, groups)
    if not tables:
        return None
    return np.maximum(x.seconds - 2 * _with_mean(x, axes, groups, tables) + removed, 0.0)


def _by_levels(x: Law, axes: tuple[int, ...], groups: int) -> dict[Groups, np.ndarray]:
    """Pair moments of the elements of a statistic by their levels; empty where all are one, or features differ."""
    if len(x.values) == 1 or FEATURE in x.level_groups:  # features are not of one statistic
        return {}
    tables = {}
    for differ, _ in pair_counts(x, axes, groups):
        table = between.levels(x, differ, x.correlation(differ))
        tables[differ] = table + ((x.pair(differ) if differ else x.second) - between.mean(table, x.level_weight))
    return tables


def _with_mean(x: Law, axes: tuple[int, ...], groups: int, tables: dict[Groups, np.ndarray]) -> np.ndarray:
    """E[x m] at each level, with m the mean over a statistic."""
    met = {s: t if t.ndim == 1 else t @ x.level_weight for s, t in tables.items()}
    return np.stack([p * met[s] for s, p in pair_counts(x, axes, groups)]).sum(0)


def split(x: Law, axes: tuple[int, ...], shared: float, variance: float, f: float) -> tuple[float, float]:
    """Of a channel's variance what one pattern makes, a chi^2 of one, and the degrees of freedom of the rest.

    All channels of a padded map whose mean is large have its border in common, each times a number of its own. A rest
    of less than one degree is no sum of others' numbers: kernels of one tap have all patterns times one.
    """
    own = min(border_norm.leading(x, axes, shared), variance)
    left = 2 * variance**2 / f - 2 * own**2 if np.isfinite(f) else 0.0
    if own <= 0 or left <= 0 or own >= variance:
        return 0.0, f
    rest = 2 * (variance - own) ** 2 / left
    return (own, rest) if rest >= 1 else (0.0, f)


def mean_inverse(variance: float, eps: float, f: float, one: float = 0.0) -> float:
    """E[1 / (s^2 + eps)] for ``s^2 = variance chi^2_f / f``: the integral over t of e^(-eps t) (1 + 2 t v / f)^(-f/2).

    Without eps it is ``f / (f - 2) / variance``; eps keeps it finite where f is 2 or less.

    Args:
        one: of the variance what is a chi^2 of one degree of freedom, beside a rest of f.

    Example:
        >>> round(mean_inverse(0.5, 0.0, 7.0), 4)
        2.8
    """
    if variance <= 0 or not np.isfinite(f):
        return 1 / (variance + eps)
    if f > 2 and eps <= 1e-9 * variance and not one:
        return f / (f - 2) / variance
    t = np.exp(LOG_T) / variance
    with np.errstate(under="ignore", over="ignore"):
        power = -eps * t - f / 2 * np.log1p(2 * t * (variance - one) / f)
        power = power - np.log1p(2 * t * one) / 2 if one else power
        return float(np.trapezoid(t * np.exp(power), LOG_T))


def straightness(variance: float, eps: float, degrees: float) -> float:
    """Correlation of what is left of x by its mean with ``(x - mean) / sqrt(s^2 + eps)``.

    Elements of another statistic are divided by another number: ``E[s^2 / r] / sqrt(E[s^2] E[s^2 / r^2])``, with
    r^2 = s^2 + eps and s^2 chi squared of so many degrees of freedom. All of one length are wholly along x.
    """
    if not np.isfinite(degrees):
        return 1.0
    s2 = variance * 2 * gammaincinv(degrees / 2, (np.arange(256) + 0.5) / 256) / degrees
    r = np.sqrt(s2 + eps)
    return float(np.mean(s2 / r) / np.sqrt(np.mean(s2) * np.mean(s2 / r**2)))
