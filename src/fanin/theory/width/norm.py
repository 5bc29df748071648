"""Fluctuations behind a norm: of what it sets, none are left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fanin.graph import Node
from fanin.theory.law import Law
from fanin.theory.width.rule import Inputs, Setting, general
from fanin.theory.width.state import NOTHING, Spread, coefficients, of_square


def norm(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """Mean and mean square are set, so the first two moments of the latent answer to the others."""
    a = node.attrs
    x, spread = inputs[0], spreads[0]
    if not isinstance(x, Law):
        return general(setting, node, out, inputs, spreads)
    running = a.get("running_mean") is not None and not a.get("batch_stats", True)
    if running:
        return spread
    left = a["eps"] / (max(x.second - (x.mean**2 if a.get("centred", True) else 0.0), 1e-300) + a["eps"])
    made = settled(x, spread, a.get("centred", True))
    made = replace(made, scale=left * of_square(x, spread) / 2)
    weight = inputs[a["weight"]] if a.get("weight") is not None else None
    if isinstance(weight, Law) and not weight.deterministic:
        made = replace(made, scale=made.scale + of_square(weight, spreads[a["weight"]]) / 2)
    return made


def settled(x: Law, spread: Spread, centred: bool) -> Spread:
    """Moments of a latent given that the tensor's mean square, and its mean, are what they should be."""
    conditions = [coefficients(x, (x.values - (x.mean if centred else 0.0)) ** 2)]
    if centred:
        conditions.append(coefficients(x, x.values))
    rows = [1, 0][: len(conditions)]
    table = np.array([[c[j] for j in rows] for c in conditions])
    off = np.stack([c @ spread.moments for c in conditions])
    change = np.linalg.lstsq(table, off, rcond=1e-6)[0]
    moments = spread.moments.copy()
    own = spread.own.copy()
    for j, row in enumerate(rows):
        moments[row] -= change[j]
        own[row] = 0.0
    return Spread(moments, NOTHING, NOTHING, own, spread.wander, spread.rigid)
