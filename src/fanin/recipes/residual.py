"""Recipes that scale residual branches, found by following the graph: GPT-2, Fixup, SkipInit, muP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fanin.axes import Fans
from fanin.distributions import Distribution, Normal, Zeros
from fanin.recipes.plan import Entry, Plan
from fanin.recipes.recipe import WEIGHTS, Made, Weight, Weights
from fanin.recipes.shared import drawn, sized
from fanin.recipes.structure import Structure


def ends(structure: Structure) -> dict[str, int]:
    """Parameter name of the last weight of a residual branch -> how many branches end on its stream."""
    found: dict[str, int] = {}
    for node, (_, count) in structure.branch_of.items():
        name = structure.weight_at(structure.graph.by_id[node])
        if name is not None:
            found.setdefault(name, count)
    return found


def head_names(structure: Structure) -> set[str]:
    """Parameters that make the model's outputs."""
    names = (structure.weight_at(structure.graph.by_id[node]) for node in structure.heads)
    return {name for name in names if name is not None}


def gpt2(weights: Weights, options: Mapping[str, Any]) -> Made:
    """std 0.02 everywhere; the last weight of each residual branch 0.02 / sqrt(number of branches)."""
    assert weights.structure is not None
    last, std, entries = ends(weights.structure), options["std"], {}
    for weight in weights.by_name.values():
        if weight.role not in (*WEIGHTS, "embedding", "position"):
            continue
        count = last.get(weight.name, 1)
        words = f"GPT-2: std {std:g}" + (f" / sqrt({count}), one of {count} residual branches" if count > 1 else "")
        law = sized(options["distribution"], std / math.sqrt(count), weight.shape)
        entries[weight.name] = drawn(weight.parameter, law, weight.fans, words)
    return entries, [] if last else ["no residual branch was found: every weight has the same std"]


def _he(weight: Weight, fans: Fans) -> Distribution:
    return Normal(math.sqrt(2 / fans.fan_in))


def _plain(weights: Weights) -> dict[str, Entry]:
    """He for every weight with fans, as the residual recipes start from."""
    return {
        w.name: drawn(w.parameter, _he(w, w.fans), w.fans, "He: Var = 2 / fan_in")
        for w in weights.by_name.values()
        if w.role in WEIGHTS and w.fans is not None
    }


def fixup(weights: Weights, options: Mapping[str, Any]) -> Made:
    """Last weight of each branch and the head zero; others in a branch He times L^(-1 / (2m - 2))."""
    structure = weights.structure
    assert structure is not None
    entries = _plain(weights)
    last, branches = ends(structure), structure.branches
    for branch in branches:
        nodes = structure.inside(branch)
        depth, count = structure.depth(nodes), structure.branch_of[branch.weights[0]][1]
        for node in nodes:
            weight = weights.by_name[structure.weight_at(structure.graph.by_id[node]) or ""]
            if weight.name not in last and weight.fans is not None and depth > 1:
                factor = count ** (-1 / (2 * depth - 2))
                words = f"Fixup: He times {count}^(-1/{2 * depth - 2}), in one of {count} branches of {depth} layers"
                entries[weight.name] = drawn(
                    weight.parameter, _he(weight, weight.fans).scaled(factor), weight.fans, words
                )
    for name in (*last, *head_names(structure)):
        words = "Fixup: the last weight of a residual branch is zero" if name in last else "Fixup: the head is zero"
        entries[name] = drawn(weights.by_name[name].parameter, Zeros(), weights.by_name[name].fans, words)
    note = "Fixup also puts scalar biases and a scale into each branch; that is the model's to have"
    return entries, [note] if branches else ["no residual branch was found: He, with a head of zero"]


def skipinit(weights: Weights, options: Mapping[str, Any]) -> Made:
    """He, and each branch closed by a zero: the scale that ends it, else the norm's weight, else its last weight."""
    structure = weights.structure
    assert structure is not None
    entries = _plain(weights)
    for branch in structure.branches:
        for node in branch.weights:
            scales = structure.scales_after(node, branch.node)
            name = scales[-1] if scales else structure.weight_at(structure.graph.by_id[node])
            if name is None:
                continue
            what = "scale" if scales else "weight"
            words = f"the last {what} of a residual branch is zero: the block starts as the identity"
            entries[name] = drawn(weights.by_name[name].parameter, Zeros(), weights.by_name[name].fans, words)
    return entries, [] if structure.branches else ["no residual branch was found: He throughout"]


def mup(weights: Weights, options: Mapping[str, Any]) -> Made:
    """Input and hidden 1 / sqrt(fan_in), output 1 / fan_in, tables 1; with ``depth`` branches by 1 / sqrt(L), too."""
    structure = weights.structure
    assert structure is not None
    heads, last = head_names(structure), ends(structure) if options["depth"] else {}
    first = first_names(structure)
    entries = {}
    for weight in weights.by_name.values():
        if weight.role == "embedding":
            entries[weight.name] = drawn(weight.parameter, Normal(1.0), weight.fans, "muP, input: std 1, a table")
        elif weight.role in WEIGHTS and weight.fans is not None:
            n, count = weight.fans.fan_in, last.get(weight.name, 1)
            kind = "input" if weight.name in first else "output" if weight.name in heads else "hidden"
            std = (1 / n if kind == "output" else 1 / math.sqrt(n)) / math.sqrt(count)
            branch = f" / sqrt({count}), one of {count} residual branches" if count > 1 else ""
            words = f"muP, {kind}: std 1 / {'fan_in' if kind == 'output' else 'sqrt(fan_in)'}{branch}"
            entry = drawn(weight.parameter, Normal(std), weight.fans, words)
            entries[weight.name] = entry if kind == "input" else replace(entry, rate=1 / n)
    note = (
        "muP also scales attention logits by 1 / d instead of 1 / sqrt(d), which is the model's to do; Adam's learning"
    )
    return entries, [f"{note} rate of each weight is multiplied by entry.rate (learning_rates(plan))"]


def first_names(structure: Structure) -> set[str]:
    """Parameters that meet the model's input before any other weight."""
    found = set()
    for node in structure.weighted:
        above = structure.ancestors(node.id)
        name = structure.weight_at(node)
        if name is not None and not any(structure.weight_at(other) for other in above):
            found.add(name)
    return found


def learning_rates(plan: Plan, *, base: float = 1.0) -> dict[str, float]:
    """Multipliers of Adam's learning rate by parameter, relative to a model whose hidden fan_in is ``base``.

    Source: Yang et al. 2022, Tensor Programs V, arXiv:2203.03466, table 3.

    Example:
        >>> import torch, fanin
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 10))
        >>> learning_rates(fanin.plan(net, torch.randn(8, 64), recipe="mup"), base=64)["2.weight"]
        0.25
    """
    return {name: entry.rate * base if entry.rate != 1 else 1.0 for name, entry in plan.entries.items()}
