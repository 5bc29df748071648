"""Sums over an axis of a product of two tensors: dense layers, matrix products of signals, embeddings, convolutions.

The mean square of ``sum_c x_c y_c`` is ``n E[x^2] E[y^2] + n (n-1) E[x x'] E[y y']``, the pair moments taken between
elements that differ along the contracted axis only. With fresh zero-mean weights the second term is zero; between
attention weights and values it is what makes tokens alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from fanin.theory import folds, grid, kurtosis, places, spread, uneven, zero_sum
from fanin.theory.latent import axis_groups
from fanin.theory.law import (
    FEATURE,
    Atom,
    Axis,
    Groups,
    Law,
    Source,
    constant,
    fresh_latent,
    gaussian,
    gaussians,
    latent_for,
    relabel,
    subsets,
)
from fanin.theory.records import replace
from fanin.theory.state import Known, Modelled, Value, as_law


def axis_size(axis: Axis) -> int:
    """Number of elements along an axis."""
    size = 1
    for atom in axis:
        size *= atom.size
    return size


def mean_over(profile: np.ndarray, axis: int) -> np.ndarray:
    """Mean of a profile along an axis, kept with size one."""
    return profile.mean(axis, keepdims=True)


def shifted(law: Law, mean: float) -> Law:
    """A Gaussian law of the same mean square with a mean."""
    second = law.seconds
    deviation = np.sqrt(np.maximum(second - mean**2, 0))
    return law.with_values(mean + deviation[:, None] * grid.Z_UNIT)


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 1.0


def _noted(law: Law, *sources: Law) -> Law:
    for source in sources:
        if not source.exact:
            law = law.marked(source.note)
    return law


def add_bias(law: Law, bias: Law | None, axis: int) -> Law:
    """Add a bias along one axis: fresh numbers, the same for all samples and positions."""
    if bias is None or bias.second == 0:
        return law
    from fanin.theory.combine import binary

    shape = tuple(bias.shape[0] if i == axis % len(law.shape) else 1 for i in range(len(law.shape)))
    axes = tuple(((Atom(n, FEATURE),) if n > 1 else ()) for n in shape)
    level = bias.level.reshape(shape) if bias.level.size > 1 else np.zeros((1,) * len(shape), np.int32)
    laid = Law(shape, axes, bias.values, level, bias.latent, bias.exact, bias.note)
    if bias.deterministic and bias.level.size == 1:
        return law.with_values(law.values + bias.values)
    found = binary(np.add, law, laid, law.shape, pair="sum")
    return replace(found, latent=replace(found.latent, descent=law.latent.descent))


def dense(x: Value, weight: Law, bias: Law | None, out_first: bool) -> Law:
    """``x @ W.T + b``: variance n_in E[W^2] E[x^2], plus what a mean of the weights picks up."""
    in_axis = 1 if out_first else 0
    size_out = weight.shape[1 - in_axis]
    made_of = as_law(x).latent.id
    if isinstance(x, Known):
        law = dense_known(x, weight, in_axis)
    else:
        from fanin.theory import flattened  # which reads borders, and these axes

        x = flattened.scattered(as_law(x))
        shape = (*x.shape[:-1], size_out)
        axes = (*x.axes[:-1], (Atom(size_out, FEATURE),))
        out_axis = 1 - in_axis

        def lay_x(p: np.ndarray) -> np.ndarray:
            return p[..., :1]

        def lay_w(p: np.ndarray) -> np.ndarray:
            if p.shape[out_axis] > 1:
                return p.mean(in_axis).reshape((1,) * (len(shape) - 1) + (-1,))
            return p.reshape((1,) * len(shape))

        law = _dense(x, weight, in_axis, shape, axes, lay_x, lay_w)
    law = add_bias(law, bias, -1)
    return replace(law, latent=replace(law.latent, source=Source(made_of, weight.shape[in_axis])))


def _dense(x: Law, weight: Law, in_axis: int, shape, axes, lay_x, lay_w) -> Law:
    n = x.shape[-1]
    px, pw = x.profile(x.seconds), weight.profile(weight.seconds)
    if px.shape[-1] > 1 and pw.shape[in_axis] > 1:
        moved = np.moveaxis(pw, in_axis, -1)  # (out or 1, in)
        diagonal = px @ moved.T
    else:
        diagonal = n * lay_x(mean_over(px, px.ndim - 1)) * lay_w(mean_over(pw, in_axis))
    return weighted_sum(x, weight, n, axis_groups(x.axes[-1]), diagonal, shape, axes)


ALL = np.ones(1)


def weighted_sum(
    x: Law, weight: Law, n: float, along: Groups, diagonal: np.ndarray, shape, axes, *,
    channels: float | None = None, grouped: bool = False, met: Callable[[Groups], float] = lambda differ: 1.0,
    taken: np.ndarray = ALL,
) -> Law:  # fmt: skip
    """The Gaussian that a sum of n inputs with fresh weights tends to; ``diagonal`` is its variance profile.

    Args:
        channels: how many different features there are among the n (others are taps at other places).
        grouped: whether features are summed in groups, each by itself.
        met: share of the n that two results have in common which differ in some groups (taps beyond a border are not).
        taken: share of the n that are there, by place of the result.
    """
    mu2 = weight.mean**2
    along = along or frozenset((FEATURE,))
    extra = n * (n - 1) * mu2 * x.pair(along) if mu2 else 0.0
    whole = float(np.mean(diagonal))
    heard = None
    if zero_sum.centred(weight, n):
        heard = zero_sum.Heard.of(x, weight, n, channels or n, diagonal, taken)
        x, diagonal = heard.x, heard.diagonal

    def pair(differ: Groups) -> float:
        if heard is not None:
            return heard.pair(differ, met)
        cross = n * (n - 1) * mu2 * x.pair(differ | along) if mu2 else 0.0
        return whole * _ratio(x.pair(differ), x.second) * met(differ) + cross

    law = gaussian(shape, axes, np.maximum(diagonal + extra, 0), pair)
    mean = n * weight.mean * x.mean
    if mean and mean**2 <= law.second:
        law = shifted(law, mean)
    law = kurtosis.weighted(spread.summed(x, n, law, channels or n, grouped), weight, n)
    left = folds.over_taps(x, law, n / (channels or n), x.spread(x.groups))
    law = uneven.summed(law, x, weight, n, left.chance, channels if grouped else None)
    if grouped and channels:
        lengths = uneven.across(x, weight, channels, n / channels)
        law = replace(law, latent=replace(law.latent, across=lengths))
    return _noted(places.scaled(law, x), x)


def known_pairs(array: np.ndarray, axes: Sequence[Axis], reduce: int) -> tuple[np.ndarray, dict[Groups, float]]:
    """Mean square along one axis, and the mean product between places that differ in each set of groups.

    For every set S of groups the mean over ordered pairs of distinct places follows from sums over the axes of S.
    """
    second = _mean_squares(np.asarray(array), reduce)
    x, others = spread.by_atoms(array, axes, reduce)
    names = sorted(set(others) - {""})
    totals = {frozenset(): (float(second.mean()), 1)}
    for mask in range(1, 1 << len(names)):
        chosen = frozenset(n for i, n in enumerate(names) if mask >> i & 1)
        dims = tuple(i for i, group in enumerate(others) if group in chosen)
        summed = x.sum(axis=dims, keepdims=True, dtype=complex if np.iscomplexobj(x) else float)
        count = math.prod(x.shape[d] for d in dims)
        totals[chosen] = (float(np.mean(np.mean(np.abs(summed / count) ** 2, axis=-1))), count)
    return second, apart(totals)


def apart(totals: Mapping[Groups, tuple[float, int]]) -> dict[Groups, float]:
    """Mean products of places that differ in every group of a set, from the squared means over the places of sets.

    Args:
        totals: by set of groups the mean of the squared mean over its places, and how many they are; of the empty set
            the mean square.
    """
    second, pairs = totals[frozenset()][0], {}
    for chosen in sorted(totals, key=len):
        if chosen:
            pairs[chosen] = _strictly_apart(chosen, totals, pairs, second)
    return pairs


def _mean_squares(array: np.ndarray, axis: int) -> np.ndarray:
    """Without a second array of the size of the first: patches of images are large."""
    if np.iscomplexobj(array):
        return np.mean(np.abs(array) ** 2, axis=axis)
    x = np.moveaxis(array, axis, -1)
    return np.einsum("...i,...i->...", x, x, dtype=float) / x.shape[-1]


def _strictly_apart(chosen: Groups, totals, pairs, second: float) -> float:
    """Mean over pairs that differ in every group of ``chosen``, by inclusion and exclusion."""
    sizes = {g: totals[frozenset((g,))][1] for g in chosen}
    whole, _ = totals[chosen]
    rest, share = 0.0, 1.0
    for g in chosen:
        share *= 1 - 1 / sizes[g]
    for smaller in _proper_subsets(chosen):
        weight = 1.0
        for g in chosen:
            weight *= (1 - 1 / sizes[g]) if g in smaller else 1 / sizes[g]
        rest += weight * (pairs[smaller] if smaller else second)
    return (whole - rest) / share if share > 0 else second


def _proper_subsets(chosen: Groups) -> list[Groups]:
    names = sorted(chosen)
    return [frozenset(n for i, n in enumerate(names) if mask >> i & 1) for mask in range((1 << len(names)) - 1)]


def dense_known(x: Known, weight: Law, in_axis: int) -> Law:
    """A dense layer on known inputs: their own mean squares and products, nothing assumed."""
    size_out = weight.shape[1 - in_axis]
    n = x.shape[-1]
    shape, axes = (*x.shape[:-1], size_out), (*x.axes[:-1], (Atom(size_out, FEATURE),))
    second, pairs = known_pairs(x.array, x.axes, len(x.shape) - 1)
    variance = weight.second - weight.mean**2
    sums = np.asarray(x.array, float).sum(-1)
    diagonal = n * variance * second + weight.mean**2 * sums**2
    if weight.mean**2 <= 1e-12 * weight.second:
        profile = diagonal[..., None] * _by_output(weight, in_axis)
        law = gaussian(shape, axes, profile, lambda s: n * variance * pairs.get(s, 0.0))
        scatter = spread.known(x.array, x.axes, len(x.shape) - 1)
        law = kurtosis.weighted(replace(law, latent=replace(law.latent, spread=scatter)), weight, n)
        return _by_distance(law, x, n * variance)
    _, sum_pairs = known_pairs(sums[..., None], (*x.axes[:-1], ()), len(x.shape) - 1)
    return about_sums(shape, axes, weight, n * variance * second[..., None], sums[..., None], n, pairs, sum_pairs)


def _by_distance(law: Law, x: Known, factor: float) -> Law:
    """Pair moments of every two positions, where those of known inputs are not all alike."""
    along = [i for i, a in enumerate(x.axes[:-1]) if axis_groups(a) == {places.POSITION}]
    rows = np.moveaxis(x.array, along[0], 0) if len(along) == 1 else x.array[:1]
    return places.with_products(law, rows, factor) if places.structured(rows) else law


def _by_output(weight: Law, in_axis: int) -> np.ndarray:
    """Mean square of each output's weights over that of all, shape (outputs or 1,): blocks may have their own laws."""
    profile = weight.profile(weight.seconds)
    if profile.shape[1 - in_axis] == 1 or weight.second == 0:
        return np.ones(1)
    return mean_over(profile, in_axis).reshape(-1) / weight.second


