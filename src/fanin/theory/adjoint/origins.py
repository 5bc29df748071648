"""Where bases of cotangents come from: the node that sent each, and the part of a cotangent that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fanin.graph import Kind, Node
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE

ELEMENTWISE = (Kind.MOVE, Kind.SUM, Kind.PRODUCT)
JOINED = ("cat", "stack")


@dataclass(frozen=True)
class Origin:
    """Where a base was made: the node that sent it, to which input, and the cotangent that it was made of.

    Attributes:
        of: the one part of the cotangent that it was made of; None of all of them.
        rest: whether it is what that part leaves beside its mean, which is independent of it.
    """

    node: Node
    place: int
    g: Cotangent
    of: Part | None = None
    rest: bool = False


def one_by_one(parts: Sequence[Part], g: Cotangent) -> list[tuple[Part | None, bool]]:
    """Which part of a cotangent each part was made of, and whether it is what is left beside that one's mean."""
    each = {p.base: p for p in g.parts}
    if len(parts) == len(g.parts):
        return [(p, False) for p in g.parts]
    if len(parts) == 2 * len(g.parts):
        return [(p, rest) for p in g.parts for rest in (False, True)]
    if len(g.parts) == 1:
        return [(g.parts[0], k > 0) for k in range(len(parts))]
    found: list[tuple[Part | None, bool]] = []
    left = iter(g.parts)
    for part in parts:
        if part.base in each:
            found.append((each[part.base], False))
        elif found and found[-1][0] is not None and not found[-1][1] and parts[len(found) - 1].base in each:
            found.append((found[-1][0], True))
        else:
            at = found[-1][0] if found else None
            found.append((next((p for p in left if at is None or p is not at), None), False))
    return found


def of_one_node(a: Origin | None, b: Origin | None) -> Node | None:
    """The sum or product that sent one to one operand, the other to the other."""
    if a is None or b is None or a.node.id != b.node.id or {a.place, b.place} != {0, 1}:
        return None
    return a.node if a.node.kind in (Kind.SUM, Kind.PRODUCT) else None


def of_pieces(a: Origin | None, b: Origin | None) -> float | None:
    """Of two pieces of one concatenation (steps of a loop) what its places have in common; None of anything else."""
    if a is None or b is None or a.node.id != b.node.id or a.place == b.place or a.g.second <= 0:
        return None
    if a.node.kind is not Kind.MOVE or a.node.attrs["how"] not in JOINED:
        return None
    along = axis_groups(a.g.law.axes[a.node.attrs["axis"]])
    return a.g.pair(along) / a.g.second if along and FEATURE not in along else 0.0


__all__ = ["ELEMENTWISE", "JOINED", "Origin", "of_pieces", "one_by_one"]
