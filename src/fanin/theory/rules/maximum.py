"""The largest or smallest of a window, or along axes: order statistics of correlated latents."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory import border, channels, fields, grid, lags, outermost
from fanin.theory.border import Border
from fanin.theory.contraction import axis_groups
from fanin.theory.largest import common, largest, largest_latent, variance
from fanin.theory.latent import Scatter
from fanin.theory.law import (
    FEATURE,
    MAX_VARIANCES,
    Atom,
    Axis,
    Groups,
    Law,
    compress,
    fresh_latent,
    latent_for,
    levels_of_squares,
    subsets,
)
from fanin.theory.places import POSITION
from fanin.theory.records import replace
from fanin.theory.rules.convolution import as_conv, tap_sum


def of_windows(node: Node, x: Law, axes: tuple[Axis, ...], groups: Groups, taps: np.ndarray) -> Law:
    """The largest of every window: of elements that are alike, of the level nearest to the window's mean square.

    Args:
        axes: of the result.
        groups: that a window's elements differ in.
        taps: number of real elements under every window.
    """
    told = border.features(x)
    if told is not None and len(told.laws) <= border.FEW and axes[1] == (Atom(node.shape[1], FEATURE),):
        return _of_kinds(node, x, axes, groups, taps, told)
    r = inside(node, x, groups)
    order = np.argsort(x.seconds, kind="stable")
    rows = grid.increasing(x.values[order])
    own, counts = _window_squares(node, x, taps), np.maximum(np.round(taps), 1)
    numbers, level = levels_of_squares(own, MAX_VARIANCES)
    edges = (x.seconds[order][1:] + x.seconds[order][:-1]) / 2
    nearest = np.searchsorted(edges, numbers)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt(numbers / x.seconds[order][nearest])
    scale = np.where(np.isfinite(scale), scale, 1.0)
    found = maxima(node, x, groups)
    alike, kind = _by_kind(node, x, groups, r, found)
    code = level + len(numbers) * (kind + len(alike) * counts.astype(np.int64))
    codes, level = np.unique(code, return_inverse=True)
    (which, of), values = divmod(codes, len(numbers)), []
    for n, k, own in zip(*divmod(which, len(alike)), of, strict=True):
        values.append(grid.at(rows[nearest[own]], largest_latent(int(n), float(alike[k]))) * scale[own])
    values, level = compress(np.stack(values), level.reshape(code.shape).astype(np.int32))
    law = Law(node.shape, axes, values, level, _latent(x, groups, float(np.mean(counts)), r), x.exact, x.note)
    near = None if found is None else fields.by_lag(x, node.shape, windows_of(node), found)
    law = law if near is None else lags.with_correlations(law, near, whole=True)
    law = replace(
        law,
        latent=replace(law.latent, spread=_scattered(x, law, found, r, float(np.mean(counts))), reach=x.latent.reach),
    )
    law = _bordered(node, law, x, float(np.mean(counts)))
    return law if len(x.values) == 1 else law.marked("max pooling of places with different laws")


def _of_kinds(
    node: Node, x: Law, axes: tuple[Axis, ...], groups: Groups, taps: np.ndarray, told: channels.Kinds
) -> Law:
    """Of a map whose features are of several laws, as pieces of a concatenation: each has the largest of its own."""
    made = []
    for one in told.laws:
        shape = (node.shape[0], one.shape[1], *node.shape[2:])
        made.append(of_windows(replace(node, shape=shape), one, (axes[0], one.axes[1], *axes[2:]), groups, taps))
    law = channels.joined(replace(x, shape=node.shape, axes=axes), told, made)
    law = lags.joined(law, told.shares, made)
    if x.latent.pieces is None:
        return law
    return replace(law, latent=replace(law.latent, pieces=channels.pieces(law, made, 1)))


def _scattered(x: Law, law: Law, found: fields.Maxima | None, r: float, n: float) -> dict[Groups, Scatter]:
    """Scatter of the correlations of the largest: as of means over windows, to the first order."""
    if not x.latent.spread or n <= 1:
        return dict(x.latent.spread)
    within = r + (1 - r) / n
    top = found.variance if found is not None else r + (1 - r) * variance(max(round(n), 1))
    return {s: x.spread(s).times(within / top) for s in subsets(law.groups)}


FEWEST = 2.0
"""Dimensions that directions have at least."""


def _latent(x: Law, groups: Groups, n: float, r: float, d: float = np.inf):
    """What maxima over n elements, which correlate by r and differ in these groups, have in common."""
    return fresh_latent({s: _common(x, s, groups, n, r, d) for s in x.latent.corr})


def _common(x: Law, differ: Groups, groups: Groups, n: float, r: float, d: float) -> float:
    others = x.correlation(differ | groups)
    one = others if differ & groups else x.correlation(differ)
    shared = 0.0
    if d < np.inf:
        between, within = (s.whole if (s := x.latent.spread.get(g)) else 0.0 for g in (differ | groups, groups))
        shared = min(between / within, 1.0) ** 2
    return float(np.clip(common(max(round(n), 1), r, one, others, d, shared), -1, 1))


def inside(node: Node, x: Law, groups: Groups) -> float:
    """Correlation of two elements of a window; of a map that carries a border as near to each other as they are."""
    if not groups:
        return 0.0
    found = maxima(node, x, groups)
    if found is not None:
        return round(found.alike, 4)
    taps = _read(node, x)
    if taps is None:
        return max(x.correlation(groups), 0.0)
    share, count = taps
    of = np.diag(share @ _corr(x)[frozenset((POSITION,))] @ share.T)
    return float(np.clip(count @ of / count.sum(), 0, 1))


def _by_kind(node: Node, x: Law, groups: Groups, r: float, told: fields.Maxima | None) -> tuple[np.ndarray, np.ndarray]:
    """Correlations inside windows of each kind, and the kind of every window, with the axes of the result.

    Of a map that carries a border all pairs of a kind are more alike by what neighbours are.
    """
    taps = _read(node, x) if groups == lags.PLACES else None
    tied = None if told is None else fields.ties(x, node.shape, windows_of(node))
    mean, near = x.correlation(lags.PLACES), 0.0
    if taps is not None:
        of = np.clip(np.diag(taps[0] @ _corr(x)[lags.PLACES] @ taps[0].T), 0, 1)
    elif tied is not None:
        of = np.full(len(tied), max(mean, 0.0))
    else:
        return np.array([r]), np.zeros((1,) * len(node.shape), np.int64)
    if told is not None:  # beyond what any two have
        near = max(r - mean, 0.0) / max(1 - mean, 1e-12)
    alike = np.clip(of + (1 - of) * near * (1.0 if tied is None else tied), 0, 1)
    return np.round(alike, 4), border.kinds(tuple(node.shape[2:])).of.reshape(1, 1, *node.shape[2:])


def maxima(node: Node, x: Law, groups: Groups) -> fields.Maxima | None:
    """What windows of a map have in common whose neighbours are alike, or that overlap."""
    return fields.maxima(x, windows_of(node)) if groups == lags.PLACES else None


def _corr(x: Law) -> dict[Groups, np.ndarray]:
    found = border.carried(x)
    assert found is not None
    return dict(found.corr)


def _read(node: Node, x: Law) -> tuple[np.ndarray, np.ndarray] | None:
    """Shares of each kind of place among those under a window of each kind, and how many windows are of each."""
    if border.carried(x) is None or len(x.shape) - len(node.attrs["kernel"]) != 2:
        return None
    sizes, out = tuple(x.shape[2:]), tuple(node.shape[2:])
    if border.sizes_of(x) != sizes or 1 in out or frozenset((POSITION,)) not in _corr(x):
        return None
    return border.under(sizes, out, windows_of(node))[0], border.kinds(out).count


def windows_of(node: Node) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, padding, dilation along every axis."""
    a = node.attrs
    return list(zip(a["kernel"], a["stride"], a["padding"], a["dilation"], strict=True))


