"""Recipes that are about heads: policy and value of PPO, class scores of a focal loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fanin.distributions import Constant, Orthogonal
from fanin.recipes.plan import Entry
from fanin.recipes.recipe import WEIGHTS, Made, Weights
from fanin.recipes.residual import head_names
from fanin.recipes.shared import drawn, sized
from fanin.recipes.structure import Structure


def ppo(weights: Weights, options: Mapping[str, Any]) -> Made:
    """Orthogonal, gain sqrt(2); a head of one output (a value) gain 1, other heads (a policy) gain 0.01.

    Source: Huang et al. 2022, The 37 implementation details of proximal policy optimization, detail 2; Andrychowicz et
    al. 2020, arXiv:2006.05990, section 3.2.
    """
    assert weights.structure is not None
    heads = head_names(weights.structure)
    entries: dict[str, Entry] = {}
    for weight in weights.by_name.values():
        if weight.role not in WEIGHTS or weight.fans is None:
            continue
        if weight.name not in heads:
            gain, words = math.sqrt(2), "PPO: orthogonal, gain sqrt(2)"
        elif weight.fans.fan_out == 1:
            gain, words = 1.0, "PPO: a value head, gain 1"
        else:
            gain, words = options["policy"], f"PPO: a policy head, gain {options['policy']:g}: all actions alike"
        entries[weight.name] = drawn(weight.parameter, Orthogonal(gain), weight.fans, words)
    return entries, [] if heads else ["no head was found: gain sqrt(2) throughout"]


def retinanet(weights: Weights, options: Mapping[str, Any]) -> Made:
    """Weights N(0, 0.01); biases of heads -ln((1 - p) / p), so that a sigmoid starts at the prior p.

    Source: Lin et al. 2017, Focal loss for dense object detection, arXiv:1708.02002, section 4.1.
    """
    assert weights.structure is not None
    prior, std = options["prior"], options["std"]
    value = -math.log((1 - prior) / prior)
    biases = head_biases(weights.structure)
    entries: dict[str, Entry] = {}
    for weight in weights.by_name.values():
        if weight.role in WEIGHTS and weight.fans is not None:
            law = sized("normal", std, weight.shape)
            entries[weight.name] = drawn(weight.parameter, law, weight.fans, f"RetinaNet: std {std:g}")
        elif weight.name in biases:
            words = f"RetinaNet: the bias of a head at which its sigmoid is {prior:g}"
            entries[weight.name] = drawn(weight.parameter, Constant(value), None, words)
    notes = [] if biases else ["no head with a bias was found: no prior is set"]
    if len(biases) > 1:
        notes.append(
            f"{len(biases)} heads get the prior; boxes want none: use a pattern, such as "
            '{"*cls*": "retinanet", "*": "he"}'
        )
    return entries, notes


def head_biases(structure: Structure) -> set[str]:
    """Parameters that are the biases of the model's outputs."""
    found = set()
    for id_ in structure.heads:
        node = structure.graph.by_id[id_]
        position = node.attrs.get("bias")
        name = structure.origin.get(node.inputs[position]) if position is not None else None
        if name is not None:
            found.add(name)
    return found
