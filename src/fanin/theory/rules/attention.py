"""Attention: softmax(scale q k^T + mask) v.

Logits of a row are a common part, which softmax ignores, and an own part of variance s^2. Row weights then have
E[sum_j a_j^2] = A(s^2, n); the output keeps A of the values' mean square and 1 - A of their pair moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np

from fanin.graph import Node
from fanin.theory import lengthy, overlap, places, windows
from fanin.theory.concentration import concentration, concentrations, fluctuating
from fanin.theory.contraction import axis_groups, shifted
from fanin.theory.law import Groups, Law, gaussian
from fanin.theory.records import cached_property, replace
from fanin.theory.rows import Columns, columns, laid, mixed_places
from fanin.theory.rules import masked
from fanin.theory.rules.mix import _is_weight, _lift, _ratio, mix
from fanin.theory.rules.softmax import _common_share, softmax
from fanin.theory.runs import Runs
from fanin.theory.state import Known, Value, as_law


def attention(node: Node, *inputs: Value) -> Law:
    """softmax(scale q k^T + mask) v with fresh projections: see the module's docstring."""
    a = node.attrs
    q, k, v = (windows.apart(as_law(inputs[i])) for i in range(3))
    prior = _prior(node, inputs[a["mask"]] if a.get("mask") is not None else None)
    counts = _lift(_row_counts(prior, a["causal"], q.shape[-2], k.shape[-2]), len(node.shape))
    key_groups, query_groups = axis_groups(k.axes[-2]), axis_groups(q.axes[-2])
    own_key = max(k.second - k.pair(key_groups), 0.0) if k.shape[-2] > 1 else 0.0
    s2 = a["scale"] ** 2 * q.shape[-1] * q.second * own_key
    bias = inputs[a["mask"]] if a.get("mask") is not None else None
    drawn = _bias_variance(bias) if isinstance(bias, Law) else 0.0
    made = overlap.of_head(q, k, key_groups)
    sphere = made.sphere if made is not None else 0.0
    unsteady = overlap.wobble(q.shape[-1], made, q.latent.steady(q.shape[-1]))
    concentrate = lambda n: fluctuating(s2, n, unsteady, drawn, sphere)  # noqa: E731
    both = made if overlap.shared(k, v) is not None else None
    weight2 = concentrate(counts)
    lean = overlap.leant(both, s2, counts, weight2)
    pair_v = v.pair(axis_groups(v.axes[-2]))
    leant = float(np.mean(lean)) * max(v.second - pair_v, 0.0)
    profile_v = v.profile(v.seconds).mean(-2, keepdims=True).mean(-1, keepdims=True)
    more = lengthy.picked(both, s2, counts, unsteady, weight2)
    of_long = weight2 / (1 - a["dropout"]) * (more - 1) * lengthy.own(v)
    second = weight2 / (1 - a["dropout"]) * _lift(profile_v, len(node.shape)) + (1 - weight2) * pair_v + of_long
    second = second + lean * max(v.second - pair_v, 0.0)
    axes = (*(q.axes[i] for i in range(len(node.shape) - 2)), q.axes[-2], v.axes[-1])
    common, boost = _overlap(counts), float(np.mean(weight2 * counts))

    def pair(differ: Groups) -> float:
        rest = differ - query_groups
        same_keys = _ratio(k.pair(rest), k.second) if rest else 1.0
        r = max(_ratio(q.pair(differ), q.second), 0.0) * max(same_keys, 0.0)
        base = common if differ & query_groups else float(np.mean(1 / counts))
        share = min(base * boost**r, 1.0)
        return share * v.pair(rest) + (1 - share) * v.pair(rest | axis_groups(v.axes[-2])) + r * leant

    law = gaussian(node.shape, axes, second, pair)
    parts = np.array([max(v.second - pair_v, 0.0), leant]) / law.second
    heads = q.shape[-3] if len(q.shape) > 3 else 1
    rows = lengthy.of_rows(both, s2, float(np.mean(counts)), unsteady, (float(parts[0]), float(parts[1])), heads)
    law = replace(law, latent=rows(law.latent))
    leaning = lambda n, few: overlap.leant(both, s2, n, few)  # noqa: E731
    chosen = (float(np.mean(more)) - 1) * lengthy.own(v)
    law = lengthy.kept(_by_place(law, q, v, prior, concentrate, leaning, a, chosen), law)
    law = masked.by_mask(node, inputs, law, seen_by_sample(node, prior), attention)
    if v.mean and v.mean**2 < law.second:
        law = shifted(law, v.mean)
    for source in (q, k, v):
        law = law if source.exact else law.marked(source.note)
    if q.latent.id == k.latent.id and not q.deterministic:
        law = law.marked("queries are keys: what a token's logit with itself has more than others is left out")
    return law