def _bordered(node: Node, law: Law, x: Law, n: float) -> Law:
    """The maxima of a map that carries a border, by how near to it they are."""
    taps, sizes = _read(node, x), border.sizes_of(law)
    if taps is None or sizes is None:
        return law
    share, corr, count = taps[0], _corr(x), max(round(n), 1)
    own = np.clip(np.diag(share @ corr[frozenset((POSITION,))] @ share.T), 0, 1)
    found = {s: _between(r, corr.get(s | {POSITION}), share, own, count) for s, r in corr.items()}
    law = replace(law, latent=replace(law.latent, border=Border(sizes, found)))
    return border.with_pairs(law, border.pairs(law, sizes), sizes)


def _between(r: np.ndarray, others: np.ndarray | None, share: np.ndarray, own: np.ndarray, n: int) -> np.ndarray:
    """Correlations of maxima of every two kinds of window, or of one kind in two samples."""
    if r.ndim == 1:
        apart = np.diag(share @ others @ share.T) if others is not None else share @ r
        found = [common(n, o, a, b) for o, a, b in zip(own, share @ r, apart, strict=True)]
        return np.clip(np.array(found), -1, 1)
    spread = np.sqrt([1 / common(n, o, 1.0, 1.0) for o in own])  # deviation of the top
    return np.clip(share @ r @ share.T / np.outer(spread, spread), -1, 1)


