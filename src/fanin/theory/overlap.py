"""Keys and values that were made of one tensor know of each other.

With logits ``l_j = u . x_j`` and values ``v_j = W x_j`` of tokens with n independent features of variance ``s``,
weights lean to the tokens that lie along ``u``. Stein's lemma gives the mean of what they pick up,

    E[sum_j a_j x_j] = s u E[sum_j da_j/dl_j],

with ``sum_j a_j (1 - a_j) = 1 - A`` for a softmax: of n features the mean square is ``(s2 / n) (1 - A)^2 s``, beside
the ``A s`` of independent weights, where ``s2`` is the variance of a row's logits. Where features are not independent
but have a covariance C, as of a few known numbers laid out in many features, ``C u`` stands for ``s u``, and
``tr C^2 / (tr C)^2`` for 1/n. Without a softmax weights are the
logits: ``T (T + 1) s2 s / n`` beside ``T s2 s``, of which ``2 T`` are a token's own fourth moment.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fanin.theory import lengthy
from fanin.theory.concentration import leaning, let_through, turned_away
from fanin.theory.law import Groups, Law, Source
from fanin.theory.records import replace
from fanin.theory.spread import pair_deviation


def shared(keys: Law, values: Law) -> Source | None:
    """What both were made of, if that is one tensor."""
    mine, other = keys.latent.source, values.latent.source
    return mine if mine is not None and other is not None and mine.id == other.id else None


def lean(source: Source | None, variance: float) -> float:
    """Mean square of what softmax weights lean to, before (1 - A)^2 and in units of the values' own variance."""
    return variance * source.share / source.width if source is not None else 0.0


def leant(source: Source | None, variance: float, counts: np.ndarray, few: np.ndarray) -> np.ndarray:
    """The same with ``(1 - A)^2``, for rows of that many keys with ``A = few``; keys on a sphere have their own."""
    if source is not None and source.sphere:
        return lean(source, variance) * leaning(variance, np.maximum(counts, 1), source.sphere)
    return lean(source, variance) * (1 - few) ** 2


def scored(keys: Law, along: Groups, terms: int) -> Source | None:
    """What keys were made of, of as many features as count: tr C^2 / (tr C)^2 is two tokens' mean squared correlation.

    Keys of one length have as many directions, of the ``terms`` features of a head, as make theirs what it is: by
    chance over the head and over what all heads read.
    """
    made = keys.latent.source
    if made is None:
        return None
    alike = agreement(keys, along) ** 2 or 1 / made.width
    sphere = 1 / (1 / terms + alike) if keys.latent.steady(terms) else lengthy.shape_of(keys.latent)
    return replace(made, width=1 / alike, sphere=sphere, descent=keys.latent.descent)


def of_head(queries: Law, keys: Law, along: Groups) -> Source | None:
    """The same with what is known of queries."""
    made, terms = scored(keys, along, queries.shape[-1]), queries.shape[-1]
    steady, long = queries.latent.steady(terms), lengthy.of_queries(queries.latent)
    return replace(made, terms=terms, steady=steady, long=long) if made is not None else None


def passed(variance: float, counts: np.ndarray, source: Source | None) -> dict[str, Any]:
    """What a softmax lets through, and what queries hear of it, as ``adjoint.rows`` has it.

    Keys of one length that are chosen face the query. Their values have less across it (``turned_away``), and since a
    row of gradients sums to zero, ``sum_j dl_j k_j`` sees how cosines differ, not how large they are.
    """
    if source is None or not source.sphere:
        return {"through": let_through(variance, counts)}
    sphere = source.sphere
    if sphere < 0:
        steadiness = wobble(source.terms, source, source.steady)
        return {**lengthy.passed(source, variance, counts, steadiness), "sphere": sphere}
    of_values, of_keys = (turned_away(variance, counts, sphere, n) for n in (source.width, sphere))
    return {"through": let_through(variance, counts, sphere) * of_values, "sphere": sphere, "facing": of_keys}


def beside(x: Law, y: Law) -> Source | None:
    """Of a sum what one summand was made of, where it holds the logits of queries and keys and the other a bias."""
    score = _of_scores([x, y])
    if score is None or not score.axes:
        return None
    keys = score.shape[-1]
    own, whole = _own(score, keys), _own(x, keys) + _own(y, keys)
    made = score.latent.source
    return replace(made, share=made.share * own / whole) if made is not None and own > 0 else None


def joined(laws: list[Law]) -> Source | None:
    """Of rows laid end to end the same, where all but one are numbers of their own (sinks)."""
    score = _of_scores(laws)
    return score.latent.source if score is not None else None


def cut(source: Source | None) -> Source | None:
    """Of a piece of softmax weights."""
    return replace(source, cut=True) if source is not None and source.variance else source


def _of_scores(laws: list[Law]) -> Law | None:
    """The one that holds logits of queries and keys; None where there are more, or none."""
    scores = [law for law in laws if law.latent.source is not None and law.latent.source.terms]
    return scores[0] if len(scores) == 1 else None


def _own(law: Law, keys: int) -> float:
    """Variance beyond what all places along the last axis, the keys, have in common: a row's maximum has none."""
    if keys > 1 and law.shape and law.shape[-1] == 1:
        return 0.0
    along = frozenset(t.group for t in law.axes[-1] if t.size > 1) if law.axes else frozenset()
    return (law.second - law.mean**2) * (1 - max(law.correlation(along), 0.0) if along else 1.0)


def agreement(law: Law, along: Groups) -> float:
    """How far two tokens' own parts agree: the standard deviation of their correlation; by chance 1/sqrt(n) of n.

    The sample correlation of Gaussians with correlation r strays by (1 - r^2)/sqrt(n). What each has in common with the
    rest, the same beside all others, makes up all of it but (1 - r)/sqrt(n).
    """
    common = law.pair(along)
    own = law.second - common
    if own <= 0:
        return 0.0
    found = pair_deviation(law, along)
    by_chance = found._replace(known=0.0, single=0.0).whole / (1 + max(common / law.second, 0.0))
    return math.hypot(found.known, by_chance) / own


def wobble(terms: int, source: Source | None, steady: bool = False) -> float:
    """Relative variance over queries of the variance of their logits: of q, unless all are as long, and of W^T q."""
    found = (2 / terms if terms and not steady else 0.0) + (2 / source.width if source is not None else 0.0)
    return (1 + found) * (1 + source.long) - 1 if source is not None and source.long else found


def unmixed(scores: Law, diagonal: np.ndarray, px: np.ndarray, values: Law, own: float) -> np.ndarray:
    """What weights that are functions of logits, but no softmax, add to the mean square of their sum over values.

    Of ``f(l)`` with the share c^2 = E[f z]^2 / E[f^2] in proportion to the logit ``T (T + c^2) c^2`` stands for
    ``T (T + 1)``.

    Args:
        diagonal: sum over keys of E[l^2] E[v^2], by row.
        px: mean squares of the logits, key by key.
        own: share of the values' mean square that tokens do not have in common.
    """
    source = shared(scores, values)
    if source is None or not source.terms or source.variance or scores.second <= 0:
        return np.zeros(())
    straight = float(scores.level_weight @ scores.slopes) ** 2 / scores.second
    n = scores.shape[-1]
    count = (
        n if px.shape[-1] == 1 else px.sum(-1, keepdims=True) ** 2 / np.maximum((px**2).sum(-1, keepdims=True), 1e-300)
    )
    return diagonal * own * straight * (count + straight) / source.width
