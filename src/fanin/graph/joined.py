"""Products with operands that ones stand beside, by pieces: ``A [v, 1] = [A v, A 1]`` and ``q [M, s] = [q M, q s]``.

Linear attention divides by what queries make of the keys' sums, and many write numerator and denominator as one
product: values get a column of ones, and what queries read of ``K^T [v, 1]`` is cut apart again. The law of a product
is one mixture, of which a slice cannot tell the columns: here values, there sums of positive numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from types import MappingProxyType

import numpy as np

from fanin.graph.node import Kind, Node

COLUMNS, ROWS = -1, -2


@dataclass(frozen=True)
class _Joined:
    """Pieces that lie along an axis (the last or the last but one), in order.

    Attributes:
        pieces: each a node, or None for ones.
        widths: how long each is.
    """

    axis: int
    pieces: tuple[Node | None, ...]
    widths: tuple[int, ...]

    def one(self, start: int, stop: int) -> Node | None:
        """The piece that is all of a stretch, if there is such a one."""
        ends = [0, *accumulate(self.widths)]
        return dict(zip(pairwise(ends), self.pieces, strict=True)).get((start, stop))


def with_pieces_apart(nodes: Iterable[Node]) -> list[Node]:
    """The nodes with products by padded operands as products by what was padded, and sums for the padding.

    What reads just one of the pieces reads that piece's node; the padded tensor and joined products stay, as
    concatenations, and no longer carry the whole of their gradient (attribute ``partial``).
    """
    joined: dict[str, _Joined] = {}
    by_id: dict[str, Node] = {}
    made: list[Node] = []
    partial: set[str] = set()
    for node in nodes:
        split, new = _split(node, joined, by_id), []
        if isinstance(split, _Joined):
            joined[node.id] = split
        if isinstance(split, _Joined) and node.kind is Kind.MIX:
            new = _computed(split)
            partial.update(i for i in node.inputs if i in joined)
            node = _laid(node, split)
        elif isinstance(split, Node):
            partial.update(node.inputs)
            node = split
        for each in (*new, node):
            by_id[each.id] = each
            made.append(each)
    partial = _upstream(partial, joined, by_id)
    return [replace(n, attrs=MappingProxyType({**n.attrs, "partial": True})) if n.id in partial else n for n in made]


def _split(node: Node, joined: dict[str, _Joined], by_id: dict[str, Node]) -> _Joined | Node | None:
    """The pieces of a tensor, or the node that reads one piece alone in place of a slice; None for all others."""
    if node.kind is Kind.MIX and not node.attrs:
        return _product(node, [by_id[i] for i in node.inputs], [joined.get(i) for i in node.inputs])
    if node.kind is not Kind.MOVE or not node.signal:
        return None
    source = joined.get(node.inputs[0])
    if node.attrs["how"] == "pad":
        return _padded(node, by_id[node.inputs[0]])
    if node.attrs["how"] == "same":
        return source
    if source is None or None in source.pieces or node.attrs["how"] not in ("slice", "select"):
        return None
    return _piece(node, source, len(by_id[node.inputs[0]].shape))


def _padded(node: Node, source: Node) -> _Joined | None:
    """A tensor with one row or column of ones in front or behind."""
    widths = node.attrs["widths"]
    axes = [i - len(widths) for i, w in enumerate(widths) if w != (0, 0)]
    if node.attrs["value"] != 1 or len(axes) != 1 or axes[0] not in (COLUMNS, ROWS):
        return None
    inside = source.shape[axes[0]]
    if widths[axes[0]] == (1, 0):
        return _Joined(axes[0], (None, source), (1, inside))
    return _Joined(axes[0], (source, None), (inside, 1)) if widths[axes[0]] == (0, 1) else None


def _product(node: Node, operands: list[Node], joined: list[_Joined | None]) -> _Joined | None:
    """``A [v, 1]`` by columns of the right operand, ``[v; 1] A`` by rows of the left one."""
    for which, axis in ((1, COLUMNS), (0, ROWS)):
        split, other = joined[which], operands[1 - which]
        rank = len(node.shape)
        if split is None or split.axis != axis or not rank == len(other.shape) == len(operands[which].shape):
            continue
        if not other.signal or other.shape[:-2] != node.shape[:-2]:
            continue
        pieces = tuple(_times(node, split, k, other, which) for k in range(len(split.pieces)))
        return _Joined(axis, pieces, split.widths)
    return None


def _times(node: Node, split: _Joined, k: int, other: Node, which: int) -> Node:
    """The product of one piece and the other operand: of ones, a sum over what the product sums over."""
    piece, id_ = split.pieces[k], f"{node.id}.{k}"
    shape = list(node.shape)
    shape[split.axis] = split.widths[k]
    new = replace(node, id=id_, name=id_, shape=tuple(shape), signal=False)
    if piece is not None:
        return replace(new, inputs=(other.id, piece.id) if which else (piece.id, other.id))
    axis = len(shape) + split.axis
    attrs = MappingProxyType({"op": "sum", "axes": (axis,), "keepdim": True, "correction": 1})
    total = lambda x: np.sum(x, axis, keepdims=True)  # noqa: E731
    return replace(new, kind=Kind.REDUCE, op="sum", inputs=(other.id,), attrs=attrs, evaluate=total)


def _computed(split: _Joined) -> list[Node]:
    return [p for p in split.pieces if p is not None]


def _laid(node: Node, split: _Joined) -> Node:
    """The whole product, its pieces side by side."""
    axis = len(node.shape) + split.axis
    return replace(
        node,
        kind=Kind.MOVE,
        inputs=tuple(p.id for p in _computed(split)),
        attrs=MappingProxyType({"how": "cat", "axis": axis}),
        evaluate=lambda *pieces: np.concatenate(pieces, axis),
    )


def _piece(node: Node, source: _Joined, rank: int) -> Node | None:
    """What is read of one piece alone."""
    a = node.attrs
    if a["axis"] % rank != rank + source.axis:
        return None
    if a["how"] == "select":
        piece, attrs = source.one(a["index"], a["index"] + 1), {**a, "index": 0}
        run = lambda x: np.take(x, 0, a["axis"])  # noqa: E731
    else:
        piece, attrs = source.one(a["start"], a["stop"]) if a["step"] == 1 else None, {"how": "same"}
        run = np.asarray
    return None if piece is None else replace(node, inputs=(piece.id,), attrs=MappingProxyType(attrs), evaluate=run)


def _upstream(partial: set[str], joined: dict[str, _Joined], by_id: dict[str, Node]) -> set[str]:
    """With the copies that stand between a padded tensor and what no longer reads it."""
    found = set(partial)
    for id_ in partial:
        node = by_id[id_]
        while node.kind is Kind.MOVE and node.attrs["how"] == "same" and node.inputs[0] in joined:
            node = by_id[node.inputs[0]]
            found.add(node.id)
    return found
