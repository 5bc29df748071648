"""Fluctuations of rows of attention weights, and of what they mix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fanin.graph import Node
from fanin.theory.law import Law, subsets
from fanin.theory.width.rule import Inputs, Setting, before, general, pairs_along
from fanin.theory.width.state import NOTHING, Spread, of_square, squares
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
    """Row sums are certain; the mean square follows the logits' variance as far as it is not uniform."""
    x = inputs[0]
    if not isinstance(x, Law) or node.attrs.get("log"):
        return general(setting, node, out, inputs, spreads)
    contrast = np.log(max(out.second / max(out.mean**2, 1e-300), 1.0))
    target = contrast * of_square(x, spreads[0])
    fresh = drawn(setting.sources, out, spreads[0].wander, NOTHING)
    own = squares(out) @ fresh.moments
    return replace(fresh, scale=target / 2 - (own - _scaled(own, contrast)) / 2)


def _scaled(own: np.ndarray, contrast: float) -> np.ndarray:
    return own * min(contrast, 1.0)
