"""Softmax, products of two signals, and attention.

Logits of a row are a common part, which softmax ignores, and an own part of variance s^2. Row weights then have
E[sum_j a_j^2] = A(s^2, n); the output keeps A of the values' mean square and 1 - A of their pair moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from weakref import WeakKeyDictionary

import numpy as np

from fanin.graph import Node
from fanin.theory import grid, places, windows
from fanin.theory.combine import apply, binary, renamed
from fanin.theory.contraction import axis_groups, dense, shifted, weighted_sum
from fanin.theory.law import FEATURE, Atom, Axis, Groups, Law, compress, gaussian, latent_for
from fanin.theory.state import Known, Value, as_law

SHARP = 40.0  # std of logits from which on the largest leads by far: 1 - E[sum a^2] falls as one over the std


@lru_cache(maxsize=64)
def _laplace(s: float, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On a grid of t = log u: the grid, log E[e^{-u e^l}], and log E[(u e^l)^2 e^{-u e^l}]; for all row lengths.

    Both are smooth on the scale of one in t, where the trapezoid rule converges exponentially.
    """
    t = np.arange(-np.log(longest) - 6 * s - 12, 6 * s + 8, min(0.1 * max(s, 1), 0.25))
    z, weight = grid.refined(s / 0.25)
    inner = np.exp(t[:, None] + s * z)
    decay = np.exp(-inner)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        squares = np.where(decay > 0, inner**2 * decay, 0.0)
        return t, np.log(decay @ weight), np.log(squares @ weight)


def _integrated(variance: float, counts: np.ndarray) -> np.ndarray:
    """``concentration`` for row lengths in increasing order."""
    if variance <= 1e-12:
        return 1.0 / counts
    s, n = np.sqrt(variance), counts[:, None]
    t, rest, squares = _laplace(float(min(s, SHARP)), int(counts[-1]))
    with np.errstate(invalid="ignore"):
        integrand = np.exp(np.log(n) + squares + np.where(n > 1, (n - 1) * rest, 0.0))
    found = np.clip(np.trapezoid(integrand, t, axis=-1), 1.0 / counts, 1.0)
    return 1 - (1 - found) * min(SHARP / s, 1.0)


def concentration(variance: float, n: int) -> float:
    """E[sum_j a_j^2] of softmax over n independent Gaussian logits of the given variance.

    With S = sum e^{l_j}: n * int_0^inf u E[e^{2l} e^{-u e^l}] E[e^{-u e^l}]^{n-1} du, the integral taken in log u.
    """
    return float(_integrated(variance, np.array([max(n, 1.0)]))[0])


def concentrations(variance: float, counts: np.ndarray) -> np.ndarray:
    """``concentration`` for many row lengths, interpolated in log n beyond a few dozen distinct ones."""
    counts = np.maximum(np.asarray(counts, float), 1)
    distinct = np.unique(counts)
    if len(distinct) > 24:
        distinct = np.unique(np.round(np.geomspace(distinct[0], distinct[-1], 48)))
    table = _integrated(float(np.round(variance, 6)), distinct)
    return np.exp(np.interp(np.log(counts), np.log(distinct), np.log(table)))


def softmax(node: Node, *inputs: Value) -> Law:
    """Weights of a row: mean 1/n, mean square A/n, with levels from a mask."""
    x = as_law(inputs[0])
    axis = node.attrs["axis"] % len(x.shape)
    along = axis_groups(x.axes[axis]) or frozenset((FEATURE,))
    if node.attrs.get("log"):
        return _log_softmax(x, axis, along)
    own = x.variances
    r = _common_share(x, along)
    variance = own * (1 - r)
    level = np.broadcast_to(x.level, tuple(x.shape[i] if i == axis else k for i, k in enumerate(x.level.shape)))
    mean = x.means[level]
    top = np.max(mean, axis=axis, keepdims=True)
    with np.errstate(all="ignore"):
        prior = np.exp(np.where(np.isfinite(mean), mean - top, -np.inf))
        prior = np.where(np.isfinite(top), prior, 1.0)
    mean_weight = prior * np.exp(variance[level] / 2)
    share = mean_weight / mean_weight.sum(axis, keepdims=True)
    count = np.maximum(1 / (share**2).sum(axis, keepdims=True), 1)
    usable = share.max(axis, keepdims=True) * 1e-6
    s2 = float((variance[level] * (share > usable)).sum() / max((share > usable).sum(), 1))
    concentrated = concentrations(s2, np.round(count))
    return _row_weights(node, x, share, concentrated * count, s2, along)


