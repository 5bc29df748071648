"""Backward through dropout: the same mask."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint import radial, sequence, spelled
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.rules.pointwise import SATURATED, alpha_scale
from fanin.theory.state import Value, as_law


def drop(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Dropout: the same mask; mean square over 1 - p, products of different elements as they were."""
    p = float(node.attrs["p"]) if node.attrs["active"] else 0.0
    if p == 0:
        return [list(g.parts)]
    keep = 1 - p
    ratio = {s: r * keep for s, r in g.ratios().items()}
    if p >= 1:
        return [[]]
    if node.attrs.get("alpha"):
        return [_kept_by_alpha(g, as_law(inputs[0]), p)]
    matrix = sequence.correlation(g)
    part = fresh(g.profile() / keep, ratio, matrix=matrix if matrix is None else _weakened(matrix, keep))
    part = replace(part, radial=radial.returned(g), heard=g.heard)  # what is left of both meets
    chosen = g.parts[0].chosen if len(g.parts) == 1 else None
    return [[part if chosen is None else spelled.carried(part, chosen, g.parts[0].mean_second)]]


def _weakened(matrix: np.ndarray, keep: float) -> np.ndarray:
    """What is drawn anew at every place leaves less in common."""
    out = matrix * keep
    np.fill_diagonal(out, 1.0)
    return out


def _kept_by_alpha(g: Cotangent, x: Law, p: float) -> list[Part]:
    """Alpha dropout lets through what was kept, with the slope of what comes after it at the kept value."""
    a = alpha_scale(p)
    kept, factor = a * x.values - a * SATURATED * p, (1 - p) * a**2
    parts = []
    for part in g.parts:
        ratio = {s: r * (1 - p) for s, r in part.ratio.items()}
        if part.values is None or len(g.law.values) != len(x.values):
            parts.append(fresh(part.profile(g.law) * factor, ratio))
            continue
        values = np.stack([_at_values(k, out, d) for k, out, d in zip(kept, g.law.values, part.values, strict=True)])
        parts.append(fresh(part.second * factor, ratio, values))
    return parts


def _at_values(wanted: np.ndarray, values: np.ndarray, form: np.ndarray) -> np.ndarray:
    """A function of the latent read off where an increasing law takes the wanted values."""
    return np.interp(wanted, values, form)
