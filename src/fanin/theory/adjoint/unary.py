"""Backward through a function of one tensor: the cotangent follows the same latent."""

from __future__ import annotations

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint import orthogonal
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.joint import joint_with, levels_onto, one_a_level
from fanin.theory.adjoint.slopes import Function, slope
from fanin.theory.law import Law
from fanin.theory.records import replace

SLIGHT = 1e-2
"""Of a mean square: what is as small need not be followed."""


def unary(fn: Function, g: Cotangent, x: Law) -> list[Part]:
    found = slope(fn, x.values)
    return [orthogonal.followed(part, _through(part, g.law, x, found), g.law, x) for part in g.parts]


def followed(part: Part, values: np.ndarray, x: Law, slope: np.ndarray | None = None) -> Part:
    """The part with another function, of which ``slope`` is new (all of it where None is given).

    Only one number for all places leaves a sum over them zero.
    """
    values = _where_it_is(part, values, x)
    kept = part.balanced if _one(values if slope is None else slope) else frozenset()
    chosen = part.chosen if part.chosen is not None and (_one(values) or _slight(values)) else None
    return replace(part, values=values, balanced=kept, chosen=chosen, alike=0, along=0, copied=0)


def _one(values: np.ndarray) -> bool:
    """Whether a function is one number but for the rounding that differences leave."""
    return bool(np.ptp(values) <= 1e-6 * np.abs(values).max())


def _slight(values: np.ndarray) -> bool:
    """Whether a function is one number but for a percent of its mean square: a soft cap on logits."""
    mean = grid.expectation(values)
    return bool(np.mean(grid.expectation(values**2)) - np.mean(mean) ** 2 <= SLIGHT * np.mean(mean) ** 2)


def _where_it_is(part: Part, values: np.ndarray, x: Law) -> np.ndarray:
    """The function without what it is at levels where the part is zero everywhere (behind a mask): nothing sees it."""
    shape = np.broadcast_shapes(part.second.shape, x.level.shape)
    if len(values) == 1 or part.second.size == 1 or len(values) != len(x.values):
        return values
    largest = np.zeros(len(values))
    np.maximum.at(largest, np.broadcast_to(x.level, shape).ravel(), np.broadcast_to(part.second, shape).ravel())
    used = largest > 1e-12 * largest.max()
    return values if used.all() or not used.any() else np.where(used[:, None], values, values[used].mean(0))


def _through(part: Part, out: Law, x: Law, slope: np.ndarray) -> Part:
    """B d(z) through a function with slope f'(x(z)) on the same latent."""
    onto = levels_onto(out, x)
    if part.values is None:
        return followed(part, slope, x)
    if onto is not None:
        return followed(part, part.values[onto] * slope, x, slope)
    of_x, of_out, share = joint_with(out, x)
    table = one_a_level(part.values[of_out] * slope[of_x], of_x, share, len(x.values))
    if table is not None:
        return followed(part, table, x, slope)
    form = np.sqrt(out.level_weight @ part.values**2)
    return fresh(part.profile(out) / max(float(grid.expectation(form**2)), 1e-300), part.ratio, form * slope)
