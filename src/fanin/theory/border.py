"""Places of a map by how near they are to its border, and the pair moments of every two kinds of place.

Behind zero padding an output at the border has fewer taps, so it shares less with others, and what places have in
common differs from pair to pair: two places in the middle of a 7 x 7 map have twice the pair moment of two corners, and
a 3 x 3 kernel reads the middle more often. Along each axis the places next to either end are kinds of their own, all
others one. A latent may then carry a correlation for every two kinds, for each set of groups in which places differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fanin.theory import channels, grid
from fanin.theory.law import FEATURE, Groups, Latent, Law, latent_for, subsets
from fanin.theory.places import POSITION, mehler_sum, solved_alone, solved_pairs
from fanin.theory.records import remembered, replace

EDGE = {1: 6, 2: 3, 3: 1}
"""How many places next to each end are told apart, by the number of axes."""

FEW = 8
"""Kinds of features whose pair moments are each taken for themselves; of more the root mean square of coefficients."""

Pairs = Mapping[Groups, np.ndarray]
"""By groups: (kinds, kinds) for places that differ, (kinds,) for the same place of two samples."""


@dataclass(frozen=True, eq=False)
class Border:
    """Correlations of a latent between kinds of places of a map of these sizes."""

    sizes: tuple[int, ...]
    corr: Pairs


@dataclass(frozen=True, eq=False)
class Kinds:
    """Kinds of places of a map.

    Attributes:
        of: (places,) kind of every place, row-major.
        count: (kinds,) how many places are of each.
        middle: for every axis the index of a place of each kind, (kinds,).
        along: for every axis the kind of each index along it, and how many there are.
    """

    of: np.ndarray
    count: np.ndarray
    middle: tuple[np.ndarray, ...]
    along: tuple[tuple[np.ndarray, int], ...]

    def at(self, index: Sequence[np.ndarray]) -> np.ndarray:
        """Kind of places given by their index along every axis."""
        kind = np.zeros(np.shape(index[0]), int)
        for i, (of, n) in zip(index, self.along, strict=True):
            kind = kind * n + of[i]
        return kind


@lru_cache(maxsize=256)
def kinds(sizes: tuple[int, ...]) -> Kinds:
    """The kinds of places of a map of these sizes."""
    edge = EDGE[max(min(sum(n > 1 for n in sizes), 3), 1)]
    along = []
    for n in sizes:
        at = np.arange(n)
        of = np.where(at < edge, at, np.where(at >= n - edge, at - n + 2 * edge + 1, edge)) if n > 2 * edge + 1 else at
        along.append((of, int(of.max()) + 1))
    of = np.zeros(1, int)
    for one, n in along:
        of = (of[:, None] * n + one[None, :]).ravel()
    middles = [
        np.array([(np.flatnonzero(one == k)[0] + np.flatnonzero(one == k)[-1]) // 2 for k in range(n)])
        for one, n in along
    ]
    mesh = np.meshgrid(*middles, indexing="ij")
    return Kinds(of, np.bincount(of), tuple(m.ravel() for m in mesh), tuple(along))


def sizes_of(law: Law) -> tuple[int, ...] | None:
    """Sizes of the map that a law's positions form; None where there is none, or too many kinds of places."""
    sizes = tuple(atom.size for axis in law.axes for atom in axis if atom.group == POSITION and atom.size > 1)
    return sizes if 1 <= len(sizes) <= 3 else None


def carried(law: Law) -> Border | None:
    """The border that a law's latent carries, if it is one of its own map."""
    border = law.latent.border
    return border if border is not None and border.sizes == sizes_of(law) else None


