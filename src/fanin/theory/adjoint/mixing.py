"""Backward through products of two signals, softmax and attention."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, translated
from fanin.theory.adjoint.linear import dense
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.rules.attention import (
    Prior,
    _bias_variance,
    _is_weight,
    _lift,
    _prior,
    _row_counts,
    _split_groups,
    concentrations,
)
from fanin.theory.state import Known, Value, as_law


def mix(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """g_x = g y^T and g_y = x^T g: the same contraction as forward, with the cotangent in place of an operand."""
    a = node.attrs
    ix, iy = (a["x"], a["y"]) if a.get("bias") is not None else (0, 1)
    parts: list[list[Part]] = [[] for _ in inputs]
    x, y = as_law(inputs[ix]), as_law(inputs[iy])
    alpha2 = float(a.get("alpha", 1.0)) ** 2 if a.get("bias") is not None else 1.0
    if a.get("bias") is not None and isinstance(inputs[a["bias"]], Law):
        bias = inputs[a["bias"]]
        if bias.shape == node.shape:
            parts[a["bias"]] = [fresh(g.profile() * a["beta"] ** 2, g.ratios())]
    if _is_weight(y) and len(y.shape) == 2 and a.get("bias") is None:
        plain = replace(node, attrs={"x": ix, "weight": iy, "bias": None, "out_first": False})
        return dense(plain, g, inputs)
    if len(x.shape) < 2 or len(y.shape) < 2:
        return parts
    x, y = _split_groups(x, y)
    if not isinstance(inputs[ix], Known):
        parts[ix] = [_against(g, y, -1, -1, x, alpha2)]
    if not isinstance(inputs[iy], Known):
        parts[iy] = [_against(g, x, -2, -2, y, alpha2)]
    return parts


def _against(g: Cotangent, other: Law, g_axis: int, other_axis: int, to: Law, factor: float) -> Part:
    """Contract g with the other operand over one axis: n E g^2 E y^2 + n (n - 1) pairs."""
    n = g.law.shape[g_axis]
    gx, gy = axis_groups(g.law.axes[g_axis]), axis_groups(other.axes[other_axis])
    cross_g = g.pair(gx) if FEATURE not in gx else 0.0
    cross = cross_g * other.pair(gy) if n > 1 else 0.0
    pg, po = g.profile(), other.profile(other.seconds)
    diagonal = _pairwise(pg, po, g_axis, to, g.law.shape, n)
    second = factor * np.maximum(diagonal + n * (n - 1) * cross, 0)
    whole, base = float(np.mean(second)), float(np.mean(diagonal)) * factor

    def ratio(s: Groups) -> float:
        in_g, in_o = translated(s, to.axes, g.law.axes), translated(s, to.axes, other.axes)
        if FEATURE in in_g:
            return 0.0
        same = _ratio(g.pair(in_g), g.second) * _ratio(other.pair(in_o), other.second) * base
        apart = n * (n - 1) * factor * g.pair(in_g | gx) * other.pair(in_o | gy) if FEATURE not in gx else 0.0
        return (same + apart) / whole if whole > 0 else 0.0

    return fresh(second, {s: ratio(s) for s in subsets(to.groups)})


def _pairwise(pg: np.ndarray, po: np.ndarray, axis: int, to: Law, shape, n: int) -> np.ndarray:
    """Sum over the contracted axis of the product of two profiles, laid out as ``to`` is."""
    ndim = len(to.shape)
    pg, po = _lift(pg, len(shape)), _lift(po, len(shape))
    if pg.shape[axis] == 1 or po.shape[axis] == 1:
        a, b = pg.mean(axis, keepdims=True), po.mean(axis, keepdims=True)
        # g (.., i, j), y (.., c, j) -> (.., i, c) along -1; g (.., i, j), x (.., i, c) -> (.., c, j) along -2
        out = n * a * np.swapaxes(b, -1, -2)
    elif axis == -1:
        out = pg @ np.swapaxes(po, -1, -2)
    else:
        out = np.swapaxes(po, -1, -2) @ pg
    while out.ndim > ndim:
        out = out.sum(0)
    for i, m in enumerate(to.shape):
        if out.shape[i] > 1 and m == 1:
            out = out.sum(i, keepdims=True)
    return out


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0


def softmax(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """dl = a (g - sum a g): the common part of a row's cotangent drops out."""
    x = as_law(inputs[0])
    axis = node.attrs["axis"] % len(x.shape)
    groups = axis_groups(x.axes[axis])
    out = g.law
    n = x.shape[axis]
    own = max(1 - (_ratio(g.pair(groups), g.second) if FEATURE not in groups else 0.0), 0.0)
    if node.attrs.get("log"):
        return [[fresh(g.profile() * (1 - 1 / n), g.ratios())]]
    weight2 = out.profile(out.seconds)
    row = weight2.sum(axis, keepdims=True) if weight2.shape[axis] > 1 else weight2 * n
    second = weight2 * g.profile() * own * np.maximum(1 - row, 0)
    ratios = g.ratios()
    ratio = {s: r * max(_ratio(out.pair(s), out.second), 0.0) for s, r in ratios.items()}
    return [[fresh(second, ratio)]]


