"""Fluctuations of functions of one latent, which keep its own, and of dropout."""

from __future__ import annotations

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory import grid
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.state import Known, Value
from fanin.theory.width import pairs
from fanin.theory.width.rule import Inputs, Setting
from fanin.theory.width.state import NOTHING, STILL, Spread, of_square, squares

STEP = 1e-3


def of_one_latent(
    node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...], random: list[int], moving: list[int]
) -> Spread:
    """What stands on the latent is kept; what was multiplied by, by how much the result answers."""
    if not random:
        return STILL
    main = max(moving or random, key=lambda i: float(np.prod(inputs[i].shape)))
    changed = any(spreads[i].scale.any() for i in random) or len(moving) > 1
    if not changed:
        return spreads[main]
    total = NOTHING
    for i in random:
        answer = response(node, inputs, i, out)
        total = total + answer * spreads[i].scale
    if len(moving) > 1 and any(spreads[i].moments is not spreads[main].moments for i in moving):
        return _blended(node, out, inputs, spreads, moving, total)
    return replace(spreads[main], scale=total)


def response(node: Node, inputs: Inputs, i: int, out: Law) -> float:
    """d log rms of the result / d log of operand i, at the typical level of each operand.

    From E[y dy/dlog x] / E[y^2] by a central difference, operands on the grid (independent ones by their means).
    """
    if node.kind is Kind.SUM:
        return min(
            abs(float(node.attrs.get("alpha", 1.0)) if i == 1 else 1.0) * inputs[i].rms / max(out.rms, 1e-300), 4
        )
    if node.kind is Kind.PRODUCT:
        return 1.0
    fn = node.attrs.get("fn")
    if fn is None:
        return 1.0
    values = [_typical_values(v) for v in inputs]
    with np.errstate(all="ignore"):
        up = [v * (1 + STEP) if j == i else v for j, v in enumerate(values)]
        down = [v * (1 - STEP) if j == i else v for j, v in enumerate(values)]
        a, b = grid.expectation(_on_grid(fn(*up)) ** 2), grid.expectation(_on_grid(fn(*down)) ** 2)
    if not (np.isfinite(a) and np.isfinite(b)) or a <= 0 or b <= 0:
        return 1.0
    return float((np.log(a) - np.log(b)) / (4 * STEP))


def _on_grid(values: object) -> np.ndarray:
    return np.broadcast_to(np.asarray(values, float), grid.Z_UNIT.shape)


def _typical_values(value: Value) -> np.ndarray:
    if isinstance(value, Law):
        return pairs.typical(value) * value.rms
    if isinstance(value, Known):
        finite = value.array[np.isfinite(value.array)] if value.array.dtype.kind == "f" else value.array
        return np.full(grid.POINTS, float(np.mean(finite)) if np.size(finite) else 0.0)
    return np.zeros(grid.POINTS)


def _blended(node: Node, out: Law, inputs, spreads, moving, scale: np.ndarray) -> Spread:
    """One latent whose fluctuations differ between operands (before and behind a norm): by how much each counts."""
    answers = np.array([abs(response(node, inputs, i, out)) for i in moving])
    weights = answers / answers.sum() if answers.sum() > 0 else np.full(len(moving), 1 / len(moving))
    chosen = [spreads[i] for i in moving]
    moments = sum((w * s.moments for w, s in zip(weights, chosen, strict=True)), STILL.moments)
    drift = sum((w * s.drift for w, s in zip(weights, chosen, strict=True)), NOTHING)
    top = chosen[int(np.argmax(weights))]
    return Spread(moments, scale, drift, top.own, top.wander, top.rigid)


def drop(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """The masks are drawn for every element: p/(1-p) E[x^4]/q^2 over their number."""
    x, p = inputs[0], float(node.attrs["p"])
    if not isinstance(x, Law) or not node.attrs["active"] or not 0 < p < 1:
        return spreads[0]
    whole = float(x.level_weight @ grid.expectation((x.values**2) ** 2)) / max(x.second**2, 1e-300)
    fresh = setting.sources.single(p / (1 - p) * whole / max(float(np.prod(x.shape)), 1.0))
    kept = of_square(x, spreads[0]) - squares(out) @ spreads[0].moments
    return replace(spreads[0], scale=(kept + fresh) / 2)
