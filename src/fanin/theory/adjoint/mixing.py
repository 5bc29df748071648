"""Backward through products of two signals and softmax."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, translated
from fanin.theory.adjoint.linear import dense
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.rules.attention import _is_weight, _lift, _split_groups
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
    x, y = _split_groups(x, y)
    if not isinstance(inputs[ix], Known):
        parts[ix] = [_against(g, y, -1, -1, x, alpha2)]
    if not isinstance(inputs[iy], Known):
        parts[iy] = [_against(g, x, -2, -2, y, alpha2)]
    return parts


def _against(g: Cotangent, other: Law, g_axis: int, other_axis: int, to: Law, factor: float) -> Part:
    """Contract g with the other operand over one axis: n E g^2 E y^2 + n (n - 1) pairs."""
    n = g.law.shape[g_axis]
    gx, gy = axis_groups(g.law.axes[g_axis]), axis_groups(other.axes[other_axis])
    cross_g = g.pair(gx) if FEATURE not in gx else 0.0
    cross = cross_g * other.pair(gy) if n > 1 else 0.0
    pg, po = g.profile(), other.profile(other.seconds)
    diagonal = _pairwise(pg, po, g_axis, to, g.law.shape, n)
    second = factor * np.maximum(diagonal + n * (n - 1) * cross, 0)
    whole, base = float(np.mean(second)), float(np.mean(diagonal)) * factor

    def ratio(s: Groups) -> float:
        in_g, in_o = translated(s, to.axes, g.law.axes), translated(s, to.axes, other.axes)
        if FEATURE in in_g:
            return 0.0
        same = _ratio(g.pair(in_g), g.second) * _ratio(other.pair(in_o), other.second) * base
        apart = n * (n - 1) * factor * g.pair(in_g | gx) * other.pair(in_o | gy) if FEATURE not in gx else 0.0
        return (same + apart) / whole if whole > 0 else 0.0

    return fresh(second, {s: ratio(s) for s in subsets(to.groups)})


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
    while out.ndim > ndim:
        out = out.sum(0)
    for i, m in enumerate(to.shape):
        if out.shape[i] > 1 and m == 1:
            out = out.sum(i, keepdims=True)
    return out


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0


def softmax(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """dl = a (g - sum a g): the common part of a row's cotangent drops out."""
    x = as_law(inputs[0])
    axis = node.attrs["axis"] % len(x.shape)
    groups = axis_groups(x.axes[axis])
    out = g.law
    n = x.shape[axis]
    own = max(1 - (_ratio(g.pair(groups), g.second) if FEATURE not in groups else 0.0), 0.0)
    if node.attrs.get("log"):
        return [[fresh(g.profile() * (1 - 1 / n), g.ratios())]]
    weight2 = out.profile(out.seconds)
    row = weight2.sum(axis, keepdims=True) if weight2.shape[axis] > 1 else weight2 * n
    second = weight2 * g.profile() * own * np.maximum(1 - row, 0)
    ratios = g.ratios()
    ratio = {s: r * max(_ratio(out.pair(s), out.second), 0.0) for s, r in ratios.items()}
    return [[fresh(second, ratio)]]