def _common_share(x: Law, along: Groups) -> float:
    """Share of the logits' variance that a whole row has in common."""
    if FEATURE in along:
        return 0.0
    return max(x.correlation(along), 0.0)


def _row_weights(node: Node, x: Law, share: np.ndarray, boost: np.ndarray, s2: float, along: Groups) -> Law:
    """A lognormal weight around each place's share, with E[a^2] = share^2 * boost (boost = A * n)."""
    boost = np.broadcast_to(boost, share.shape)
    sigma = np.sqrt(np.log(np.maximum(boost, 1)))
    key = np.stack([share.ravel(), sigma.ravel()])
    codes, level = np.unique(np.round(key, 12), axis=1, return_inverse=True)
    level = level.reshape(share.shape).astype(np.int32)
    numbers, widths = codes
    values = numbers[:, None] * np.exp(widths[:, None] * grid.Z_UNIT - widths[:, None] ** 2 / 2)
    values, level = compress(values, level)
    law = Law(node.shape, x.axes, values, level, x.latent, False, "softmax weights as lognormal")
    law = replace(law, exact=True, note="") if s2 < 1e-2 and x.exact else law
    n = x.shape[node.attrs["axis"] % len(x.shape)]
    rows = 1.0 / n

    def pair(differ: Groups) -> float:
        if differ & along and not differ - along:
            return max((rows - law.second) / max(n - 1, 1), 0.0)  # a row sums to one: E[a a'] = (1 - A)/(n (n-1))
        if differ & along:
            return law.mean**2
        r = max(x.correlation(differ), 0.0)
        return law.mean**2 * (law.second / max(law.mean**2, 1e-300)) ** r

    return replace(law, latent=latent_for(law, pair, law.groups))


def _log_softmax(x: Law, axis: int, along: Groups) -> Law:
    n = x.shape[axis]
    own = max(x.second - x.mean**2, 0) * (1 - _common_share(x, along))
    return x.with_values(x.values - x.mean - np.log(n) - own / 2)


def mix(node: Node, *inputs: Value) -> Law:
    """Matrix product of two signals (or of a signal and a weight): contracts the last axis of x, second-last of y."""
    if node.attrs.get("bias") is not None:
        return _mix_and_add(node, inputs)
    x, y = (as_law(v) for v in inputs)
    if _is_weight(y) and len(y.shape) == 2:
        return dense(inputs[0], y, None, out_first=False)
    if len(y.shape) == 1 or len(x.shape) == 1:
        return _vector_product(node, x, y)
    x, y = _split_groups(windows.apart(x), windows.apart(y))
    shape = node.shape
    ndim = len(shape)
    axes = _mixed_axes(x, y, shape)
    px, py = _lift(x.profile(x.seconds), ndim), _lift(y.profile(y.seconds), ndim)
    n = x.shape[-1]
    if px.shape[-1] == 1 or py.shape[-2] == 1:
        diagonal = n * px.mean(-1, keepdims=True) * py.mean(-2, keepdims=True)
    else:
        diagonal = px @ py
    return _rows_by_place(_assemble(x, y, n, diagonal, shape, axes), x, y, n)


def _rows_by_place(law: Law, x: Law, y: Law, n: int) -> Law:
    """Weights that differ from row to row (a causal softmax, spelled out) give every position its own moments."""
    row, key = x.axes[-2], axis_groups(x.axes[-1])
    queries, keys = places.length(law), places.length(y)
    if queries is None or keys is None or keys != n or queries != x.shape[-2]:
        return law
    if x.values.min() < 0 or x.mean == 0 or axis_groups(row) != {places.POSITION} or FEATURE in key:
        return law
    if x.level.shape[-1] == 1 or x.level.shape[-2] == 1:
        return law
    mean, second = x.profile(x.means), x.profile(x.seconds)
    lead = tuple(range(mean.ndim - 2))
    at, start = places.runs(queries).index, places.runs(keys).start
    total, squares = mean.sum(-1), second.sum(-1)
    counts = (total**2 / np.maximum((mean**2).sum(-1), 1e-300)).mean(lead)[at]
    concentrated = (squares / np.maximum(total**2, 1e-300)).mean(lead)[at]
    allowed = np.add.reduceat(mean.mean(lead)[at], start, axis=1)
    second, pairs = mixed_places(y, allowed, counts, concentrated, np.zeros((len(at), len(at))), keys, 0.0)
    return _laid(law, pairs, second, queries)


