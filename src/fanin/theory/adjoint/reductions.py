"""Backward through reductions: a mean shares its gradient out, a maximum sends it to the largest."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint import between, copies, radial
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, translated
from fanin.theory.adjoint.pool import shared_out, to_the_largest
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules.pool import _applied, mirror
from fanin.theory.rules.pool import between as pairs_between
from fanin.theory.rules.route import SLOT
from fanin.theory.state import Value, as_law


def reduce(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """The cotangent of a mean goes to all alike; of a maximum to one."""
    x = as_law(inputs[0])
    dims = tuple(d % len(x.shape) for d in node.attrs["axes"]) or tuple(range(len(x.shape)))
    if node.attrs["op"] == "weighted":
        known = [(p, between.terms(p)) for p in g.parts]
        rest = replace(g, parts=tuple(p for p, direct in known if direct is None))
        sent = [_unweighted(node.attrs["matrices"], dims, rest, x)] if rest.parts else []
        return [[*sent, *(direct for _, direct in known if direct is not None)]]
    n = float(np.prod([x.shape[d] for d in dims]))
    profile = g.profile()
    if not node.attrs["keepdim"]:
        for d in sorted(dims):
            profile = np.expand_dims(profile, d)
    op = node.attrs["op"]
    kept = [a for i, a in enumerate(x.axes) if i not in dims or node.attrs["keepdim"]]
    ratios = g.ratios()
    along = frozenset(t for d in dims for t in axis_groups(x.axes[d]))
    ratio = {}
    for s in subsets(x.groups):
        rest = translated(s - along, tuple(kept), g.law.axes)
        ratio[s] = ratios.get(rest, 1.0) if rest else 1.0
    if op == "sum" and along == {SLOT}:
        return [[copies.split(g, x, fresh(profile, ratio))]]
    if op in ("mean", "sum"):
        return [[radial.averaged(g, x, fresh(profile / (n**2 if op == "mean" else 1.0), ratio), dims)]]
    if op in ("max", "min"):
        over = along - {FEATURE}
        shared = shared_out(g, x, over, n, n if over else 1.0, 1.0, False)
        r = max(x.correlation(over), 0.0) if over else 0.0
        return [to_the_largest(x, profile / n, shared, n, r, 1 if op == "max" else -1)]
    if op in ("var", "std", "norm"):
        value = max(as_law(g.law).second, 1e-300)
        spread = max(x.second - x.mean**2, 0.0) if op != "norm" else x.second
        slope = 4 * spread / n**2 if op == "var" else spread / (n**2 * value) if op == "std" else spread / value
        part = fresh(profile * slope, dict.fromkeys(ratio, 0.0))
        return [[radial.of_length(g, n, part) if along <= {FEATURE} else part]]
    return [[]]


def _unweighted(matrices: tuple[np.ndarray, ...], axes: tuple[int, ...], g: Cotangent, x: Law) -> Part:
    """Known weights transposed: every input gathers from the outputs that read it."""
    own, parity = g.profile() * (1 + mirror(matrices) * g.mirrored), mirror(matrices)
    back = tuple(m.T for m in matrices)
    for axis, m in zip(axes, back, strict=True):
        own = _applied(own, m**2, axis)
    second = np.maximum(own + pairs_between(g.law, axes, back, g.pair), 0)
    ratio = g.ratios()
    for axis, m in zip(axes, back, strict=True):
        groups, alone = axis_groups(x.axes[axis]), axis_groups(g.law.axes[axis])
        if groups == alone and not groups & {FEATURE} and sum(axis_groups(a) == groups for a in x.axes) == 1:
            ratio[groups] = _read_twice(g, axis, m, ratio.get(groups, 0.0))
    return replace(fresh(second, ratio), mirrored=float(parity))


def _read_twice(g: Cotangent, axis: int, m: np.ndarray, alike: float) -> float:
    """Correlation of two inputs (rows of m) that read cotangents of which some are larger, and two correlate by alike.

    With column sums t and c of m and its squares and rows' sums R: two different rows have the same element in common
    ``sum (t^2 - c) p`` times, and different ones ``(sum t)^2 - sum t^2 - sum R^2 + sum c`` times.
    """
    size = g.profile()
    others = tuple(i for i in range(size.ndim) if i != axis % size.ndim)
    size = np.broadcast_to(size.mean(others), (m.shape[1],))
    t, c, rows = m.sum(0), (m**2).sum(0), float((m.sum(1) ** 2).sum())
    apart = alike * float(size.mean())
    own = float(c @ size) + apart * (rows - c.sum())
    between_rows = float((t**2 - c) @ size) + apart * (t.sum() ** 2 - (t**2).sum() - rows + c.sum())
    return float(np.clip(between_rows / max(own * (len(m) - 1), 1e-300), -1, 1))
