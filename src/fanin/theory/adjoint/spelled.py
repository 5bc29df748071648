"""Backward through attention that is written out: a product of queries and keys, a softmax, a product with values.

The sums are those of ``rows``, as in the fused operation. They are known in two pieces. At the product with values the
rows of weights, the cotangent of what they make, and the values say what the gradient of logits is made of; this is
handed back through the softmax, masks and scales as ``Chosen``, in units of the part's mean square. The product of
queries and keys puts it together with what those are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fanin.theory import overlap, places
from fanin.theory.adjoint import rows as sums
from fanin.theory.adjoint import seen, tilted, together
from fanin.theory.adjoint.attention import (
    Side,
    _along_values,
    _differ,
    _laid,
    _lost,
    _times,
    by_feature,
    other_windows,
    together_by_chance,
)
from fanin.theory.adjoint.cotangent import Cotangent, Part, translated
from fanin.theory.adjoint.joint import ALIKE
from fanin.theory.adjoint.rows import Logits, Pairs, Rows
from fanin.theory.adjoint.together import Behind
from fanin.theory.concentration import across
from fanin.theory.contraction import axis_groups
from fanin.theory.descent import in_common
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules.mix import row_weights

LEAST = 1e-3
"""Weights are positive; what dropout leaves of them is laid out on a grid up to as much of their rms."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """What the gradient of a row of logits is made of.

    Attributes:
        rows: of weights.
        g, inner: for every set of groups in which two places differ besides their positions: pair moments of the
            cotangent behind, times the features of a value and in units of the part's mean square, and what values
            have in common.
        variance: of a row's logits.
        agreed: how far values of two tokens agree by chance.
        alike: correlation of this with the agreement of keys.
        queries, keys: how many.
        values: what they have along their gradients.
        spread: share of keys that are looked at.
        start: where the keys begin in a row that has more (sinks), whose weights are multiplied by nothing.
        there: which keys are looked at by any row, where not all are.
    """

    rows: Rows
    g: Mapping[Groups, Pairs]
    inner: Mapping[Groups, Logits]
    variance: float
    agreed: float
    alike: float
    queries: int
    keys: int
    values: Behind
    spread: float = 1.0
    start: int = 0
    there: np.ndarray | None = None


def values(g: Cotangent, x: Law, y: Law) -> tuple[Part, Chosen] | None:
    """Gradient of the values that rows of softmax weights are multiplied with, and what the weights' is made of.

    Args:
        g: of the product, (..., queries, features).
        x: weights, (..., queries, keys).
        y: values, (..., keys, features).
    """
    read = _rows(g, x, y)
    if read is None:
        return None
    rows, query, key, spread = read
    assert x.latent.source is not None
    found, behind, inner = {}, {}, {}
    for rest in [frozenset(), *subsets(g.law.groups - query.groups)]:
        cotangent = query.of_cotangent(g, rest)
        if rest and not np.any(cotangent.own) and not np.any(cotangent.between):
            continue
        r = rows.plain() if rest else rows
        found[rest] = _times(sums.values(r, cotangent), spread)
        inner[rest] = sums.logits(r, key.of_law(y, translated(rest, g.law.axes, y.axes)))
        behind[rest] = _times(cotangent, g.law.shape[-1])
    own = query.of_cotangent(g, frozenset()).own
    out = query.of_law(g.law, frozenset())
    lost = _lost(g, rows, out)
    made = together.behind(y, key.groups, _along_values(rows, own, lost, out, y), lost)
    there = seen.by_any_row(x) if key.size is None else None
    part = seen.alone(_laid(y, key, found, other_windows(rows, query, g, spread)), y, there, -2)
    part = replace(part, radial=made.radial, met=picked_up(rows, x, y))
    agreed, sizes = overlap.agreement(y, key.groups), (x.shape[-2], x.shape[-1])
    alike = in_common(x.latent.source.descent, y.latent.descent)
    return part, Chosen(rows, behind, inner, x.latent.source.variance, agreed, alike, *sizes, made, spread, there=there)


def picked_up(rows: Rows, weights: Law, values: Law) -> float:
    """What a value's gradient meets of tokens that its weights lean to, in units of its mean square (``Part.met``)."""
    source = overlap.shared(weights, values)
    if source is None or not source.terms:
        return 0.0
    lean = overlap.leant(source, source.variance, rows.counts, rows.concentrated)
    return sums.met(rows, lean)


