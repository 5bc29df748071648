"""Gram matrices: every two rows of one tensor multiplied with each other (dot interactions, similarities, styles).

A row with itself is its squared length; two rows are what they have in common in the mean, and stray about it by the
chance of n products. Of rows of n features, which are independent given what rows have in common,

    E[G_tt] = n E[x^2],      Var G_tt = n Var(x^2) + 2 n^2 D^2,
    E[G_ts] = n E[x x'],     Var G_ts = n (E[x^2 x'^2] - E[x x']^2) + n^2 D^2,

with D the deviation over pairs of rows of what they have in common. Rows that are features, summed over places, are
independent, and their places are not:

    Var G_tt = n Var(x^2) + n (n - 1) cov(x_p^2, x_p'^2),
    E[G_ts^2] = n E[x^2]^2 + n (n - 1) (E[x_p x_p']^2 + D^2).

Diagonals are levels of their own: behind a softmax a row looks at itself, and an index that leaves them out reads the
products alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fanin.theory import between
from fanin.theory.latent import FEATURE, Axis, axis_groups
from fanin.theory.law import Groups, Law, gaussians, latent_for
from fanin.theory.records import replace
from fanin.theory.spread import pair_deviation

LARGEST = 2**22
"""Entries that levels are laid out for."""


def is_gram(x: Law, y: Law) -> bool:
    """Whether y (..., features, rows) is x (..., rows, features), transposed."""
    if len(x.shape) != len(y.shape) or len(x.shape) < 2 or not x.latent.aligned(y.latent):
        return False
    if x.axes[-2] != y.axes[-1] or x.axes[-1] != y.axes[-2] or x.axes[:-2] != y.axes[:-2]:
        return False
    rows, inner = axis_groups(x.axes[-2]), axis_groups(x.axes[-1])
    alike = x.values is y.values or np.array_equal(x.values, y.values)
    if not alike or x.deterministic or not rows or not inner or FEATURE not in rows | inner:
        return False
    if any(FEATURE in groups and len(groups) > 1 for groups in (rows, inner)):
        return False
    if x.level.shape[-1] > 1 and (FEATURE in inner or x.level.shape[-2] > 1):
        return False
    return int(np.prod(x.level.shape[:-2])) * x.shape[-2] ** 2 <= LARGEST


def gram(x: Law, axis: Axis, shape: tuple[int, ...]) -> Law:
    """The law of ``x x^T`` over features.

    Args:
        x: (..., rows, features).
        axis: of the columns, rows by another name.
        shape: (..., rows, rows).
    """
    n, rows = x.shape[-1], x.shape[-2]
    differ, inner = axis_groups(x.axes[-2]), axis_groups(x.axes[-1])
    level = np.broadcast_to(x.level[..., 0], (*x.level.shape[:-2], rows))
    if FEATURE in inner:
        found = _over_features(x, n, differ)
    else:
        found = _over_places(x, n, inner)
        level = np.zeros_like(level) if len(found.lengths) == 1 else level
    one, other = level[..., :, None], level[..., None, :]

    def laid(of_pairs: np.ndarray, of_rows: np.ndarray) -> np.ndarray:
        apart = of_pairs[one, other] if of_pairs.ndim == 2 else of_pairs[one]
        return np.where(np.eye(rows, dtype=bool), of_rows[one], apart)

    mean = laid(found.products, found.lengths)
    law = gaussians(shape, (*x.axes[:-1], axis), mean, laid(found.apart, found.own))
    beside = n * max(x.pair(differ), 0.0) * x.second  # of two entries that share a row
    return replace(law, latent=latent_for(law, _pairs(mean, beside, differ, axis_groups(axis)), law.groups))


class Entries(NamedTuple):
    """Means and variances of the product of two rows, (levels, levels) or (levels,), and of one with itself."""

    products: np.ndarray
    lengths: np.ndarray
    apart: np.ndarray
    own: np.ndarray


def _over_features(x: Law, n: int, differ: Groups) -> Entries:
    r, squares, chance = x.correlation(differ), x.with_values(x.values**2), pair_deviation(x, x.groups)
    pair, both = between.levels(x, differ, r), between.levels(squares, differ, r)
    apart = np.maximum(n * (both - pair**2), 0) + (n * pair_deviation(x, differ).whole) ** 2
    own = n * (squares.seconds - x.seconds**2) + 2 * n * n * (chance.earlier**2 + chance.latest**2)
    return Entries(n * pair, n * x.seconds, apart, own * (1 - x.latent.held))


def _over_places(x: Law, n: int, along: Groups) -> Entries:
    """Rows are features; places of several laws (a border) count with their means."""
    squares = x.with_values(x.values**2)
    if x.level.shape[-1] > 1:
        mean, second, fourth, alike, both = (
            np.array([v]) for v in (x.mean, x.second, squares.second, x.pair(along), squares.pair(along))
        )
    else:
        r = x.correlation(along)
        mean, second, fourth = x.means, x.seconds, squares.seconds
        alike, both = between.levels(x, along, r), between.levels(squares, along, r)
    crossed = (lambda v: np.multiply.outer(v, v)) if len(mean) > 1 else np.square
    pairs = crossed(alike) + pair_deviation(x, along).whole ** 2
    apart = n * crossed(second) + n * (n - 1) * pairs - (n * crossed(mean)) ** 2
    own = n * (fourth - second**2) + n * (n - 1) * (both - second**2)
    return Entries(n * crossed(mean), n * second, np.maximum(apart, 0), np.maximum(own, 0))


def _pairs(mean: np.ndarray, beside: float, row: Groups, column: Groups) -> Callable[[Groups], float]:
    """Mean products of two entries, by what they differ in: of their means, and of a row that both have."""
    n = mean.shape[-1]
    squares, total = (mean**2).sum((-2, -1)), mean.sum((-2, -1)) ** 2
    along = {row: (mean.sum(-2) ** 2).sum(-1), column: (mean.sum(-1) ** 2).sum(-1)}
    one = {g: float(np.mean(v - squares)) / (n * n * (n - 1)) for g, v in along.items()}
    both = float(np.mean(total - sum(along.values()) + squares)) / (n * (n - 1)) ** 2

    def pair(differ: Groups) -> float:
        if row <= differ and column <= differ:
            return both
        for group, found in one.items():
            if group <= differ:
                return found + (beside if differ == group else 0.0)
        return float(np.mean(mean**2))

    return pair
