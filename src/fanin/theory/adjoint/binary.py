"""Backward through a function of two tensors, operand by operand."""

from __future__ import annotations

import numpy as np

from fanin.theory import grid, overlap, places, turns
from fanin.theory.adjoint import orthogonal, repeated, roots, sequence, summand, tied
from fanin.theory.adjoint.aligned import to_summand
from fanin.theory.adjoint.broadcast import unbroadcast
from fanin.theory.adjoint.cotangent import ALIGNED, Cotangent, Part, fresh, translated
from fanin.theory.adjoint.joint import factor_profile, joint, one_a_level, one_where_it_is
from fanin.theory.adjoint.meeting import split
from fanin.theory.adjoint.slopes import Function, is_product, is_sum, partial
from fanin.theory.adjoint.thinned import thinned
from fanin.theory.adjoint.unary import followed
from fanin.theory.fewer import most
from fanin.theory.law import Law, subsets
from fanin.theory.levels import sums_of
from fanin.theory.records import replace
from fanin.theory.statistic import mean_inverse
from fanin.theory.words import broadcast_axes


def binary(fn: Function, g: Cotangent, x: Law, y: Law, meets: bool = False) -> list[Part]:
    out = g.law
    _, (x_laid, y_laid) = broadcast_axes(out.shape, (x, y))
    parts = []
    if y_laid.deterministic or x_laid.latent.aligned(y_laid.latent):
        parts = [
            p for was in g.parts for p in tied.carried(was, [_known_other(fn, was, out, x_laid, y_laid)], out, x_laid)
        ]
    elif not x_laid.deterministic:
        parts = [p for part in g.parts for p in _knowing(fn, part, out, x_laid, y_laid, meets)]
    else:  # a statistic or a constant parameter times a signal: its gradient sums over what it is shared by
        parts = [_onto_constant(fn, part, out, x_laid, y_laid) for part in g.parts]
    if y.latent.length_of is not None or x.latent.length_of is not None:
        parts = [replace(p, second=p.second * shorter(x, y, was)) for p, was in zip(parts, g.parts, strict=True)]
    return [roots.summed(tied.summed(unbroadcast(p, out, x), p.given, x, out), p) for p in parts]


def shorter(x: Law, y: Law, part: Part) -> float:
    """Of what is divided by its own length E[1 / |x|^2] E|x|^2: over d features d / (d - 2), d as many as count.

    What keys get is larger for tokens that are long, as values are: the features of a head are left.
    """
    x, y = (y, x) if y.latent.length_of is None else (x, y)
    if y.latent.length_of is None or x.latent.on_sphere(y.latent) is x.latent:
        return 1.0
    alike = 0.0 if part.met else overlap.agreement(x, x.groups) ** 2
    count = 1 / (1 / y.latent.length_of[3] + alike)
    return mean_inverse(1.0, 0.0, count) if count > 2 else 1.0


def _known_other(fn: Function, part: Part, out: Law, x: Law, y: Law) -> Part:
    """The other operand is known, or a function of the same latent."""
    of_x, of_y, of_out, share = joint(out, x, y)
    slope = partial(fn, x.values[of_x], y.values[of_y])
    values = slope if part.values is None else part.values[of_out] * slope
    if len(of_x) == len(x.values):
        table = np.empty_like(values)
        table[of_x] = values
        return followed(part, table, x, slope)
    alike = one_a_level(values, of_x, share, len(x.values))
    if alike is not None:
        return followed(part, alike, x, slope)
    factor = one_where_it_is(part, out, values, of_out)
    if factor is not None:
        return replace(part, second=part.second * factor**2, values=None)
    squares = sums_of(share[:, None] * values**2, of_x, len(x.values))
    form = np.sqrt(squares)
    whole = factor_profile(out, x, y, values, of_x, of_y, of_out)
    inner = grid.expectation(squares)[x.level.reshape((1,) * (out.level.ndim - x.level.ndim) + x.level.shape)]
    second = part.second * whole / np.maximum(inner, 1e-300)
    return fresh(second, thinned(part, second, out), form)


def _knowing(fn: Function, part: Part, out: Law, x: Law, y: Law, meets: bool) -> list[Part]:
    """The other operand is independent but for the latents that it and the part know of."""
    sent = _beside_another(fn, part, out, x, y, meets)
    if is_product(fn):
        return roots.multiplied(part, tied.multiplied(part, sent, out, x, y), y)
    known = fn.__code__.co_argcount == 2 and is_sum(fn)
    return tied.carried(part, sent, out, x) if known else [replace(p, given={}) for p in sent]


def _beside_another(fn: Function, part: Part, out: Law, x: Law, y: Law, meets: bool) -> list[Part]:
    """The other operand is independent."""
    sums = part.base == ALIGNED and part.values is not None and fn.__code__.co_argcount == 2 and is_sum(fn)
    if sums and out.gaussian and float(fn(1.0, 0.0) - fn(0.0, 0.0)) == 1.0:
        return to_summand(part, out, x)
    if meets and is_product(fn):
        plain, sign = _without_constant(part, out)
        return split(plain, sign, x, y, out) or _independent(fn, part, out, x, y)
    return _independent(fn, part, out, x, y)


