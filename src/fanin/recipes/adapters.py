"""LoRA: low-rank adapters beside a weight, found in the graph as a product of two weights that joins a third."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fanin.distributions import Uniform, Zeros
from fanin.graph import Kind
from fanin.recipes.plan import Entry
from fanin.recipes.recipe import Made, Weights
from fanin.recipes.shared import drawn, kept
from fanin.recipes.structure import Structure


def lora(weights: Weights, options: Mapping[str, Any]) -> Made:
    """The first matrix of an adapter U(-1/sqrt(n), 1/sqrt(n)), the second zero; every other parameter is kept.

    Source: Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1, with the uniform law of the authors' code.
    """
    assert weights.structure is not None
    found = adapters(weights.structure)
    entries: dict[str, Entry] = {}
    for weight in weights.by_name.values():
        part = found.get(weight.name)
        if part is None:
            entries[weight.name] = kept(weight.parameter, "LoRA trains the adapters alone")
        elif part == "down" and weight.fans is not None:
            bound = 1 / math.sqrt(weight.fans.fan_in)
            words = f"LoRA, A: uniform within 1 / sqrt({weight.fans.fan_in:g})"
            entries[weight.name] = drawn(weight.parameter, Uniform(bound / math.sqrt(3)), weight.fans, words)
        else:
            words = "LoRA, B: zero, so that the model starts as it was"
            entries[weight.name] = drawn(weight.parameter, Zeros(), weight.fans, words)
    return entries, [] if found else ["no adapter was found: everything is kept"]


def adapters(structure: Structure) -> dict[str, str]:
    """Parameter name -> "down" or "up", where up(down(x)), of lower rank than x, is added to weight(x)."""
    found: dict[str, str] = {}
    for node in structure.graph.nodes:
        into = structure.signals_into(node) if node.kind is Kind.SUM else []
        if len(into) != 2:
            continue
        for base, side in (into, into[::-1]):
            pair = _pair(structure, base, side)
            if pair is not None:
                found.update(zip(pair, ("down", "up"), strict=True))
    return found


def _pair(structure: Structure, base: str, side: str) -> tuple[str, str] | None:
    """(down, up) where ``side`` is up(down(x)) and ``base`` a weight that reads the same x."""
    by_id = structure.graph.by_id
    first, up = by_id[structure.source(base)], by_id[structure.source(side)]
    if structure.weight_at(first) is None or structure.weight_at(up) is None:
        return None
    down = by_id[structure.source(structure.signal_input(up))]
    if structure.weight_at(down) is None:
        return None
    read = {structure.source(structure.signal_input(n)) for n in (first, down)}
    rank = min(structure.graph.parameters[structure.weight_at(n) or ""].shape[i] for n in (up, down) for i in (0, 1))
    wide = min(structure.graph.parameters[structure.weight_at(first) or ""].shape[:2])
    if len(read) != 1 or rank >= wide:
        return None
    return structure.weight_at(down) or "", structure.weight_at(up) or ""
