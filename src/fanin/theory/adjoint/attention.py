"""The rule of attention: reads what ``rows`` sums over off the laws, and lays the results out again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fanin.graph import Node
from fanin.theory import overlap, places, windows
from fanin.theory.adjoint import masked, radial, sequence, tilted, together
from fanin.theory.adjoint import rows as sums
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, translated
from fanin.theory.adjoint.rows import Pairs, Rows
from fanin.theory.contraction import axis_groups
from fanin.theory.descent import in_common
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rows import Columns
from fanin.theory.rules.attention import (
    Prior,
    _bias_variance,
    _prior,
    _row_counts,
    _run_weights,
    concentrations,
    heads_apart,
    rows_alike,
)
from fanin.theory.state import Value, as_law


@dataclass(frozen=True)
class Side:
    """Queries or keys: their groups of places, how many there are, and the sequence they are read along, if any."""

    groups: Groups
    count: int
    size: int | None

    def of_law(self, law: Law, rest: Groups) -> Pairs:
        """Pair moments of a law at places that differ in ``rest`` besides."""
        if not rest and self.size is not None:
            return sums.of_matrix(places.pair_matrix(law, self.size), self.size)
        return self._of_numbers(law.pair(rest) if rest else law.second, law.pair(rest | self.groups))

    def of_cotangent(self, g: Cotangent, rest: Groups) -> Pairs:
        """Pair moments of a cotangent."""
        if not rest and self.size is not None:
            return sums.of_matrix(sequence.pair_matrix(g, self.size), self.size)
        return self._of_numbers(g.pair(rest) if rest else g.second, g.pair(rest | self.groups))

    def _of_numbers(self, own: float, between: float) -> Pairs:
        n = 1 if self.size is None else len(places.runs(self.size).index)
        return Pairs(np.full(n, own), np.full((n, n), between))

    def mean(self, pairs: Pairs) -> tuple[float, float]:
        """Mean square, and the mean over pairs of different places."""
        if self.size is None:
            return float(pairs.own[0]), float(pairs.between[0, 0])
        width = places.runs(self.size).width
        total = width @ pairs.between @ width - width @ np.diag(pairs.between)
        return float(width @ pairs.own / self.size), float(total / max(self.size * (self.size - 1), 1))


def attention(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Values get the weights' transpose; queries and keys what the softmax lets through."""
    a = node.attrs
    q, k, v = (as_law(inputs[i]) for i in range(3))
    rows, query, key, spread, picked = _rows(node, g, q, k, v, inputs)
    scale2 = a["scale"] ** 2 * v.shape[-1]
    shared = _heads(q, k)  # queries that look at one head of keys
    agreed = _overlap(q, k, v, key.groups)
    found: list[dict[Groups, Pairs]] = [{}, {}, {}]
    for rest in [frozenset(), *subsets(q.groups - query.groups)]:
        cotangent = query.of_cotangent(g, translated(rest, q.axes, g.law.axes))
        if rest and not np.any(cotangent.own) and not np.any(cotangent.between):
            continue
        r = rows.plain() if rest else rows
        of_q, of_k, of_v = query.of_law(q, rest), key.of_law(k, rest), key.of_law(v, rest)
        inner = sums.logits(r, of_v)
        if not rest:
            r = replace(r, tilted=tilted.factors(r, inner, of_k, *_logits(node, q, k, inputs)))
        by_chance = 0.0 if rest else agreed * k.latent.turned
        found[0][rest] = _times(sums.queries(r, cotangent, inner, of_k, by_chance), scale2)
        found[1][rest] = _times(sums.keys(r, cotangent, inner, of_q), scale2 * shared * spread)
        found[2][rest] = _times(sums.values(r, cotangent), shared * spread)
    parts: list[list[Part]] = [[] for _ in inputs]
    others = other_windows(rows, query, g, shared * spread)
    for i, (law, side) in enumerate(((q, query), (k, key), (v, key))):
        parts[i] = [_laid(law, side, found[i], others if i == 2 else None)]
    for i, beside in enumerate((k.profile(k.seconds), q.profile(q.seconds), g.profile())):
        parts[i] = [by_feature(p, beside) for p in parts[i]]
    met = agreed * max(float(np.mean(rows.apart / rows.boost * (rows.counts - 1))), 0.0)
    parts[1] = [replace(p, balanced=key.groups - {FEATURE}, met=met) for p in parts[1]]  # shifts change nothing
    parts[2] = [replace(p, met=picked) for p in parts[2]]
    whole = query.of_cotangent(g, frozenset())
    out = query.of_law(g.law, frozenset())
    lost = _lost(g, rows, out)
    values = together.behind(v, key.groups, _along_values(rows, whole.own, lost, out, v), lost)
    along = together.radials(rows, whole, _variances(node, q, k, key.groups), values)
    for i, known in enumerate((*along, values.radial)):
        parts[i] = [replace(p, radial=known) for p in parts[i]]
    return masked.by_mask(node, g, inputs, parts, attention)


