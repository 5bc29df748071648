"""Quotients of two products with the same queries as averages: ``(q M) / (q s) = sum_c (q_c s_c / q s) (M_c / s_c)``.

Linear attention, ``M = K^T v`` and ``s = K^T 1``. Numerator and denominator both follow q, whose length cancels, and
where queries and keys are positive the shares of a row sum to one: what is read is a mean of means of values. Taken as
independent, numerators are divided by denominators near zero that belong to other queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from fanin.graph.node import Kind, Node


@dataclass(frozen=True)
class _Quotient:
    """``(q M) / f(q s)``, or ``(M q) / f(s q)`` with columns as queries.

    Attributes:
        whole: the product in the denominator.
        queries, sums, stored: q, s, M.
        left: whether queries are the left operand.
    """

    whole: Node
    queries: Node
    sums: Node
    stored: Node
    left: bool


def with_averages(nodes: Iterable[Node]) -> list[Node]:
    """The nodes with linear attention that is divided by its sum as averages, where queries and keys are positive.

    Denominators stay what they are, as sums of the products that shares are made of; numerators are no longer read
    (attribute ``partial``).
    """
    nodes = list(nodes)
    by_id = {node.id: node for node in nodes}
    quotients = {node.id: found for node in nodes if (found := _found(node, by_id)) is not None}
    wholes = {q.whole.id: q for q in quotients.values()}
    made: list[Node] = []
    partial: set[str] = set()
    for node in nodes:
        if node.id in wholes:
            made.extend(_summed(node, wholes[node.id]))
        elif node.id in quotients:
            partial.update(_copies(node.inputs[0], by_id))
            made.extend(_averaged(node, quotients[node.id]))
        else:
            made.append(node)
    return [replace(n, attrs=MappingProxyType({**n.attrs, "partial": True})) if n.id in partial else n for n in made]


def _found(node: Node, by_id: dict[str, Node]) -> _Quotient | None:
    if node.kind is not Kind.POINTWISE or len(node.inputs) != 2 or not node.signal or not _divides(node):
        return None
    above, below = (by_id[_copies(i, by_id)[-1]] for i in node.inputs)
    while below.kind is Kind.POINTWISE and len(below.inputs) == 1:  # plus eps
        below = by_id[_copies(below.inputs[0], by_id)[-1]]
    if not above.kind is below.kind is Kind.MIX or above.attrs or below.attrs or above.shape != node.shape:
        return None
    for left in (True, False):
        (q, stored), (same, sums) = (n.inputs if left else n.inputs[::-1] for n in (above, below))
        if q == same and _of_the_same_keys(by_id[stored], by_id[sums], left, by_id) and _positive(by_id[q], by_id):
            return _Quotient(below, by_id[q], by_id[sums], by_id[stored], left)
    return None


def _divides(node: Node) -> bool:
    try:
        with np.errstate(all="ignore"):
            return abs(float(node.attrs["fn"](np.array(3.0), np.array(-2.0))) + 1.5) < 1e-6
    except Exception:  # a function that takes something else
        return False


def _copies(id_: str, by_id: dict[str, Node]) -> list[str]:
    """A tensor and what it is a copy of."""
    found = [id_]
    while (node := by_id[found[-1]]).kind is Kind.MOVE and node.attrs["how"] == "same":
        found.append(node.inputs[0])
    return found


def _of_the_same_keys(stored: Node, sums: Node, left: bool, by_id: dict[str, Node]) -> bool:
    """Whether one is ``K^T v`` and the other ``K^T 1`` of the same positive keys."""
    if stored.kind is not Kind.MIX or stored.attrs or sums.kind is not Kind.REDUCE or sums.attrs["op"] != "sum":
        return False
    keys, rank = sums.inputs[0], len(sums.shape)
    along = rank - 1 if left else rank - 2
    mine = stored.inputs[0 if left else 1] == keys and len(stored.shape) == rank
    summed = tuple(a % rank for a in sums.attrs["axes"]) == (along,) and sums.attrs["keepdim"]
    return mine and summed and _positive(by_id[keys], by_id)


def _positive(node: Node, by_id: dict[str, Node]) -> bool:
    """Whether a tensor is laid out of values of a function that is nowhere negative."""
    while node.kind is Kind.MOVE and node.attrs["how"] in ("same", "permute", "reshape", "slice"):
        node = by_id[node.inputs[0]]
    if node.kind is Kind.SOFTMAX:
        return not node.attrs.get("log")
    if node.kind is not Kind.POINTWISE or len(node.inputs) != 1:
        return False
    with np.errstate(all="ignore"):
        return bool(np.all(np.asarray(node.attrs["fn"](np.linspace(-8, 8, 65))) >= 0))


def _hidden(like: Node, end: str, kind: Kind, inputs: tuple[Node, ...], shape, attrs, run) -> Node:
    id_, ids = f"{like.id}.{end}", tuple(n.id for n in inputs)
    a = MappingProxyType(attrs)
    return replace(
        like, id=id_, name=id_, kind=kind, op=end, inputs=ids, shape=tuple(shape), attrs=a, signal=False, evaluate=run
    )


def _terms(whole: Node, q: _Quotient) -> tuple[Node, Node]:
    """``q_c s_c``, and the sums laid beside queries."""
    rank = len(q.sums.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    shape = [q.sums.shape[i] for i in perm]
    turned = _hidden(whole, "turned", Kind.MOVE, (q.sums,), shape, {"how": "permute", "perm": perm}, None)
    turned = replace(turned, evaluate=lambda x: np.transpose(x, perm))
    return turned, _hidden(whole, "terms", Kind.PRODUCT, (q.queries, turned), q.queries.shape, {}, np.multiply)


def _summed(node: Node, q: _Quotient) -> list[Node]:
    """``q s`` as the sum of its terms."""
    turned, terms = _terms(node, q)
    axis = len(node.shape) - (1 if q.left else 2)
    attrs = MappingProxyType({**node.attrs, "op": "sum", "axes": (axis,), "keepdim": True, "correction": 1})
    run = lambda x: np.sum(x, axis, keepdims=True)  # noqa: E731
    return [turned, terms, replace(node, kind=Kind.REDUCE, inputs=(terms.id,), attrs=attrs, evaluate=run)]


def _averaged(node: Node, q: _Quotient) -> list[Node]:
    """The quotient as shares times averages."""
    terms = _terms(q.whole, q)[1]
    steady = {"fn": _itself, "steady": True}
    below = _hidden(node, "below", Kind.POINTWISE, (q.whole,), q.whole.shape, steady, _itself)
    below = replace(below, inputs=(node.inputs[1],))  # the whole as it is divided by, plus eps
    shares = _hidden(node, "shares", Kind.POINTWISE, (terms, below), terms.shape, node.attrs, node.evaluate)
    sums = _hidden(node, "sums", Kind.POINTWISE, (q.sums,), q.sums.shape, steady, _itself)
    inverse = _hidden(node, "inverse", Kind.POINTWISE, (sums,), q.sums.shape, {"fn": _inverse}, _inverse)
    means = _hidden(node, "means", Kind.PRODUCT, (q.stored, inverse), q.stored.shape, {}, np.multiply)
    inputs = (shares.id, means.id) if q.left else (means.id, shares.id)
    whole = replace(node, kind=Kind.MIX, inputs=inputs, attrs=MappingProxyType({}), evaluate=np.matmul)
    return [below, shares, sums, inverse, means, whole]


def _inverse(x: np.ndarray) -> np.ndarray:
    return 1 / np.asarray(x)


def _itself(x: np.ndarray) -> np.ndarray:
    return np.asarray(x)
