"""Padding of the batch: places that hold one and the same token, which a mask of the same batch leaves out.

They are alike, but nothing that is looked at hears of them: what two tokens have in common, and how often a row of a
table is read, is counted over the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory.contraction import _same_id, embed
from fanin.theory.law import Groups, Law
from fanin.theory.records import replace
from fanin.theory.state import Known, Modelled


def padding_of(node: Node, array: np.ndarray, graph: Graph) -> np.ndarray | None:
    """Where ids of the batch are padding: one id, at just the places where a mask is zero; None where there is none."""
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        return None
    for mask in _masks(node, array, graph):
        out = mask == 0
        found = np.unique(array[out])
        if len(found) == 1 and out.sum() > 1 and not out.all() and (array[~out] != found[0]).all():
            return out
    return None


def same_row(ids: Known) -> dict[Groups, float]:
    """Fraction of pairs of places that look up one row, for every set of groups; padding is as no other place."""
    if ids.padding is None:
        return _same_id(ids)
    own = int(ids.array.max()) + 1 + np.arange(ids.array.size).reshape(ids.array.shape)
    return _same_id(Known(np.where(ids.padding, own, ids.array), ids.axes, ids.from_batch))


def looked_up(ids: Modelled, weight: Law, padding: int) -> Law:
    """Rows of a table (``contraction.embed``), of which those of padding have nothing in common."""
    law = embed(ids, weight, padding)
    if not isinstance(ids, Known) or ids.padding is None or (ids.array[ids.padding] == padding).all():
        return law
    same = same_row(ids)
    corr = {s: same.get(s, r) for s, r in law.latent.corr.items()}
    return replace(law, latent=replace(law.latent, corr=corr))


def _masks(node: Node, array: np.ndarray, graph: Graph) -> Iterator[np.ndarray]:
    """Zeros and ones of the same shape: inputs beside the ids, and comparisons of the ids themselves."""
    for other in graph.nodes:
        if other.shape != node.shape or other.id == node.id:
            continue
        if other.kind in (Kind.INPUT, Kind.CONSTANT) and other.attrs.get("value") is not None:
            value = np.asarray(other.attrs["value"])
        elif other.dtype == "bool" and other.inputs == (node.id,) and other.evaluate is not None:
            value = np.asarray(other.evaluate(array))
            yield 1 - value  # ids == padding
        else:
            continue
        if np.isin(value, (0, 1)).all():
            yield value
