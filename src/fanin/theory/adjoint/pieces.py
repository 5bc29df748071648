"""Backward through a concatenation of features: what a gradient follows at the whole it follows at every piece.

Behind a maximum over a window gradients are at the largest inputs, so that all of it passes a ReLU before it. The law
of a concatenation is a mixture of those of its pieces, each an increasing function of the new latent: at the latent z
of a piece it is at the quantile of the piece's value, for increasing functions z itself.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.joint import levels_onto
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.records import replace


def of_piece(g: Cotangent, x: Law, axis: int, start: int) -> list[Part] | None:
    """The parts at a piece that is no sum of many, each with its function; None where nothing is followed.

    A Gaussian has a linear rule in front of it, for which mean squares and pair moments do.
    """
    out = g.law
    if x.gaussian or axis_groups(out.axes[axis]) != {FEATURE} or all(p.values is None for p in g.parts):
        return None
    cut = slice(start, start + x.shape[axis])
    level = _cut(out.level, axis, cut)
    onto = levels_onto(replace(out, shape=x.shape, level=level, loose=None), x)
    if onto is None:
        return None
    found = []
    for part in g.parts:
        words = {s: part.ratio.get(forward_words(s, x, out), 0.0) for s in subsets(x.groups)}
        values = None if part.values is None else _at_quantiles(part.values[onto], x.values)
        found.append(fresh(_cut(part.second, axis, cut), words, values, balanced=part.balanced & x.groups))
    return found


def forward_words(differ: Groups, x: Law, out: Law) -> Groups:
    """Groups of a piece in the words of the whole."""
    names: set[str] = set()
    for mine, whole in zip(x.axes, out.axes, strict=False):
        if axis_groups(mine) & differ:
            names |= axis_groups(whole)
    return frozenset(names - {FEATURE})


def _cut(array: np.ndarray, axis: int, cut: slice) -> np.ndarray:
    return array[(slice(None),) * axis + (cut,)] if array.shape[axis] > 1 else array


def _at_quantiles(functions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Functions of the increasing arrangement of values, at the latent that the values are functions of."""
    return np.stack([_read(f, row) for f, row in zip(functions, values, strict=True)])


def _read(function: np.ndarray, row: np.ndarray) -> np.ndarray:
    steps = np.diff(row)
    if np.all(steps >= 0):
        return function
    if np.all(steps <= 0):
        return function[::-1]
    order = np.argsort(row, kind="stable")
    rank = np.empty_like(row)
    rank[order] = np.cumsum(grid.WEIGHT[order]) - grid.WEIGHT[order] / 2
    return grid.at(function, ndtri(rank / grid.WEIGHT.sum()))