@lru_cache(maxsize=64)  # every consumer of a tensor asks again; nothing may be written to it
def shares(law: Law, sizes: tuple[int, ...]) -> np.ndarray:
    """Share of each level among the places of each kind, (kinds, levels)."""
    of, count = kinds(sizes), len(law.values)
    if POSITION not in law.level_groups:
        return np.broadcast_to(law.level_weight, (len(of.count), count))
    shape, front = [], []
    full = [n if any(a.group == POSITION and a.size > 1 for a in axis) else m
            for n, m, axis in zip(law.shape, law.level.shape, law.axes, strict=True)]  # fmt: skip
    for n, axis in zip(full, law.axes, strict=True):
        atoms = [a for a in axis if a.size > 1] if n > 1 else []
        for atom in atoms:
            if atom.group == POSITION:
                front.append(len(shape))
            shape.append(atom.size)
    rows = np.moveaxis(np.broadcast_to(law.level, full).reshape(shape), front, range(len(front)))
    rows = rows.reshape(len(of.of), -1)
    table = np.bincount((rows + count * of.of[:, None]).ravel(), minlength=count * len(of.count))
    table = table.reshape(len(of.count), count)
    return table / table.sum(1, keepdims=True)


@remembered
def squares(law: Law, sizes: tuple[int, ...]) -> np.ndarray:
    """Mean square at each kind of place."""
    return shares(law, sizes) @ law.seconds


def pairs(law: Law, sizes: tuple[int, ...]) -> dict[Groups, np.ndarray]:
    """E[x x'] of the same feature at places of every two kinds, for every set of groups in which they differ."""
    return {differ: _between(law, sizes, differ) for differ in subsets(law.groups)}


@remembered
def _between(law: Law, sizes: tuple[int, ...], differ: Groups) -> np.ndarray:
    """The same for one set of groups: the mean over kinds of features, of which pieces have latents of their own."""
    told = features(law)
    if told is not None and len(told.laws) <= FEW:
        return sum(
            (w * _between(one, sizes, differ) for w, one in zip(told.shares, told.laws, strict=True)), np.zeros(())
        )
    border = carried(law)
    r = border.corr[differ] if border is not None and differ in border.corr else law.correlation(differ)
    known = law.spread(differ).certain
    if known and not law.gaussian:
        step = np.minimum(known, 1 - np.abs(r))
        return (_moments(law, sizes, differ, r + step) + _moments(law, sizes, differ, r - step)) / 2
    return _moments(law, sizes, differ, r)


@lru_cache(maxsize=64)  # as with shares
def features(law: Law) -> channels.Kinds | None:
    """The kinds of features of a map, such as pieces of a concatenation; None where all are of one law.

    Two places of one feature are of one piece: the mean product of two pieces' laws is not what they have in common.
    """
    own = [i for i, axis in enumerate(law.axes) if any(a.group == FEATURE and a.size > 1 for a in axis)]
    if not any(law.level.shape[i] > 1 for i in own):
        return None
    return channels.kinds(law, tuple(i for i in range(len(law.shape)) if i not in own))


def by_kind(law: Law, sizes: tuple[int, ...], of_levels: Callable[[Law], np.ndarray]) -> np.ndarray:
    """Means over levels of numbers at each kind of place; where features differ the root mean square of theirs."""
    told = features(law)
    if told is None:
        return shares(law, sizes) @ of_levels(law)
    each = [w * (shares(one, sizes) @ of_levels(one)) ** 2 for w, one in zip(told.shares, told.laws, strict=True)]
    return np.sqrt(sum(each, np.zeros(())))


def _deviations(law: Law) -> np.ndarray:
    return np.sqrt(np.maximum(law.seconds - law.means**2, 0))


def _moments(law: Law, sizes: tuple[int, ...], differ: Groups, r: np.ndarray | float) -> np.ndarray:
    """Mehler's sums: of one place's own levels, or of what is mean over the levels of either place."""
    r = np.asarray(r, float)
    if POSITION not in differ:
        share = shares(law, sizes)
        power = np.broadcast_to(r, len(share))[:, None] ** np.arange(law.coefficients.shape[1])
        inner = ((share @ law.coefficients**2) * power).sum(1)
        tail = share @ np.maximum(law.seconds - (law.coefficients**2).sum(1), 0)
        return inner + tail * np.maximum(power[:, 1], 0) ** (1.5 * power.shape[1])
    mean = by_kind(law, sizes, lambda one: one.coefficients)
    if law.gaussian:
        deviation = by_kind(law, sizes, _deviations)
        return np.outer(mean[:, 0], mean[:, 0]) + np.outer(deviation, deviation) * r
    out = mehler_sum(mean, r) if r.ndim else (mean * r ** np.arange(mean.shape[1])) @ mean.T
    squares = grid.expectation(by_kind(law, sizes, lambda one: one.values) ** 2)
    left = np.sqrt(np.maximum(squares - (mean**2).sum(1), 0))
    return out + np.outer(left, left) * np.maximum(r, 0) ** (1.5 * mean.shape[1])


