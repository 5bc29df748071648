"""LSUV in one pass: an orthonormal start, each layer's output scaled to a std on real data while the pass runs on.

The classic loop runs the model several times a layer. Here a weight's output is scaled the moment it appears, together
with the weight, so the layers after it see the right input already: one forward pass at any depth.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fanin.distributions import Normal, Orthogonal
from fanin.recipes.plan import Entry, Plan
from fanin.recipes.recipe import WEIGHTS, Made, Weights
from fanin.recipes.shared import drawn
from fanin.recipes.structure import Structure


def lsuv(weights: Weights, options: Mapping[str, Any]) -> Made:
    """The start: orthonormal weights; ``data.calibrated`` then scales them on the batch.

    Source: Mishkin & Matas 2015, All you need is a good init, arXiv:1511.06422.
    """
    entries: dict[str, Entry] = {}
    for weight in weights.by_name.values():
        if weight.role in WEIGHTS and len(weight.shape) >= 2:
            words = "LSUV: orthonormal, then scaled on the batch"
            entries[weight.name] = drawn(weight.parameter, Orthogonal(1.0), weight.fans, words)
        elif weight.role == "embedding":
            entries[weight.name] = drawn(weight.parameter, Normal(1.0), weight.fans, "a look-up table: std 1")
    return entries, ["fanin.init_ sets the scales on the batch; in this plan they are still one"]


def factors(
    side: Any, plan: Plan, model: Any, batch: Any, names: Collection[str], *, std: float, seed: int
) -> dict[str, float]:
    """Factor by weight that brings its output to ``std`` on the batch.

    Errors: ModelError where the batch gives outputs that are not finite.
    """
    reading = side.read_model(model, batch)
    structure = Structure(reading.graph)
    at = {n.id: w for n in structure.weighted if (w := structure.weight_at(n)) in names}
    return side.calibrate(reading, plan, at, std=std, seed=seed)
