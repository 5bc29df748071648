"""Backward through reductions: a mean shares its gradient out, a maximum sends it to the largest."""

from __future__ import annotations

import math

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint import between, copies, radial
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, translated
from fanin.theory.adjoint.pool import shared_out, to_the_largest
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Groups, Law, subsets
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
    if len(axes) > 1 and _whole_map(x, axes):
        return replace(fresh(second, _of_map(g, x, axes, back, second)), mirrored=float(parity))
    ratio = g.ratios()
    for axis, m in zip(axes, back, strict=True):
        groups, alone = axis_groups(x.axes[axis]), axis_groups(g.law.axes[axis])
        if groups == alone and not groups & {FEATURE} and sum(axis_groups(a) == groups for a in x.axes) == 1:
            ratio[groups] = _read_twice(g, axis, m, ratio.get(groups, 0.0), x)
    return replace(fresh(second, ratio), mirrored=float(parity))


def _whole_map(x: Law, axes: tuple[int, ...]) -> bool:
    """Whether the weights run along all axes that are told by the names of these."""
    along = frozenset(t for axis in axes for t in axis_groups(x.axes[axis]))
    others = frozenset(t for i, axis in enumerate(x.axes) if i not in axes for t in axis_groups(axis))
    return FEATURE not in along and not along & others


def _of_map(
    g: Cotangent, x: Law, axes: tuple[int, ...], back: tuple[np.ndarray, ...], second: np.ndarray
) -> dict[Groups, float]:
    """Correlations between inputs: two that lie beside each other hear of outputs that read both.

    As forward, of the weights transposed: mean products over pairs of inputs of what both read and of all they read.
    """
    along = frozenset(t for axis in axes for t in axis_groups(x.axes[axis]))
    many = math.prod(len(m) for m in back)
    pairs = max(many * (many - 1), 1)
    trace, gram, reads, lengths = (
        math.prod(float(f(m)) for m in back)
        for f in (
            lambda m: (m**2).sum(),
            lambda m: (m.sum(0) ** 2).sum(),
            lambda m: m.sum() ** 2,
            lambda m: (m.sum(1) ** 2).sum(),
        )
    )
    common, crossed = (gram - trace) / pairs, (reads - lengths) / pairs
    own, found = max(float(np.mean(second)), 1e-300), {}
    for s in subsets(x.groups):
        same, other = (g.pair(d) if d else g.second for d in (s - along, s | along))
        if s & along:
            both = common * same + (crossed - common) * other
        else:
            both = (trace * same + (lengths - trace) * other) / many
        found[s] = float(np.clip(both / own, -1, 1))
    return found


def _read_twice(g: Cotangent, axis: int, m: np.ndarray, alike: float, x: Law) -> float:
    """Correlation of two inputs (rows of m) that read cotangents of which some are larger, and two correlate by alike.

    Inputs count by their rms W, as in the gradient of what multiplies them (rates of heads) or hides them (masks). With
    ``u = W m`` and ``v = W^2 m^2`` two different ones have the same element in common ``sum (u^2 - v) p`` times, and
    different ones ``(sum u)^2 - sum u^2`` times less what each has by itself; there are ``(sum W)^2 - sum W^2``.
    """
    size, weight = (np.moveaxis(v, axis % v.ndim, -1) for v in (g.profile(), np.sqrt(x.profile(x.seconds))))
    weight = np.broadcast_to(weight, (*weight.shape[:-1], len(m)))
    u, v = weight @ m, weight**2 @ m**2
    apart = alike * float(size.mean())
    others = weight**2 @ m.sum(1) ** 2 - v.sum(-1)
    own = (size * v).sum(-1) + apart * others
    both = (size * (u**2 - v)).sum(-1) + apart * (u.sum(-1) ** 2 - (u**2).sum(-1) - others)
    alone = (weight**2).sum(-1)
    pairs, singles = (float(np.sum(np.broadcast_to(n, own.shape))) for n in (weight.sum(-1) ** 2 - alone, alone))
    return float(np.clip(both.sum() * singles / max(own.sum() * pairs, 1e-300), -1, 1)) if pairs > 0 else 0.0
