"""Pointwise functions of several laws: exact where they share a latent, by quadrature over pairs where they do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.theory import (
    border,
    branches,
    folds,
    gated,
    given,
    grid,
    jointly,
    kurtosis,
    lags,
    overlap,
    parts,
    places,
    prefix,
    spread,
    uneven,
)
from fanin.theory.fewer import Function, each, fewer, most
from fanin.theory.latent import ALONG
from fanin.theory.law import (
    Groups,
    Latent,
    Law,
    compress,
    latent_for,
    relabel,
    subsets,
)
from fanin.theory.notes import together
from fanin.theory.records import replace
from fanin.theory.words import broadcast_axes

LEAST = 0.01  # correlation from which on a product is known to be partly one of its factors


def apply(fn: Function, law: Law) -> Law:
    """f of one law: the same latent, other values."""
    with np.errstate(all="ignore"):
        values = grid.held_at_ends(np.asarray(fn(law.values), float))
        if law.loose is not None:
            return law.with_values(values, loose=np.asarray(fn(law.loose), float))
    latent = _unbent(law.latent, law.values, values)
    known = given.affine(given.stored(law), law.values, values)
    values, level = compress(values, law.level) if len(values) > 1 else (values, law.level)
    known = given.regrouped(known, law.level, level, len(values))
    return gated.through(fn, law, law.with_values(values, level=level, latent=latent, given=known, factors=None))


def _unbent(latent: Latent, before: np.ndarray, after: np.ndarray) -> Latent:
    """The latent; what is not linear in the values before does not keep the length of a place."""
    if not latent.sphere:
        return latent
    x = before - grid.expectation(before)[:, None]
    y = after - grid.expectation(after)[:, None]
    squares, both = grid.expectation(x**2), grid.expectation(x * y)
    left = grid.expectation(y**2) - both**2 / np.maximum(squares, 1e-300)
    straight = np.all(left <= 1e-6 * grid.expectation(y**2))
    return latent if straight else replace(latent, sphere=0, held=0.0, level=0.0)


def binary(fn: Function, x: Law, y: Law, shape: tuple[int, ...], pair: str = "", *, moments_only: bool = False) -> Law:
    """f(x, y) elementwise with broadcasting.

    Args:
        fn: NumPy callable of two arrays.
        pair: "sum" or "product" where the pair moments of independent operands follow exactly.
        moments_only: a product whose form does not matter (a rotation, of which the sum is Gaussian again): Gaussians
            of the right mean and mean square instead of the quadrature.
    """
    axes, (x, y) = broadcast_axes(shape, (x, y))
    apart = parts.elsewhere(x, y) if jointly.met(x, y) else None
    if pair == "sum" and x.prefix is not None and y.prefix is not None:
        whole = prefix.difference(x, y, shape, axes)
        if whole is not None:
            return whole
    levels_x, levels_y, level = _joint_levels(x, y, len(shape))
    exact, note = x.exact and y.exact, together(x.note, y.note)
    shared = Law(shape, axes, x.values[:1], level, x.latent, exact, note)
    fx, fy = _at(x.values, levels_x), _at(y.values, levels_y)
    with np.errstate(all="ignore"):
        if x.loose is not None and y.deterministic and y.loose is None:
            return replace(_statistic(shared, fn(fx, fy), x), loose=fn(x.loose[levels_x], fy))
        if y.deterministic and y.latent.length_of is not None and divides(fn):
            return _pointwise(shared, fn(fx, fy), replace(x, latent=x.latent.on_sphere(y.latent)), fx)
        if y.deterministic or x.latent.aligned(y.latent):
            return _pointwise(shared, fn(fx, fy), x, fx, {k: g.at(levels_x) for k, g in given.stored(x).items()})
        if x.deterministic:
            return _pointwise(shared, fn(fx, fy), y, fy, {k: g.at(levels_y) for k, g in given.stored(y).items()})
        both = given.Operands(fx, fy, x, y, levels_x, levels_y)
        return _independent(shared, fn, both, pair, moments_only, apart)


def divides(fn: Function) -> bool:
    """Whether a function of two numbers is their quotient; one that cannot take them is not."""
    one = np.array([0.3, -1.7])
    try:
        return bool(np.allclose(fn(one, np.array(2.0)), one / 2) and np.allclose(fn(one, np.array(-0.7)), one / -0.7))
    except Exception:
        return False


def _joint_levels(x: Law, y: Law, ndim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels of both operands for every joint level, and the joint level of every place."""
    lx = x.level.reshape((1,) * (ndim - x.level.ndim) + x.level.shape)
    ly = y.level.reshape((1,) * (ndim - y.level.ndim) + y.level.shape)
    if len(y.values) == 1:
        level = np.broadcast_to(lx, np.broadcast_shapes(lx.shape, ly.shape))
        return np.arange(len(x.values)), np.zeros(len(x.values), int), level
    codes, level = relabel(lx.astype(np.int64) * len(y.values) + ly, len(x.values) * len(y.values))
    return codes // len(y.values), codes % len(y.values), level