def carried(part: Part, chosen: Chosen, size: float) -> Part:
    """The part with ``chosen``, whose cotangent is in units of a mean square of ``size``."""
    mean = part.mean_second
    if mean <= 0 or size <= 0:
        return replace(part, chosen=None)
    return replace(part, chosen=replace(chosen, g={s: _times(p, size / mean) for s, p in chosen.g.items()}))


def behind_softmax(part: Part, chosen: Chosen, size: float) -> Part:
    """The part of a row of logits, of the mean square that the rows give, with ``chosen`` in units of a new one.

    E[dl_ij^2] = d G_ii a_ij^2 (V_jj - 2 U_ij + W_ii), and what dropout adds, see ``rows``.
    """
    rows, behind, inner = chosen.rows, chosen.g[frozenset()], chosen.inner[frozenset()]
    apart = inner.v.own - 2 * inner.u + inner.w.own[:, None]
    dropped = (rows.dropped * (1 - 1 / rows.counts))[:, None] * inner.v.own
    squares = behind.own[:, None] * rows.weight**2 * (rows.turned[:, None] * apart + dropped)
    wanted = size * float(rows.queries @ squares @ rows.keys) / (rows.queries.sum() * chosen.keys)
    keys = part.second[..., chosen.start :][..., : chosen.keys] if part.second.shape[-1] > 1 else part.second
    found = float(keys.mean())
    if found > 0 and wanted > 0:
        part = replace(part, second=part.second * (wanted / found))
    return carried(part, chosen, size)


def in_longer_rows(part: Part, of: Part, start: int) -> Part:
    """Behind a cut that left out some weights of every row, the part ``of`` with zeros where they were."""
    if of.chosen is None:
        return part
    return carried(part, replace(of.chosen, start=of.chosen.start + start), of.mean_second)


def of_piece(part: Part, of: Part, start: int, size: int) -> Part:
    """In front of a concatenation of logits and others (sinks), the part of those that are queries times keys."""
    chosen = of.chosen
    if chosen is None or (chosen.start, chosen.keys) != (start, size):
        return part
    return carried(part, replace(chosen, start=0), of.mean_second)


def logits(g: Cotangent, q: Law, k: Law, factor: float) -> tuple[Part, Part] | None:
    """Gradients of queries (..., queries, features) and keys (..., features, keys) whose product logits are.

    Args:
        factor: square of what the product is multiplied by.
    """
    part = g.parts[0] if len(g.parts) == 1 else None
    chosen = part.chosen if part is not None else None
    if part is None or chosen is None or (q.shape[-2], k.shape[-1]) != (chosen.queries, chosen.keys):
        return None
    runs = len(chosen.rows.counts) > 1
    query = Side(axis_groups(q.axes[-2]), chosen.queries, chosen.queries if runs else None)
    key = Side(axis_groups(k.axes[-1]), chosen.keys, chosen.keys if runs else None)
    if runs and (places.length(q), places.length(k)) != (query.size, key.size):
        return None
    size = factor * g.second
    agreed = chosen.alike * together_by_chance(overlap.agreement(k, key.groups), chosen.agreed, q)
    thinned = agreed * k.latent.turned
    beyond = thinned * (
        across(chosen.variance, chosen.rows.counts, sphere) if (sphere := chosen.rows.sphere) > 0 else 1.0
    )
    of_queries, of_keys = {}, {}
    for rest, cotangent in chosen.g.items():
        r, inner = chosen.rows.plain() if rest else chosen.rows, chosen.inner[rest]
        in_q, in_k = (rest & law.groups for law in (q, k))
        if rest and not (in_q and in_k):
            continue
        of_k = key.of_law(k, in_k)
        if not rest:
            own = max(k.second - k.pair(key.groups), 0.0)
            per = chosen.variance / own if own > 0 else 0.0
            r = replace(r, tilted=tilted.factors(r, inner, of_k, per, chosen.variance))
        found = sums.queries(r, cotangent, inner, of_k, 0.0 if rest else beyond)
        of_queries[in_q] = _times(found, size)
        of_keys[in_k] = _times(sums.keys(r, cotangent, inner, query.of_law(q, in_q)), size * chosen.spread)
    rows = chosen.rows
    met = agreed * max(float(np.mean(rows.apart / rows.boost * (rows.counts - 1))), 0.0)
    common = min(max(k.pair(key.groups), 0.0) / k.second, 1 - 1e-9) if k.second > 0 else 0.0
    scores = chosen.variance, chosen.variance * common / (1 - common)
    of_query, of_key = together.radials(rows, chosen.g[frozenset()], scores, chosen.values)
    queries = replace(_laid(q, query, of_queries), radial=of_query)
    laid = seen.alone(_laid(k, key, of_keys), k, chosen.there, -1)
    keys = replace(laid, radial=of_key, balanced=key.groups - {FEATURE}, met=met)
    turned = by_feature(queries, k.profile(k.seconds), other=-2)
    return turned, by_feature(keys, q.profile(q.seconds), own=-2)


