"""Routing: the largest entries of a row, experts' weights, and gathers at places that depend on weights."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv, ndtri

from fanin.graph import Kind, Node
from fanin.theory import grid, windows
from fanin.theory.contraction import axis_groups, axis_size, weighted_sum
from fanin.theory.law import FEATURE, Atom, Axis, Groups, Law, fresh_latent, latent_for, subsets
from fanin.theory.records import replace
from fanin.theory.rules import picked
from fanin.theory.state import Hidden, Known, Modelled, Ranked, Value, as_law

SLOT = "slot"  # the experts that one token is sent to: never the same one
ROW = "row"  # places that have a row of a weight each


def top(node: Node, *inputs: Value) -> Law:
    """The k largest of n along an axis: the j-th largest of n independent ones is F^-1 of a Beta(n - j + 1, j)."""
    x = as_law(inputs[0])
    axis, largest = node.attrs["axis"] % len(x.shape), bool(node.attrs.get("largest", True))
    return _slots(x, axis, node.shape, largest)


def _slots(x: Law, axis: int, shape: tuple[int, ...], largest: bool) -> Law:
    """The first of every row by rank, a level each."""
    n, k = x.shape[axis], shape[axis]
    values = x.values if len(x.values) == 1 else (x.level_weight @ x.values)[None]
    values = grid.increasing(values)[0]
    ranks, s2 = np.arange(1, k + 1) if largest else np.arange(n, n - k, -1), picked.of_softmax(x)
    if largest and s2 and len(x.values) == 1 and axis_groups(x.axes[axis]) == {FEATURE}:
        rows = np.stack([picked.formed(slot) for slot in picked.drawn(n, k, s2).T])
    else:
        rows = np.stack([grid.at(values, _order_statistic(n, int(j))) for j in ranks])
    level = np.arange(k, dtype=np.int32).reshape([k if i == axis else 1 for i in range(len(x.shape))])
    axes = tuple((Atom(k, FEATURE),) if i == axis else a for i, a in enumerate(x.axes))
    latent = replace(fresh_latent(x.latent.corr), picked=n if largest else 0, source=x.latent.source)
    law = Law(shape, axes, rows, level, latent, x.exact, x.note)
    return law.marked("order statistics of independent entries") if len(x.values) > 1 else law


def places(node: Node, x: Value, axes: tuple[Axis, ...]) -> Hidden:
    """Where the first of every row by rank stand; they are hidden, but not of what they are the ranks."""
    if node.kind is not Kind.ROUTE or not isinstance(x, Law):
        return Hidden(node.shape, axes)
    axis, largest = node.attrs["axis"] % len(x.shape), bool(node.attrs.get("largest", True))
    up = rises(x, axis)
    return Hidden(node.shape, axes, None if up is None else Ranked((_whose(x), up), axis, largest))


def _whose(x: Law) -> tuple:
    return x.latent.id, x.latent.feature_view, x.latent.place_view


def rises(x: Law, axis: int) -> bool | None:
    """Whether a row's elements, of one law, all rise or all fall with their latent; None where they do neither."""
    steps = np.diff(x.values)
    if x.level.shape[axis] > 1 or not np.isfinite(steps).all() or not steps.any():
        return None
    return True if (steps >= 0).all() else False if (steps <= 0).all() else None


def ranked(x: Law, where: Value, axis: int) -> bool | None:
    """Whether the places are those of a row's largest, or smallest; None where they are not ranks of these elements.

    They are where what was ranked is another function of the same latent: a router's weights behind its choice.
    """
    found = where.ranked if isinstance(where, Hidden) else None
    if found is None or found.axis != axis or found.of[0] != _whose(x) or (up := rises(x, axis)) is None:
        return None
    return found.largest == (up == found.of[1])


def _order_statistic(n: int, j: int) -> np.ndarray:
    """Latent of the j-th largest of n as a function of its own latent."""
    p = betaincinv(n - j + 1, j, np.clip(grid.CDF, 1e-15, 1 - 1e-15))
    return np.clip(grid.ndtri(p), -9, 9)


def chances(n: int, k: int, largest: bool) -> np.ndarray:
    """(k, POINTS) chance of an element to be the j-th largest (or smallest) of n, by its latent."""
    from scipy.stats import binom  # takes as long to import as all of the theory

    below = np.clip(grid.CDF if largest else 1 - grid.CDF, 1e-15, 1 - 1e-15)
    return np.stack([binom.pmf(j, n - 1, 1 - below) for j in range(k)])  # so many others are beyond it


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
    corr = {s: r * met(x, s, count) for s, r in law.latent.corr.items()}
    return replace(law, latent=fresh_latent(corr))


def met(x: Law, differ: Groups, experts: int) -> float:
    """Chance that two tokens that are sent to ``k`` of so many experts are with one expert, by how alike they are.

    A router's scores of an expert are Gaussians that correlate as the tokens do, ``r``; an expert is chosen where its
    score is beyond a threshold, by k of n. So of k^2 pairs of copies ``n P(z > t, z' > t) / k^2`` meet: 1/n of tokens
    that have nothing in common. Two copies of one token never do. Behind their expert copies of a token are no longer
    alike, and what two tokens still have in common is that of those that met: then one.
    """
    copies = float(np.prod([a.size for axis in x.axes for a in axis if a.group == SLOT]))
    if differ == {SLOT}:
        return 0.0
    if copies > 1 and x.correlation(frozenset((SLOT,))) < 0.5:
        return 1.0
    known = differ - {SLOT}
    r = float(np.clip(x.pair(known) / x.second, 0, 1)) if x.second > 0 else 0.0
    return experts * _both_beyond(copies / experts, r) / copies**2


