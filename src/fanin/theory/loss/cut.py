"""The tensor that all of the loss's randomness passes through: behind it no weight and no other signal comes in.

A log-softmax, a view, a shift of labels or a tanh behind the last layer belongs to the loss: it is evaluated with it,
on samples, and the gradient starts at the last layer's sum, whose law is known best.
"""

from __future__ import annotations

from collections.abc import Mapping

from fanin.graph import Graph, Kind
from fanin.graph.head import Cut
from fanin.theory.law import Law
from fanin.theory.state import Known, Value

THROUGH = frozenset(
    (Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.SOFTMAX, Kind.REDUCE, Kind.MOVE, Kind.DROP, Kind.OPAQUE)
)
"""Kinds that may be evaluated with the loss: they read no weight."""


def cut(graph: Graph, values: Mapping[str, Value], output: str) -> Cut | None:
    """The earliest tensor with a law that separates the output from everything random; None where there is none."""
    order = {node.id: i for i, node in enumerate(graph.nodes)}
    waiting, tail, best = {output}, [], None
    while waiting:
        if len(waiting) == 1 and isinstance(values[next(iter(waiting))], Law):
            best = Cut(next(iter(waiting)), frozenset(tail), output)
        last = graph.by_id[max(waiting, key=order.__getitem__)]
        if last.kind not in THROUGH:
            break
        waiting.remove(last.id)
        tail.append(last.id)
        waiting |= {i for i in last.inputs if not isinstance(values[i], Known)}
    return best
