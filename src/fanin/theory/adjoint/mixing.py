"""Backward through products of two signals and softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fanin.graph import Node
from fanin.theory import across, grid, overlap
from fanin.theory.adjoint import gram, radial, spelled
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, translated
from fanin.theory.adjoint.linear import dense
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules import picked
from fanin.theory.rules.attention import _is_weight, _lift
from fanin.theory.state import Known, Value, as_law


def mix(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """g_x = g y^T and g_y = x^T g: the same contraction as forward, with the cotangent in place of an operand."""
    a = node.attrs
    ix, iy = (a["x"], a["y"]) if a.get("bias") is not None else (0, 1)
    parts: list[list[Part]] = [[] for _ in inputs]
    x, y = as_law(inputs[ix]), as_law(inputs[iy])
    alpha2 = float(a.get("alpha", 1.0)) ** 2 if a.get("bias") is not None else 1.0
    if a.get("bias") is not None and isinstance(inputs[a["bias"]], Law):
        bias = inputs[a["bias"]]
        if bias.shape == node.shape:
            parts[a["bias"]] = [fresh(g.profile() * a["beta"] ** 2, g.ratios())]
    if _is_weight(y) and len(y.shape) == 2 and a.get("bias") is None:
        plain = replace(node, attrs={"x": ix, "weight": iy, "bias": None, "out_first": False})
        return dense(plain, g, inputs)
    if len(x.shape) < 2 or len(y.shape) < 2:
        return parts
    if across.transposed(y) and a.get("bias") is None and isinstance(inputs[ix], Law):
        return _transposed(node, g, inputs)
    known = [isinstance(inputs[i], Known) for i in (ix, iy)]
    both = None if any(known) else spelled.logits(g, x, y, alpha2)
    if both is not None:
        parts[ix], parts[iy] = [both[0]], [both[1]]
        return parts
    of_values = None if any(known) or alpha2 != 1 else spelled.values(g, x, y)
    if not known[0]:
        part = replace(_against(g, y, X_SIDE, x, alpha2), heard=_agreeing(x, y))
        part = radial.weighed(g, x, part)
        parts[ix] = [part if of_values is None else spelled.carried(part, of_values[1], 1.0)]
    if not known[1]:
        parts[iy] = [_against(g, x, Y_SIDE, y, alpha2) if of_values is None else of_values[0]]
    return parts if any(known) else gram.met(g, x, y, parts, ix)


def _transposed(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """The gradients of both factors of ``v a^T`` from those of ``a v^T``."""
    turned = lambda p: replace(p, second=np.swapaxes(p.second, -1, -2))  # noqa: E731
    x, y = (across.turned(as_law(v)) for v in inputs)
    behind = replace(g, law=across.turned(g.law), parts=tuple(turned(p) for p in g.parts))
    weights, values = mix(across.product(node), behind, (y, x))
    return [[turned(p) for p in values], [turned(p) for p in weights]]


def _agreeing(weights: Law, values: Law) -> float:
    """How far two tokens' keys agree where their values do, of weights whose logits and values are read off one tensor.

    The product of the scatter of both their correlations, which are alike, or one over the width.
    """
    source = overlap.shared(weights, values)
    if source is None or not source.variance or not source.terms:
        return 0.0
    return overlap.agreement(values, axis_groups(values.axes[-2])) ** 2 or 1 / source.width


@dataclass(frozen=True)
class Side:
    """Axes of x (.., i, c) y (.., c, j) = out (.., i, j), seen from one operand.

    Attributes:
        free, inner: of the operand: the axis that the result keeps, and the one that forward sums over.
        kept, summed: of the result: the operand's free axis, and the other operand's, over which the gradient sums.
        other: of the other operand: the axis that forward sums over; its free one is the last but this.
    """

    free: int
    inner: int
    kept: int
    summed: int
    other: int


X_SIDE, Y_SIDE = Side(-2, -1, -2, -1, -2), Side(-1, -2, -1, -2, -1)


def _against(g: Cotangent, other: Law, side: Side, to: Law, factor: float) -> Part:
    """Contract g with the other operand over its free axis: n E g^2 E y^2 + n (n - 1) pairs."""
    n = g.law.shape[side.summed]
    gx, gy = axis_groups(g.law.axes[side.summed]), axis_groups(other.axes[-3 - side.other])
    cross_g = g.pair(gx) if FEATURE not in gx else 0.0
    cross = cross_g * other.pair(gy) if n > 1 else 0.0
    diagonal = _pairwise(g.profile(), other.profile(other.seconds), side.summed, to, g.law.shape, n)
    by_chance = n * g.heard * g.second * max(other.second - other.pair(gy), 0.0) if g.balanced == gx else 0.0
    copies, lead = _copies(g.law, to)
    between = 0.0
    if copies > 1 and FEATURE not in lead:
        there = translated(lead, g.law.axes, other.axes)
        between = n * g.pair(lead) * other.pair(there)
        between += n * (n - 1) * g.pair(lead | gx) * other.pair(there | gy) if FEATURE not in gx else 0.0
    beside = copies * (n * (n - 1) * cross + by_chance) + copies * (copies - 1) * between
    second = factor * np.maximum(diagonal + beside, 0)
    whole, base = float(np.mean(second)), float(np.mean(diagonal)) * factor
    free, inner = axis_groups(to.axes[side.free]), axis_groups(to.axes[side.inner])
    kept, within = axis_groups(g.law.axes[side.kept]), axis_groups(other.axes[side.other])

    def ratio(s: Groups) -> float:
        lead = s - free - inner
        in_g, in_o = (translated(lead, to.axes, axes) for axes in (g.law.axes, other.axes))
        in_g, in_o = in_g | (kept if s & free else frozenset()), in_o | (within if s & inner else frozenset())
        if FEATURE in in_g:
            return 0.0
        same = _ratio(g.pair(in_g), g.second) * _ratio(other.pair(in_o), other.second) * base
        apart = copies * n * (n - 1) * factor * g.pair(in_g | gx) * other.pair(in_o | gy) if FEATURE not in gx else 0.0
        return (same + apart) / whole if whole > 0 else 0.0

    balanced = free if g.balanced and g.balanced == kept else frozenset()  # the same numbers stand beside all of a row
    part = fresh(second, {s: ratio(s) for s in subsets(to.groups)}, balanced=balanced)
    return replace(part, met=g.heard) if balanced else part


def _pairwise(pg: np.ndarray, po: np.ndarray, axis: int, to: Law, shape, n: int) -> np.ndarray:
    """Sum over the contracted axis of the product of two profiles, laid out as ``to`` is."""
    ndim = len(to.shape)
    pg, po = _lift(pg, len(shape)), _lift(po, len(shape))
    if pg.shape[axis] == 1 or po.shape[axis] == 1:
        a, b = pg.mean(axis, keepdims=True), po.mean(axis, keepdims=True)
        # g (.., i, j), y (.., c, j) -> (.., i, c) along -1; g (.., i, j), x (.., i, c) -> (.., c, j) along -2
        out = n * a * np.swapaxes(b, -1, -2)
    elif axis == -1:
        out = pg @ np.swapaxes(po, -1, -2)
    else:
        out = np.swapaxes(po, -1, -2) @ pg
    first = len(shape) - ndim
    for i in range(len(shape) - 2):  # an operand that all samples share: one profile may stand for all of them
        if i < first or to.shape[i - first] == 1:
            out = out.sum(i, keepdims=True) * (shape[i] / out.shape[i])
    return out.reshape(out.shape[first:])


def _copies(out: Law, to: Law) -> tuple[float, Groups]:
    """How often an operand was repeated along leading axes of the result, and what tells these copies apart."""
    first = len(out.shape) - len(to.shape)
    axes = [i for i in range(len(out.shape) - 2) if out.shape[i] > 1 and (i < first or to.shape[i - first] == 1)]
    groups = frozenset(g for i in axes for g in axis_groups(out.axes[i]))
    return float(np.prod([out.shape[i] for i in axes])), groups


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0


def softmax(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """dl = a (g - sum a g): what a row's cotangent shares drops out, and what is left sums to zero over a row."""
    x = as_law(inputs[0])
    axis = node.attrs["axis"] % len(x.shape)
    groups = axis_groups(x.axes[axis])
    out = g.law
    n = x.shape[axis]
    if node.attrs.get("log"):
        return [[fresh(g.profile() * (1 - 1 / n), g.ratios(), balanced=groups - {FEATURE})]]
    weight2 = out.profile(out.seconds)
    row = weight2.sum(axis, keepdims=True) if weight2.shape[axis] > 1 else weight2 * n
    if FEATURE in groups and len(out.values) == 1 and (out.values == 0).any():
        return [[_of_open(g, out, _centred(g, out, groups, n), float(row.mean()))]]
    if FEATURE in groups:
        drawn = picked.of_softmax(out) if len(out.values) == 1 else 0.0
        left = np.maximum(1 - row * radial.mean_power(g), 0)
        second = _over_rows(g, n, drawn) if drawn else _of_features(g) * left
        return [[fresh(second, _centred(g, out, groups, n))]]
    second = _let_through(g, out, weight2, row, axis)
    through = float(np.mean(row * np.maximum(1 - row, 0)))
    heard = g.heard * float(np.mean(np.maximum(1 - row, 0))) / through if g.heard and through > 0 else 0.0
    part = replace(fresh(second, _centred(g, out, groups, n), balanced=groups - {FEATURE}), heard=heard)
    chosen = g.parts[0].chosen if len(g.parts) == 1 and axis == len(x.shape) - 1 else None
    return [[part if chosen is None else spelled.behind_softmax(part, chosen, g.parts[0].mean_second)]]