def by_feature(part: Part, beside: np.ndarray, own: int = -1, other: int = -1) -> Part:
    """Feature by feature a query's gradient is as large as keys are there: those that are turned may be others.

    Args:
        own, other: the axes of features of the part and of what stands beside it.
    """
    size = np.moveaxis(beside, other, 0).reshape(beside.shape[other], -1).mean(1)
    mean = float(size.mean())
    if len(size) == 1 or mean <= 0 or part.second.shape[own] > 1:
        return part
    shape = [1] * part.second.ndim
    shape[own] = len(size)
    return replace(part, second=part.second * (size / mean).reshape(shape))


def _variances(node: Node, q: Law, k: Law, keys: Groups) -> tuple[float, float]:
    """Variance of a row's logits, and of what all of them have in common."""
    common = max(k.pair(keys), 0.0) if k.shape[-2] > 1 else 0.0
    logits = node.attrs["scale"] ** 2 * q.shape[-1] * q.second
    return logits * max(k.second - common, 0.0), logits * common


def _logits(node: Node, q: Law, k: Law, inputs) -> tuple[float, float, float]:
    """Variance of logits to the mean square of keys, of the mean key's own part with that of biases, and of these."""
    a = node.attrs
    per = a["scale"] ** 2 * q.shape[-1] * q.second
    mask = inputs[a["mask"]] if a.get("mask") is not None else None
    drawn = _bias_variance(mask) if isinstance(mask, Law) else 0.0
    own = max(k.second - k.pair(axis_groups(k.axes[-2])), 0.0) if k.shape[-2] > 1 else 0.0
    return per, per * own + drawn, drawn


def _lost(g: Cotangent, rows: Rows, out: Pairs) -> np.ndarray:
    """Share of what a row's cotangent had along its result ``y`` that a norm behind has taken, row by row.

    Where it is known in the mean over rows, a row's own is its part of a stream whose rest is as large everywhere.
    """
    found = radial.power(radial.of(g))
    if np.shape(found) == np.shape(rows.counts):
        return np.maximum(1 - found, 0.0)
    left = min(radial.mean_power(g), 1.0)
    mean = float(rows.queries @ out.own / rows.queries.sum())
    return out.own * (1 - left) / np.maximum(out.own * (1 - left) + mean * left, 1e-300)


def _along_values(rows: Rows, own: np.ndarray, lost: np.ndarray, out: Pairs, v: Law) -> float:
    """The same of values, ``v_j . sum_i a_ij g_i``, of which the share cos^2 = E[y^2] / E[v^2] is along ``y_i``."""
    weight = rows.queries * own * rows.concentrated / rows.keep
    if v.second <= 0 or not np.any(weight):
        return 1.0
    return float(1 - weight @ (lost * np.clip(out.own / v.second, 0, 1)) / weight.sum())


def _overlap(q: Law, k: Law, v: Law, keys: Groups) -> float:
    """How far two tokens' keys agree where their values do: both are read off one input, and features are few.

    The scatter of the correlations of keys and of values, where it was followed; else one over the width.
    """
    alike = in_common(k.latent.descent, v.latent.descent)
    return alike * together_by_chance(overlap.agreement(k, keys), overlap.agreement(v, keys), q)


def together_by_chance(of_keys: float, of_values: float, q: Law) -> float:
    """The product of both scatters; one that was not followed (pieces that are joined) is as large as the other."""
    width = float(np.prod([t.size for axis in q.axes for t in axis if t.group == FEATURE]))
    return of_keys * of_values or max(of_keys, of_values) ** 2 or 1 / width


def _heads(q: Law, k: Law) -> float:
    """Heads of queries to one head of keys."""
    return q.shape[-3] / k.shape[-3] if len(q.shape) > 3 and len(k.shape) > 3 else 1.0


def _times(pairs: Pairs, factor: float) -> Pairs:
    return Pairs(pairs.own * factor, pairs.between * factor)