def _mix_and_add(node: Node, inputs: tuple[Value, ...]) -> Law:
    """beta * bias + alpha * x @ y."""
    a = node.attrs
    plain = replace(node, attrs={**a, "bias": None})
    law = mix(plain, inputs[a["x"]], inputs[a["y"]])
    law = apply(lambda v: a["alpha"] * v, law)
    if a["beta"] == 0:
        return law
    bias = apply(lambda v: a["beta"] * v, as_law(inputs[a["bias"]]))
    return binary(np.add, law, bias, node.shape, pair="sum")


def _assemble(x: Law, y: Law, n: int, diagonal: np.ndarray, shape, axes) -> Law:
    gx, gy = axis_groups(x.axes[-1]), axis_groups(y.axes[-2])
    cross = x.pair(gx) * y.pair(gy) if n > 1 else 0.0
    extra = n * (n - 1) * cross
    if cross and x.level.size > 1 and not (gx & {FEATURE}):
        extra = _row_sums(x, n, diagonal) * y.pair(gy)
    whole = float(np.mean(diagonal))
    # groups of what is not summed over: two queries see the same keys, though both may be positions
    own_x = frozenset().union(*(axis_groups(a) for a in x.axes[:-1]))
    own_y = frozenset().union(*(axis_groups(a) for a in (*y.axes[:-2], y.axes[-1])))

    def pair(differ: Groups) -> float:
        dx, dy = differ & own_x, differ & own_y
        same = whole * _ratio(x.pair(dx), x.second) * _ratio(y.pair(dy), y.second)
        return same + n * (n - 1) * x.pair(dx | gx) * y.pair(dy | gy)

    law = gaussian(shape, axes, np.maximum(diagonal + extra, 0), pair)
    mean = n * x.mean * y.mean
    if mean and mean**2 < law.second:
        law = shifted(law, mean)
    for source in (x, y):
        law = law if source.exact else law.marked(source.note)
    return law


def _row_sums(x: Law, n: int, diagonal: np.ndarray) -> np.ndarray:
    """Sum over pairs of distinct places of a row of E[a a'], row by row: (sum of means)^2 less the diagonal's part."""
    mean = x.profile(x.means)
    if mean.shape[-1] == 1:
        rows = mean**2 * n * (n - 1)
    else:
        rows = mean.sum(-1, keepdims=True) ** 2 - (mean**2).sum(-1, keepdims=True)
    whole = float(np.mean(rows))
    wanted = n * (n - 1) * x.pair(axis_groups(x.axes[-1]))
    if whole <= 0:
        return np.full((1,) * diagonal.ndim, wanted)
    second = x.profile(x.seconds)
    own = second.sum(-1, keepdims=True) if second.shape[-1] > 1 else second * n
    total = mean.sum(-1, keepdims=True) ** 2 if mean.shape[-1] > 1 else (mean * n) ** 2
    rows = np.maximum(total - own, 0)
    ndim = diagonal.ndim
    return rows.reshape((1,) * (ndim - rows.ndim) + rows.shape)


def _vector_product(node: Node, x: Law, y: Law) -> Law:
    n = x.shape[-1]
    diagonal = np.full((1,) * len(node.shape), n * x.second * y.second)
    axes = x.axes[:-1] if len(y.shape) == 1 else y.axes[1:]
    return weighted_sum(x, y, n, axis_groups(x.axes[-1]), diagonal, node.shape, axes)


def _is_weight(law: Law) -> bool:
    return not law.groups


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 1.0


def _lift(profile: np.ndarray, ndim: int) -> np.ndarray:
    return profile.reshape((1,) * (ndim - profile.ndim) + profile.shape)


def _split_groups(x: Law, y: Law) -> tuple[Law, Law]:
    """Rename the groups of y's free axis where they are those of x's free axis: row and column places are different."""
    mine = axis_groups(x.axes[-2]) if len(x.axes) > 1 else frozenset()
    own = axis_groups(y.axes[-1]) - {FEATURE}
    clash = own & (mine | frozenset(g for axis in x.axes[:-2] for g in axis_groups(axis)))
    clash = clash - frozenset(g for axis in y.axes[:-2] for g in axis_groups(axis))
    return x, renamed(y, {g: f"{g}'" for g in clash})


def _mixed_axes(x: Law, y: Law, shape: tuple[int, ...]) -> tuple[Axis, ...]:
    ndim = len(shape)
    lead = []
    for i in range(ndim - 2):
        options = [law.axes[i - ndim] for law in (x, y) if len(law.axes) >= ndim - i]
        full = [a for a in options if np.prod([t.size for t in a] or [1]) == shape[i]]
        lead.append(full[0] if full else (Atom(shape[i], FEATURE),))
    return (*lead, x.axes[-2], y.axes[-1])


