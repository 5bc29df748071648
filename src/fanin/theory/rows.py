"""What rows of weights make of values, position by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fanin.theory import places
from fanin.theory.contraction import axis_groups
from fanin.theory.law import Law, gaussian
from fanin.theory.records import replace
from fanin.theory.runs import at_all


def mixed_places(
    v: Law, allowed, counts, concentrated, correlation, keys: int, dropout: float, lean: float | np.ndarray = 0.0
):
    """What rows of weights make of values, place by place.

    Args:
        allowed: (query runs, key runs) mean weights up to a factor a row.
        counts, concentrated: effective keys of each row, and E[sum a^2].
        correlation: of the logits' latents between rows; (query runs, query runs).
        lean: of every row what weights pick up of tokens that logits and values are both made of (see ``overlap``).

    Returns:
        mean square of every row's output, and pair moments between rows.
    """
    value = places.pair_matrix(v, keys)
    own, near, width = np.diag(value), places.neighbours(value, keys), places.runs(keys).width
    share = places.mixing(allowed)
    between = value.copy()
    np.fill_diagonal(between, near)  # two different positions of a run
    whole = share @ between @ share.T  # as if no two were the same position
    boost = np.maximum(concentrated * counts, 1)
    same = (share / np.maximum(width, 1) * (own - near)) @ share.T
    pairs = whole + (boost[:, None] * boost[None, :]) ** (correlation / 2) * same
    alone = (share**2 / width) @ near  # the part of ``whole`` that is one position with itself
    off = (np.diag(whole) - alone) / np.maximum(1 - 1 / counts, 1e-12)
    second = concentrated / (1 - dropout) * (share @ own) + (1 - concentrated) * np.where(counts > 1.0001, off, 0)
    each = np.sqrt(np.broadcast_to(lean, concentrated.shape))
    leant = np.outer(each, each) * max(float(np.mean(own - value.mean())), 0.0)
    pairs, second = pairs + leant * correlation, second + np.diag(leant)
    np.fill_diagonal(pairs, second)
    return second, pairs


def laid(law: Law, pairs: np.ndarray, second: np.ndarray, queries: int) -> Law:
    profile = at_all(second, queries)
    axis = next(i for i, a in enumerate(law.axes) if axis_groups(a) == {places.POSITION})
    shape = [1] * len(law.shape)
    shape[axis] = queries
    new = gaussian(law.shape, law.axes, np.maximum(profile, 0).reshape(shape), law.pair)
    new = replace(new, latent=replace(new.latent, corr=_kept(law, new)))
    return places.with_matrix(new, pairs, queries)


def _kept(law: Law, new: Law) -> dict:
    """Correlations of the latent that the matrix does not speak of."""
    return {s: law.latent.corr.get(s, r) for s, r in new.latent.corr.items()}


@dataclass(frozen=True)
class Columns:
    """How keys are looked at, where one row of weights stands for all.

    Where padding is hidden all queries look at the few keys that are left; where a sequence is cut into blocks few
    queries look at every key: 28 of 49 keys are seen by 49 queries in one case, and 49 by 28 in the other. In the mean
    over keys ``(sum_i a_ij)^2`` and ``sum_i a_ij^2`` say which.

    Attributes:
        queries: how many look at a key that is looked at at all.
        counts: keys that a row looks at, by the mean of its squared weights.
        spread: share of keys that are looked at.
    """

    queries: float
    counts: float
    spread: float


def columns(weights: np.ndarray, queries: int, keys: int) -> Columns:
    """Of mean weights (..., queries or 1, keys or 1)."""
    wide = np.broadcast_to(weights, (*weights.shape[:-1], keys)) if weights.shape[-1] == 1 else weights
    times = queries if wide.shape[-2] == 1 else 1
    whole, alone = wide.sum(-2) * times, np.einsum("...ij,...ij->...j", wide, wide) * times
    both, one = float(np.mean(whole**2)), float(np.mean(alone))
    counts = queries / (keys * one)
    return Columns(both / one, counts, one**2 * counts**2 / both)