def about_sums(shape, axes, weight: Law, variance, sums, n: float, pairs, sum_pairs) -> Law:
    """Weights of mean m on known inputs: every place has m times the sum of its own inputs as its mean."""
    own, mu = weight.second - weight.mean**2, weight.mean
    law = gaussians(shape, axes, mu * sums, variance)

    def pair(differ: Groups) -> float:
        return n * own * pairs.get(differ, 0.0) + mu**2 * sum_pairs.get(differ, 0.0)

    return replace(law, latent=latent_for(law, pair, law.groups))


_LOOKED_UP: WeakKeyDictionary[Law, dict] = WeakKeyDictionary()  # ids of latents by table and rows


def embed(ids: Modelled, weight: Law, padding: int = -1) -> Law:
    """Rows of a table: the table's own law, zero at the row of padding; places share a row where their ids agree."""
    width = weight.shape[-1]
    shape = (*ids.shape, width)
    axes = (*ids.axes, (Atom(width, FEATURE),))
    law = Law(shape, axes, weight.values[:1], np.zeros((1,) * len(shape), np.int32), weight.latent)
    if len(weight.values) > 1:
        numbers = weight.level_weight @ weight.values
        law = law.with_values(numbers[None])
    corr = _same_row(ids, padding) if isinstance(ids, Known) else {}
    default = 1.0 / weight.shape[0]
    latent = fresh_latent({s: corr.get(s, default) for s in subsets(law.groups)})
    if isinstance(ids, Known):  # the same rows again are the same numbers
        rows = (ids.shape, ids.array.astype(np.int64).tobytes())
        latent = replace(latent, id=_LOOKED_UP.setdefault(weight, {}).setdefault(rows, latent.id))
        if padding >= 0 and (ids.array == padding).any():
            empty = (ids.array == padding)[..., None].astype(np.int32)
            used, level = relabel(empty, 2)
            law = replace(law, values=np.stack([law.values[0], 0 * law.values[0]])[used], level=level)
    return replace(law, latent=latent)


