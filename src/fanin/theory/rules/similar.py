"""Products of the rows of two tensors that the same weights made of two inputs (similarities, scores of pairs).

Two rows have in common what the weights make of every input, and stray about it by the chance of n products:

    E[G_ij] = n E[x_i y_j],     Var G_ij = n (E[x^2 y^2] - E[x y]^2) + n^2 D^2,

with D the deviation over pairs of what they have in common, as of two rows of one tensor: also behind norms that took
the mean away, inputs that agree by chance are made alike by the same weights. Where rows are two views of one sample,
those of a sample have more in common: a diagonal, which is a level of its own.
"""

from __future__ import annotations

import numpy as np

from fanin.theory import jointly, parts
from fanin.theory.latent import FEATURE, Axis, Groups, axis_groups
from fanin.theory.law import Law, gaussians, latent_for
from fanin.theory.notes import together
from fanin.theory.records import replace
from fanin.theory.spread import pair_deviation

LEAST = 1e-3
"""Of the chance of products, the squared mean from which on it is told."""


def similar(x: Law, y: Law) -> bool:
    """Whether rows of x (..., rows, features) and columns of y (..., features, columns) have something in common."""
    kin = x.latent.kin is not None and x.latent.kin == y.latent.kin
    if not (kin or jointly.met(x, y)) or {*axis_groups(x.axes[-1]), *axis_groups(y.axes[-2])} != {FEATURE}:
        return False
    mean = parts.product(x, y, parts.elsewhere(x, y))
    return x.shape[-1] * (mean**2 + _strays(x, y)) > LEAST * x.second * y.second


def _strays(x: Law, y: Law) -> float:
    """Mean square by which what two rows have in common strays from pair to pair; other weights know nothing of it."""
    if x.latent.kin is None or x.latent.kin != y.latent.kin:
        return 0.0
    return max(pair_deviation(v, axis_groups(v.axes[i])).whole for v, i in ((x, -2), (y, -1))) ** 2


def products(x: Law, y: Law, axes: tuple[Axis, ...], shape: tuple[int, ...], named: Law) -> Law:
    """The law of ``x y``.

    Args:
        named: y with columns by another name where rows have theirs.
    """
    n, apart = x.shape[-1], parts.elsewhere(x, y)
    places = [apart]
    if shape[-1] == shape[-2] and axis_groups(x.axes[-2]) == axis_groups(y.axes[-1]) <= apart:
        places.append(apart - axis_groups(x.axes[-2]))
    xx, yy = (v.with_values(v.values**2) for v in (x, y))
    means = [parts.product(x, y, s) for s in places]
    strays = n * n * _strays(x, y)
    spread = [n * max(parts.product(xx, yy, s) - m**2, 0.0) + strays for s, m in zip(places, means, strict=True)]
    square = (1,) * (len(shape) - 2) + (shape[-2:] if len(places) > 1 else (1, 1))
    diagonal = np.eye(square[-1], dtype=bool).reshape(square) & (len(places) > 1)
    laid = lambda v: np.where(diagonal, v[-1], v[0])  # noqa: E731
    law = gaussians(shape, axes, n * laid(means), laid(spread))
    own_x = frozenset().union(*(axis_groups(a) for a in x.axes[:-1]))
    own_y = frozenset().union(*(axis_groups(a) for a in (*named.axes[:-2], named.axes[-1])))
    whole, common = x.second * y.second + means[0] ** 2, law.mean**2

    def pair(differ: Groups) -> float:
        alike = x.pair(differ & own_x) * named.pair(differ & own_y) + means[0] ** 2
        return common + (spread[0] - strays) * alike / whole

    law = replace(law, latent=latent_for(law, pair, law.groups))
    return law if x.exact and y.exact else law.marked(together(x.note, y.note))
