"""Pooling and reductions: means by pair moments, maxima by order statistics of correlated latents."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.special import gammaincinv

from fanin.graph import Node
from fanin.theory import border, channels, fields, grid, lags, levels, prefix, windows
from fanin.theory.combine import apply, matched, with_rest
from fanin.theory.contraction import axis_groups
from fanin.theory.latent import Scatter
from fanin.theory.law import (
    FEATURE,
    MAX_LEVELS,
    Axis,
    Groups,
    Law,
    compress,
    constant,
    fresh_latent,
    gaussians,
    latent_for,
    subsets,
)
from fanin.theory.places import POSITION
from fanin.theory.records import replace
from fanin.theory.rules import maximum, picked
from fanin.theory.rules.convolution import as_conv, tap_sum
from fanin.theory.spread import pair_deviation
from fanin.theory.state import Value, as_law
from fanin.theory.statistic import pair_counts


def pool(node: Node, *inputs: Value) -> Law:
    """Max or mean over windows of the trailing spatial axes."""
    x = windows.forgotten(as_law(inputs[0]))
    kernel = node.attrs["kernel"]
    first = len(node.shape) - len(kernel)
    axes = tuple(a if i < first else _resized(a, node.shape[i]) for i, a in enumerate(x.axes))
    groups = frozenset(g for a in x.axes[first:] for g in axis_groups(a)) - {FEATURE}
    taps = _taps(node, x, first)
    if node.attrs["op"] == "max":
        return maximum.of_windows(node, x, axes, groups, taps)
    return _mean(node, x, axes, groups, taps)


def _resized(axis: Axis, n: int) -> Axis:
    from fanin.theory.rules.move import resized

    return resized(axis, n)


def _taps(node: Node, x: Law, first: int) -> np.ndarray:
    """Number of real inputs under every window."""
    one = np.ones((1,) * len(node.shape))
    if first != 2:
        return one * float(np.prod(node.attrs["kernel"]))
    taps = tap_sum(one, as_conv(node), node.attrs["kernel"])
    return taps


def _mean(node: Node, x: Law, axes, groups: Groups, taps: np.ndarray) -> Law:
    n = float(np.prod(node.attrs["kernel"]))
    divisor = n if node.attrs.get("count_pad", True) else taps
    pair = x.pair(groups) if groups else x.second
    near = lags.under(x, node.shape, maximum.windows_of(node)) if groups == lags.PLACES else None
    if near is not None and n > 1:  # of two places of one window
        pair = (n * float(near.flat[0]) - x.second) / (n - 1)
    if len(x.shape) - len(node.attrs["kernel"]) == 2:
        profile = x.profile(x.seconds)
        profile = profile.mean(1, keepdims=True) if profile.shape[1] > 1 else profile
        own = tap_sum(profile, as_conv(node), node.attrs["kernel"])
    else:
        own = taps * x.second
    here = own / np.maximum(taps * x.second, 1e-300)  # mean square of what a window is over, over that of all
    second = own * (1 + (taps - 1) * _tied(node, x, near, pair) / max(x.second, 1e-300)) / divisor**2
    reads = (float(np.mean(v)) for v in (taps / divisor**2, taps * (taps - 1) / divisor**2, taps / divisor))
    law = _averaged(x, node.shape, axes, second, taps / divisor * x.mean * np.sqrt(here), groups, *reads)
    whole = all(n == 1 for n in node.shape[-len(node.attrs["kernel"]) :])
    if whole and x.values.min() >= 0 > law.values.min():  # its root must not meet what is not there
        law = prefix.one_sign(law)
    law = lags.with_moments(law, near * (law.second / near.flat[0]), whole=True) if near is not None else law
    law = replace(law, latent=replace(law.latent, spread=_scattered(x, law, near, pair, n), reach=x.latent.reach))
    return _bordered(node, law, x, bool(node.attrs.get("count_pad", True)))


def _tied(node: Node, x: Law, near: np.ndarray | None, pair: float) -> np.ndarray | float:
    """Pair moment of two places of a window, by window where neighbours at a border are less alike than others."""
    tied = None if near is None or not lags.told(x) else fields.ties(x, node.shape, maximum.windows_of(node))
    if tied is None:
        return pair
    inside = lags.inside(x, maximum.windows_of(node))
    plain = x.moment_at(frozenset(), inside)
    each = np.array([x.moment_at(frozenset(), inside * float(t)) for t in tied]) / max(plain, 1e-300)
    return pair * each[border.kinds(tuple(node.shape[2:])).of].reshape(1, 1, *node.shape[2:])


def _scattered(x: Law, law: Law, near: np.ndarray | None, pair: float, n: float) -> dict[Groups, Scatter]:
    """Scatter of the correlations of means over windows.

    What two places agree by, ``x_a . x_b``, their neighbours do as far as these are alike: of its deviation the share W
    is left in means over all pairs of two windows, W the mean correlation within a window; and of the variance, W, too.
    """
    own = x.second - x.mean**2
    left, after = (x.second + (n - 1) * pair) / n - x.mean**2, law.second - law.mean**2
    if not x.latent.spread or own <= 0 or left <= 0 or after <= 0:
        return {}
    return {s: pair_deviation(x, s).times(left / own / after) for s in subsets(law.groups)}


def _bordered(node: Node, law: Law, x: Law, count_pad: bool) -> Law:
    """Means over windows of a map with a border, or whose padding makes one, by how near to it they are."""
    sizes, out, kernel = border.sizes_of(x), border.sizes_of(law), node.attrs["kernel"]
    if len(x.shape) - len(kernel) != 2 or sizes is None or out is None:
        return law
    if (sizes, out) != (tuple(x.shape[2:]), tuple(node.shape[2:])):
        return law
    share, taps = border.under(sizes, out, maximum.windows_of(node))
    divisor = float(np.prod(kernel)) if count_pad else taps
    if border.carried(x) is None and np.all(taps == np.prod(kernel)):
        return law
    inner, whole = border.pairs(x, sizes), taps / divisor

    def read(s: Groups) -> np.ndarray:
        others = share @ inner[s | {POSITION}] @ share.T
        if POSITION in s:
            return others * np.outer(whole, whole)
        return (taps * (share @ inner[s]) + taps * (taps - 1) * np.diag(others)) / divisor**2

    return border.with_pairs(law, {s: read(s) for s in inner if s | {POSITION} in inner}, out)


def _averaged(
    x: Law,
    shape,
    axes,
    second: np.ndarray,
    mean: np.ndarray | float,
    over: Groups,
    same: float,
    apart: float,
    whole: float,
) -> Law:
    """The mean of correlated elements: a Gaussian with that mean and mean square.

    Args:
        same, apart: how often two means over the same places read one place, or two.
        whole: how much a mean reads in all.
    """

    def pair(differ: Groups) -> float:
        one = x.pair(differ - over) if differ - over else x.second
        base = same * one + apart * x.pair(differ | over)
        return base if not differ & over else whole**2 * x.pair(differ | over)

    law = gaussians(shape, axes, np.asarray(mean), second - np.asarray(mean) ** 2)
    latent, of = latent_for(law, pair, law.groups), _mean_of(x, law)
    terms = {} if of is None else with_rest(latent, {key: c * of[-1] for key, c in x.latent.made_of.items()})
    return replace(law, latent=replace(latent, mean_of=of, terms=terms), exact=x.exact, note=x.note)


def _mean_of(x: Law, law: Law) -> tuple[int, tuple, tuple, float] | None:
    """How the latent of a mean goes with that of one of its terms: E[x m] = E[m^2], for terms that are all alike."""
    slope = float(x.level_weight @ x.slopes)
    if slope == 0:
        return None
    deviation = float(np.sqrt(max(law.second - law.mean**2, 0.0)))
    return (x.latent.id, x.latent.feature_view, x.latent.place_view, float(np.clip(deviation / slope, -1, 1)))


def reduce(node: Node, *inputs: Value) -> Law:
    """Mean, sum, mean square, variance, maximum over axes."""
    x = as_law(inputs[0])
    op, dims, keep = node.attrs["op"], node.attrs["axes"], node.attrs["keepdim"]
    dims = tuple(d % len(x.shape) for d in dims) if dims else tuple(range(len(x.shape)))
    if op == "weighted":
        return _weighted(windows.forgotten(x), dims, node.attrs["matrices"])
    n = float(np.prod([x.shape[d] for d in dims]))
    axes = tuple(() if i in dims else a for i, a in enumerate(x.axes))
    shape = tuple(1 if i in dims else k for i, k in enumerate(x.shape))
    if op in ("mean", "sum") and dims == (picked.axis_of(x),):
        law = picked.total(x, dims[0], 1 / n if op == "mean" else 1.0, shape, axes)
    elif op in ("mean", "sum"):
        law = channels.reduced(_mean_over, x, dims, shape, axes) or _mean_over(x, dims, shape, axes)
        if op == "sum":
            law = apply(lambda v: v * n, law)
        if node.attrs.get("positive") or (x.values.min() >= 0 > law.values.min()):
            law = prefix.one_sign(law)  # what divides by it must not meet a zero that is not there
    elif op in ("var", "std"):
        law = _spread_over(x, dims, shape, axes, n, node.attrs.get("correction", 1), op)
    elif op == "norm":
        law = constant(shape, axes, np.sqrt(_over(x.profile(x.seconds), dims) * n))
        law = replace(law, latent=replace(law.latent, length_of=_length_of(x, dims)))
    elif op in ("max", "min"):
        law = maximum.along(x, dims, shape, axes, n, op)
    else:
        raise NotImplementedError(f"a reduction by {op}")
    law = replace(law, exact=law.exact and x.exact, note=law.note or x.note)
    return law if keep else _squeezed(law, dims)


def _weighted(x: Law, axes: tuple[int, ...], matrices: tuple[np.ndarray, ...]) -> Law:
    """Known weights (out, in) along axes: y_i = sum_k m_ik x_k (interpolation, sums over prefixes)."""
    along = frozenset(g for axis in axes for g in axis_groups(x.axes[axis]))
    shape, words = list(x.shape), list(x.axes)
    mean, own = x.profile(x.means), x.profile(x.seconds)
    total = squares = np.ones((1,) * len(shape))
    trace = gram = reads = 1.0
    for axis, m in zip(axes, matrices, strict=True):
        shape[axis], words[axis] = len(m), _resized(x.axes[axis], len(m))
        mean, own = _applied(mean, m, axis), _applied(own, m**2, axis)
        total, squares = _applied(total, m, axis), _applied(squares, m**2, axis)
        trace, gram, reads = trace * (m**2).sum(), gram * (m @ m.T).sum(), reads * m.sum() ** 2
    parity = mirror(matrices)
    second = own * (1 + parity * x.latent.mirrored) + between(x, axes, matrices, x.pair)
    near = lags.weighted(x, tuple(shape), axes, matrices)
    if near is not None and lags.told(x) and np.mean(second) > 0:
        second = second * (float(near.flat[0]) / float(np.mean(second)))
    many = float(np.prod([len(m) for m in matrices]))
    # means over pairs of two outputs: of what they read alike, and of all they read
    common = (gram - trace) / max(many * (many - 1), 1)
    crossed = (reads - float((total**2).sum())) / max(many * (many - 1), 1)

    def pair(differ: Groups) -> float:
        same, other = x.pair(differ - along) if differ - along else x.second, x.pair(differ | along)
        if differ & along:
            return common * same + (crossed - common) * other
        return float(squares.mean()) * same + float((total**2 - squares).mean()) * other

    whole = prefix.of(x, axes[0], matrices[0]) if len(axes) == 1 and FEATURE not in along else None
    heads = whole is not None and whole.heads > 1
    if whole is not None and (heads or x.level.size == x.level.shape[axes[0]] > 1):  # padded places add to no pair
        second = whole.seconds * (1 + parity * x.latent.mirrored)
    law = gaussians(tuple(shape), tuple(words), mean, second - mean**2, exponents=heads)
    if all((m >= 0).all() for m in matrices) and (x.values.min() >= 0 or x.values.max() <= 0):
        law = prefix.one_sign(law)  # a decay, exp of such a sum, is no gain
    latent = replace(latent_for(law, pair, law.groups), mirrored=float(parity))
    law = replace(law, latent=latent, exact=x.exact, note=x.note, prefix=whole)
    return law if near is None or near.flat[0] <= 0 else lags.with_moments(law, near * (law.second / near.flat[0]))


def between(
    x: Law, axes: tuple[int, ...], matrices: tuple[np.ndarray, ...], pair: Callable[[Groups], float]
) -> np.ndarray:
    """What two different elements that one output reads add to its mean square, by the axes along which they differ."""
    whole = np.zeros((1,) * len(x.shape))
    for apart in product((False, True), repeat=len(axes)):
        differ = frozenset(g for axis, d in zip(axes, apart, strict=True) if d for g in axis_groups(x.axes[axis]))
        moment = pair(differ) if any(apart) else 0.0
        if moment:
            part = np.ones((1,) * len(x.shape))
            for axis, m, d in zip(axes, matrices, apart, strict=True):
                part = part * _crossed(x, axis, m, d)
            whole = whole + moment * part
    return whole


def _crossed(x: Law, axis: int, m: np.ndarray, apart: bool) -> np.ndarray:
    """Of every output along an axis the sum of squared weights, or of products of two different ones."""
    one = np.ones((1,) * len(x.shape))
    squares = _applied(one, m**2, axis) if x.shape[axis] > 1 else one
    return _applied(one, m, axis) ** 2 - squares if apart else squares


def mirror(matrices: tuple[np.ndarray, ...]) -> int:
    """1 or -1 where what comes out is the same at minus the index along all axes, up to that sign; else 0.

    The cosines of a Fourier transform are even and its sines are odd, in what they read as in what they make: a tensor
    that is its own mirror keeps all of its power in those of its parity, and another one half.
    """
    sign = 1
    for m in matrices:
        flipped = np.roll(m[::-1], 1, axis=0)
        if m.shape[0] != m.shape[1] or len(m) < 3 or not np.allclose(m, m.T, atol=1e-9):
            return 0
        even, odd = (np.allclose(flipped, s * m, atol=1e-6) for s in (1, -1))
        if not (even or odd) or (even and odd):
            return 0
        sign *= 1 if even else -1
    return sign


def _applied(profile: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """A matrix along one axis of a profile, which may have size one there."""
    if profile.shape[axis] == 1:
        return profile * matrix.sum(1).reshape((1,) * axis + (-1,) + (1,) * (profile.ndim - axis - 1))
    return np.moveaxis(np.tensordot(profile, matrix.T, (axis, 0)), -1, axis)


def _over(profile: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    return (
        profile.mean(tuple(d for d in dims if profile.shape[d] > 1), keepdims=True)
        if any(profile.shape[d] > 1 for d in dims)
        else profile
    )


def _mean_over(x: Law, dims, shape, axes) -> Law:
    over = frozenset(g for d in dims for g in axis_groups(x.axes[d]))
    if not over:
        return replace(x, shape=shape, axes=axes)
    n = float(np.prod([x.shape[d] for d in dims]))
    mean = _over(x.profile(x.means), dims)
    second = _over(x.profile(x.seconds), dims)
    if over <= {FEATURE}:
        spread = _over(x.profile(x.variances), dims) / n
        return _with_moments(x, shape, axes, mean, spread)
    places = over - {FEATURE}
    whole = _mean_square(x, dims, second)
    alone = 1 / n if n else 0.0  # of nothing: what has no elements is said to be unknown further on
    return _averaged(x, shape, axes, whole, mean, places or over, alone, 1 - alone, 1.0)


def _mean_square(x: Law, dims, own: np.ndarray) -> np.ndarray:
    """Mean square of means over some axes, place by place of the others: short sequences beside zeros have less.

    Pairs of places have as much in common as their sizes say, so that of places whose mean rms is m the share is m^2.
    """
    profile, found = x.profile(x.seconds), np.zeros(())
    for differ, p in pair_counts(x, dims):
        if not differ:
            found = found + p * own
            continue
        sizes = _over(np.sqrt(profile), dims) ** 2
        whole = float((x.by_feature(np.sqrt(x.seconds)) ** 2).mean() if differ & x.level_groups else sizes.mean())
        found = found + p * x.pair(differ) * (sizes / whole if whole > 0 else 1.0)
    return np.maximum(found, 0)


def _with_moments(x: Law, shape, axes, mean: np.ndarray, spread: np.ndarray) -> Law:
    """A mean over features: a number that hardly varies over networks, by place."""
    numbers, level = levels.of_both(mean, np.broadcast_to(spread, mean.shape))
    own = (x.latent.id, x.latent.feature_view, x.latent.place_view, 0.0)  # known, though hardly one of n is heard
    if x.latent.mean_of is not None and not x.groups:  # of a weight, axis by axis
        own = x.latent.mean_of
    latent = replace(fresh_latent({s: x.correlation(s) for s in x.latent.corr}), mean_of=own)
    if _length(x):  # certain, so that x / statistic stays a function of x's latent
        if numbers.shape[1] > MAX_LEVELS:
            values, level = compress(np.repeat(numbers[0][:, None], grid.POINTS, 1), level)
            return Law(shape, axes, values, level, latent)
        loose = np.stack([_chi_square(m, v) for m, v in numbers.T])
        return Law(shape, axes, np.repeat(numbers[0][:, None], grid.POINTS, 1), level, latent, loose=loose)
    if np.all(numbers[1] <= 0.1 * np.maximum(numbers[0] ** 2, 1e-300)):
        values = np.repeat(numbers[0][:, None], grid.POINTS, 1)
    else:
        values = numbers[0][:, None] + np.sqrt(numbers[1])[:, None] * grid.Z_UNIT
    values, level = compress(values, level)
    return Law(shape, axes, values, level, latent)


def _length_of(x: Law, dims) -> tuple[int, tuple, tuple, int] | None:
    """Whose length over features it is; None where places have a part in it."""
    over = frozenset(g for d in dims for g in axis_groups(x.axes[d]))
    n = round(np.prod([x.shape[d] for d in dims]))
    return (x.latent.id, x.latent.feature_view, x.latent.place_view, n) if over <= {FEATURE} else None


def _length(x: Law) -> bool:
    """Whether x is a square, whose mean is a length: nowhere negative, and least where its root changes sign.

    Squares of odd functions are even; those of other numbers (heavy tails that were gated) grow towards both ends.
    """
    if x.values.min() < 0:
        return False
    even = np.abs(x.slopes) <= 1e-6 * np.sqrt(np.maximum(x.variances, 1e-300))
    least = x.values.min(1) + 1e-9 * np.sqrt(x.seconds)
    return bool(np.all(even | ((x.values[:, 0] > least) & (x.values[:, -1] > least))))


def _chi_square(mean: float, variance: float) -> np.ndarray:
    """Values of a mean of squares: a chi square of as many degrees of freedom as give it its variance."""
    if variance <= 1e-12 * mean**2:
        return np.full(grid.POINTS, mean)
    values = _unit_chi_square(float(f"{mean**2 / variance:.9e}")) * mean
    return matched(values, mean, variance + mean**2)


@lru_cache(maxsize=256)
def _unit_chi_square(shape: float) -> np.ndarray:
    """Quantiles of a Gamma law of mean one; every place and every layer asks for the same few."""
    return gammaincinv(shape, np.clip(grid.CDF, 1e-15, 1 - 1e-15)) / shape


def _spread_over(x: Law, dims, shape, axes, n: float, correction: float, op: str) -> Law:
    moment = sum(p * (x.pair(differ) if differ else x.second) for differ, p in pair_counts(x, dims))
    second = _over(x.profile(x.seconds), dims)
    ratio = max(1 - moment / x.second, 0.0) if x.second > 0 else 0.0
    variance = second * ratio * n / max(n - correction, 1)
    return constant(shape, axes, np.sqrt(variance) if op == "std" else variance)


def _squeezed(law: Law, dims: tuple[int, ...]) -> Law:
    keep = [i for i in range(len(law.shape)) if i not in dims]
    level = law.level.reshape([law.level.shape[i] for i in keep])
    return replace(law, shape=tuple(law.shape[i] for i in keep), axes=tuple(law.axes[i] for i in keep), level=level)
