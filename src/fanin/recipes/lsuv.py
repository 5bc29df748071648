"""LSUV in one pass: an orthonormal start, each layer's output scaled to a std on real data while the pass runs on.

The classic loop runs the model several times a layer. Here a weight's output is scaled the moment it appears, together
with the weight, so the layers after it see the right input already: one forward pass at any depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fanin.distributions import Constant, Normal, Orthogonal
from fanin.errors import ArgumentError
from fanin.recipes.plan import Entry, Plan
from fanin.recipes.recipe import WEIGHTS, Made, Weights
from fanin.recipes.shared import drawn
from fanin.recipes.structure import Structure


def lsuv(weights: Weights, options: Mapping[str, Any]) -> Made:
    """The start: orthonormal weights; ``calibrated`` then scales them on data.

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


def calibrated(side: Any, plan: Plan, model: Any, batch: Any, *, seed: int) -> Plan:
    """The plan with the scales that the batch asks for, where its recipe is data-dependent; other plans as they are.

    Applying the result with the same seed gives the calibrated weights, so nothing but plan and seed need be kept.

    Errors: ModelError where the batch gives outputs that are not finite; ArgumentError without a batch.
    """
    if plan.recipe != "lsuv":
        return plan
    if batch is None:
        raise ArgumentError("recipe 'lsuv' without a batch", cause="it sets scales on data", remedy="give batch=")
    reading = side.read_model(model, batch)
    structure = Structure(reading.graph)
    scaled = {
        name
        for name, entry in plan.drawn.items()
        if entry.distribution and not isinstance(entry.distribution, Constant)
    }
    at = {n.id: w for n in structure.weighted if (w := structure.weight_at(n)) in scaled}
    std = float(plan.options.get("std", 1.0))
    factors = side.calibrate(reading, plan, at, std=std, seed=seed)
    entries = {name: _scaled(entry, factors.get(name), std) for name, entry in plan.entries.items()}
    dead = [name for name, factor in factors.items() if factor == 1.0]
    notes = [f"{name}: its output is constant on this batch, so its scale stays" for name in dead]
    return replace(plan, entries=entries, notes=tuple(notes))


def _scaled(entry: Entry, factor: float | None, std: float) -> Entry:
    if factor is None or entry.distribution is None:
        return entry
    words = f"LSUV: scaled so that its output has std {std:g} on the batch"
    gain = None if entry.gain is None else entry.gain * factor
    return replace(entry, distribution=entry.distribution.scaled(factor), gain=gain, reason=words)