def attention(node: Node, *inputs: Value) -> Law:
    """softmax(scale q k^T + mask) v with fresh projections: see the module's docstring."""
    a = node.attrs
    q, k, v = (windows.apart(as_law(inputs[i])) for i in range(3))
    prior = _prior(node, inputs[a["mask"]] if a.get("mask") is not None else None)
    counts = _lift(_row_counts(prior, a["causal"], q.shape[-2], k.shape[-2]), len(node.shape))
    key_groups, query_groups = axis_groups(k.axes[-2]), axis_groups(q.axes[-2])
    own_key = max(k.second - k.pair(key_groups), 0.0) if k.shape[-2] > 1 else 0.0
    s2 = a["scale"] ** 2 * q.shape[-1] * q.second * own_key
    if a.get("mask") is not None and isinstance(inputs[a["mask"]], Law):
        s2 += _bias_variance(inputs[a["mask"]])
    weight2 = concentrations(s2, counts)
    pair_v = v.pair(axis_groups(v.axes[-2]))
    profile_v = v.profile(v.seconds).mean(-2, keepdims=True).mean(-1, keepdims=True)
    second = weight2 / (1 - a["dropout"]) * _lift(profile_v, len(node.shape)) + (1 - weight2) * pair_v
    axes = (*(q.axes[i] for i in range(len(node.shape) - 2)), q.axes[-2], v.axes[-1])
    overlap, boost = _overlap(counts), float(np.mean(weight2 * counts))

    def pair(differ: Groups) -> float:
        rest = differ - query_groups
        same_keys = _ratio(k.pair(rest), k.second) if rest else 1.0
        r = max(_ratio(q.pair(differ), q.second), 0.0) * max(same_keys, 0.0)
        base = overlap if differ & query_groups else float(np.mean(1 / counts))
        share = min(base * boost**r, 1.0)
        return share * v.pair(rest) + (1 - share) * v.pair(rest | axis_groups(v.axes[-2]))

    law = gaussian(node.shape, axes, second, pair)
    law = _by_place(law, q, v, prior, s2, a)
    if v.mean and v.mean**2 < law.second:
        law = shifted(law, v.mean)
    for source in (q, k, v):
        law = law if source.exact else law.marked(source.note)
    return law


@dataclass(frozen=True, eq=False)
class Prior:
    """What a mask or a bias makes of uniform weights: exp(bias) less the row's maximum, (..., query, key)."""

    array: np.ndarray

    @cached_property
    def share(self) -> np.ndarray:
        """Mean weights of every row; a row that sees nothing looks everywhere."""
        total = self.array.sum(-1, keepdims=True)
        return np.where(total > 0, self.array / np.maximum(total, 1e-300), 1.0 / self.array.shape[-1])

    @cached_property
    def counts(self) -> np.ndarray:
        """Effective number of keys of every row, (..., query, 1): (sum w)^2 / sum w^2."""
        return _thin_counts(1 / (self.share**2).sum(-1, keepdims=True))

    @cached_property
    def alike(self) -> bool:
        """Whether all rows see the same."""
        flat = self.array.reshape(-1, *self.array.shape[-2:])
        return bool((flat == flat[:1, :1]).all())


MASKS = 16  # different masks of which a matrix over positions takes the mean
_PRIORS: WeakKeyDictionary[Known, Prior | None] = WeakKeyDictionary()  # every layer reads the same mask


def _prior(node: Node, mask: Value | None) -> Prior | None:
    """The prior of a mask; None where there is none, or where it says nothing."""
    if mask is None:
        return None
    if isinstance(mask, Known):
        if mask not in _PRIORS:
            _PRIORS[mask] = _prior_of(mask.array if mask.array.dtype == bool else np.asarray(mask.array, float))
        return _PRIORS[mask]
    if isinstance(mask, Law):
        return _prior_of(mask.profile(mask.means))
    raise NotImplementedError("a mask that depends on weights")


def _prior_of(array: np.ndarray) -> Prior | None:
    if array.shape[-1] == 1:
        return None
    if array.dtype == bool:
        return Prior(array.astype(float))
    with np.errstate(all="ignore"):
        weight = np.exp(array - np.max(array, axis=-1, keepdims=True))
    return Prior(np.where(np.isfinite(weight), weight, 1.0))


def _bias_variance(bias: Law) -> float:
    """Variance along a row of a bias that is drawn (relative positions), where it does not mask."""
    open_ = bias.means > bias.means.max() - 1e4
    share = bias.level_weight * open_
    return float(share @ bias.variances / share.sum()) * (1 - _common_share(bias, axis_groups(bias.axes[-1])))


