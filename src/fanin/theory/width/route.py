"""Fluctuations of what is moved, joined, reduced or pooled: the same elements, or fewer."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace
from fanin.theory.width import pairs, pooling
from fanin.theory.width.rule import Inputs, Setting, general
from fanin.theory.width.state import NOTHING, STILL, Spread, of_mean, of_square, squares


def move(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """The same elements; of fewer features or places a mean over them strays further."""
    laws = [(v, s) for v, s in zip(inputs, spreads, strict=True) if isinstance(v, Law)]
    if not laws:
        return STILL
    if len(laws) > 1 and node.attrs["how"] in ("cat", "stack"):
        return _joined(setting, out, laws)
    return thinned(setting, out, laws[0][1])


def thinned(setting: Setting, out: Law, spread: Spread) -> Spread:
    """Add what a sample of fewer features or places strays beyond the whole."""
    own = pairs.powers(out, spread.wander) / pairs.features(out)
    more = own - spread.own
    active = np.where(spread.own > 0, np.maximum(more, 0.0), 0.0)
    if not (active > 1e-3 * np.maximum(spread.own, 1e-300)).any():
        return spread
    return replace(spread, moments=spread.moments + setting.sources.rows(active), own=spread.own + active)


def _joined(setting: Setting, out: Law, laws) -> Spread:
    """Parts side by side: each by its share of the elements and of the mean square."""
    sizes = np.array([float(np.prod(v.shape)) for v, _ in laws])
    shares = sizes / sizes.sum()
    moments = sum((w * s.moments for w, (_, s) in zip(shares, laws, strict=True)), STILL.moments)
    drift = sum((w * s.drift for w, (_, s) in zip(shares, laws, strict=True)), NOTHING)
    own = sum((w**2 * s.own for w, (_, s) in zip(shares, laws, strict=True)), STILL.own)
    wander = {s: max(v.wander.get(s, 0.0) for _, v in laws) for s in subsets(out.groups)}
    made = Spread(moments, NOTHING, drift, own, wander)
    wanted = sum(
        (w * v.second / max(out.second, 1e-300) * of_square(v, s) for w, (v, s) in zip(shares, laws, strict=True)),
        NOTHING,
    )
    return replace(made, scale=(wanted - squares(out) @ moments) / 2)


def reduce(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """A statistic over features fluctuates with their moments; over places it is a new draw of the same features."""
    x, spread = inputs[0], spreads[0]
    if not isinstance(x, Law):
        return general(setting, node, out, inputs, spreads)
    if out.deterministic:
        op = node.attrs.get("op")
        if op in ("mean", "sum"):
            rate = of_mean(x, spread) * (x.rms / abs(x.mean) if x.mean else 0.0)
        elif op == "var":
            rate = of_square(x, spread)
        else:
            rate = of_square(x, spread) / 2
        return replace(STILL, scale=rate, wander=spread.wander)
    return pooled(setting, node, out, inputs, spreads)


def pooled(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """A statistic over places, feature by feature."""
    x = inputs[0]
    if not isinstance(x, Law) or pairs.features(x) != pairs.features(out):
        return general(setting, node, out, inputs, spreads)
    return pooling.over_places(setting.sources, node, out, x, spreads[0])