def _independent(fn: Function, part: Part, out: Law, x: Law, y: Law) -> list[Part]:
    """The other operand has a latent of its own: the root mean square of the factor given x's latent."""
    part, sign = _without_constant(part, out)
    if part.values is None and fn.__code__.co_argcount == 2 and is_sum(fn):
        alpha = sign * float(fn(1.0, 0.0) - fn(0.0, 0.0))
        part = replace(part, orthogonal=orthogonal.of_summand(part.orthogonal, out, x))
        if alpha == 1.0:
            return [part]
        return [_signed(replace(part, second=part.second * alpha**2), alpha, x)]
    if part.values is None and is_product(fn):
        lead = out.level.ndim - y.level.ndim
        square = y.seconds[y.level].reshape((1,) * lead + y.level.shape)
        sent = fresh(part.second * square, _ratios_with(part, out, x, y, fn), matrix=_matrix_with(part, out, y))
        return [replace(sent, met=part.met * turns.left_by(y)) if part.met else sent]
    of_x, of_y, of_out, share = joint(out, x, y)
    if len(of_x) > most(out):
        keep = np.argsort(-share * x.level_weight[of_x], kind="stable")[: most(out)]
        of_x, of_y, of_out, share = of_x[keep], of_y[keep], of_out[keep], share[keep]
    heard = np.zeros((2, len(x.values), grid.COARSE))
    mass = np.bincount(of_x, weights=share, minlength=len(x.values))
    points = grid.at(x.values, grid.Z_COARSE), grid.at(y.values, grid.Z_COARSE)
    function = None if part.values is None else (part.values, np.diff(part.values))
    given = _given_summand if is_sum(fn) else _given_x
    for i, j, k, w in zip(of_x, of_y, of_out, share, strict=True):
        heard[:, i] += w / mass[i] * given(fn, function, out, (x.values, y.values), points, (i, j, k))
    heard[:, mass == 0] = heard[:, mass > 0].mean(1, keepdims=True)
    if is_sum(fn):
        return summand.of_sum(part, out, x, *grid.from_coarse(heard))
    ratio = _ratios_with(part, out, x, y, fn)
    if repeated.is_repeated(part, out, x, y):
        levels, weight = np.stack([of_x, of_y, of_out], 1), share * x.level_weight[of_x]
        place = lambda at: _place_of(fn, out.values, _across(points, at), (x.values, y.values), at)  # noqa: E731
        ratio = repeated.ratios(fn, part, out, x, y, levels, weight, place)
    form = grid.from_coarse(np.sqrt(heard[1]))
    return [fresh(part.second, ratio, form, _matrix_with(part, out, y))]


def _without_constant(part: Part, out: Law) -> tuple[Part, float]:
    """The part with a function that does not follow the latent as part of its mean square, and that function's sign."""
    if part.values is None or np.any(np.ptp(part.values, axis=1) > 1e-6 * np.abs(part.values).max(axis=1)):
        return part, 1.0
    kept = part.balanced if len(part.values) == 1 else frozenset()
    one = np.ptp(part.values) <= 1e-6 * np.abs(part.values).max()
    second = part.second * float(part.values[0, 0]) ** 2 if one else part.profile(out)
    return replace(part, second=second, values=None, balanced=kept), -1.0 if np.all(part.values < 0) else 1.0


def _signed(part: Part, factor: float, x: Law) -> Part:
    """The part with the sign that a factor gives it, which counts where it meets its base again (``y - x``)."""
    return part if factor > 0 else replace(part, values=np.full((len(x.values), grid.POINTS), -1.0))


Operands = tuple[np.ndarray, np.ndarray]
Levels = tuple[int, int, int]


def _given_x(
    fn: Function, function: Operands | None, out: Law, operands: Operands, points: Operands, levels: Levels
) -> np.ndarray:
    """E over y of d(w) df/dx(x, y) and of its square at every coarse point of x's latent, w the result's latent there.

    Args:
        function: values of d, and their steps from node to node; None where it is one.
        operands: values of x and of y; points: the same on the coarse grid.
        levels: of x, of y and of the result.
    """
    a, b = _across(points, levels)
    factor = float(fn(1.0, 0.0) - fn(0.0, 0.0)) if is_sum(fn) else partial(fn, *np.broadcast_arrays(a, b))
    if function is None:
        return _over_y(np.full((grid.COARSE, grid.COARSE), factor))
    here = _there(fn, function, out, operands, (a, b), levels)
    here *= factor
    return _over_y(here)