def _window_squares(node: Node, x: Law, taps: np.ndarray) -> np.ndarray:
    """Mean square of what is under every window."""
    if len(x.shape) - len(node.attrs["kernel"]) != 2 or len(x.values) == 1:
        return np.full((1,) * len(x.shape), x.second)
    profile = x.profile(x.seconds)
    profile = profile.mean(1, keepdims=True) if profile.shape[1] > 1 else profile
    return tap_sum(profile, as_conv(node), node.attrs["kernel"]) / np.maximum(taps, 1)


def along(x: Law, dims: tuple[int, ...], shape: tuple[int, ...], axes: tuple[Axis, ...], n: float, op: str) -> Law:
    """The largest (or smallest) of all elements along axes."""
    over = frozenset(g for d in dims for g in axis_groups(x.axes[d])) - {FEATURE}
    r = max(x.correlation(over), 0.0) if over else 0.0
    sign, d = 1 if op == "max" else -1, _dimensions(x, over, r)
    rows = grid.increasing(sign * x.values)
    if not all(x.level.shape[d] == 1 for d in dims):
        return _of_unlike(x, rows, dims, shape, axes, (r, d), sign)
    values, level = compress(np.stack([sign * largest(v, int(n), r, d) for v in rows]), x.level)
    return Law(shape, axes, values, level, _latent(x, over, float(int(n)), r, d))


def _of_unlike(
    x: Law,
    rows: np.ndarray,
    dims: tuple[int, ...],
    shape: tuple[int, ...],
    axes: tuple[Axis, ...],
    tied: tuple[float, float],
    sign: int,
) -> Law:
    """The largest of places of several levels.

    Args:
        rows: the levels' values, rising, times the sign.
        tied: correlation of the latents, and in how many dimensions what is left of them lies.
    """
    number, level = _numbers(rows, x, dims)
    over = frozenset(g for d in dims for g in axis_groups(x.axes[d])) - {FEATURE}
    counts = [max(round(float(row.sum())), 1) for row in number]
    tops = [outermost.of_mixture(rows, row, n, *tied) for row, n in zip(number, counts, strict=True)]
    weight = np.bincount(level.ravel(), minlength=len(tops)) / level.size
    law = Law(shape, axes, *compress(sign * np.stack([t for t, _ in tops]), level), fresh_latent({}))
    given = np.tensordot(weight, np.stack([g for _, g in tops]), 1)
    alone, together, n = float(given.mean()) ** 2, float((given**2).mean()), float(np.mean(counts))
    whole = max(common(max(round(n), 1), tied[0], tied[0], tied[0], tied[1], 1.0), 1e-6)

    def pair(differ: Groups) -> float:
        return alone + (together - alone) * min(_common(x, differ, over, n, *tied) / whole, 1.0)

    return replace(
        law, latent=latent_for(law, pair, frozenset().union(*x.latent.corr) if x.latent.corr else frozenset())
    )


def _dimensions(x: Law, over: Groups, r: float) -> float:
    """In how many dimensions places are directions whose products scatter as their correlations do."""
    scatter = x.latent.spread.get(over)
    if scatter is None or scatter.whole <= 0:
        return np.inf
    return round(max(((1 - r) / scatter.whole) ** 2, FEWEST), 1)


def _numbers(rows: np.ndarray, x: Law, dims: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """How many elements of each level lie along ``dims``, by remaining place, and which of these rows a place has.

    Elements that lie wholly below others (of a mask) are never the largest.
    """
    count = len(rows)
    moved = np.moveaxis(x.level, dims, range(-len(dims), 0))
    rest = moved.shape[: moved.ndim - len(dims)]
    lines = moved.reshape(int(np.prod(rest)), -1)
    number = np.stack([np.bincount(line, minlength=count) for line in lines])
    top, low = rows[:, -1], rows[:, 0]
    floor = np.where(number > 0, low, -np.inf).max(1, keepdims=True)
    number = np.where(top >= floor, number, 0) * (float(np.prod([x.shape[d] for d in dims])) / lines.shape[1])
    distinct, level = np.unique(number, axis=0, return_inverse=True)
    kept = [1 if d in dims else k for d, k in enumerate(x.level.shape)]
    return distinct, level.reshape(kept).astype(np.int32)


__all__ = ["along", "inside", "maxima", "of_windows", "windows_of"]