def _let_through(g: Cotangent, out: Law, weight2: np.ndarray, row: np.ndarray, axis: int) -> np.ndarray:
    """E[a_j^2 (g_j - sum_k a_k g_k)^2] by place, of ``g_j = m_j (sqrt(r) c + sqrt(1 - r) e_j)`` with one c for a row.

    What a row has in common drops out where it is the same at all of its places: weights that are left out (sinks)
    have no gradient of their own, and take back what the others have in common.
    """
    groups, n, square = axis_groups(out.axes[axis]), out.shape[axis], g.profile()
    if square.shape[axis] == 1:
        own = max(1 - _ratio(g.pair(groups), g.second), 0.0)
        return weight2 * square * own * np.maximum(1 - row, 0)
    size = np.sqrt(square)
    pairs = float(np.mean(size.sum(axis) ** 2 - square.sum(axis)))
    common = float(np.clip(g.pair(groups) * n * (n - 1) / pairs, 0, 1)) if pairs > 0 else 0.0
    mean = out.profile(out.means)
    mean = np.broadcast_to(mean, np.broadcast_shapes(mean.shape, square.shape))
    taken = (mean * size).sum(axis, keepdims=True)
    heard = (np.broadcast_to(weight2, mean.shape) * square).sum(axis, keepdims=True)
    apart = np.maximum(square * (1 - 2 * row) + heard, 0)
    return weight2 * (common * (size - taken) ** 2 + (1 - common) * apart)


