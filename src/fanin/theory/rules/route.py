"""Routing: the largest entries of a row, experts' weights, and gathers at places that depend on weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import betaincinv

from fanin.graph import Node
from fanin.theory import grid
from fanin.theory.contraction import axis_groups, axis_size, weighted_sum
from fanin.theory.law import FEATURE, Atom, Axis, Law, fresh_latent
from fanin.theory.state import Hidden, Known, Modelled, Value, as_law

SLOT = "slot"  # the experts that one token is sent to: never the same one


def top(node: Node, *inputs: Value) -> Law:
    """The k largest of n along an axis: the j-th largest of n independent ones is F^-1 of a Beta(n - j + 1, j)."""
    x = as_law(inputs[0])
    axis = node.attrs["axis"] % len(x.shape)
    n, k = x.shape[axis], node.shape[axis]
    values = x.values if len(x.values) == 1 else (x.level_weight @ x.values)[None]
    values = np.sort(values[0])
    ranks = np.arange(1, k + 1) if node.attrs.get("largest", True) else np.arange(n, n - k, -1)
    rows = np.stack([grid.at(values, _order_statistic(n, int(j))) for j in ranks])
    level = np.arange(k, dtype=np.int32).reshape([k if i == axis else 1 for i in range(len(x.shape))])
    axes = tuple((Atom(k, FEATURE),) if i == axis else a for i, a in enumerate(x.axes))
    law = Law(node.shape, axes, rows, level, fresh_latent(x.latent.corr), x.exact, x.note)
    return law.marked("order statistics of independent entries") if len(x.values) > 1 else law


def _order_statistic(n: int, j: int) -> np.ndarray:
    """Latent of the j-th largest of n as a function of its own latent."""
    p = betaincinv(n - j + 1, j, np.clip(grid.CDF, 1e-15, 1 - 1e-15))
    return np.clip(grid.ndtri(p), -9, 9)


def experts(node: Node, *inputs: Value) -> Law:
    """Every token by the weight of its expert: a dense layer whose outputs agree only within one expert."""
    a = node.attrs
    x, weight = as_law(inputs[a["x"]]), as_law(inputs[a["weight"]])
    in_axis = a["in_axis"]
    n, count = weight.shape[in_axis], weight.shape[0]
    axes = (*x.axes[:-1], (Atom(node.shape[-1], FEATURE),))
    profile = x.profile(x.seconds)
    diagonal = n * weight.second * profile.mean(-1, keepdims=True)
    law = weighted_sum(x, weight, n, axis_groups(x.axes[-1]), diagonal, node.shape, axes)
    corr = {s: 0.0 if SLOT in s else r / count for s, r in law.latent.corr.items()}
    return replace(law, latent=fresh_latent(corr))


def index(node: Node, *inputs: Modelled) -> Value:
    """x[i, j, ...] with index arrays: known ones move levels, hidden ones leave the mixture of all places."""
    x = inputs[0]
    where = node.attrs["axes"]
    arrays = [inputs[p] for p in node.attrs["positions"]]
    if isinstance(x, Hidden) or (isinstance(x, Known) and not node.is_float):
        return Hidden(node.shape, _index_axes(node, x.axes, arrays, where))
    law = as_law(x)
    axes = _index_axes(node, law.axes, arrays, where)
    if all(isinstance(v, Known) for v in arrays):
        level = _indexed_level(law, node, [np.asarray(v.array) for v in arrays if isinstance(v, Known)])
        law = replace(law, level=level)
    else:
        law = _mixture(law, where, len(node.shape))
    view = ("index", node.id)
    latent = replace(law.latent, place_view=(*law.latent.place_view, view), matrix=None)
    if any(FEATURE in axis_groups(x.axes[d]) for d in where):
        latent = replace(latent, feature_view=(*latent.feature_view, view))
    return replace(law, shape=node.shape, axes=axes, latent=latent)


def take(node: Node, *inputs: Modelled) -> Value:
    """torch.gather: along one axis every place takes an element of its own; hidden places leave the mixture."""
    x, places = inputs[0], inputs[node.attrs["index"]]
    axis = node.attrs["axis"]
    if isinstance(x, Hidden) or (isinstance(x, Known) and not node.is_float):
        return Hidden(node.shape, places.axes)
    law = as_law(x)
    axes = tuple(
        (Atom(n, next((t.group for t in a if t.size > 1), FEATURE)),) if n > 1 else ()
        for a, n in zip(law.axes, node.shape, strict=True)
    )
    if law.level.shape[axis] == 1:
        level = law.level[tuple(slice(0, n) for n in node.shape)]
    elif isinstance(places, Known):
        full = np.broadcast_to(law.level, law.shape)[
            tuple(slice(None) if i == axis else slice(0, n) for i, n in enumerate(node.shape))
        ]
        level = np.take_along_axis(full, places.array.astype(np.int64), axis)
    else:
        law = _mixture(law, (axis,), len(node.shape))
        level = law.level
    view = ("take", node.id)
    latent = replace(law.latent, place_view=(*law.latent.place_view, view), matrix=None)
    if FEATURE in axis_groups(x.axes[axis]):
        latent = replace(latent, feature_view=(*latent.feature_view, view))
    return replace(law, shape=node.shape, axes=axes, level=level, latent=latent)


def _index_axes(node: Node, axes: tuple[Axis, ...], arrays, where: tuple[int, ...]) -> tuple[Axis, ...]:
    """NumPy's rule: the index arrays' own axes replace the indexed ones where those are neighbours, else come first."""
    rank = max((len(v.shape) for v in arrays), default=0)
    neighbours = where == tuple(range(where[0], where[0] + len(where)))
    start = where[0] if neighbours else 0
    rest = [a for i, a in enumerate(axes) if i not in where]
    shape = node.shape[start : start + rank]
    hidden = any(isinstance(v, Hidden) for v in arrays)
    new = [_permuted(axes[where[0]], m, hidden) for m in shape]
    return tuple(rest[:start] + new + rest[start:])


def _permuted(axis: Axis, size: int, hidden: bool) -> Axis:
    """An axis after a gather; a hidden permutation of places, or of several copies of each, keeps what they are."""
    if size == 1:
        return ()
    old = axis_size(axis)
    if hidden and axis and size % old == 0:
        return axis if size == old else (*axis, Atom(size // old, SLOT))
    return (Atom(size, next(iter(sorted(axis_groups(axis))), FEATURE)),)


def _indexed_level(law: Law, node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    where = node.attrs["axes"]
    if all(law.level.shape[d] == 1 for d in where):
        picks: list = [slice(None)] * law.level.ndim
        shape = np.broadcast_shapes(*[a.shape for a in arrays])
        for d in where:
            picks[d] = np.zeros((1,) * len(shape), int)
        return law.level[tuple(picks)]
    full = [law.shape[d] if d in where else n for d, n in enumerate(law.level.shape)]
    level = np.broadcast_to(law.level, full)
    picks = [slice(None)] * level.ndim
    for d, array in zip(where, arrays, strict=True):
        picks[d] = array.astype(np.int64) if array.dtype != bool else array
    return level[tuple(picks)]


def _mixture(law: Law, where: tuple[int, ...], rank: int) -> Law:
    """A place that is not known: any of them."""
    if len(law.values) == 1:
        return replace(law, level=np.zeros((1,) * rank, np.int32))
    samples = law.values.ravel()
    weight = (law.level_weight[:, None] * grid.WEIGHT[None, :]).ravel()
    from fanin.theory.combine import matched

    values = matched(grid.quantile_grid(samples, weight), law.mean, law.second)
    return replace(law, values=values[None], level=np.zeros((1,) * rank, np.int32))
