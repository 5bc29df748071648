"""One rule a kind of node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory.contraction import dense
from fanin.theory.observed import observed_law
from fanin.theory.padding import looked_up
from fanin.theory.rules import (
    attention,
    concatenation,
    convolution,
    move,
    noise,
    norm,
    pointwise,
    pool,
    recurrent,
    route,
    write,
)
from fanin.theory.state import Known, Value

Rule = Callable[..., Value]


def _optional(values: tuple, position: int | None):
    return values[position] if position is not None else None


def embedded(node: Node, *inputs: Value) -> Value:
    """Rows of a table; of a known one (a codebook), where weights choose, any of its numbers."""
    ids, table = inputs[node.attrs["ids"]], inputs[node.attrs["weight"]]
    if not isinstance(table, Known):
        return looked_up(ids, table, node.attrs.get("padding", -1))
    law = looked_up(ids, observed_law(table.shape, np.asarray(table.array, float).ravel()), -1)
    return law.marked("rows that were chosen count as independent of what chose them") if law.second else law


MOVES: dict[str, Rule] = {
    "index": route.index,
    "take": route.take,
    "put": write.put,
    "cat": concatenation.cat,
    "stack": concatenation.cat,
}
"""Moves with a rule of their own; the others only say where places go."""

RULES: dict[Kind, Rule] = {
    Kind.DENSE: lambda node, *v: dense(
        v[node.attrs["x"]], v[node.attrs["weight"]], _optional(v, node.attrs["bias"]), node.attrs["out_first"]
    ),
    Kind.CONV: convolution.conv,
    Kind.EMBED: embedded,
    Kind.POINTWISE: pointwise.pointwise,
    Kind.SUM: pointwise.total,
    Kind.PRODUCT: pointwise.product,
    Kind.NORM: norm.norm,
    Kind.SOFTMAX: attention.softmax,
    Kind.MIX: attention.mix,
    Kind.ATTENTION: attention.attention,
    Kind.POOL: pool.pool,
    Kind.REDUCE: pool.reduce,
    Kind.MOVE: lambda node, *v: MOVES.get(node.attrs["how"], move.move)(node, *v),
    Kind.EXPERTS: route.experts,
    Kind.ROUTE: route.top,
    Kind.DROP: pointwise.drop,
    Kind.CONSTANT: noise.noise,
    Kind.RECUR: recurrent.recur,
}
"""The table: what is not in it, is unmodelled."""
