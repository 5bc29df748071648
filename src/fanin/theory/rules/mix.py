"""Products of two signals: logits of queries and keys, and what rows of weights make of values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fanin.graph import Node
from fanin.theory import across, descent, lengthy, overlap, places, windows
from fanin.theory.combine import apply, binary
from fanin.theory.contraction import axis_groups, dense, shifted, weighted_sum
from fanin.theory.latent import Latent
from fanin.theory.law import FEATURE, Atom, Axis, Groups, Law, gaussian, solve_correlation, subsets
from fanin.theory.records import replace
from fanin.theory.rows import Columns, columns, laid, mixed_places
from fanin.theory.rules.gram import gram, is_gram
from fanin.theory.rules.similar import products, similar
from fanin.theory.spread import pair_deviation
from fanin.theory.state import Value, as_law
from fanin.theory.words import renamed


def mix(node: Node, *inputs: Value) -> Law:
    """Matrix product of two signals (or of a signal and a weight): contracts the last axis of x, second-last of y."""
    if node.attrs.get("bias") is not None:
        return _mix_and_add(node, inputs)
    x, y = (as_law(v) for v in inputs)
    if _is_weight(y) and len(y.shape) == 2:
        return dense(inputs[0], y, None, out_first=False)
    if len(y.shape) == 1 or len(x.shape) == 1:
        return _vector_product(node, x, y)
    if is_gram(x, y):
        return gram(x, _split_groups(x, y)[1].axes[-1], node.shape)
    if across.transposed(y):
        return across.turned(mix(across.product(node), across.turned(y), across.turned(x)))
    plain, (x, y) = y, _split_groups(windows.apart(x), windows.apart(y))
    shape = node.shape
    ndim = len(shape)
    if similar(x, plain):
        return products(x, plain, _mixed_axes(x, y, shape), shape, y)
    x = _rows_of_features(x, y)
    if axis_groups(x.axes[-2]) == axis_groups(y.axes[-1]) == {FEATURE}:  # V^T K, of which columns are alike
        y = across.turned(_rows_of_features(across.turned(y), across.turned(x)))
    axes = _mixed_axes(x, y, shape)
    px, py = _lift(x.profile(x.seconds), ndim), _lift(y.profile(y.seconds), ndim)
    n = x.shape[-1]
    if px.shape[-1] == 1 or py.shape[-2] == 1:
        diagonal = n * px.mean(-1, keepdims=True) * py.mean(-2, keepdims=True)
    else:
        diagonal = px @ py
    return _known_of(_rows_by_place(_assemble(x, y, n, diagonal, shape, axes), x, y, n), x, y, n)


STATE = "state"
"""Group of the features of keys in what they have stored of values: where keys have a mean, rows have it in common."""


def _rows_of_features(x: Law, y: Law) -> Law:
    """Keys ``x`` (.., features, places) that are summed with values over places: features told apart by a group.

    Rows of ``S = K^T V`` are made of the same values. Features of different rows have ``E[k]^2`` in common, so that
    ``q S`` of queries with a mean adds up n (n - 1) pairs of rows: linear attention (Katharopoulos et al. 2020).
    """
    row, along = axis_groups(x.axes[-2]), axis_groups(x.axes[-1])
    if row != {FEATURE} or FEATURE in along or axis_groups(y.axes[-1]) != {FEATURE} or STATE in x.groups | y.groups:
        return x
    if x.mean**2 < LEAST * x.second:
        return x
    axes = (*x.axes[:-2], tuple(replace(atom, group=STATE) for atom in x.axes[-2]), x.axes[-1])
    apart = float(x.level_weight @ x.means**2)
    every = [frozenset(), *subsets(x.groups)]
    wanted = {s: x.pair(s | {FEATURE}) if s else apart for s in every}
    corr = {**x.latent.corr, **{s | {STATE}: solve_correlation(*x.crossed, p) for s, p in wanted.items()}}
    return replace(x, axes=axes, latent=replace(x.latent, corr=corr))


LEAST = 1e-2
"""Share of the keys' mean square from which on their mean is told apart."""


def _known_of(law: Law, x: Law, y: Law, n: int) -> Law:
    """Products of queries and keys remember what the keys were made of."""
    made = overlap.scored(y, axis_groups(y.axes[-1]), n)
    if made is None or x.latent.source is None or x.latent.source.terms or made.terms:
        return law
    steady, long = x.latent.steady(n), lengthy.of_queries(x.latent)
    return replace(law, latent=replace(law.latent, source=replace(made, terms=n, steady=steady, long=long)))