def _both_beyond(share: float, r: float) -> float:
    """P(z > t, z' > t) of two Gaussians of correlation r, each beyond t with the given probability."""
    if share >= 1:
        return 1.0
    t = ndtri(1 - share)
    angle = np.linspace(0, np.arcsin(r), 65)  # Plackett: the derivative by r is the density at (t, t)
    density = np.exp(-(t**2) / (1 + np.sin(angle))) / (2 * np.pi)
    return float(share**2 + np.trapezoid(density, angle))


def index(node: Node, *inputs: Modelled) -> Value:
    """x[i, j, ...] with index arrays: known ones move levels, hidden ones leave the mixture of all places."""
    x = inputs[0]
    where = node.attrs["axes"]
    arrays = [inputs[p] for p in node.attrs["positions"]]
    if isinstance(x, Hidden) or (isinstance(x, Known) and not node.is_float):
        return Hidden(node.shape, _index_axes(node, x.axes, arrays, where))
    law = windows.forgotten(as_law(x))
    if len(arrays) == 1 and isinstance(arrays[0], Known) and arrays[0].array.dtype == bool:
        return _picked(law, node, arrays[0].array, where[0])
    if not law.groups and len(arrays) == 1 and isinstance(arrays[0], Hidden) and len(arrays[0].shape) == 1:
        return _rows_of_weight(law, node, where[0])
    axes = _index_axes(node, law.axes, arrays, where)
    if all(isinstance(v, Known) for v in arrays):
        level = _indexed_level(law, node, [np.asarray(v.array) for v in arrays if isinstance(v, Known)])
        law = replace(law, level=level)
    else:
        law = _mixture(law, where, len(node.shape))
    view, over = ("index", node.id), frozenset().union(*(axis_groups(x.axes[d]) for d in where))
    latent = replace(law.latent.viewed(view, over), matrix=None, border=None)
    if any(FEATURE in axis_groups(x.axes[d]) for d in where):
        latent = replace(latent, feature_view=(*latent.feature_view, view))
    return replace(law, shape=node.shape, axes=axes, latent=latent)


def _rows_of_weight(law: Law, node: Node, axis: int) -> Law:
    """Rows of a weight (experts' biases), one of its own for every place: two places have the same one by chance."""
    law = _mixture(law, (axis,), len(node.shape))
    axes = (*law.axes[:axis], (Atom(node.shape[axis], ROW),), *law.axes[axis + 1 :])
    out = replace(law, shape=node.shape, axes=axes)
    same = 1 / law.shape[axis]
    return replace(out, latent=latent_for(out, lambda _: same * law.second + (1 - same) * law.mean**2, out.groups))


def _picked(law: Law, node: Node, mask: np.ndarray, first: int) -> Law:
    """x[mask]: the places where a known mask is true, one after another, told apart by one group."""
    dims = tuple(range(first, first + mask.ndim))
    at = np.nonzero(mask)
    level = law.level
    if any(level.shape[d] > 1 for d in dims):
        wide = [law.shape[d] if d in dims else n for d, n in enumerate(level.shape)]
        level = np.broadcast_to(level, wide)[(slice(None),) * first + at]
    else:
        level = level.reshape((*level.shape[:first], 1, *level.shape[first + mask.ndim :]))
    inner = frozenset(g for d in dims for g in axis_groups(law.axes[d])) - {FEATURE}
    group = next(iter(sorted(inner)), FEATURE)
    axes = (*law.axes[:first], _resized_to(group, len(at[0])), *law.axes[first + mask.ndim :])
    out = replace(law, shape=node.shape, axes=axes, level=level)
    shares = _differing([law.axes[d] for d in dims], at)

    def pair(differ: Groups) -> float:
        if group not in differ:
            return law.pair(differ)
        return sum(share * law.pair((differ - inner) | s) for s, share in shares.items())

    latent = latent_for(out, pair, out.groups)
    return replace(out, latent=latent)


def _resized_to(group: str, n: int) -> Axis:
    return (Atom(n, group),) if n > 1 else ()


def _differing(axes: list[Axis], at: tuple[np.ndarray, ...]) -> dict[Groups, float]:
    """In which groups two different picked places differ: the share of ordered pairs for each set of them."""
    names = sorted({g for axis in axes for g in axis_groups(axis)})
    n = len(at[0])
    alike: dict[Groups, float] = {}
    for same in [frozenset(), *subsets(frozenset(names))]:
        chosen = [i for i, axis in enumerate(axes) if axis_groups(axis) & same or not axis_groups(axis)]
        rows = np.stack([at[i] for i in chosen]) if chosen else np.zeros((1, n), int)
        counts = np.unique(rows, axis=1, return_counts=True)[1].astype(float)
        alike[same] = float((counts**2).sum())
    exact = {}
    for same in sorted(alike, key=len, reverse=True):  # equal in these and in no other
        exact[same] = alike[same] - sum(v for other, v in exact.items() if same < other)
    total = max(n * n - n, 1)
    everything = frozenset(names)
    return {everything - same: v / total for same, v in exact.items() if same != everything}


def take(node: Node, *inputs: Modelled) -> Value:
    """torch.gather: along one axis every place takes an element of its own; hidden places leave the mixture."""
    x, places = inputs[0], inputs[node.attrs["index"]]
    axis = node.attrs["axis"]
    if isinstance(x, Hidden) or (isinstance(x, Known) and not node.is_float):
        return Hidden(node.shape, places.axes)
    law = as_law(x)
    largest = ranked(law, places, axis)
    if largest is not None:
        return _slots(law, axis, node.shape, largest)
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
    latent = replace(law.latent.viewed(view, axis_groups(x.axes[axis])), matrix=None, border=None)
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