def mean_pair(matrix: np.ndarray, sizes: tuple[int, ...]) -> float:
    """Mean over pairs of different places, or over places, of a number by kind."""
    n = kinds(sizes).count
    if matrix.ndim == 1:
        return float(n @ matrix) / n.sum()
    total = n @ matrix @ n - n @ np.diag(matrix)
    return float(total) / (n.sum() * (n.sum() - 1))


def row_means(matrix: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """For a place of each kind the mean over all other places (matrix), or what it is itself (vector)."""
    n = kinds(sizes).count
    return matrix if matrix.ndim == 1 else (matrix @ n - np.diag(matrix)) / (n.sum() - 1)


def pair(law: Law, differ: Groups) -> float | None:
    """E[x x'] of two places that differ in these groups, where the latent carries a border; else None."""
    border = carried(law)
    if border is None or differ not in border.corr:
        return None
    return mean_pair(_between(law, border.sizes, differ), border.sizes)


def with_pairs(law: Law, wanted: Pairs, sizes: tuple[int, ...]) -> Law:
    """The law with the latent's correlations at which its pair moments are ``wanted``, kind by kind and in the mean."""
    if sizes_of(law) != sizes:
        return law
    corr = {s: _correlation(law, sizes, w) for s, w in wanted.items()}
    means = {s: mean_pair(w, sizes) for s, w in wanted.items()}
    plain = latent_for(law, lambda s: means[s], frozenset().union(*means)) if means else law.latent
    return replace(law, latent=replace(law.latent, corr={**law.latent.corr, **plain.corr}, border=Border(sizes, corr)))


def _correlation(law: Law, sizes: tuple[int, ...], wanted: np.ndarray) -> np.ndarray:
    share, coefficients = shares(law, sizes), by_kind(law, sizes, lambda one: one.coefficients)
    mean = coefficients[:, 0]
    if wanted.ndim == 1:
        squares = np.sqrt(np.maximum(share @ law.coefficients**2, 0))
        squares[:, 0] = np.sqrt(share @ law.means**2)
        if law.gaussian:
            own = np.maximum(share @ law.seconds - squares[:, 0] ** 2, 0)
            r = (wanted - squares[:, 0] ** 2) / np.where(own > 0, own, np.inf)
        else:
            r = solved_alone(squares, (squares[:, 1:] ** 2).sum(1), wanted)
    elif law.gaussian:
        deviation = by_kind(law, sizes, _deviations)
        spread = np.outer(deviation, deviation)
        r = (wanted - np.outer(mean, mean)) / np.where(spread > 0, spread, np.inf)
    else:
        r = solved_pairs(coefficients, np.maximum(share @ law.seconds - mean**2, 0), wanted)
    return np.clip(np.where(np.isfinite(r), r, 1.0), -1, 1)


def moved(latent: Latent, sizes: tuple[int, ...], index: Sequence[np.ndarray]) -> Border | None:
    """The border of places taken from elsewhere: ``index`` says along every axis where each new place was."""
    old = latent.border
    if old is None or len(old.sizes) != len(sizes):
        return None
    new = kinds(sizes)
    from_ = kinds(old.sizes).at([np.clip(i, 0, n - 1)[m] for i, n, m in zip(index, old.sizes, new.middle, strict=True)])
    return Border(sizes, {s: r[from_] if r.ndim == 1 else r[np.ix_(from_, from_)] for s, r in old.corr.items()})


def read(x: Law, sizes: tuple[int, ...], out: tuple[int, ...], taps: Sequence[np.ndarray]) -> dict[Groups, np.ndarray]:
    """Sums over taps of the pair moments of what two outputs read by the same tap, for every two kinds of output.

    Args:
        x: what is read.
        sizes, out: sizes of its map and of the outputs'.
        taps: for every axis (taps, outputs) the index that is read; outside the map there is zero.
    """
    inner, source, result = pairs(x, sizes), kinds(sizes), kinds(out)
    total = {s: np.zeros((len(result.count),) * m.ndim) for s, m in inner.items()}
    for chosen in itertools.product(*(range(len(t)) for t in taps)):
        at = [t[k][m] for t, k, m in zip(taps, chosen, result.middle, strict=True)]
        inside = np.all([(i >= 0) & (i < n) for i, n in zip(at, sizes, strict=True)], axis=0).astype(float)
        from_ = source.at([np.clip(i, 0, n - 1) for i, n in zip(at, sizes, strict=True)])
        for s, m in inner.items():
            both = inside if m.ndim == 1 else np.outer(inside, inside)
            total[s] += both * (m[from_] if m.ndim == 1 else m[np.ix_(from_, from_)])
    return total


def under(
    sizes: tuple[int, ...], out: tuple[int, ...], windows: Sequence[tuple[int, int, int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """What windows of each kind are over: shares of each kind of place, (windows, kinds), and how many places.

    Args:
        sizes, out: of the map and of the windows' own.
        windows: for every axis kernel, stride, padding, dilation.
    """
    source, result = kinds(sizes), kinds(out)
    share, count = np.ones((len(result.count), 1)), np.ones(len(result.count))
    for (k, stride, padding, dilation), middle, (of, n), size in zip(
        windows, result.middle, source.along, sizes, strict=True
    ):
        at = middle[:, None] * stride - padding + np.arange(k) * dilation
        real = (at >= 0) & (at < size)
        own = np.zeros((len(at), n))
        np.add.at(own, (np.arange(len(at))[:, None], of[np.clip(at, 0, size - 1)]), real)
        share = (share[:, :, None] * (own / own.sum(1, keepdims=True))[:, None, :]).reshape(len(at), -1)
        count = count * real.sum(1)
    return share, count


def combined(law: Law, x: Law, y: Law, how: str) -> Law:
    """Carry borders on to a sum or product of independent operands, one of which may have no places."""
    if carried(x) is None and carried(y) is None:
        return law
    sizes = sizes_of(law)
    if sizes is None or any(POSITION in part.groups and sizes_of(part) != sizes for part in (x, y)):
        return law
    first, second = (_laid(part, law, sizes) for part in (x, y))
    if how == "product":
        return with_pairs(law, {s: first[s] * second[s] for s in first}, sizes)
    means = [shares(part, sizes) @ part.means if POSITION in part.groups else part.mean for part in (x, y)]
    cross = means[0] * means[1]
    beside = np.outer(*(np.broadcast_to(m, len(kinds(sizes).count)) for m in means))
    total = {s: first[s] + second[s] + (2 * cross if POSITION not in s else beside + beside.T) for s in first}
    return with_pairs(law, total, sizes)


def _laid(part: Law, law: Law, sizes: tuple[int, ...]) -> dict[Groups, np.ndarray]:
    """Pair moments of a part at the places of the whole."""
    n = len(kinds(sizes).count)
    own = pairs(part, sizes) if POSITION in part.groups else {}
    square = squares(part, sizes) if POSITION in part.groups else np.full(n, part.second)
    found = {}
    for s in subsets(law.groups):
        known = s & part.groups
        if known in own:
            found[s] = own[known]
        elif not known:
            found[s] = square if POSITION not in s else np.full((n, n), part.second)
        else:
            found[s] = np.full((n,) if POSITION not in s else (n, n), part.pair(known))
    return found