def _rows(g: Cotangent, x: Law, y: Law) -> tuple[Rows, Side, Side, float] | None:
    """The rows of weights by run where rows or places differ, else one for all, and the share of keys looked at.

    None where they are not a softmax's.
    """
    source = x.latent.source
    if source is None or not source.variance or x.values.min() < -LEAST * x.rms:
        return None
    n_q, n_k = x.shape[-2:]
    along_q, along_k = axis_groups(g.law.axes[-2]), axis_groups(y.axes[-2])
    if FEATURE in along_q | along_k or axis_groups(x.axes[-2]) != along_q:
        return None
    sequences = (places.length(g.law), places.length(y)) == (n_q, n_k)
    weights = row_weights(x)
    if weights is None or np.any(weights.total > 1 + ALIKE):  # levels that are alike were merged
        return None
    if not source.cut and np.any(weights.total < 1 - ALIKE):
        return None
    alike = max(x.correlation(along_q), 0.0)
    s2, keep = source.variance, source.keep
    if sequences and (not weights.alike or _differ(g, x, y)):
        at = places.runs(n_q).index
        share, counts, concentrated = weights.by_run(n_q, n_k)
        counts, concentrated = _whole(counts, concentrated, share.sum(1)) if source.cut else (counts, concentrated)
        wide_q, wide_k = places.runs(n_q).width, places.runs(n_k).width
        r = alike + (1 - alike) * np.eye(len(at))
        passed = overlap.passed(s2, counts, source)
        apart = weights.heads_apart(n_q, n_k, counts)
        rows = Rows(share, wide_q, wide_k, counts, concentrated * keep, r, keep, heads=apart, **passed)
        return rows, Side(along_q, n_q, n_q), Side(along_k, n_k, n_k), 1.0
    seen = weights.columns
    one, concentrated = np.array([seen.counts]), np.array([float(np.mean(weights.concentrated))])
    total = np.array([float(np.mean(weights.total))]) if source.cut else np.ones(1)
    one, concentrated = _whole(one, concentrated, total)
    concentrated = concentrated * keep
    wide = np.array([seen.queries])
    passed = overlap.passed(s2, one, source)
    rows = Rows(total[:, None], wide, np.array([seen.counts]), one, concentrated, np.array([[alike]]), keep, **passed)
    return rows, Side(along_q, n_q, None), Side(along_k, n_k, None), seen.spread


def _whole(counts: np.ndarray, concentrated: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effective keys and E[sum a^2] of rows with what was left out of them, one more key with a weight like theirs."""
    rest = np.maximum(1 - total, 0.0)
    whole = 1 / (total**2 / counts + rest**2)
    return whole, concentrated * counts / whole
