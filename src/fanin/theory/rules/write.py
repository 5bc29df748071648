"""Writes at known places: x[i, j] = v, index_copy, scatter, masked_scatter. A mixture of two laws by place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin.graph import Node
from fanin.theory import grid
from fanin.theory.combine import binary, matched
from fanin.theory.contraction import axis_groups
from fanin.theory.latent import Scatter
from fanin.theory.law import FEATURE, Axis, Groups, Law, compress, constant, fresh_latent, latent_for, subsets
from fanin.theory.notes import together
from fanin.theory.records import replace
from fanin.theory.rules import tally
from fanin.theory.spread import Kind, of_mixture
from fanin.theory.state import Known, Modelled, as_law, free_axes, is_free


@dataclass(frozen=True)
class Places:
    """Where a write goes.

    Attributes:
        where: axes of the target that are told apart; the written tensor has ``rank`` axes in their stead.
        index: for each place along them the number of the written row, -1 where there is none.
        rank, count: axes and number of the written rows.
        front: whether the axes of the rows come first among those of what is written (NumPy's rule).
    """

    where: tuple[int, ...]
    index: np.ndarray
    shape: tuple[int, ...]
    start: int

    @property
    def hit(self) -> np.ndarray:
        """Which places are written to."""
        return self.index >= 0

    @property
    def repeated(self) -> bool:
        """Whether a place is written to more than once."""
        return int(self.hit.sum()) < int(np.prod(self.shape))


def places_of(node: Node, x_shape: tuple[int, ...], v_shape: tuple[int, ...], inputs: tuple[Modelled, ...]) -> Places:
    """The places that a node writes to; they must be known."""
    a = node.attrs
    if "mask" in a:
        return _masked(np.asarray(_known(inputs[a["mask"]]), bool), x_shape, v_shape)
    arrays = [i if isinstance(i, np.ndarray) else _known(inputs[i]) for i in a["index"]]
    if "along" in a:
        return _each(arrays[0].astype(np.int64), a["along"], x_shape)
    where = a["axes"]
    if any(i.dtype == bool for i in arrays):
        if len(arrays) > 1:
            raise NotImplementedError("a write at a mask and a list of places together")
        where = tuple(range(where[0], where[0] + arrays[0].ndim))
        arrays = list(np.nonzero(arrays[0]))
    arrays = np.broadcast_arrays(*arrays)
    index = np.full([x_shape[d] for d in where], -1, np.int64)
    np.put(index, np.ravel_multi_index(_wrapped(arrays, index.shape), index.shape), np.arange(arrays[0].size))
    neighbours = where == tuple(range(where[0], where[0] + len(where)))
    return Places(where, index, arrays[0].shape, where[0] if neighbours else 0)


def _wrapped(arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Indices counted from the front."""
    return tuple(np.asarray(i, np.int64) % n for i, n in zip(arrays, shape, strict=True))


def _known(value: Modelled) -> np.ndarray:
    if not isinstance(value, Known):
        raise NotImplementedError("a write at places that depend on weights")
    return value.array


def _each(index: np.ndarray, along: int, x_shape: tuple[int, ...]) -> Places:
    """scatter: every element has a place of its own along one axis."""
    every = np.indices(index.shape)
    grids = [every[i] for i in range(index.ndim)]
    grids[along] = index
    full = np.full(x_shape, -1, np.int64)
    np.put(full, np.ravel_multi_index(_wrapped(grids, x_shape), x_shape), np.arange(index.size))
    return Places(tuple(range(len(x_shape))), full, index.shape, 0)


def _masked(mask: np.ndarray, x_shape: tuple[int, ...], v_shape: tuple[int, ...]) -> Places:
    """masked_scatter: whole rows where the mask does not vary along the last axis, else single elements."""
    mask = np.broadcast_to(mask, x_shape)
    rows = bool(v_shape) and v_shape[-1] == x_shape[-1] and bool((mask == mask[..., :1]).all())
    part = mask[..., 0] if rows else mask
    index = np.where(part, np.cumsum(part).reshape(part.shape) - 1, -1)
    return Places(tuple(range(part.ndim)), index, (int(part.sum()),), 0)


def put(node: Node, *inputs: Modelled) -> Law:
    """x with v at known places."""
    a = node.attrs
    x = as_law(inputs[0])
    v = _source(node, x, inputs)
    if hidden(node, inputs):
        if not a.get("add"):
            return _somewhere(node, x, v)
        return _added(node, x, v)
    where = places_of(node, x.shape, v.shape, inputs)
    v = rows_of(v, where, node) if "mask" in a else v
    if not a.get("add"):
        return _mixed(node, x, v, where)
    if where.repeated:
        several = tally_of(node, v.shape, inputs)
        return binary(np.add, x, tally.sums(v, several, node.shape, _axes(x, v, where)), node.shape, pair="sum")
    nothing = constant(x.shape, x.axes, 0.0)
    return binary(np.add, x, _mixed(node, nothing, v, where), node.shape, pair="sum")


def tally_of(node: Node, v_shape: tuple[int, ...], inputs: Sequence[Any]) -> tally.Tally:
    """Where the rows of what is added go, where a place gets several."""
    a = node.attrs
    array = _known(inputs[a["index"][0]]).astype(np.int64)
    axis = a["along"] if "along" in a else a["axes"][0]
    if "along" in a and array.shape == v_shape:  # of whole rows: an index that was expanded over features
        rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        array = rows[:, 0] if (rows == rows[:, :1]).all() else array
    if len(a["index"]) > 1 or array.ndim != 1 or len(v_shape) != len(node.shape) or v_shape[axis] != len(array):
        raise NotImplementedError("several numbers added at one place, element by element")
    return tally.Tally(array % node.shape[axis], axis, node.shape[axis])


def _added(node: Node, x: Law, v: Law) -> Law:
    """x with rows of v added somewhere: of the exact moments, which a grid of what is mostly zero does not keep."""
    rows, p = _somewhere(node, constant(x.shape, x.axes, 0.0), v), share_of(node, v.shape)
    law = binary(np.add, x, rows, node.shape, pair="sum")
    if len(law.values) > 1:
        return law
    axis = node.attrs["axes"][0]
    times = v.shape[axis] / node.shape[axis] if len(v.shape) == len(node.shape) else 0.0
    mean, second = p * v.mean, p * v.second
    if times > 1:  # every place gets several: the results of a token's experts
        mean, second = times * v.mean, times * (v.second + (times - 1) * v.mean**2)
    return law.with_values(matched(law.values[0], x.mean + mean, x.second + second + 2 * x.mean * mean)[None])


def hidden(node: Node, inputs: Sequence[object]) -> bool:
    """Whether a write along an axis goes to places that depend on weights, such as the experts a router picks.

    Elements that are set, or rows that are added, each somewhere else: the tokens of an expert.
    """
    a = node.attrs
    rows = bool(a.get("add")) and len(a.get("axes", ())) == 1
    return (("along" in a and not a.get("add")) or rows) and not isinstance(inputs[a["index"][0]], Known)


def share_of(node: Node, v_shape: tuple[int, ...]) -> float:
    """The share of the target that is written to, of places that are all different."""
    axis = node.attrs["along"] if "along" in node.attrs else node.attrs["axes"][0]
    return min(v_shape[axis] / node.shape[axis], 1.0) if v_shape else 1 / node.shape[axis]


def _somewhere(node: Node, x: Law, v: Law) -> Law:
    """Any place may be written to: the mixture of what is there and what is written, the larger in the upper part."""
    if len(x.values) > 1:
        raise NotImplementedError("a write at places that depend on weights, into what differs by place")
    p = share_of(node, v.shape)
    written = grid.quantile_grid(v.values.ravel(), (v.level_weight[:, None] * grid.WEIGHT).ravel())
    rank = np.clip((grid.CDF - (1 - p)) / p, grid.CDF[0], grid.CDF[-1])
    values = np.where(1 - p < grid.CDF, np.interp(rank, grid.CDF, written), x.values[0])
    corr = {s: v.correlation(s) for s in v.latent.corr}
    law = Law(node.shape, v.axes if v.shape else x.axes, values[None], x.level, fresh_latent(corr), x.exact, x.note)
    axes = tuple(_sized(a, n) if axis_groups(a) else b for a, b, n in zip(law.axes, x.axes, node.shape, strict=True))
    return replace(law, axes=axes).marked("written to places as likely as any")


def _source(node: Node, x: Law, inputs: tuple[Modelled, ...]) -> Law:
    source = node.attrs.get("source", node.attrs.get("value"))
    if isinstance(source, float):
        return constant((), (), source)
    return as_law(inputs[source])


def rows_of(v: Law, where: Places, node: Node) -> Law:
    """The source of masked_scatter as the rows that are used, one after another."""
    whole = len(where.where) < len(node.shape)
    tail = (v.shape[-1],) if whole else ()
    level = np.zeros((1,) * (1 + len(tail)), np.int32)
    if len(v.values) > 1:
        kept = v.level.shape[-1] if whole else 1
        full = np.broadcast_to(v.level, (*v.shape[:-1], kept) if whole else v.shape)
        level = full.reshape(-1, *([kept] if whole else []))[: where.shape[0]]
    lead = v.axes[: len(v.axes) - len(tail)]
    group = next((axis for axis in reversed(lead) if axis_groups(axis)), ())
    axes = (_sized(group, where.shape[0]), *v.axes[len(v.axes) - len(tail) :])
    return replace(v, shape=(where.shape[0], *tail), axes=axes, level=level)


def _sized(axis: Axis, n: int) -> Axis:
    return tuple(replace(atom, size=n) for atom in axis[-1:]) if n > 1 else ()


def laid(v_shape: tuple[int, ...], where: Places, rank: int) -> list[int | None]:
    """For every axis of rows and rest (in this order) the axis of what is written, None where it is repeated."""
    rest = rank - len(where.where)
    total = len(where.shape) + rest
    lead = total - len(v_shape)
    order = list(range(total))
    rows = order[where.start : where.start + len(where.shape)]
    others = order[: where.start] + order[where.start + len(where.shape) :]
    return [i - lead if i >= lead and v_shape[i - lead] > 1 else None for i in (*rows, *others)]


def _mixed(node: Node, x: Law, v: Law, where: Places) -> Law:
    level = _levels(x, v, where) if len(x.values) + len(v.values) > 1 else None
    assert level is not None
    axes = _axes(x, v, where)
    values, level = compress(np.concatenate([x.values, v.values]), level)
    out = Law(node.shape, axes, values, level, fresh_latent({}), x.exact and v.exact, together(x.note, v.note))
    latent = latent_for(out, _pairs(x, v, out, where), out.groups)
    return replace(out, latent=replace(latent, spread=_scatter(x, v, out, where)))


def _levels(x: Law, v: Law, where: Places) -> np.ndarray:
    """Level of every place: those of x first, then those of v."""
    rank = len(x.shape)
    rest = [d for d in range(rank) if d not in where.where]
    mine = x.level.transpose([*where.where, *rest])
    order = laid(v.shape, where, rank)
    wide = v.level.transpose([d for d in order if d is not None] + [d for d in range(v.level.ndim) if d not in order])
    sizes = [1 if d is None else v.level.shape[d] for d in order]
    wide = wide.reshape(sizes)
    rows, tail = sizes[: len(where.shape)], sizes[len(where.shape) :]
    if max(rows, default=1) > 1:
        theirs = np.broadcast_to(wide, (*where.shape, *tail)).reshape(-1, *tail)[where.index]
    else:
        theirs = wide.reshape((1,) * where.index.ndim + tuple(tail))
    hit = where.hit.reshape(where.hit.shape + (1,) * len(rest))
    level = np.where(hit, theirs + len(x.values), mine).astype(np.int32)
    return level.transpose(np.argsort([*where.where, *rest]))


def _axes(x: Law, v: Law, where: Places) -> tuple[Axis, ...]:
    """The target's axes; those of a constant take the meaning of what is written there."""
    rank = len(x.shape)
    rest = [d for d in range(rank) if d not in where.where]
    order = laid(v.shape, where, rank)
    axes = list(x.axes)
    rows, others = order[: len(where.shape)], order[len(where.shape) :]
    pairs = list(zip(rest, others, strict=True))
    if len(rows) == len(where.where):
        pairs += list(zip(where.where, rows, strict=True))
    for d, source in pairs:
        unnamed = all(is_free(g) for g in axis_groups(axes[d]))
        if source is not None and unnamed and v.axes[source]:
            axes[d] = _sized(v.axes[source], x.shape[d])
    if any(axis_groups(a) == {FEATURE} for a in axes) or not rest:
        return tuple(axes)
    last = rest[-1]  # one number for each row, laid over a constant's features
    names = free_axes(x.shape)
    return tuple(axes if axis_groups(axes[last]) else [*axes[:last], names[last], *axes[last + 1 :]])


def shares(hit: np.ndarray, axes: tuple[Axis, ...], differ: Groups) -> tuple[float, float]:
    """How often both of two places that differ in these groups are written to, and how often neither is."""
    dims = tuple(i for i, axis in enumerate(axes) if axis_groups(axis) & differ)
    n = int(np.prod([hit.shape[i] for i in dims])) if dims else 1
    share = float(hit.mean())
    if n < 2:
        return share, 1 - share
    both = lambda h: float(np.mean((h.sum(dims) ** 2 - h.sum(dims)) / (n * (n - 1))))  # noqa: E731
    return both(hit.astype(float)), both(1.0 - hit)


def in_words_of(v: Law, out_axes: tuple[Axis, ...], where: Places, differ: Groups) -> Groups:
    """Groups of the result in the words of what is written."""
    order = laid(v.shape, where, len(out_axes))
    rest = [d for d in range(len(out_axes)) if d not in where.where]
    names: set[str] = set()
    if any(axis_groups(out_axes[d]) & differ for d in where.where):
        for source in order[: len(where.shape)]:
            names |= axis_groups(v.axes[source]) if source is not None else set()
    for d, source in zip(rest, order[len(where.shape) :], strict=True):
        if axis_groups(out_axes[d]) & differ and source is not None:
            names |= axis_groups(v.axes[source])
    return frozenset(names)


def _kinds(x: Law, v: Law, out: Law, where: Places, differ: Groups) -> tuple[Kind, Kind]:
    """Pairs of places that differ in these groups, of which neither is written to, and both."""
    both, neither = shares(where.hit, tuple(out.axes[d] for d in where.where), differ)
    own = frozenset(g for a, b in zip(out.axes, x.axes, strict=True) if axis_groups(a) & differ for g in axis_groups(b))
    return (neither, x, own), (both, v, in_words_of(v, out.axes, where, differ))


def _pairs(x: Law, v: Law, out: Law, where: Places) -> Callable[[Groups], float]:
    def pair(differ: Groups) -> float:
        (neither, _, own), (both, _, theirs) = _kinds(x, v, out, where, differ)
        mixed = max(1 - both - neither, 0.0)
        return neither * x.pair(own) + both * v.pair(theirs) + mixed * x.mean * v.mean

    return pair


def _scatter(x: Law, v: Law, out: Law, where: Places) -> dict[Groups, Scatter]:
    """Places that are written to are more alike, or less, than others: which they are is known."""
    along = frozenset(g for d in where.where for g in axis_groups(out.axes[d]))
    return {s: of_mixture(*_kinds(x, v, out, where, s)) for s in subsets(out.groups) if s & along}