def _given_summand(
    fn: Function, function: Operands | None, out: Law, operands: Operands, points: Operands, levels: Levels
) -> np.ndarray:
    """The same of a sum, whose other operand asks for E over x of the same numbers: both are made at once."""
    if function is None:
        return _given_x(fn, function, out, operands, points, levels)
    (x, y), (i, j, k), known = operands, levels, _of_result(out.values)
    factor, d = float(fn(1.0, 0.0) - fn(0.0, 0.0)), function[0]
    found = known.pop((id(d), k, id(y), j, id(x), i), None)
    if found is not None:
        return found[0] * np.array([[factor], [factor**2]])
    here = _there(fn, function, out, operands, _across(points, levels), levels)
    own, other = np.empty((2, 2, grid.COARSE))
    own[0], other[0] = here @ grid.WEIGHT_COARSE, grid.WEIGHT_COARSE @ here
    here *= here
    own[1], other[1] = here @ grid.WEIGHT_COARSE, grid.WEIGHT_COARSE @ here
    known[id(d), k, id(x), i, id(y), j] = other, d, x, y  # what is known by its id is kept
    return own * np.array([[factor], [factor**2]])


def _there(
    fn: Function, function: Operands, out: Law, operands: Operands, points: Operands, levels: Levels
) -> np.ndarray:
    """The function of the result's latent at pairs of points."""
    left, t = _place_of(fn, out.values, points, operands, levels)
    here = function[1][levels[2]].take(left)
    here *= t
    here += function[0][levels[2]].take(left)
    return here


def _over_y(heard: np.ndarray) -> np.ndarray:
    """The mean and the mean square; what is given is squared in place."""
    found = np.empty((2, len(heard)))
    found[0] = heard @ grid.WEIGHT_COARSE
    found[1] = np.multiply(heard, heard, out=heard) @ grid.WEIGHT_COARSE
    return found


def _across(points: Operands, levels: Levels) -> Operands:
    """Points of x down, and of y across."""
    return points[0][levels[0]][:, None], points[1][levels[1]][None, :]


_of_late: tuple[np.ndarray, dict[tuple, tuple]] = np.zeros(0), {}
"""Where a result's latent is at pairs of points: what one operand or part has asked for, the others ask for, too."""


def _of_result(values: np.ndarray) -> dict[tuple, tuple]:
    """What is known of a result with these values; what was known of the one before is forgotten."""
    global _of_late
    if _of_late[0] is not values:
        _of_late = values, {}
    return _of_late[1]


def _place_of(fn: Function, result: np.ndarray, points: Operands, operands: Operands, levels: Levels) -> Operands:
    """The node of the grid before the result's latent at points of both operands, and how far it is to the next."""
    (x, y), (i, j, k), known = operands, levels, _of_result(result)
    there = known.get((k, id(y), j, id(x), i))
    if there is not None:
        return there[0].T, there[1].T
    if (found := known.get((k, id(x), i, id(y), j))) is None:
        with np.errstate(all="ignore"):
            value = np.asarray(fn(*points), float)
        known[k, id(x), i, id(y), j] = found = *_where(value, result[k]), x, y  # what is known by its id is kept
    return found[0], found[1]


def _where(value: np.ndarray, target: np.ndarray) -> Operands:
    """The node before the point of the latent at which a law takes these values, and how far it is to the next."""
    order = np.argsort(target, kind="stable") if np.any(np.diff(target) < 0) else slice(None)
    place = np.interp(value.ravel(), target[order], np.arange(grid.POINTS, dtype=float)[order]).reshape(value.shape)
    left = np.minimum(place.astype(np.intp), grid.POINTS - 2)
    return left, place - left


def _ratios_with(part: Part, out: Law, x: Law, y: Law, fn: Function) -> dict:
    """The base's correlations times those of what the other operand contributes."""
    if is_sum(fn):
        return {s: part.ratio.get(s, 0.0) for s in subsets(out.groups)}
    ratio = {}
    for s in subsets(out.groups):
        other = y.pair(translated(s, out.axes, y.axes)) / y.second if y.second > 0 else 1.0
        ratio[s] = part.ratio.get(s, 0.0) * other
    return ratio


def _matrix_with(part: Part, out: Law, y: Law) -> np.ndarray | None:
    """The base's correlations between positions times those of an independent factor."""
    size = places.length(out)
    if part.matrix is None or size is None or places.length(y) != size:
        return part.matrix
    return part.matrix * sequence.normalized(places.pair_matrix(y, size))


def _onto_constant(fn: Function, part: Part, out: Law, x: Law, y: Law) -> Part:
    of_x, of_y, of_out, _ = joint(out, x, y)
    slope = partial(fn, x.values[of_x], y.values[of_y])
    values = slope if part.values is None else part.values[of_out] * slope
    second = part.second * factor_profile(out, x, y, values, of_x, of_y, of_out)
    ratio = {}
    for s in subsets(out.groups):
        mine = part.pair(out, s) / max(part.pair(out, frozenset()), 1e-300)
        other = y.pair(translated(s, out.axes, y.axes)) / y.second if y.second > 0 and not is_sum(fn) else 1.0
        ratio[s] = mine * other
    return fresh(second, ratio, balanced=part.balanced if is_sum(fn) else frozenset())
