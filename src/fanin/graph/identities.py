"""Identities that keep a dependence which a law a tensor would lose: ``x - max(x, y)`` is ``min(x - y, 0)``.

Written out, the difference is of two tensors of which one is a function of the other and of a third; its law does not
follow from theirs, and what is an exponential of it would be off by orders of magnitude. Stabilized sums of
exponentials (log-sum-exp, running softmaxes, weighted averages over time) are made of such differences.
"""

from __future__ import annotations

from collections.abc import Iterable
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