def _rows(node: Node, g: Cotangent, q: Law, k: Law, v: Law, inputs) -> tuple[Rows, Side, Side, float, float]:
    """The rows of weights, both sides, the share of keys that are looked at at all, and what values' gradients meet."""
    a = node.attrs
    mask = inputs[a["mask"]] if a.get("mask") is not None else None
    prior = _prior(node, mask)
    n_q, n_k = q.shape[-2], k.shape[-2]
    along_k = axis_groups(k.axes[-2])
    _, s2, _ = _logits(node, q, k, inputs)
    keep, made = 1 - a["dropout"], overlap.of_head(q, k, along_k)
    sphere, both = made.sphere if made is not None else 0.0, made if overlap.shared(k, v) is not None else None
    lean = lambda r: overlap.leant(both, s2, r.counts, r.concentrated)  # noqa: E731
    along_q = axis_groups(q.axes[-2])
    size_q, size_k = places.length(q), places.length(k)
    found = (
        _run_weights(prior, a["causal"], places.runs(n_q), places.runs(n_k)) if (size_q, size_k) == (n_q, n_k) else None
    )
    if found is None and (size_q, size_k) == (n_q, n_k) and _differ(g, q, k, v):
        found = rows_alike(prior, n_q, n_k)
    if found is None:
        seen = _looked_at(prior, a["causal"], n_q, n_k)
        alike = np.array([[max(q.pair(along_q) / q.second, 0.0) if q.second > 0 else 0.0]])
        wide, one = np.array([seen.queries]), np.array([seen.counts])
        weights = concentrations(s2, one, sphere)
        rows = Rows(np.ones((1, 1)), wide, one, one, weights, alike, keep, **overlap.passed(s2, one, made))
        return rows, Side(along_q, n_q, None), Side(along_k, n_k, None), seen.spread, sums.met(rows, lean(rows))
    allowed, counts = found
    width_q, width_k = places.runs(n_q).width, places.runs(n_k).width
    alike = np.clip(places.correlations(q, n_q), 0, 1)
    weights = concentrations(s2, counts, sphere)
    passed = overlap.passed(s2, counts, made)
    apart = heads_apart(prior, a["causal"], n_q, n_k)
    rows = Rows(places.mixing(allowed), width_q, width_k, counts, weights, alike, keep, heads=apart, **passed)
    return rows, Side(along_q, n_q, n_q), Side(along_k, n_k, n_k), 1.0, sums.met(rows, lean(rows))


def _looked_at(prior: Prior | None, causal: bool, queries: int, keys: int) -> Columns:
    """How keys are looked at, where one row stands for all."""
    if not causal and prior is not None and prior.array.shape[-2:] == (queries, keys):
        return prior.columns
    counts = float(np.mean(_row_counts(prior, causal, queries, keys)))
    return Columns(float(queries), counts, counts / keys)


def _differ(g: Cotangent, *laws: Law) -> bool:
    """Whether places are told apart by more than one number a pair."""
    return places.carried(*laws) is not None or sequence.carried(g) is not None or sequence.uneven(g)


def _inside(law: Law, side: Side) -> float:
    """Share of the pairs of places that lie in one window, where attention looks at windows of the places only."""
    sizes = [t.size for axis in law.axes for t in axis if t.group in side.groups]
    places_in_all = float(np.prod(sizes)) if sizes else 1.0
    return min((side.count - 1) / (places_in_all - 1), 1.0) if places_in_all > side.count else 1.0


def other_windows(rows: Rows, query: Side, g: Cotangent, spread: float) -> dict[Groups, Pairs]:
    """What values' gradients have in common in two windows, by the groups in which they differ besides.

    Windows look at keys of their own, like samples; where a mean over all places is what is read, they hear the same.
    """
    found = {}
    for apart in (frozenset({t + windows.MARK}) & g.law.groups for t in query.groups):
        for rest in [apart, *(apart | s for s in subsets(g.law.groups - query.groups - apart))] if apart else []:
            found[rest - apart] = _times(sums.values(rows.plain(), query.of_cotangent(g, rest)), spread)
    return found


def _laid(law: Law, side: Side, found: dict[Groups, Pairs], others: dict[Groups, Pairs] | None = None) -> Part:
    """A part whose pair moments are those found; of places of different windows those of ``others``, or nothing."""
    within = found[frozenset()]
    mean, _ = side.mean(within)
    inside = _inside(law, side)
    ratio = {}
    for s in subsets(law.groups):
        pairs = found.get(s - side.groups)
        own, between = side.mean(pairs) if pairs is not None else (0.0, 0.0)
        apart = (others or {}).get(s - side.groups) if inside < 1 else None
        elsewhere = 0.0 if apart is None else float(np.dot(side.mean(apart), (1 / side.count, 1 - 1 / side.count)))
        pair = between * inside + elsewhere * (1 - inside) if s & side.groups else own
        ratio[s] = float(np.clip(pair / mean, -1, 1)) if mean > 0 else 0.0
    if side.size is None:
        return fresh(np.full((1,) * len(law.shape), mean), ratio)
    full = within.between.copy()
    np.fill_diagonal(full, within.own)
    return fresh(sequence.laid_out(within.own, law, side.size), ratio, matrix=sequence.normalized(full))
