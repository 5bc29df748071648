"""Tensors that a model draws at random while it runs: every element on its own, whatever the sample or position."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory import grid
from fanin.theory.combine import matched
from fanin.theory.law import Law, fresh_latent, levels_of, subsets
from fanin.theory.state import Known, Modelled, free_axes


def noise(node: Node, *inputs: Modelled) -> Law:
    """The law of what is drawn; probabilities of a Bernoulli may be known numbers by place."""
    a = node.attrs
    level = np.zeros((1,) * len(node.shape), np.int32)
    if a["noise"] == "uniform":
        middle, half = (a["low"] + a["high"]) / 2, (a["high"] - a["low"]) / 2
        values = matched(a["low"] + 2 * half * grid.CDF, middle, middle**2 + half**2 / 3)[None]
    elif a["noise"] == "normal":
        values = (a["mean"] + a["std"] * grid.Z_UNIT)[None]
    else:
        chances, level = _chances(node, inputs, level)
        values = np.stack([matched((1 - p < grid.CDF).astype(float), p, p) for p in chances])
    axes = free_axes(node.shape)
    law = Law(tuple(node.shape), axes, values, level, fresh_latent({}))
    return Law(law.shape, axes, values, level, fresh_latent(dict.fromkeys(subsets(law.groups), 0.0)))


def _chances(node: Node, inputs: tuple[Modelled, ...], level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if node.attrs["p"] is not None:
        return np.array([node.attrs["p"]]), level
    given = inputs[node.attrs["chance"]]
    if not isinstance(given, Known):
        raise NotImplementedError("draws with chances that depend on weights")
    return levels_of(np.broadcast_to(np.asarray(given.array, float), node.shape))
