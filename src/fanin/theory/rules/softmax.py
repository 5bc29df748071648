"""Softmax: weights of a row, lognormal around each place's share.

Logits of a row are a common part, which softmax ignores, and an own part of variance s^2. Row weights then have
E[sum_j a_j^2] = A(s^2, n).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.graph import Node
from fanin.theory import grid, overlap
from fanin.theory.concentration import fluctuating
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Groups, Law, Source, compress, latent_for
from fanin.theory.records import replace
from fanin.theory.rules import picked
from fanin.theory.state import Value, as_law


def softmax(node: Node, *inputs: Value) -> Law:
    """Weights of a row: mean 1/n, mean square A/n, with levels from a mask."""
    x = as_law(inputs[0])
    axis = node.attrs["axis"] % len(x.shape)
    along = axis_groups(x.axes[axis]) or frozenset((FEATURE,))
    if node.attrs.get("log"):
        return _log_softmax(x, axis, along)
    if along == {FEATURE} and len(x.values) == 1 and not np.isfinite(x.values).all():
        return picked.of_open(x, axis)
    own = x.variances
    r = _common_share(x, along)
    variance = own * (1 - r)
    level = np.broadcast_to(x.level, tuple(x.shape[i] if i == axis else k for i, k in enumerate(x.level.shape)))
    mean = x.means[level]
    top = np.max(mean, axis=axis, keepdims=True)
    with np.errstate(all="ignore"):
        prior = np.exp(np.where(np.isfinite(mean), mean - top, -np.inf))
        prior = np.where(np.isfinite(top), prior, 1.0)
    mean_weight = prior * np.exp(variance[level] / 2)
    share = mean_weight / mean_weight.sum(axis, keepdims=True)
    count = np.maximum(1 / (share**2).sum(axis, keepdims=True), 1)
    usable = share.max(axis, keepdims=True) * 1e-6
    s2 = float((variance[level] * (share > usable)).sum() / max((share > usable).sum(), 1))
    made = x.latent.source
    scored = made.share if made and made.terms else 1.0
    unsteady = overlap.wobble(made.terms, made, made.steady) if made else 0.0
    sphere = made.sphere if made else 0
    rows_apart = FEATURE not in along  # of features (experts) what is picked is told of one law for all rows
    each = _by_row(variance[level], share > usable, axis, s2) if rows_apart else np.full((1,) * len(x.shape), s2)
    concentrated = _each(each, lambda s, n: fluctuating(s * scored, n, unsteady, s * (1 - scored), sphere), count)
    s2 = float(np.sum(each**2) / np.sum(each)) if each.size > 1 else s2  # of the rows that lean to anything
    law = _row_weights(node, x, share, concentrated * count, s2, along)
    made = replace(made, variance=s2) if made else Source(x.latent.id, x.shape[axis], variance=s2)
    made = replace(made, across=axis == len(x.shape) - 2)
    return replace(law, latent=replace(law.latent, source=made))


UNLIKE = 0.1
"""Rows whose logits vary by as much less than those of others are told apart."""


def _by_row(variance: np.ndarray, usable: np.ndarray, axis: int, mean: float) -> np.ndarray:
    """Variance of the logits that count in each row, to two digits; one number where rows are alike.

    Queries that are padding have none: their rows are uniform, and all others are as if there were none of them.
    """
    each = (variance * usable).sum(axis, keepdims=True) / np.maximum(usable.sum(axis, keepdims=True), 1)
    top = float(each.max())
    if np.ptp(each) <= UNLIKE * top:
        return np.full((1,) * each.ndim, mean)
    return np.round(each / top, 2) * top


def _each(variance: np.ndarray, work: Callable[[float, np.ndarray], np.ndarray], count: np.ndarray) -> np.ndarray:
    """What is to be worked out for one variance and many counts, for rows of several variances."""
    rounded = np.round(count)
    if variance.size == 1:
        return work(variance.item(), rounded)
    variance, rounded = np.broadcast_arrays(variance, rounded)
    found = np.empty(rounded.shape)
    for s in np.unique(variance):
        found[variance == s] = work(float(s), rounded[variance == s])
    return found


def _common_share(x: Law, along: Groups) -> float:
    """Share of the logits' variance that a whole row has in common."""
    if FEATURE in along:
        return 0.0
    return max(x.correlation(along), 0.0)


def _row_weights(node: Node, x: Law, share: np.ndarray, boost: np.ndarray, s2: float, along: Groups) -> Law:
    """A lognormal weight around each place's share, with E[a^2] = share^2 * boost (boost = A * n)."""
    boost = np.broadcast_to(boost, share.shape)
    sigma = np.sqrt(np.log(np.maximum(boost, 1)))
    key = np.stack([share.ravel(), sigma.ravel()])
    codes, level = np.unique(np.round(key, 12), axis=1, return_inverse=True)
    level = level.reshape(share.shape).astype(np.int32)
    numbers, widths = codes
    values = numbers[:, None] * np.exp(widths[:, None] * grid.Z_UNIT - widths[:, None] ** 2 / 2)
    values, level = compress(values, level)
    law = Law(node.shape, x.axes, values, level, x.latent, False, "softmax weights as lognormal")
    law = replace(law, exact=True, note="") if s2 < 1e-2 and x.exact else law
    n = x.shape[node.attrs["axis"] % len(x.shape)]
    rows = 1.0 / n

    def pair(differ: Groups) -> float:
        if differ & along and not differ - along:
            return max((rows - law.second) / max(n - 1, 1), 0.0)  # a row sums to one: E[a a'] = (1 - A)/(n (n-1))
        if differ & along:
            return law.mean**2
        r = max(x.correlation(differ), 0.0)
        same = law.mean**2 if differ & law.level_groups else float(law.level_weight @ law.means**2)
        return same * (law.second / max(same, 1e-300)) ** r

    return replace(law, latent=latent_for(law, pair, law.groups))


def _log_softmax(x: Law, axis: int, along: Groups) -> Law:
    n = x.shape[axis]
    own = max(x.second - x.mean**2, 0) * (1 - _common_share(x, along))
    return x.with_values(x.values - x.mean - np.log(n) - own / 2)
