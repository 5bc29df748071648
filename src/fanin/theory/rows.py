"""What rows of weights make of values, position by position."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fanin.theory import places
from fanin.theory.contraction import axis_groups
from fanin.theory.law import Law, gaussian


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
    own, near, width = np.diag(value), places.neighbours(value), places.runs(keys).width
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
    at = places.runs(queries).index
    profile = np.interp(np.arange(queries), at, second)
    axis = next(i for i, a in enumerate(law.axes) if axis_groups(a) == {places.POSITION})
    shape = [1] * len(law.shape)
    shape[axis] = queries
    new = gaussian(law.shape, law.axes, np.maximum(profile, 0).reshape(shape), law.pair)
    new = replace(new, latent=replace(new.latent, corr=_kept(law, new)))
    return places.with_matrix(new, pairs, queries)


def _kept(law: Law, new: Law) -> dict:
    """Correlations of the latent that the matrix does not speak of."""
    return {s: law.latent.corr.get(s, r) for s, r in new.latent.corr.items()}