def _of_features(g: Cotangent) -> np.ndarray:
    """E[a^2 g^2] of weights over features, such as experts: those that were picked for their size have the gradient."""
    squares = g.law.values**2
    of = [squares if p.values is None else squares * p.values**2 for p in g.parts]
    return sum((p.second * grid.expectation(v)[g.law.level] for p, v in zip(g.parts, of, strict=True)), np.zeros(()))


def _of_open(g: Cotangent, out: Law, ratio: dict[Groups, float], few: float) -> Part:
    """``a_j (g_j - p sum_k a_k g_k)`` at every a, zero where an entry is shut out; ``few`` is E[sum a^2]."""
    a, power = out.values, radial.mean_power(g)
    left = min(power, 1.0)
    squares = a**2 * np.maximum(1 - 2 * left * a + left * few, 0) * (1 - _in_common(power, few))
    of = [squares if p.values is None else squares * p.values**2 for p in g.parts]
    mean = sum((p.mean_second * v for p, v in zip(g.parts, of, strict=True)), np.zeros_like(a))
    total = float(grid.expectation(mean)[0])
    if total <= 0:
        return fresh(np.zeros((1,) * len(out.shape)), ratio)
    return fresh(np.full((1,) * len(out.shape), total), ratio, np.sqrt(mean / total))


def _over_rows(g: Cotangent, n: int, variance: float) -> np.ndarray:
    """E[a_j^2 (g_j - p sum_k a_k g_k)^2] over rows of n weights, p^2 what is left of the sum (``radial``).

    Where what is weighed has a mean, gradients have c in common, so that the sum is more than that of independent ones,
    ``A + (1 - A) c`` with ``A = E[sum a^2]``. This is the same for the whole row, and drops out.

    A row that has chosen does not turn: the mean of the product is far from the product of the means.
    """
    z, a = picked.rows(n, variance)
    power, few = radial.mean_power(g), float(np.mean((a**2).sum(1)))
    left = min(power, 1.0)
    total = np.zeros((1,) * len(g.law.shape))
    for part in g.parts:
        squares = np.ones_like(z) if part.values is None else grid.at(part.values[0] ** 2, z)
        heard = (a**2 * squares).sum(1, keepdims=True)
        total = total + part.second * float(np.mean(a**2 * ((1 - 2 * left * a) * squares + left * heard)))
    return np.maximum((1 - _in_common(power, few)) * total, 0)


def _in_common(power: float, few: float) -> float:
    """What gradients of one row have in common, c, where the square of ``sum a g`` is that many times ``A E g^2``."""
    return float(np.clip((power - 1) * few / max(1 - few, 1e-9), 0, 1))


def _centred(g: Cotangent, out: Law, row: Groups, n: int) -> dict[Groups, float]:
    """Correlations of a (g - sum a g): those of a times those of g beyond its row's, less 1 / (n - 1) within a row."""
    ratios = g.ratios()
    weights = lambda s: max(_ratio(out.pair(s), out.second), 0.0)  # noqa: E731
    if FEATURE in row or not row:
        return {s: r * weights(s) for s, r in ratios.items()}
    own = 1 - ratios.get(row, 0.0)
    found = {}
    for s in ratios:
        apart = s - row
        left = (ratios[apart] if apart else 1.0) - ratios.get(apart | row, 0.0)
        same = left / own * (weights(apart) if apart else 1.0) if own > 1e-12 else 0.0
        found[s] = same if not s & row else -same / max(n - 1, 1)
    return found
