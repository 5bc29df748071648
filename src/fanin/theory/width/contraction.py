"""Fluctuations of parameters, and behind what contracts with them: dense layers, convolutions, tables, products."""

from __future__ import annotations

import numpy as np

from fanin.distributions import Orthogonal
from fanin.graph import Node
from fanin.theory.law import Law, subsets
from fanin.theory.state import Known
from fanin.theory.width import pairs
from fanin.theory.width.rule import Inputs, Setting, before, inherited, pairs_along, share_of
from fanin.theory.width.state import NOTHING, STILL, Spread, of_square
from fanin.theory.width.weights import behind_known, drawn, matrix, through_weights


def parameter(setting: Setting, node: Node, law: Law) -> Spread:
    """A tensor of independent draws is a sample of its size; orthogonal ones have a norm that is certain."""
    name = node.attrs["parameter"]
    drawn_from = setting.laws.get(name, setting.graph.parameters[name].law)
    if law.deterministic or isinstance(drawn_from, Orthogonal):
        return STILL
    return drawn(setting.sources, law, {}, NOTHING)


def dense(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """A fresh draw of the layer's outputs over what the input's mean square brings along."""
    a = node.attrs
    x, weight = inputs[a["x"]], inputs[a["weight"]]
    in_axis = 1 if a["out_first"] else 0
    shape = matrix(setting.graph, setting.laws, node, a["weight"], weight.shape[in_axis], weight.shape[1 - in_axis])
    if isinstance(x, Known):
        return behind_known(setting.sources, node, out, x, shape)
    made = weight.shape[in_axis] * weight.second * x.second
    return through_weights(setting.sources, out, x, spreads[a["x"]], shape, share=share_of(made, out))


def conv(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """As a dense layer over the patches that the kernel reads."""
    a = node.attrs
    x, weight = inputs[a["x"]], inputs[a["weight"]]
    kernel = tuple(weight.shape[2:])
    taps = float(np.prod(kernel))
    outputs, fan = (weight.shape[1], weight.shape[0]) if a["transposed"] else (weight.shape[0], weight.shape[1])
    shape = matrix(setting.graph, setting.laws, node, a["weight"], fan * taps, outputs)
    if isinstance(x, Known):
        return behind_known(setting.sources, node, out, x, shape, kernel)
    share = 1.0
    if a["bias"] is not None and isinstance(inputs[a["bias"]], Law):
        share = 1 - share_of(inputs[a["bias"]].second, out)
    return through_weights(setting.sources, out, x, spreads[a["x"]], shape, taps, share)


def embed(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """Rows that were drawn: two places are alike, in every power, as often as their ids agree."""
    same = {s: pairs.correlation(out, s) for s in subsets(out.groups)}
    wander = {s: max(p, 0.0) * (1 - max(p, 0.0)) for s, p in same.items()}
    return drawn(setting.sources, out, wander, NOTHING)


def mix(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """A weight drawn on the spot is a dense layer; of two signals each brings what came before its own features."""
    a = node.attrs
    ix, iy = (a["x"], a["y"]) if a.get("bias") is not None else (0, 1)
    x, y = inputs[ix], inputs[iy]
    if isinstance(y, Law) and not y.groups and len(y.shape) == 2 and not y.deterministic:
        shape = matrix(setting.graph, setting.laws, node, iy, y.shape[0], y.shape[1])
        if isinstance(x, Known):
            return behind_known(setting.sources, node, out, x, shape)
        return through_weights(setting.sources, out, x, spreads[ix], shape)
    contracted = "feature" in pairs_along(x, -1)
    drift = NOTHING
    for value, spread in ((x, spreads[ix]), (y, spreads[iy])):
        if isinstance(value, Law):
            drift = drift + (of_square(value, spread) if contracted else before(value, spread))
    return drawn(setting.sources, out, inherited(out, inputs, spreads), drift)
