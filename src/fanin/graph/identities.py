"""Identities that keep a dependence which a law a tensor would lose: ``x - max(x, y)`` is ``min(x - y, 0)``.

Written out, the difference is of two tensors of which one is a function of the other and of a third; its law does not
follow from theirs, and what is an exponential of it would be off by orders of magnitude. Stabilized sums of
exponentials (log-sum-exp, running softmaxes, weighted averages over time) are made of such differences.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from fanin.graph.node import Kind, Node


def _fall(gap: np.ndarray) -> np.ndarray:
    return np.minimum(gap, 0)


def _mirrored_fall(gap: np.ndarray) -> np.ndarray:
    return np.minimum(-np.asarray(gap), 0)


def _rise(gap: np.ndarray) -> np.ndarray:
    return np.maximum(-np.asarray(gap), 0)


def _mirrored_rise(gap: np.ndarray) -> np.ndarray:
    return np.maximum(gap, 0)


FUNCTIONS = {
    ("maximum", False): (_fall, _mirrored_fall),
    ("maximum", True): (_rise, _mirrored_rise),
    ("minimum", False): (_mirrored_rise, _rise),
    ("minimum", True): (_mirrored_fall, _fall),
}
"""By operation, and whether it is the first term of the difference: functions of x - y for the term x, for y."""


APART = "factors that depend on the same tensors are taken as independent"
SOURCES = (Kind.PARAMETER, Kind.CONSTANT, Kind.INPUT)


def with_gaps(nodes: Iterable[Node]) -> list[Node]:
    """The nodes with differences between an extreme of two tensors and one of the two as functions of their gap.

    Both differences of one maximum become functions of one tensor, so that what is made of both stays exact. The
    extreme then no longer carries the whole of its gradient (attribute ``partial``), nor does one of two equal sums.
    """
    by_id: dict[str, Node] = {}
    made: list[Node] = []
    gaps: dict[tuple[str, ...], Node] = {}
    partial: set[str] = set()
    for node in nodes:
        by_id[node.id] = node
        found = _found(node, by_id)
        if found is not None:
            extreme, first, which = found
            gap = gaps.get(extreme.inputs)
            if gap is None:
                gap = gaps[extreme.inputs] = _gap(extreme)
                made.append(gap)
            if extreme.inputs[which] not in node.inputs:
                partial.add(extreme.inputs[which])
            partial.add(extreme.id)
            fn = FUNCTIONS[extreme.op, first][which]
            node = replace(node, kind=Kind.POINTWISE, inputs=(gap.id,), attrs=MappingProxyType({"fn": fn}), evaluate=fn)
        made.append(node)
    return [replace(n, attrs=MappingProxyType({**n.attrs, "partial": True})) if n.id in partial else n for n in made]


def _found(node: Node, by_id: dict[str, Node]) -> tuple[Node, bool, int] | None:
    """The extreme in a difference, whether it comes first, and which of its two tensors is the other term."""
    if node.kind is not Kind.SUM or node.attrs.get("alpha", 1.0) != -1.0 or len(node.inputs) != 2:
        return None
    terms = [by_id[i] for i in node.inputs]
    for first in (False, True):
        extreme, term = terms[::-1] if not first else terms
        if extreme.op not in ("maximum", "minimum") or len(extreme.inputs) != 2:
            continue
        sides = [by_id[i] for i in extreme.inputs]
        if not (node.signal and node.shape == extreme.shape == sides[0].shape == sides[1].shape):
            continue
        which = next((k for k, side in enumerate(sides) if _same(side, term)), None)
        if which is not None:
            return extreme, first, which
    return None


def _same(a: Node, b: Node) -> bool:
    """One tensor, or the same sum of the same tensors written twice."""
    return a.id == b.id or (a.kind is b.kind is Kind.SUM and a.inputs == b.inputs and dict(a.attrs) == dict(b.attrs))


def _gap(extreme: Node) -> Node:
    id_ = f"{extreme.id}.gap"
    attrs = MappingProxyType({"alpha": -1.0})
    return replace(extreme, id=id_, name=id_, kind=Kind.SUM, op="sub", attrs=attrs, signal=False, evaluate=np.subtract)


def with_padded_maxima(nodes: Iterable[Node], kept: Container[str] = ()) -> list[Node]:
    """The nodes with windows of maxima that read past the border themselves, in place of a border of minus infinity.

    What is never the largest is as if it were not there, but it has no finite mean square.

    Args:
        kept: tensors that somebody else reads (outputs of the model).
    """
    by_id: dict[str, Node] = {}
    made: list[Node] = []
    for node in nodes:
        pad = by_id.get(node.inputs[0]) if node.kind is Kind.POOL and node.attrs["op"] == "max" else None
        if pad is not None and (read := _read_past(pad, node)) is not None:
            attrs = MappingProxyType({**node.attrs, **read})
            node = replace(node, inputs=pad.inputs, attrs=attrs, evaluate=_one_after_another(pad, node))
        by_id[node.id] = node
        made.append(node)
    unread = set(by_id) - {i for node in made for i in node.inputs}
    return [n for n in made if n.id not in unread or n.id in kept or not _is_bottomless(n)]


def _is_bottomless(node: Node) -> bool:
    return node.kind is Kind.MOVE and node.attrs["how"] == "pad" and node.attrs["value"] == -np.inf


def _read_past(pad: Node, pool: Node) -> dict[str, tuple[int, ...]] | None:
    """How far windows read past the border that was padded, and the size within; None where they never read inside."""
    if not _is_bottomless(pad):
        return None
    dims = len(pool.attrs["kernel"])
    widths, own = pad.attrs["widths"], pool.attrs["padding"]
    before = tuple(w[0] + p for w, p in zip(widths[-dims:], own, strict=True))
    inside = all(0 <= b < k for b, k in zip(before, pool.attrs["kernel"], strict=True))
    if any(w != (0, 0) for w in widths[:-dims]) or min(min(w) for w in widths) < 0 or not inside:
        return None
    size = tuple(n - sum(w) for n, w in zip(pad.shape[-dims:], widths[-dims:], strict=True))
    return {"padding": before, "input_size": size}


def _one_after_another(first: Node, second: Node) -> Callable | None:
    one, other = first.evaluate, second.evaluate
    return None if one is None or other is None else lambda *x: other(one(*x))


def with_shared_factors(nodes: Iterable[Node]) -> list[Node]:
    """Sums ``f(z) w + g(z)`` as functions of three: the product forgets that it shares z with the sum."""
    by_id: dict[str, Node] = {}
    made: list[Node] = []
    partial: set[str] = set()
    for node in nodes:
        found = _shared(node, by_id)
        if found is not None:
            product, inputs, fn = found
            partial.add(product.id)
            attrs = MappingProxyType({"fn": fn, "note": APART})
            node = replace(node, kind=Kind.POINTWISE, inputs=inputs, attrs=attrs, evaluate=fn)
        elif _entangled(node, by_id):
            node = replace(node, attrs=MappingProxyType({**node.attrs, "note": APART}))
        by_id[node.id] = node
        made.append(node)
    return [replace(n, attrs=MappingProxyType({**n.attrs, "partial": True})) if n.id in partial else n for n in made]


def _entangled(node: Node, by_id: dict[str, Node]) -> bool:
    """Whether two products with factors of one origin are added, f(z) v + g(z) w."""
    if node.kind is not Kind.SUM or len(set(node.inputs)) != 2:
        return False
    products = [by_id[i] for i in node.inputs]
    if any(p.kind is not Kind.PRODUCT or not p.signal for p in products):
        return False
    a, b = ({_root(i, by_id) for i in p.inputs} for p in products)
    return any(by_id[i].kind not in SOURCES for i in a & b)


def _weighted(f: np.ndarray, w: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.asarray(f) * w + g


_weighted.weighted = True  # for rules that cannot take three tensors: a product, then a sum


def _shared(node: Node, by_id: dict[str, Node]) -> tuple[Node, tuple[str, str, str], Callable] | None:
    """The product f(z) w in a sum with g(z), and f, w, g."""
    if node.kind is not Kind.SUM or node.attrs.get("alpha", 1.0) != 1.0 or len(set(node.inputs)) != 2:
        return None
    for product, other in (node.inputs, node.inputs[::-1]):
        source = by_id[product]
        if source.kind is not Kind.PRODUCT or not source.signal or len(source.inputs) != 2:
            continue
        roots = [_root(i, by_id) for i in (*source.inputs, other)]
        if roots[0] == roots[1] or roots[2] not in roots[:2] or roots[2] == other:
            continue
        f, w = source.inputs if roots[0] == roots[2] else source.inputs[::-1]
        if by_id[f].kind is Kind.POINTWISE and by_id[f].shape == by_id[w].shape == by_id[other].shape == node.shape:
            return source, (f, w, other), _weighted
    return None


def _root(id_: str, by_id: dict[str, Node]) -> str:
    """The tensor that one is a pointwise function of, step by step."""
    node = by_id[id_]
    while node.kind is Kind.POINTWISE and len(node.inputs) == 1:
        node = by_id[node.inputs[0]]
    return node.id
