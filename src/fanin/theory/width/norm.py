"""Fluctuations behind a norm: of what it sets, none are left."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.statistic import shared_moment
from fanin.theory.width import pairs, statistic
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
    if statistic.over_places(a, x) and "position" not in x.groups:  # close positions are more alike than the mean pair
        made = centred_anew(setting, a, x, out, spread)
    else:
        made = settled(x, spread, a.get("centred", True))
    made = replace(made, scale=left * of_square(x, spread) / 2)
    weight = inputs[a["weight"]] if a.get("weight") is not None else None
    if isinstance(weight, Law) and not weight.deterministic:
        made = replace(made, scale=made.scale + of_square(weight, spreads[a["weight"]]) / 2)
    return made


def centred_anew(setting: Setting, a, x: Law, out: Law, spread: Spread) -> Spread:
    """Of a norm over places: what they had in common is gone, so a mean over them strays by what is left alike.

    Correlations become (r - p/q) / (1 - p/q), and wander by as much more.
    """
    centred = a.get("centred", True)
    shared = shared_moment(x, a["axes"]) if centred else 0.0
    left = max(1 - shared / x.second, 1e-150) if x.second else 1.0  # its square is a number still
    wander = {s: min(w / left**2, 1.0) for s, w in spread.wander.items()}
    own = pairs.powers(out, wander) / pairs.features(out)
    own[0 if centred else 1 : 2] = 0.0
    return Spread(setting.sources.rows(own), NOTHING, NOTHING, own, wander, spread.rigid)


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
