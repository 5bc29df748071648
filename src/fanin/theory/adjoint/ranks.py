"""Backward through the largest few of a row: what was picked gets its gradient, the rest none.

Which elements were picked is told by their latent: the j-th largest of n is at z with the chance that j - 1 others are
beyond it (``route.chances``). So the gradient stands where the latent is large, and there the slope of what made it.
"""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint import radial
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.rules.route import chances, ranked, rises
from fanin.theory.state import Value, as_law


def route(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Of the largest few themselves."""
    x = as_law(inputs[0])
    return [[_to_ranks(g, x, node.attrs["axis"] % len(x.shape), bool(node.attrs.get("largest", True)))]]


def taken(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> Part | None:
    """Of what was read where the largest few of another function of the latent stand; None where it was not."""
    x, axis = inputs[0], node.attrs.get("axis")
    if node.attrs["how"] != "take" or not isinstance(x, Law) or axis is None:
        return None
    largest = ranked(x, inputs[node.attrs["index"]], axis)
    return None if largest is None else _to_ranks(g, x, axis, largest)


def _to_ranks(g: Cotangent, x: Law, axis: int, largest: bool) -> Part:
    n, k = x.shape[axis], g.law.shape[axis]
    profile, share = g.profile(), k / n
    slots = np.moveaxis(np.broadcast_to(profile, _wide(profile.shape, axis, k)), axis, -1).reshape(-1, k).mean(0)
    profile = profile.mean(axis, keepdims=True) if profile.shape[axis] > 1 else profile
    ratio = {s: r * share for s, r in g.ratios().items()}
    up = rises(x, axis)
    if up is None or not slots.any():
        return fresh(profile * share, ratio)
    values = np.sqrt(slots / slots.mean() @ chances(n, k, largest == up))
    part = fresh(profile, ratio, np.repeat(values[None], len(x.values), 0))
    return replace(part, radial=radial.of(g))


def _wide(shape: tuple[int, ...], axis: int, n: int) -> tuple[int, ...]:
    return (*shape[:axis], n, *shape[axis + 1 :])
