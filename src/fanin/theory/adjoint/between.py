"""Backward through differences of sums over prefixes: what is in both gets nothing.

``A_i - A_j`` is the sum of what lies between: a summand hears of it where its weight ``w_k = m_ik + alpha m_jk`` is
not zero, in the mean square of ``sum_p w_k(p)^2 E g_p^2``. Operand by operand, ``A_i`` gets ``sum_j g_ij`` and ``A_j``
minus ``sum_i g_ij``, which are not independent: at ``i = j``, where decays ``exp(A_i - A_j)`` are largest, they cancel,
and so they do in the sums over what is left. Each operand is told its own, with what both come to; where both have met
(the tensor of the sums) that is what goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, identity
from fanin.theory.law import Groups, Law, subsets
from fanin.theory.prefix import Prefix, of_one
from fanin.theory.records import replace
from fanin.theory.state import Value


@dataclass(frozen=True, eq=False)
class Crossed:
    """What both operands of a difference come to.

    Attributes:
        name: of the difference.
        sums: mean square of what each sum over a prefix gets from both, (heads times rows).
        terms: of what each summand gets, with the axes of what was summed.
        ratio: what two of these have in common, as the same places cross both: of every head as much as it counts in
            the gradient of its rate.
        met: whether both operands are in the part.
    """

    name: int
    sums: np.ndarray
    terms: np.ndarray
    ratio: Mapping[Groups, float]
    met: bool = False


def told(node: Node, g: Cotangent, inputs: Sequence[Value], sent: list[list[Part]]) -> list[list[Part]]:
    """The parts that a sum of two sends back, with what both come to where they are sums over one sequence."""
    if node.kind is not Kind.SUM or len(inputs) != 2 or any(len(one) != 1 for one in sent):
        return sent
    x, y = inputs
    if not (isinstance(x, Law) and isinstance(y, Law)) or (both := of_one(x, y)) is None:
        return sent
    if any(p.factor != 1.0 for p in both):
        return sent
    found = _crossed(*both, float(node.attrs.get("alpha", 1.0)), g)
    return [[replace(part, crossed=found)] for (part,) in sent]


def _crossed(a: Prefix, b: Prefix, alpha: float, g: Cotangent) -> Crossed:
    shape, n = g.law.shape, len(a.matrix)
    lay = lambda row: np.broadcast_to(row.reshape((1,) * (len(shape) - row.ndim) + row.shape), size)  # noqa: E731
    own = g.profile()
    size = np.broadcast_shapes(own.shape, *(_laid(p.row, len(shape)) for p in (a, b)))
    i, j = lay(a.row).ravel(), lay(b.row).ravel() % n
    copies = np.prod(shape) / np.prod(size)  # places beside those that are told apart
    apart = np.prod(a.source.shape) / (a.heads * a.matrix.shape[1])
    weight = np.broadcast_to(own, size).ravel() * copies / apart
    head, i = np.divmod(i, n)
    pairs = np.bincount((head * n + i) * n + j, weight, a.heads * n * n).reshape(a.heads, n, n)
    m = a.matrix
    crossed = m.T @ pairs @ m
    rows, columns = (np.einsum("ik,hi,il->hkl", m, v, m, optimize=True) for v in (pairs.sum(2), pairs.sum(1)))
    both = rows + alpha**2 * columns + alpha * (crossed + np.swapaxes(crossed, 1, 2))
    terms = np.diagonal(both, axis1=1, axis2=2)
    counts = a.sizes  # rates multiply what their heads' summands get, and are what makes these large
    every, own = counts @ both.sum((1, 2)), counts @ terms.sum(1)
    alike = (every - own) / max((both.shape[1] - 1) * own, 1e-300)
    length = (m**2).sum(1)
    left = length[:, None] + alpha**2 * length + 2 * alpha * m @ m.T  # of the weights of every two rows
    kept = np.where(left <= 1e-12 * (length[:, None] + length), 0.0, pairs)
    sums = kept.sum(2) + alpha**2 * kept.sum(1)
    ratio = dict.fromkeys(subsets(a.source.groups), 0.0) | {a.along: float(np.clip(alike, -1, 1))}
    return Crossed(identity(), sums.ravel(), a.by_term(np.maximum(terms, 0.0)), ratio)


def _laid(row: np.ndarray, ndim: int) -> tuple[int, ...]:
    return (1,) * (ndim - row.ndim) + row.shape


def together(law: Law, parts: list[Part]) -> list[Part]:
    """Parts with both operands of a difference in the place of one for each."""
    names = [p.crossed.name for p in parts if p.crossed is not None and not p.crossed.met]
    if len(names) == len(set(names)) or law.prefix is None:
        return parts
    found = []
    for part in parts:
        crossed = part.crossed
        if crossed is None or crossed.met or names.count(crossed.name) != 2:
            found.append(part)
        elif all(p.crossed is None or p.crossed.name != crossed.name for p in found):
            whole = fresh(crossed.sums[law.prefix.row % len(crossed.sums)], dict.fromkeys(part.ratio, 0.0))
            found.append(replace(whole, crossed=replace(crossed, met=True)))
    return found


def terms(part: Part) -> Part | None:
    """What summands get of a part with both operands; None of others."""
    crossed = part.crossed
    return fresh(crossed.terms, crossed.ratio) if crossed is not None and crossed.met else None


__all__ = ["Crossed", "terms", "together", "told"]
