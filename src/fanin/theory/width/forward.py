"""Fluctuations on the way forward: one rule a kind of node.

A rule gets the node, the law it made, and laws and spreads of its inputs; it returns the spread of the result. Kinds
that are not in the table take the general rule: a fresh draw of the result's own features, and the drift of its inputs.
"""

from __future__ import annotations

from fanin.graph import Kind
from fanin.theory.width.contraction import conv, dense, embed, mix
from fanin.theory.width.elementwise import drop
from fanin.theory.width.norm import norm
from fanin.theory.width.route import move, pooled, reduce
from fanin.theory.width.rows import attention, softmax
from fanin.theory.width.rule import Rule
from fanin.theory.width.sums import pointwise

RULES: dict[Kind, Rule] = {
    Kind.DENSE: dense,
    Kind.CONV: conv,
    Kind.EMBED: embed,
    Kind.MIX: mix,
    Kind.ATTENTION: attention,
    Kind.SOFTMAX: softmax,
    Kind.POINTWISE: pointwise,
    Kind.SUM: pointwise,
    Kind.PRODUCT: pointwise,
    Kind.NORM: norm,
    Kind.MOVE: move,
    Kind.REDUCE: reduce,
    Kind.POOL: pooled,
    Kind.DROP: drop,
}
"""The table: kinds that are not in it follow ``general``."""