def attention(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Values get the weights' transpose; queries and keys what the softmax lets through."""
    a = node.attrs
    q, k, v = (as_law(inputs[i]) for i in range(3))
    prior = _prior(node, inputs[a["mask"]] if a.get("mask") is not None else None)
    counts = _lift(_row_counts(prior, a["causal"], q.shape[-2], k.shape[-2]), len(node.shape))
    keys, queries = axis_groups(k.axes[-2]), axis_groups(q.axes[-2])
    own_k = max(k.second - k.pair(keys), 0.0)
    own_v = max(v.second - v.pair(axis_groups(v.axes[-2])), 0.0)
    s2 = a["scale"] ** 2 * q.shape[-1] * q.second * own_k
    if a.get("mask") is not None and isinstance(inputs[a["mask"]], Law):
        s2 += _bias_variance(inputs[a["mask"]])
    weight2 = concentrations(s2, counts)  # E sum_j a^2, by row
    keep = 1 - a["dropout"]
    profile = g.profile()
    profile = profile.mean(-1, keepdims=True)
    pair_rows = g.pair(queries)
    boost = max(float(np.mean(weight2 * counts)), 1.0)
    transport = _Transport(prior, a["causal"], q.shape[-2], k.shape[-2], boost)
    d_v = v.shape[-1]
    value = transport.columns(weight2 / keep * profile, pair_rows)
    logits = weight2 * np.maximum(1 - 1 / counts, 0) * d_v * profile * own_v / keep  # E sum_j dl^2, by row
    # keys and values of one token come from one input: two tokens' products meet again, by the chance overlap 1/width
    width = float(np.prod([t.size for axis in q.axes for t in axis if t.group == FEATURE]))
    query = a["scale"] ** 2 * logits * own_k * (1 + np.maximum(counts - 1, 0) / width)
    through = float(np.mean(logits) / max(float(np.mean(weight2 * profile)), 1e-300))
    key = a["scale"] ** 2 * transport.columns(logits * q.second, through * pair_rows * q.pair(queries))
    ratios = g.ratios()
    same = {s: ratios.get(translated(s, q.axes, g.law.axes), 0.0) for s in subsets(q.groups)}
    parts: list[list[Part]] = [[] for _ in inputs]
    parts[0] = [fresh(query, {s: r * max(_ratio(q.pair(s), q.second), 0.0) for s, r in same.items()})]
    parts[1] = [fresh(key, _key_ratios(k, keys, transport, ratios, k, -1 / max(k.shape[-2] - 1, 1)))]
    parts[2] = [
        fresh(
            value,
            _key_ratios(
                v,
                axis_groups(v.axes[-2]),
                transport,
                ratios,
                None,
                transport.alike(weight2 / keep * profile, pair_rows),
            ),
        )
    ]
    return parts


def _key_ratios(
    law: Law, keys: Groups, transport: _Transport, ratios, times: Law | None, between: float
) -> dict[Groups, float]:
    """Between keys of one sample ``between``; between samples as the cotangent's."""
    out = {}
    for s in subsets(law.groups):
        rest = s - keys
        base = ratios.get(rest, 0.0) if rest else 1.0
        if times is not None and rest:
            base *= max(_ratio(times.pair(rest), times.second), 0.0)
        out[s] = base * (between if s & keys else 1.0)
    return out


class _Transport:
    """Uniform-ish attention read from the keys' side: what each key gets from all queries."""

    def __init__(self, prior: Prior | None, causal: bool, queries: int, keys: int, boost: float):
        self.prior, self.causal, self.queries, self.keys = prior, causal, queries, keys
        self.boost = boost  # E[a_j^2] over E[a_j a_j'] within a row

    def columns(self, rows: np.ndarray, pair: float) -> np.ndarray:
        """sum_i a_ij^2 g_i^2 + sum_{i != i'} a_ij a_i'j E[g g'] at every key; rows are E[sum_j a^2] E g^2 by query."""
        rows = np.broadcast_to(rows, (*rows.shape[:-2], self.queries, 1))
        if self.causal:
            weight = 1 / np.minimum(np.arange(1, self.queries + 1), self.keys)[:, None]
            later = lambda x: np.flip(np.cumsum(np.flip(x, -2), -2), -2)  # noqa: E731
            own, total, squares = later(rows * weight), later(weight), later(weight**2)
            own, total, squares = (_fitted(x, self.keys) for x in (own, total, squares))
        elif self.prior is None or self.prior.array.shape[-2] == 1 or self.prior.alike:
            own, total = rows.sum(-2, keepdims=True) / self.keys, self.queries / self.keys
            squares = self.queries / self.keys**2
        else:
            share = np.swapaxes(self.prior.share, -1, -2)
            own, total = share @ rows, share.sum(-1, keepdims=True)
            squares = _squared(self.prior)
        return np.maximum(own + (total**2 - squares) * pair, 0)

    def alike(self, rows: np.ndarray, pair: float) -> float:
        """Correlation of what two keys get: one query looks at both, and all queries' cotangents may agree."""
        mean = float(np.mean(self.columns(rows, pair)))
        cross = self.queries * max(self.queries - 1, 0) / self.keys**2 * pair
        own = float(np.mean(rows)) * self.queries / self.keys
        return float(np.clip((cross + own / self.boost) / mean, -1, 1)) if mean > 0 else 0.0


def _fitted(columns: np.ndarray, keys: int) -> np.ndarray:
    """Columns for as many keys as there are; a key that no query reaches gets nothing."""
    if columns.shape[-2] >= keys:
        return columns[..., :keys, :]
    return np.concatenate([columns, np.zeros((*columns.shape[:-2], keys - columns.shape[-2], 1))], -2)


_SQUARES: WeakKeyDictionary[Prior, np.ndarray] = WeakKeyDictionary()


def _squared(prior: Prior) -> np.ndarray:
    if prior not in _SQUARES:
        _SQUARES[prior] = (prior.share**2).sum(-2)[..., None]
    return _SQUARES[prior]
