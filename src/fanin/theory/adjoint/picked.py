"""Backward through what is read at places that the batch decides: the last token, the first end of a text, a mask.

Where it is known which places are read, each gets what its copies get, and all others nothing: before causal attention
a token that comes after the one that is read has no gradient at all.
"""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint.cotangent import Part, fresh
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.rules.route import _differing
from fanin.theory.state import Known, Value

Where = tuple[tuple[int, ...], list[np.ndarray], int]
"""Axes that are indexed, the index arrays of one shape, and the first axis of the result that is theirs."""


def picked(node: Node, part: Part, out: Law, x: Law, inputs: tuple[Value, ...]) -> Part | None:
    """The part where it is known which places are read, and they are not features of one axis; else None.

    Entries of a matrix of features are places of their own: half of what rows have in common is read, or none of what
    each is by itself.
    """
    found = _where(node, inputs) if node.attrs["how"] == "index" else _taken(node, out, x, inputs)
    if found is None or (len(found[0]) == 1 and FEATURE in axis_groups(x.axes[found[0][0]])):
        return None
    axes, at, first = found
    second = np.asarray(part.profile(out))
    rank = at[0].ndim
    new = tuple(range(first, first + rank))
    moved = np.moveaxis(second, new, range(rank))
    moved = np.broadcast_to(moved, (*at[0].shape, *moved.shape[rank:]))
    flat = tuple(a.ravel() for a in at)
    sizes = tuple(x.shape[d] for d in axes)
    names = frozenset(g for i in new for g in axis_groups(out.axes[i])) - {FEATURE}
    alike = part.ratio.get(names, 0.0) if names else 0.0
    total, times = np.zeros((*sizes, *moved.shape[rank:])), np.zeros(sizes)
    np.add.at(total, flat, moved.reshape(-1, *moved.shape[rank:]))
    np.add.at(times, flat, 1.0)
    more = 1 + np.maximum(times - 1, 0) * max(alike, 0.0)
    total *= more.reshape(*sizes, *(1,) * (total.ndim - len(sizes)))
    ratios = _ratios(part, x, axes, flat, names)
    if len(axes) == 1 and times.max() > 1:
        ratios = _ratios_of_sums(part, x, axis_groups(x.axes[axes[0]]), times, names)
    return fresh(np.moveaxis(total, range(len(axes)), axes), ratios)


def _where(node: Node, inputs: tuple[Value, ...]) -> Where | None:
    """x[i, j, ...] at known places, or x[mask]."""
    where = tuple(node.attrs["axes"])
    given = [inputs[p] for p in node.attrs["positions"]]
    arrays = [np.asarray(v.array) for v in given if isinstance(v, Known)]
    if len(arrays) < len(given):
        return None
    if any(a.dtype == bool for a in arrays):
        if len(arrays) > 1:
            return None
        return tuple(range(where[0], where[0] + arrays[0].ndim)), list(np.nonzero(arrays[0])), where[0]
    neighbours = where == tuple(range(where[0], where[0] + len(where)))
    return where, list(np.broadcast_arrays(*[a.astype(np.int64) for a in arrays])), where[0] if neighbours else 0


def _taken(node: Node, out: Law, x: Law, inputs: tuple[Value, ...]) -> Where | None:
    """torch.gather at the same places for all features, which come last: an index for every axis before them."""
    places, axis = inputs[node.attrs["index"]], node.attrs["axis"] % len(x.shape)
    if not isinstance(places, Known) or axis != len(x.shape) - 2 or out.shape[:axis] != x.shape[:axis]:
        return None
    array = np.asarray(places.array).astype(np.int64)
    if out.shape[-1] != x.shape[-1] or (array != array[..., :1]).any():
        return None
    grids = np.indices(array.shape[:-1])
    return tuple(range(axis + 1)), [*grids[:-1], array[..., 0]], 0


def _ratios_of_sums(part: Part, x: Law, own: Groups, times: np.ndarray, names: Groups) -> dict[Groups, float]:
    """Of places along one axis that are read several times: sums of so many copies, in the ratio of two reads."""
    n, total = len(times), float(times.sum())
    alone, apart = total / n, (total**2 - float(times @ times)) / (n * (n - 1)) if n > 1 else 0.0
    among = float(np.mean(times * (times - 1)))
    whole = alone + among * part.ratio.get(names, 0.0)
    ratio = {}
    for s in subsets(x.groups):
        beside = s - own
        two = part.ratio.get(names | beside, 0.0)
        one = part.ratio.get(beside, 0.0) if beside else 1.0
        ratio[s] = (apart * two if s & own else alone * one + among * two) / whole
    return ratio


def _ratios(
    part: Part, x: Law, axes: tuple[int, ...], at: tuple[np.ndarray, ...], names: Groups
) -> dict[Groups, float]:
    """Of pairs of places that differ in a set of groups, those of which both are read, beside the share that is."""
    sizes: dict[str, int] = {}
    for d in axes:
        for atom in x.axes[d]:
            sizes[atom.group] = sizes.get(atom.group, 1) * atom.size
    read = np.unique(np.stack(at), axis=1)
    own, count = frozenset(sizes), read.shape[1]
    shares = _differing([x.axes[d] for d in axes], tuple(read)) if own else {}
    ratio = {}
    for s in subsets(x.groups):
        if not s & own:
            ratio[s] = part.ratio.get(s, 0.0)
            continue
        pairs = max(float(np.prod([sizes[g] - 1 for g in s & own])), 1.0)
        ratio[s] = part.ratio.get(names | (s - own), 0.0) * min((count - 1) * shares.get(s & own, 0.0) / pairs, 1.0)
    return ratio
