"""Fluctuations of rows of attention weights, and of what they mix."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory import grid
from fanin.theory.concentration import concentrations, unequal
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace
from fanin.theory.width.rule import Inputs, Setting, before, general, pairs_along
from fanin.theory.width.state import NOTHING, Spread, of_square, of_variance
from fanin.theory.width.weights import drawn


def attention(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """The values' drift, and how the row weights answer to the logits' variance."""
    q, k, v = inputs[:3]
    drift = before(v, spreads[2])
    keys = pairs_along(k, -2)
    if isinstance(q, Law) and isinstance(k, Law) and isinstance(v, Law):
        apart = v.pair(pairs_along(v, -2))
        kept = max(out.second - apart, 0.0) / max(v.second - apart, 1e-300) if v.second > apart else 0.0
        logit = node.attrs["scale"] ** 2 * q.shape[-1] * q.second * max(k.second - k.pair(keys), 0.0)
        answer = max(out.second - apart, 0.0) / max(out.second, 1e-300) * logit * (1 - min(kept, 1.0))
        drift = drift + answer * (of_square(q, spreads[0]) + of_square(k, spreads[1]))
    return drawn(setting.sources, out, {s: spreads[2].wander.get(s, 0.0) for s in subsets(out.groups)}, drift)


def softmax(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """Row sums are certain; the mean square answers to the logits' variance, not to what they have in common.

    The law of a weight is a lognormal, whose own moments stray by more than a row does: a weight is at most one.
    """
    x = inputs[0]
    if not isinstance(x, Law) or node.attrs.get("log") or out.second <= 0:
        return general(setting, node, out, inputs, spreads)
    n = x.shape[node.attrs["axis"] % len(x.shape)]
    logits = _logit_variance(out)
    fresh = drawn(setting.sources, out, spreads[0].wander, NOTHING)
    lognormal = float(grid.expectation(np.square(out.values**2)) @ out.level_weight) / out.second**2 - 1
    row = n * float(unequal(logits, np.array([n]))[0])
    kept = min(row / lognormal, 1.0) if lognormal > 0 else 0.0
    moments, own = fresh.moments * np.sqrt(kept), fresh.own * kept
    return replace(fresh, moments=moments, own=own, scale=elasticity(logits, n) * of_variance(x, spreads[0]) / 2)


def _logit_variance(out: Law) -> float:
    """What the rule of softmax found; of weights without a note of it, from their concentration."""
    made = out.latent.source
    return made.variance if made else float(np.log(max(out.second / max(out.mean**2, 1e-300), 1.0)))


STEP = 1.05


def elasticity(variance: float, n: int) -> float:
    """d log E[sum a^2] / d log variance of the logits: the variance itself where small, none where one has it all."""
    if not 1e-4 < variance < np.inf:
        return min(max(variance, 0.0), 1e-4)
    here, there = (float(concentrations(v, np.array([n]))[0]) for v in (variance, variance * STEP))
    return float(np.log(there / here) / np.log(STEP))
