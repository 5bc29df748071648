"""Backward through writes at known places: what was overwritten gets nothing, what was written its own place's."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.contraction import axis_groups
from fanin.theory.law import Law, subsets
from fanin.theory.rules.tally import Tally
from fanin.theory.rules.write import Places, hidden, in_words_of, laid, places_of, share_of, shares, tally_of
from fanin.theory.state import Value, as_law


def put(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Shares of the cotangent for the target and for what is written into it."""
    a = node.attrs
    result: list[list[Part]] = [[] for _ in inputs]
    source = a.get("source")
    v = inputs[source] if isinstance(source, int) else None
    if hidden(node, inputs):
        return _somewhere(node, g, inputs, result)
    where = places_of(node, tuple(node.shape), tuple(v.shape) if v is not None else (), inputs)  # type: ignore[arg-type]
    profile = np.broadcast_to(g.profile(), [n if d in where.where else m for d, (n, m) in _sizes(node, g)])
    if isinstance(inputs[0], Law):
        result[0] = [_to_target(where, profile, g, inputs[0], bool(a.get("add")))]
    if isinstance(v, Law) and isinstance(source, int):
        several = a.get("add") and where.repeated
        part = _to_rows(tally_of(node, v.shape, inputs), g, v) if several else None
        result[source] = [part or _to_source(where, profile, g, v, masked="mask" in a)]
    return result


def _to_rows(where: Tally, g: Cotangent, v: Law) -> Part:
    """Every row gets the gradient of its place: rows of one place the same."""
    second, rows = g.profile(), axis_groups(v.axes[where.axis])
    if second.shape[where.axis] > 1:
        second = second.take(where.to, where.axis)
    along, own = axis_groups(g.law.axes[where.axis]), g.ratios()
    ratio = {}
    for s in subsets(v.groups):
        beside = s - rows
        one = own.get(beside, 0.0) if beside else 1.0
        ratio[s] = where.met * one + (1 - where.met) * own.get(beside | along, 0.0) if s & rows else one
    return fresh(second, ratio)


def _somewhere(node: Node, g: Cotangent, inputs: tuple[Value, ...], result: list[list[Part]]) -> list[list[Part]]:
    """Of places that are as likely as any: what is written gets the mean, what is left its share."""
    source = node.attrs.get("source")
    v = inputs[source] if isinstance(source, int) else None
    p = share_of(node, tuple(v.shape) if v is not None else ())
    above = 1.0 if node.attrs.get("add") or not 0 < p < 1 else _above(g, p)
    if isinstance(inputs[0], Law):
        left = 1.0 if node.attrs.get("add") else 1 - p * above
        result[0] = [fresh(g.profile() * left, {s: r * left for s, r in g.ratios().items()})]
    if isinstance(v, Law) and isinstance(source, int):
        ratios = {s: g.ratios().get(s, 0.0) for s in subsets(v.groups)}
        result[source] = [fresh(np.full((1,) * len(v.shape), g.second * above), ratios)]
    return result


def _above(g: Cotangent, p: float) -> float:
    """Mean square where values were written, the upper part of the latent, over that of all places."""
    if len(g.law.values) > 1 or g.second <= 0:
        return 1.0
    square = sum(q.mean_second * (np.ones((1, grid.POINTS)) if q.values is None else q.values**2) for q in g.parts)
    return float((square @ (grid.WEIGHT * (1 - p < grid.CDF)))[0]) / (p * g.second)


def _sizes(node: Node, g: Cotangent):
    return enumerate(zip(node.shape, g.profile().shape, strict=True))


def _to_target(where: Places, profile: np.ndarray, g: Cotangent, x: Law, add: bool) -> Part:
    if add:
        return fresh(profile, g.ratios())
    kept = np.where(_spread(where, profile.ndim), 0.0, profile)
    free = float(np.mean(~where.hit))
    ratio = {}
    for s in subsets(x.groups):
        _, neither = shares(where.hit, tuple(x.axes[d] for d in where.where), s)
        ratio[s] = g.ratios().get(s & g.law.groups, 0.0) * (neither / free if free else 0.0)
    return fresh(kept, ratio)


def _spread(where: Places, rank: int) -> np.ndarray:
    rest = [d for d in range(rank) if d not in where.where]
    hit = where.hit.reshape(where.hit.shape + (1,) * len(rest))
    return hit.transpose(np.argsort([*where.where, *rest]))


def _to_source(where: Places, profile: np.ndarray, g: Cotangent, v: Law, masked: bool) -> Part:
    """Mean squares at the places in the order of the rows; summed over places that one element went to."""
    out, rank = g.law, profile.ndim
    rest = [d for d in range(rank) if d not in where.where]
    rows = profile.transpose([*where.where, *rest])[where.hit]  # (rows, rest)
    ratios = g.ratios()
    along = frozenset(t for d in where.where for t in axis_groups(out.axes[d]))
    words = {s: _back(v, out, where, s, along) for s in subsets(v.groups)}
    ratio = {s: ratios.get(t & out.groups, 0.0) for s, t in words.items()}
    if masked:  # of all the elements of the source some are used
        used = float(where.hit.sum()) * np.prod([profile.shape[d] for d in rest] or [1])
        total = float(np.mean(rows)) if rows.size else 0.0
        share = used * np.prod([out.shape[d] / profile.shape[d] for d in rest] or [1]) / max(np.prod(v.shape), 1)
        return fresh(np.full((1,) * len(v.shape), total * min(share, 1.0)), ratio)
    order = laid(v.shape, where, rank)
    copies = float(np.prod(out.shape)) * float(where.hit.mean()) / max(float(np.prod(v.shape)), 1.0)
    alike = ratios.get(along & out.groups, 0.0) if along & out.groups else 0.0
    mean = float(np.mean(rows)) if rows.size else 0.0
    gain = copies * (1 + max(copies - 1, 0.0) * alike)
    several = [d for d in order if d is not None]
    if copies == 1.0 and len(several) == len(v.shape) and rows.shape[0] == int(np.prod(where.shape)):
        return fresh(_in_order(where, rows, v, order), ratio)
    return fresh(np.full((1,) * len(v.shape), mean * gain), ratio)


def _in_order(where: Places, rows: np.ndarray, v: Law, order: list[int | None]) -> np.ndarray:
    sorted_rows = np.empty_like(rows)
    sorted_rows[where.index[where.hit]] = rows
    laid_out = sorted_rows.reshape(*where.shape, *rows.shape[1:])
    return laid_out.transpose(np.argsort([d for d in order if d is not None]))


def _back(v: Law, out: Law, where: Places, differ, along):
    """Groups of what is written in the words of the result."""
    names: set[str] = set()
    for s in subsets(out.groups):
        if in_words_of(v, out.axes, where, s) == differ:
            names |= s
    return frozenset(names)


__all__ = ["as_law", "put"]
