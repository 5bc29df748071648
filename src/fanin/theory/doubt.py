"""What cannot be believed of a rule's result: values that are not numbers, moments that rare values decide."""

from __future__ import annotations

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory import grid
from fanin.theory.law import Law
from fanin.theory.state import Unmodelled, Value

ONE_NODE, TAIL = 0.2, 0.05  # shares of a mean square: of one node of the grid, and of its ends beyond TAIL_FROM sigma
TAIL_FROM = 7.5
RARE = "its mean square is decided by rare values, or infinite: the figure is a lower bound"
NOT_A_NUMBER = "not a number for a part of its inputs: a logarithm or root below zero, 0/0, or infinities that cancel"

_end = int((grid.Z_UNIT < -TAIL_FROM).sum())  # nodes at either end of the grid


def doubted(node: Node, value: Value, inputs: tuple[Value, ...]) -> Value:
    """What a rule made of the inputs: as it is, marked, or unmodelled.

    Infinities stay: masks are made of them, and a sum that overflows is infinite in the model, too.
    """
    if not isinstance(value, Law):
        return value
    if node.kind is Kind.REDUCE and 0 in inputs[0].shape and 0 not in node.shape:
        return Unmodelled(node.shape, f"{node.op} over no elements")
    if np.isnan(value.moments.low):  # which a number that is none passes on
        return Unmodelled(node.shape, f"{node.op}: {NOT_A_NUMBER}")
    if "note" in node.attrs:
        value = value.marked(node.attrs["note"])
    return value.marked(RARE) if node.kind is Kind.POINTWISE and _rare(value) else value


def _rare(law: Law) -> bool:
    """Whether, at some level, one node of the grid or its ends hold what the mean square is made of."""
    with np.errstate(all="ignore"):
        low, high = law.moments.ends
        if (np.maximum(-low, high) ** 2 * grid.WEIGHT.max() <= law.seconds * ONE_NODE).all():
            return False  # none is large enough
        parts = law.values**2
        parts *= grid.WEIGHT
        ends = parts[:, :_end].sum(1) + parts[:, -_end:].sum(1)
        return bool(np.any(parts.max(1) / law.seconds > ONE_NODE) or np.any(ends / law.seconds > TAIL))
