"""Means and maxima over places: a draw of their own features, at the scale that the input has in this network.

The result is not the input's function of a latent, so it is its scale, not its latent's variance, that answers to what
came before the features: by d log E f^2 / d log of that variance, for f the input's function.
"""

from __future__ import annotations

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory import grid
from fanin.theory.law import Law, solve_correlation, subsets
from fanin.theory.records import replace
from fanin.theory.width import pairs
from fanin.theory.width.state import NOTHING, STILL, Sources, Spread, by_level, logged, squares
from fanin.theory.width.weights import drawn


def over_places(sources: Sources, node: Node, out: Law, x: Law, spread: Spread) -> Spread:
    """Fluctuations of a pooled tensor of as many features as its input."""
    wander = {s: spread.wander.get(s, 0.0) for s in subsets(out.groups)}
    scale = squares(x)[1] / np.sqrt(2) * spread.drift / 2 + spread.scale
    if node.kind is not Kind.REDUCE or node.attrs.get("op") not in ("mean", "sum"):
        return replace(drawn(sources, out, wander, NOTHING), scale=scale)
    own = pairs.powers(out, spread.wander) / pairs.features(out)
    fresh = logged(_squares_of_mean(x, out) @ sources.rows(own))
    return replace(STILL, scale=scale + fresh / 2, wander=wander)


def _squares_of_mean(x: Law, out: Law) -> np.ndarray:
    """Coefficients of a feature's squared mean over places, on what its places have in common.

    Many places at latent correlation r average to E[f | u] = sum_k a_k r^(k/2) h_k(u), with r as the mean square of the
    result has it.
    """
    f = pairs.typical(x)
    a = grid.hermite_coefficients(f)
    mean = float(grid.expectation(f))
    target = out.second / out.mean**2 * mean**2 if out.mean else out.second / max(x.second, 1e-300)
    r = max(solve_correlation(a, 1.0, min(target, 1.0)), 0.0)
    values = (a * r ** (np.arange(len(a)) / 2)) @ grid.HERMITE
    return by_level(values[None] ** 2 / max(float(grid.expectation(values**2)), 1e-300))[0]