@dataclass(frozen=True, eq=False)
class Prior:
    """What a mask or a bias makes of uniform weights: exp(bias) less the row's maximum, (..., query, key).

    Of a mask of truth values these themselves: as numbers they would be eight times as large.
    """

    array: np.ndarray

    @cached_property
    def share(self) -> np.ndarray:
        """Mean weights of every row; a row that sees nothing looks everywhere."""
        return self.rows(slice(None))

    def rows(self, at: slice | np.ndarray) -> np.ndarray:
        """Mean weights of some rows."""
        array = np.asarray(self.array[..., at, :], float)
        total = array.sum(-1, keepdims=True)
        blind = total <= 0
        share = array / np.where(blind, 1.0, total)
        return np.where(blind, 1.0 / array.shape[-1], share) if blind.any() else share

    @cached_property
    def counts(self) -> np.ndarray:
        """Effective number of keys of every row, (..., query, 1): (sum w)^2 / sum w^2."""
        if self.array.dtype == bool:
            total = squares = np.count_nonzero(self.array, axis=-1).astype(float)
        else:
            total, squares = self.array.sum(-1), np.einsum("...k,...k->...", self.array, self.array)
        counts = np.where(total > 0, total**2 / np.maximum(squares, 1e-300), self.array.shape[-1])
        return _thin_counts(counts[..., None])

    @cached_property
    def columns(self) -> Columns:
        """How keys are looked at."""
        return columns(self.share, *self.share.shape[-2:])

    @cached_property
    def alike(self) -> bool:
        """Whether all rows see the same."""
        flat = self.array.reshape(-1, self.array.shape[-1])
        return all(bool((rows == flat[0]).all()) for rows in (flat[-1:], flat))  # a causal mask's ends differ

    @cached_property
    def seen(self) -> np.ndarray | None:
        """Which keys each sample looks at, (samples, keys); None where rows of one sample differ."""
        rows = self.array[:, 0, 0]
        if not ((self.array[:, 0, -1] == rows).all() and (self.array == rows[:, None, None]).all()):
            return None
        return rows > 0 if np.isin(rows, (0, 1)).all() and rows.any(1).all() else None


def seen_by_sample(node: Node, prior: Prior | None) -> np.ndarray | None:
    """Which keys each sample looks at, where samples have masks of their own and that is all a mask says."""
    if prior is None or node.attrs["causal"] or prior.alike or prior.array.ndim != 4:
        return None
    seen = prior.seen if prior.array.shape[0] == node.shape[0] else None
    return seen if seen is not None and len(np.unique(seen, axis=0)) <= MASKS else None


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
        return Prior(array)
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


def _by_place(law: Law, q: Law, v: Law, prior: Prior | None, concentrate, leaning, a, chosen: float) -> Law:
    """Second moments and a matrix position by position, where rows see different keys."""
    queries, keys = places.length(q), places.length(v)
    if queries is None or keys is None or places.length(law) != queries:
        return law
    found = _run_weights(prior, a["causal"], places.runs(queries), places.runs(keys))
    if found is None and places.carried(q, v) is not None:
        found = rows_alike(prior, queries, keys)
    if found is None:
        return law
    allowed, counts = found
    concentrated = concentrate(counts)
    correlation = np.clip(places.correlations(q, queries), 0, 1)
    lean = leaning(counts, concentrated)
    second, pairs = mixed_places(v, allowed, counts, concentrated, correlation, keys, a["dropout"], lean)
    second = second + concentrated / (1 - a["dropout"]) * chosen
    return laid(law, pairs, second, queries)


@lru_cache(maxsize=16)  # every layer reads the same mask, forward and backward; nothing may be written to it
def _run_weights(prior: Prior | None, causal: bool, along: Runs, of_keys: Runs) -> tuple[np.ndarray, np.ndarray] | None:
    """Prior weight of every run of keys for every run of queries, and effective counts; None where rows are alike."""
    queries, keys = along.size, of_keys.size
    if causal:
        return places.causal_counts(queries, keys), np.minimum(along.index + 1.0, keys)
    if prior is None or prior.array.shape[-2:] != (queries, keys) or prior.alike:
        return None  # one number for all pairs will do
    if prior.array.size > MASKS * queries * keys:
        return None  # windows, each with a mask of its own: levels tell them apart
    picked = prior.rows(along.index).reshape(-1, len(along.index), keys)
    counts = 1 / (picked**2).sum(-1)
    weights = np.add.reduceat(picked, of_keys.start, axis=2)
    return weights.mean(0), 1 / (1 / counts).mean(0)  # E[sum a^2] is the mean over heads, of equal weights of 1/count


def heads_apart(prior: Prior | None, causal: bool, queries: int, keys: int) -> np.ndarray | float:
    """Of every run of queries the mean over heads of ``sum_j a_j^2`` over that of their mean weights, of equal logits.

    Biases that grow with distance have a slope for every head: some look near, some far.
    """
    if causal or prior is None or prior.array.shape[-2:] != (queries, keys):
        return 1.0
    if not queries * keys < prior.array.size <= MASKS * queries * keys:
        return 1.0
    picked = prior.rows(places.runs(queries).index).reshape(-1, len(places.runs(queries).index), keys)
    return (picked**2).sum(-1).mean(0) / (picked.mean(0) ** 2).sum(-1)


def rows_alike(prior: Prior | None, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight of every run of keys for runs of queries that all see the same, and how many keys these are."""
    count, start = len(places.runs(queries).index), places.runs(keys).start
    if prior is None:
        row, effective = np.ones(keys), float(keys)
    elif prior.alike and prior.array.shape[-1] == keys:
        row = prior.rows(slice(0, 1)).reshape(-1, keys)[0]
        effective = float(1 / (row**2).sum())
    else:
        return None
    return np.repeat(np.add.reduceat(row, start)[None], count, 0), np.full(count, effective)


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


__all__ = ["_is_weight", "_lift", "attention", "concentration", "concentrations", "mix", "softmax"]