def _at(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Values at levels: the array itself, and what was worked out of it, where that is each of its levels in turn."""
    each = len(levels) == len(values) and bool((levels == np.arange(len(values))).all())
    return values if each else values[levels]


def _statistic(shared: Law, values: np.ndarray, owner: Law) -> Law:
    """A function of a statistic and of numbers: levels stay as they are, so that those by themselves can follow."""
    return replace(shared, values=np.asarray(values, float), level=np.asarray(shared.level), latent=owner.latent)


def _pointwise(
    shared: Law, values: np.ndarray, owner: Law, before: np.ndarray, known: given.Table = given.NOTHING
) -> Law:
    values = np.asarray(values, float)
    latent, known, old = _unbent(owner.latent, before, values), given.affine(known, before, values), shared.level
    values, level = compress(values, shared.level)
    if any(g not in owner.groups for g in shared.groups):
        # places added by broadcasting share the owner's latent: correlation one along them
        corr = {s: owner.correlation(s) for s in subsets(shared.groups)}
        latent = replace(latent, corr=corr)
    known = given.regrouped(known, old, level, len(values))
    return replace(shared, values=values, level=level, latent=latent, given=known)


def _independent(
    shared: Law, fn: Function, both: given.Operands, pair: str, moments_only: bool, apart: Groups | None
) -> Law:
    fx, fy, x, y = both.fx, both.fy, both.x, both.y
    tied, zero, one = given.UNTIED, np.zeros(1), np.ones(1)
    own, level, group, weight = both, shared.level, None, np.ones(len(fx))
    rho = x.latent.as_mean_of(y.latent) or y.latent.as_mean_of(x.latent)
    apart = None if rho else apart
    if apart is not None:
        rho = parts.correlation(x, y, apart)
    elif not rho:
        rho = _of_one_latent(x, y)
    if not rho and pair == "sum":  # a skip: one is a summand of the other, or both have one in common
        rho = x.latent.in_common(y.latent)
    if pair == "sum" and x.gaussian and y.gaussian:
        values = _gaussian_sum(fn, both, rho)
    elif moments_only:
        mean, second = np.multiply(*both.means), np.multiply(*both.sizes)
        values = mean[:, None] + np.sqrt(np.maximum(second - mean**2, 0))[:, None] * grid.Z_UNIT
    else:
        if len(fx) > most(shared):
            both, shared, group = fewer(both, shared, fn)
            fx, fy = both.fx, both.fy
        values = np.stack([_transport(fn, a, b, rho) for a, b in zip(fx, fy, strict=True)])
        if apart is not None:
            weight = np.bincount(shared.level.ravel(), minlength=len(fx)) / shared.level.size
        if pair == "product" and not rho:  # moments of independent factors multiply, whatever their steps
            tied = given.of_product(both)
            mean, second = np.multiply(*both.means) + tied.mean, np.multiply(*both.sizes) * tied.gain
            values = np.stack([matched(v, float(m), float(s)) for v, m, s in zip(values, mean, second, strict=True)])
            values = _of_one_sign(values, fx, fy)
    terms = _terms(fn, replace(shared, values=values), both) if pair == "sum" else {}
    handed = _handed_on(replace(shared, values=values), both) if pair == "product" and not rho else {}
    known = tied.known if pair != "sum" else given.of_sum(both, float(fn(zero, one)[0] - fn(zero, zero)[0]), rho)
    untied = _untied(replace(shared, values=np.ones((len(fx), 1))), both, tied)
    if group is not None and pair == "product" and not rho:
        values, known = each(values, group, own, both), {key: g.at(group) for key, g in known.items()}
        shared = replace(shared, level=level)
    old, (values, level) = shared.level, compress(values, shared.level)
    law = replace(shared, values=values, level=level, given=given.regrouped(known, old, level, len(values)))
    moments = _pair_moments(pair, law, x, y, rho, untied)
    if apart is not None and pair == "sum":
        moments = jointly.of_sum(law, x, y, apart)
    elif apart is not None and not moments_only:
        moments = jointly.of_function(fn, law, x, y, list(zip(weight, fx, fy, strict=True)), apart)
    law = replace(law, latent=latent_for(law, moments, law.groups))
    if pair == "sum" and (x.latent.spread or y.latent.spread):
        law = replace(law, latent=replace(law.latent, spread=spread.of_sum(law, (x, y)), reach=folds.of_sum((x, y))))
    if pair == "sum":
        law = branches.of_sum(kurtosis.of_sum(law, x, y), x, y)
        law = uneven.of_sum(law, x, y, spread.same_lengths(x, y))
    if pair in ("sum", "product"):
        law = border.combined(law, x, y, pair)
        law = lags.combined(law, x, y, pair, (_common(x, y), _spare(law, x, y)) if rho and pair == "sum" else None)
    if pair != "sum":
        law = replace(law, latent=replace(law.latent, terms=with_rest(law.latent, handed))) if handed else law
        law = places.multiplied(law, x, y, law.second / untied[1] if untied and untied[1] > 0 else 1.0)
        return gated.remembered(law, x, y) if pair == "product" and not rho else law
    law = replace(law, latent=replace(law.latent, terms=terms, source=overlap.beside(x, y), **_held(fn, law, x, y)))
    law = replace(law, latent=replace(law.latent, mirrored=_mirrored(law, x, y)))
    return places.summed(law, x, y, cross=(_common(x, y), _spare(law, x, y)) if rho else None)


def _of_one_sign(values: np.ndarray, fx: np.ndarray, fy: np.ndarray) -> np.ndarray:
    """Products of factors of one sign each keep theirs, beside what a quadrature leaves: an exponential sees it."""
    signs = [1 if f.min() >= 0 else -1 if f.max() <= 0 else 0 for f in (fx, fy)]
    sign = signs[0] * signs[1]
    return values if not sign else np.maximum(values, 0.0) if sign > 0 else np.minimum(values, 0.0)


def _held(fn: Function, law: Law, x: Law, y: Law) -> dict[str, float]:
    """What a sum holds of the lengths of its summands: of a + b = 1 of its mean square a^2 h_x + b^2 h_y."""
    if (n := _centred(fn, x, y)) > 1:
        return {"sphere": n, "held": 0.0, "level": 1.0}
    sizes = {s.latent.sphere for s in (x, y) if s.latent.sphere}
    if len(sizes) != 1 or law.second <= 0:
        return {}
    held = level = 0.0
    for part in (x, y):
        share = min(part.second / law.second, 1.0) if part.latent.sphere in sizes else 0.0
        held, level = held + share**2 * part.latent.held, level + share * part.latent.level
    return {"sphere": sizes.pop(), "held": held, "level": min(level, 1.0)}


NEAR = 1e-2
"""Relative deviation of two figures that would be one, but for the grid."""


def _centred(fn: Function, x: Law, y: Law) -> int:
    """Over how many elements a weight is less their mean, so that they sum to zero; else 0."""
    if x.groups or y.groups or len(x.values) > 1 or y.latent.mean_of is None:
        return 0
    if y.latent.mean_of[:3] != x.latent.made_of_itself:
        return 0
    heard, own = (float(v[0]) for v in (fn(np.zeros(1), np.ones(1)), fn(np.ones(1), np.zeros(1))))
    n = float(np.prod(x.shape)) / float(np.prod(y.shape))
    whole = n * float(y.level_weight @ y.variances) / max(float(x.variances[0]), 1e-300)
    less = own == 1.0 and heard * float(y.level_weight @ y.slopes) < 0
    return round(n) if less and abs(heard) == 1.0 and abs(whole - 1) < NEAR else 0


def _mirrored(law: Law, x: Law, y: Law) -> float:
    """Correlation of a sum with its mirror: that of its summands by their shares."""
    whole = sum(part.second * part.latent.mirrored for part in (x, y))
    return min(whole / law.second, 1.0) if whole and law.second > 0 else 0.0


def _terms(fn: Function, law: Law, both: given.Operands) -> dict[tuple, float]:
    """The latents that a sum is made of, with its correlation with each: the mean over levels, by their variance."""
    deviation = np.sqrt(law.variances)
    share = law.level_weight * deviation
    total = float(share @ deviation)
    zero, one = np.zeros(1), np.ones(1)
    found: dict[tuple, float] = {}
    for line, part, factor in zip(both.slopes, (both.x, both.y), (fn(one, zero), fn(zero, one)), strict=True):
        slope = float(factor[0] * (share @ line)) / max(total, 1e-300)
        for key, c in part.latent.made_of.items():
            found[key] = found.get(key, 0.0) + slope * c
    return {key: c for key, c in found.items() if abs(c) > 1e-4}


def _handed_on(law: Law, both: given.Operands) -> dict[tuple, float]:
    """What a product has in common with its factors: ``Cov(x y, x) = E[y] Var(x)``."""
    own = float(law.level_weight @ law.slopes)
    found: dict[tuple, float] = {}
    for line, other, part in zip(both.slopes, reversed(both.means), (both.x, both.y), strict=True):
        slope = float(law.level_weight @ (line * other)) / max(own, 1e-300)
        if abs(slope) > LEAST:
            for key, c in part.latent.made_of.items():
                found[key] = found.get(key, 0.0) + slope * c
    return found if sum(c**2 for c in found.values()) <= 1 else {}


def with_rest(latent: Latent, handed: dict[tuple, float]) -> dict[tuple, float]:
    """What a latent is made of: what was handed on to it, and itself for the rest."""
    rest = float(np.sqrt(max(1 - sum(c**2 for c in handed.values()), 0.0)))
    return handed | {(latent.id, latent.feature_view, latent.place_view): rest}


def _common(x: Law, y: Law) -> Law:
    """Of two laws that have something in common the one that it is most of."""
    if x.latent.as_mean_of(y.latent):
        return x
    if y.latent.as_mean_of(x.latent):
        return y
    return x if len(x.latent.made_of) <= len(y.latent.made_of) else y


def _spare(law: Law, x: Law, y: Law) -> float:
    """What the mean square of a sum has more than that of independent summands."""
    return law.second - x.second - y.second - 2 * x.mean * y.mean


def _of_one_latent(x: Law, y: Law) -> float:
    """Correlation of a latent with itself, seen at other places (a token and the token before it)."""
    if x.latent.id != y.latent.id or x.latent.feature_view != y.latent.feature_view:
        return 0.0
    if "position" in x.groups:
        return x.correlation(x.groups & {"position"})
    return x.latent.corr.get(ALONG, 0.0) if x.latent.place_view and y.latent.place_view else 0.0


def _gaussian_sum(fn: Function, both: given.Operands, rho: float) -> np.ndarray:
    """x + alpha y of Gaussians; alpha is read off fn."""
    (mx, my), (sx, sy) = both.means, both.slopes
    if any(np.any(np.abs(m) > 1e3 * np.abs(s)) for m, s in ((mx, sx), (my, sy))):  # huge means (masks) leave a rounding
        sx, sy = ((f - m[:, None]) @ (grid.WEIGHT * grid.Z_UNIT) for f, m in ((both.fx, mx), (both.fy, my)))
    zero, one = np.zeros_like(sx), np.ones_like(sx)
    alpha = fn(zero, one)
    mean = fn(mx, my)
    variance = sx**2 + (alpha * sy) ** 2 + 2 * rho * sx * alpha * sy
    return mean[:, None] + np.sqrt(variance)[:, None] * grid.Z_UNIT


def _transport(fn: Function, fx: np.ndarray, fy: np.ndarray, rho: float) -> np.ndarray:
    """The monotone function of a new latent that has the law of fn(x, y); mean and second moment are exact."""
    a = grid.at(fx, grid.Z_COARSE)[:, None]
    if rho:
        z = rho * grid.Z_COARSE[:, None] + np.sqrt(max(1 - rho**2, 0)) * grid.Z_COARSE[None, :]
        b = grid.at(fy, z.ravel()).reshape(z.shape)
    else:
        b = grid.at(fy, grid.Z_COARSE)[None, :]
    out = np.asarray(
        fn(np.broadcast_to(a, (grid.COARSE, grid.COARSE)), np.broadcast_to(b, (grid.COARSE, grid.COARSE))), float
    )
    weight = grid.WEIGHT_COARSE[:, None] * grid.WEIGHT_COARSE[None, :]
    mean, second = float((weight * out).sum()), float((weight * out**2).sum())
    values = grid.quantile_grid(out.ravel(), weight.ravel())
    return matched(values, mean, second)


def matched(values: np.ndarray, mean: float, second: float) -> np.ndarray:
    """Values shifted and scaled to a given mean and second moment."""
    centre = float(grid.expectation(values))
    spread = float(np.sqrt(max(grid.expectation(values**2) - centre**2, 0)))
    wanted = float(np.sqrt(max(second - mean**2, 0)))
    if spread <= 1e-300 or not np.isfinite(second):
        return np.full_like(values, mean)
    return mean + (values - centre) * (wanted / spread)


def _untied(joint: Law, both: given.Operands, tied: given.Tied) -> tuple[float, float] | None:
    """Mean and mean square of a product whose factors have a latent in common, if they had not; None where so it is.

    By joint level: factors whose sizes differ from place to place in the same way are no more tied for that.
    """
    if np.all(np.abs(tied.gain - 1) <= 1e-9) and not np.any(tied.mean):
        return None
    weight = joint.level_weight
    return float(weight @ np.multiply(*both.means)), float(weight @ np.multiply(*both.sizes))


def _pair_moments(
    pair: str, law: Law, x: Law, y: Law, rho: float, untied: tuple[float, float] | None
) -> Callable[[Groups], float]:
    """Pair moments of the result from those of independent operands."""
    if pair == "product":
        return _of_product(law, x, y, untied)
    if pair == "sum":
        spare, shared = _spare(law, x, y) if rho else 0.0, _common(x, y)
        return lambda s: x.pair(s) + y.pair(s) + 2 * x.mean * y.mean + spare * shared.correlation(s)
    m2 = law.mean**2
    share = lambda s: _variance_share(x, s) * _variance_share(y, s)  # noqa: E731
    return lambda s: m2 + (law.second - m2) * share(s)


def _of_product(law: Law, x: Law, y: Law, untied: tuple[float, float] | None) -> Callable[[Groups], float]:
    """Pair moments of a product: those of independent factors, of which places keep their share where they are tied."""
    if untied is None:
        return lambda s: x.pair(s) * y.pair(s)
    mean, second = untied
    share, apart = (law.second - law.mean**2) / max(second - mean**2, 1e-300), (x.mean * y.mean) ** 2
    return lambda s: law.mean**2 + share * (x.pair(s) * y.pair(s) - apart)


def _variance_share(law: Law, differ: Groups) -> float:
    variance = law.second - law.mean**2
    return (law.pair(differ) - law.mean**2) / variance if variance > 1e-14 * law.second else 1.0