@dataclass(frozen=True, eq=False)
class RowWeights:
    """Rows of weights, row by row.

    Attributes:
        mean: mean weights, (queries or 1, keys or 1), over all heads and samples.
        total, counts, concentrated: of every row the rms of its sum, the effective number of keys, and E[sum a^2], in
            units of its squared sum; (queries or 1,).
        columns: how keys are looked at.
    """

    mean: np.ndarray
    total: np.ndarray
    counts: np.ndarray
    concentrated: np.ndarray
    columns: Columns

    @property
    def alike(self) -> bool:
        """Whether rows do not differ, or keys do not."""
        return 1 in self.mean.shape

    def heads_apart(self, queries: int, keys: int, counts: np.ndarray) -> np.ndarray:
        """By runs of queries, what a squared weight is larger by where heads have mean weights of their own."""
        mean = np.broadcast_to(self.mean, (len(self.mean), keys))[_rows_at(places.runs(queries).index, len(self.mean))]
        alike = (mean**2).sum(-1) / np.maximum(mean.sum(-1) ** 2, 1e-300)
        return np.maximum(1 / np.maximum(counts * alike, 1e-300), 1.0)

    def by_run(self, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By runs of positions: shares of every run of keys up to a factor, effective keys, E[sum a^2]."""
        at, start = places.runs(queries).index, places.runs(keys).start
        mean = np.broadcast_to(self.mean, (len(self.mean), keys))[_rows_at(at, len(self.mean))]
        counts, concentrated = (v[_rows_at(at, len(v))] for v in (self.counts, self.concentrated))
        return np.add.reduceat(mean, start, axis=1), counts, concentrated


def _rows_at(at: np.ndarray, count: int) -> np.ndarray:
    return at if count > 1 else np.zeros(len(at), int)


def row_weights(x: Law) -> RowWeights | None:
    """What is known of weights (..., queries, keys); None where they sum to nothing."""
    if x.mean <= 0:
        return None
    n, mean, root = x.shape[-1], x.profile(x.means), np.sqrt(x.profile(x.seconds))
    lead = tuple(range(mean.ndim - 2))
    scale = mean.max((*lead, -1), keepdims=True)  # what is left of decays may be too little to be squared
    scale = np.where(scale > 0, scale, 1.0)
    mean, squares = mean / scale, (root / scale) ** 2
    every = lambda v: v.sum(-1) if v.shape[-1] > 1 else v[..., 0] * n  # noqa: E731
    total, squares = every(mean), every(squares)
    size = np.sqrt((total**2).mean(lead))
    heads = np.divide(total, size, out=np.ones_like(total), where=size > 0) ** 2  # of decays some sum to more
    counts = (heads * np.maximum(total**2 / np.maximum(every(mean**2), 1e-300), 1.0)).mean(lead)
    concentrated = (heads * squares / np.maximum(total**2, 1e-300)).mean(lead)
    seen = columns(mean / np.maximum(total, 1e-300)[..., None], x.shape[-2], n)
    return RowWeights((mean * scale).mean(lead), size * scale.reshape(scale.shape[-2]), counts, concentrated, seen)


def _rows_by_place(law: Law, x: Law, y: Law, n: int) -> Law:
    """Weights that differ from row to row (a causal softmax, spelled out) give every position its own moments."""
    row, key = x.axes[-2], axis_groups(x.axes[-1])
    queries, keys = places.length(law), places.length(y)
    if queries is None or keys is None or keys != n or queries != x.shape[-2]:
        return law
    if x.values.min() < 0 or x.mean == 0 or axis_groups(row) != {places.POSITION} or FEATURE in key:
        return law
    found = row_weights(x)
    if found is None or found.alike:
        return law
    at = places.runs(queries).index
    allowed, counts, concentrated = found.by_run(queries, keys)
    source = overlap.shared(x, y)
    lean = 0.0
    if source is not None and source.terms:
        lean = overlap.leant(source, source.variance, counts, concentrated * source.keep)
        if not source.variance:  # functions of logits: a sum leans by n E[f(z) z]
            lean = (n * float(x.level_weight @ x.slopes) / float(found.total.mean())) ** 2 / source.width
    second, pairs = mixed_places(y, allowed, counts, concentrated, np.zeros((len(at), len(at))), keys, 0.0, lean)
    total = found.total[_rows_at(at, len(found.total))]  # of rows that no softmax has made one
    second = second + (_of_long(x, y, n, 1.0)[0] - 1) * concentrated * lengthy.own(y)
    return lengthy.kept(laid(law, pairs * np.outer(total, total), second * total**2, queries), law)


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
    chance = n * (n - 1) * _by_chance(x, y, gx, gy)
    if cross and x.level.size > 1 and not (gx & {FEATURE}) and x.values.min() >= 0:  # rows of weights
        extra = _row_sums(x, n, diagonal) * y.pair(gy) * _looked_at(x, y, diagonal.ndim)
    whole = float(np.mean(diagonal))
    # groups of what is not summed over: two queries see the same keys, though both may be positions
    own_x = frozenset().union(*(axis_groups(a) for a in x.axes[:-1]))
    own_y = frozenset().union(*(axis_groups(a) for a in (*y.axes[:-2], y.axes[-1])))

    def pair(differ: Groups) -> float:
        dx, dy = differ & own_x, differ & own_y
        same = whole * _ratio(x.pair(dx), x.second) * _ratio(y.pair(dy), y.second)
        return same + n * (n - 1) * x.pair(dx | gx) * y.pair(dy | gy)

    own = max(1 - _ratio(y.pair(gy), y.second), 0.0)
    alone = overlap.unmixed(x, diagonal, _lift(x.profile(x.seconds), len(shape)), y, own)
    lean, of_long, rows = _leant(x, y, n, own), *_of_long(x, y, n, own)
    law = gaussian(shape, axes, np.maximum(diagonal * of_long + extra + chance + alone + lean, 0), pair)
    law = replace(law, latent=rows(lean / max(law.second, 1e-300), law))
    mean = n * x.mean * y.mean
    if mean and mean**2 < law.second:
        law = shifted(law, mean)
    for source in (x, y):
        law = law if source.exact else law.marked(source.note)
    return law


def _by_chance(x: Law, y: Law, gx: Groups, gy: Groups) -> float:
    """Covariance over pairs of places of what two keys and what their values have in common, read off one tensor.

    Each pair of tokens has a correlation of its own, by which both its keys and its values agree.
    """
    if FEATURE in gx | gy:
        return 0.0
    alike = descent.in_common(x.latent.lineage, y.latent.lineage)
    return alike * pair_deviation(x, gx).whole * pair_deviation(y, gy).whole


def _leant(x: Law, y: Law, n: int, own: float) -> float:
    """What rows of a softmax lean to in values that are made of what their logits are made of."""
    source = overlap.shared(x, y)
    if source is None or not source.variance or not source.terms:
        return 0.0
    few = min(n * x.second * source.keep / max((n * x.mean) ** 2, 1e-300), 1.0)
    lean = overlap.leant(source, source.variance, np.array([float(n)]), np.array([few]))
    return float(lean[0]) * own * y.second * (n * x.mean) ** 2


def _of_long(x: Law, y: Law, n: int, own: float) -> tuple[float, Callable[[float, Law], Latent]]:
    """By what values that are chosen are larger, where long keys are; and what is long of the result (``lengthy``)."""
    source = overlap.shared(x, y)
    if source is None or not source.variance or not source.terms or source.sphere >= 0:
        return 1.0, lambda _, law: law.latent
    size = (n * x.mean) ** 2
    counts, few = np.array([float(n)]), n * x.second * source.keep / max(size, 1e-300)
    unsteady = overlap.wobble(source.terms, source, source.steady)
    more = float(np.mean(lengthy.picked(source, source.variance, counts, unsteady, np.array([few]))))
    heads = x.shape[-3] if len(x.shape) > 2 and axis_groups(x.axes[-3]) == {FEATURE} else 1

    def told(lean: float, law: Law) -> Latent:
        parts = (own * y.second * size / law.second, lean)
        return lengthy.of_rows(source, source.variance, n, unsteady, parts, heads)(law.latent)

    return 1 + own * (more - 1), told


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


def _looked_at(x: Law, y: Law, ndim: int) -> np.ndarray | float:
    """Of values whose size differs from place to place, the pairs that rows of weights look at, over all pairs.

    Pairs agree as all others do, so that moments are ``c r_j r_k`` by the rms of both: hidden zeros have none.
    """
    mean, second = _lift(x.profile(x.means), ndim), _lift(y.profile(y.seconds), ndim).mean(-1, keepdims=True)
    if mean.shape[-1] == 1 or second.shape[-2] == 1:
        return 1.0
    pairs = lambda a, r: (a @ r) ** 2 - a**2 @ r**2  # noqa: E731
    root, equal = np.sqrt(second), np.ones((second.shape[-2], 1))
    shares, all_shares = pairs(mean, root), pairs(mean, equal)
    every, all_every = pairs(equal.T, root), pairs(equal.T, equal)
    return shares * all_every / np.maximum(all_shares * every, 1e-300)


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