def _row_counts(prior: Prior | None, causal: bool, queries: int, keys: int) -> np.ndarray:
    """Effective number of keys that each query looks at, with the axes (..., query, 1): (sum w)^2 / sum w^2."""
    if causal:
        return np.minimum(np.arange(1, queries + 1), keys).astype(float)[:, None]
    return np.full((1, 1), float(keys)) if prior is None else prior.counts


def _by_place(law: Law, q: Law, v: Law, prior: Prior | None, s2: float, a) -> Law:
    """Second moments and a matrix position by position, where rows see different keys."""
    queries, keys = places.length(q), places.length(v)
    if queries is None or keys is None or places.length(law) != queries:
        return law
    found = _run_weights(prior, a["causal"], queries, keys)
    if found is None:
        return law
    allowed, counts = found
    concentrated = concentrations(s2, counts)
    correlation = np.clip(places.correlations(q, queries), 0, 1)
    second, pairs = mixed_places(v, allowed, counts, concentrated, correlation, keys, a["dropout"])
    return _laid(law, pairs, second, queries)


def mixed_places(v: Law, allowed, counts, concentrated, correlation, keys: int, dropout: float):
    """What rows of weights make of values, place by place.

    Args:
        allowed: (query runs, key runs) mean weights up to a factor a row.
        counts, concentrated: effective keys of each row, and E[sum a^2].
        correlation: of the logits' latents between rows; (query runs, query runs).

    Returns:
        mean square of every row's output, and pair moments between rows.
    """
    value = places.pair_matrix(v, keys)
    own, near, width = np.diag(value), places.neighbours(value), places.runs(keys).width
    share = places.mixing(allowed)
    between = value.copy()
    np.fill_diagonal(between, near)  # two different positions of a run
    whole = share @ between @ share.T  # as if no two were the same position
    boost = np.maximum(concentrated * counts, 1)
    same = (share / np.maximum(width, 1) * (own - near)) @ share.T
    pairs = whole + (boost[:, None] * boost[None, :]) ** (correlation / 2) * same
    alone = (share**2 / width) @ near  # the part of ``whole`` that is one position with itself
    off = (np.diag(whole) - alone) / np.maximum(1 - 1 / counts, 1e-12)
    second = concentrated / (1 - dropout) * (share @ own) + (1 - concentrated) * np.where(counts > 1.0001, off, 0)
    np.fill_diagonal(pairs, second)
    return second, pairs


def _run_weights(prior: Prior | None, causal: bool, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Prior weight of every run of keys for every run of queries, and effective counts; None where rows are alike."""
    if causal:
        return places.causal_counts(queries, keys), np.minimum(places.runs(queries).index + 1.0, keys)
    if prior is None or prior.array.shape[-2:] != (queries, keys) or prior.alike:
        return None  # one number for all pairs will do
    share = prior.share.reshape(-1, queries, keys)
    if len(share) > MASKS:
        return None  # windows, each with a mask of its own: levels tell them apart
    picked = share[:, places.runs(queries).index]
    counts = 1 / (picked**2).sum(-1)
    weights = np.add.reduceat(picked, places.runs(keys).start, axis=2)
    return weights.mean(0), counts.mean(0)


def _laid(law: Law, pairs: np.ndarray, second: np.ndarray, queries: int) -> Law:
    at = places.runs(queries).index
    profile = np.interp(np.arange(queries), at, second)
    axis = next(i for i, a in enumerate(law.axes) if axis_groups(a) == {places.POSITION})
    shape = [1] * len(law.shape)
    shape[axis] = queries
    new = gaussian(law.shape, law.axes, np.maximum(profile, 0).reshape(shape), law.pair)
    new = replace(new, latent=replace(new.latent, corr=_kept(law, new)))
    return places.with_matrix(new, pairs, queries)


def _kept(law: Law, new: Law) -> dict:
    """Correlations of the latent that the matrix does not speak of."""
    return {s: law.latent.corr.get(s, r) for s, r in new.latent.corr.items()}


def _thin_counts(counts: np.ndarray) -> np.ndarray:
    for axis in range(counts.ndim):
        if counts.shape[axis] > 1 and (counts == counts.take([0], axis)).all():
            counts = counts.take([0], axis)
    return counts


def _overlap(counts: np.ndarray) -> float:
    """Mean over pairs of different queries of sum_j a_j a'_j with uniform weights: one over the longer row."""
    rows = np.sort(counts.reshape(-1))
    n = len(rows)
    if n == 1:
        return 1.0 / rows[0]
    longest = np.arange(n)  # rows[i] is the longer one of i pairs
    return float((longest / rows).sum() / longest.sum())


__all__ = ["attention", "concentration", "concentrations", "mix", "softmax"]