def _same_row(ids: Known, padding: int) -> dict[Groups, float]:
    """How often two places look up one row; of a row of zeros none hear, so that it is a share of the others' pairs."""
    empty = np.asarray(ids.array) == padding
    if padding < 0 or not empty.any() or empty.all():
        return _same_id(ids)
    own = int(ids.array.max()) + 1 + np.arange(ids.array.size).reshape(ids.shape)
    same = _same_id(Known(np.where(empty, own, ids.array), ids.axes, ids.from_batch))
    return {s: min(r / float(np.mean(~empty)) ** 2, 1.0) for s, r in same.items()}


def _same_id(ids: Known) -> dict[Groups, float]:
    """Fraction of pairs of places with the same id, for every set of groups in which they differ."""
    _, codes = np.unique(np.asarray(ids.array).astype(np.int64), return_inverse=True)
    codes = codes.reshape(ids.shape)
    groups = frozenset(g for axis in ids.axes for g in axis_groups(axis))
    totals, pairs = {}, {}
    for chosen in [frozenset(), *subsets(groups)]:
        dims = tuple(i for i, axis in enumerate(ids.axes) if axis_groups(axis) & chosen)
        together = np.moveaxis(codes, dims, range(-len(dims), 0)).reshape(-1, _count(ids.shape, dims))
        _, counts = np.unique(together + (codes.max() + 1) * np.arange(len(together))[:, None], return_counts=True)
        totals[chosen] = (
            float((counts.astype(float) ** 2).sum() / together.size / together.shape[1]),
            together.shape[1],
        )
    for chosen in subsets(groups):
        pairs[chosen] = _strictly_apart(chosen, totals, pairs, 1.0)
    return {s: float(np.clip(p, 0, 1)) for s, p in pairs.items()}


def _count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    return int(np.prod([shape[d] for d in dims]))


__all__ = [
    "add_bias",
    "as_law",
    "axis_groups",
    "axis_size",
    "constant",
    "dense",
    "embed",
    "known_pairs",
    "weighted_sum",
]
