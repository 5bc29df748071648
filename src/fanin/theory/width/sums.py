"""Fluctuations where two latents make a third: sums and products."""

from __future__ import annotations

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace
from fanin.theory.width import pairs
from fanin.theory.width.elementwise import of_one_latent, response
from fanin.theory.width.rule import Inputs, Setting, before, inherited, share_of
from fanin.theory.width.state import NOTHING, STILL, Spread, of_mean, of_square, squares
from fanin.theory.width.weights import drawn


def pointwise(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """The same latent keeps its fluctuations; two latents make a third."""
    random = [i for i, v in enumerate(inputs) if isinstance(v, Law)]
    moving = [i for i in random if not inputs[i].deterministic]
    if len(moving) > 1 and not all(inputs[i].latent.aligned(inputs[moving[0]].latent) for i in moving):
        return two_latents(setting, node, out, inputs, spreads)
    return of_one_latent(node, out, inputs, spreads, random, moving)


def two_latents(setting: Setting, node: Node, out: Law, inputs, spreads) -> Spread:
    """A sum adds the moments of its parts on the new latent; of a product the factors' drifts add."""
    laws = [(v, s) for v, s in zip(inputs, spreads, strict=True) if isinstance(v, Law)]
    additive = node.kind is Kind.SUM or node.op in ("add", "sub", "lerp", "where", "cat")
    if not additive or out.second <= 0:
        drift = NOTHING
        for i, value in enumerate(inputs):
            if isinstance(value, Law):
                answer = response(node, inputs, i, out) if node.kind is Kind.POINTWISE else 1.0
                drift = drift + answer * before(value, spreads[i])
        return drawn(setting.sources, out, inherited(out, inputs, spreads), drift)
    alpha = float(node.attrs.get("alpha", 1.0))
    return summed(setting, out, [(v, s, alpha if j == 1 else 1.0) for j, (v, s) in enumerate(laws)])


def summed(setting: Setting, out: Law, parts: list[tuple[Law, Spread, float]]) -> Spread:
    """z = sum a_i z_i has h_k(z) = sum a_i^k h_k(z_i) + products, whose share of the variance is drawn afresh."""
    n = pairs.features(out)
    variance = max(out.second - out.mean**2, 1e-300)
    degrees = np.arange(1, len(STILL.own) + 1)
    weights = [abs(a) * np.sqrt(max(v.second - v.mean**2, 0.0) / variance) for v, _, a in parts]
    wander = _summed_wander(out, parts, weights, n)
    own = pairs.powers(out, wander) / n
    moments, taken = np.zeros_like(STILL.moments), np.zeros_like(own)
    for (_law, spread, _), w in zip(parts, weights, strict=True):
        lean = min(w, 1.0) ** degrees
        moments = moments + lean[:, None] * spread.moments
        taken = taken + lean**2 * spread.own
    moments = moments + setting.sources.rows(np.maximum(own - taken, 0))
    drift = sum((share_of(a**2 * v.second, out) * (s.drift + 2 * s.scale) for v, s, a in parts), NOTHING)
    made = Spread(moments, NOTHING, drift, own, wander)
    return replace(made, scale=_missing(out, made, parts))


def _summed_wander(out: Law, parts, weights, n: float):
    found = {}
    for differ in subsets(out.groups):
        total = sum(
            w**4 * s.wander.get(differ & law.groups, 0.0) for (law, s, _), w in zip(parts, weights, strict=True)
        )
        cross = 2 * weights[0] ** 2 * weights[1] ** 2 if len(parts) == 2 else 0.0
        r = [pairs.correlation(law, differ & law.groups) for law, _, _ in parts]
        found[differ] = total + cross * max(1 - np.prod(r), 0.0) / n
    return found


def _missing(out: Law, made: Spread, parts) -> np.ndarray:
    """What the moments on the new latent leave out of the parts' own mean squares and means (scales, other forms)."""
    wanted, had = NOTHING, NOTHING
    variance = max(out.second - out.mean**2, 1e-300)
    for i, (law, spread, a) in enumerate(parts):
        share = a**2 * law.second / out.second
        others = sum(b * v.mean for j, (v, _, b) in enumerate(parts) if j != i)
        wanted = wanted + share * of_square(law, spread)
        wanted = wanted + 2 * a * law.rms * others / out.second * of_mean(law, spread)
        w = abs(a) * np.sqrt(max(law.second - law.mean**2, 0.0) / variance)
        lean = min(w, 1.0) ** np.arange(1, len(spread.own) + 1)
        had = had + squares(out) @ (lean[:, None] * spread.moments)
    return (wanted - had) / 2
