"""Normalization: which axes it averages over decides what it removes.

Over the elements that share a statistic, E[(mean)^2] is the mean pair moment ``p`` over all pairs, an element with
itself included; what is left is ``q - p``. So batch normalization takes away what samples have in common, layer
normalization only the mean over features.
"""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory import border_norm, branches, channels, gains, grid, lags, spread, uneven
from fanin.theory.combine import binary, with_rest
from fanin.theory.contraction import axis_groups, axis_size
from fanin.theory.law import FEATURE, Law, latent_for
from fanin.theory.records import replace
from fanin.theory.state import Value, as_law
from fanin.theory.statistic import (
    about_mean,
    freedom,
    independent,
    mean_inverse,
    pair_counts,
    shared_by,
    shared_moment,
    straightness,
)


def norm(node: Node, *inputs: Value) -> Law:
    """Layer, group, instance and batch normalization, RMS normalization, and batch normalization in evaluation mode."""
    a, inputs = node.attrs, gains.told(node, inputs)
    x = as_law(inputs[0])
    pick = lambda key: inputs[a[key]] if a.get(key) is not None else None  # noqa: E731
    mean, variance = pick("running_mean"), pick("running_var")
    if a.get("batch_stats", True) or mean is None or variance is None:
        law = normalized(x, a["axes"], a["eps"], centred=a.get("centred", True), groups=a.get("groups", 1))
    else:
        law = _running(x, as_law(mean), as_law(variance), a)
    feature = a.get("feature_axes", (1,))
    for key, fn, pair in (("weight", np.multiply, "product"), ("bias", np.add, "sum")):
        value = pick(key)
        if value is not None:
            law = gains.alike(law, feature[0]) if gains.of_kinds(value) else law
            law = binary(fn, law, along(as_law(value), law, feature), law.shape, pair=pair)
    return law


def along(weight: Law, law: Law, feature_axes: tuple[int, ...]) -> Law:
    """A per-channel weight laid along its axes of the signal."""
    shape = tuple(n if i in feature_axes else 1 for i, n in enumerate(law.shape))
    sizes = iter(weight.axes)
    axes = tuple(next(sizes) if i in feature_axes else () for i in range(len(law.shape)))
    level = weight.level if weight.level.size > 1 else weight.level.ravel()
    if weight.level.size > 1:
        full = np.broadcast_to(weight.level, weight.shape)
        level = full.reshape(shape)
    else:
        level = level.reshape((1,) * len(shape))
    return replace(weight, shape=shape, axes=axes, level=level)


def normalized(x: Law, axes: tuple[int, ...], eps: float, *, centred: bool = True, groups: int = 1) -> Law:
    """(x - mean) / sqrt(var + eps) with mean and variance over ``axes`` (and over groups of channels)."""
    reduced = frozenset(g for i in axes for g in axis_groups(x.axes[i]))
    varies = any(n > 1 and i not in axes for i, n in enumerate(x.level.shape))
    features_only = reduced <= {FEATURE}
    if features_only and (varies or len(x.values) > 1):
        return of_one_length(_per_place(x, axes, eps, centred), x, axes, centred)
    told = channels.kinds(x, axes)
    if told is not None:
        made = [normalized(one, axes, eps, centred=centred) for one in told.laws]
        return lags.joined(channels.joined(x, told, made), told.shares, made)
    shared = shared_moment(x, axes, groups) if centred else 0.0
    variance = max(x.second - shared + (uneven.shortfall(x) if centred else 0.0), 0.0)
    if variance <= 1e-13 * x.second:
        variance = 0.0
    scale = 1 / np.sqrt(variance + eps)
    mean = x.mean if centred else 0.0
    values = (x.values - mean) * scale
    if centred and FEATURE not in reduced:
        values = _by_level(values, about_mean(x, axes, groups, shared))
    wanted = variance * scale**2
    if eps > 1e-9 * variance > 0:  # channels differ in variance: those of little are held down by eps
        f = freedom(x, axes, groups, shared if centred else None)
        wanted = variance * mean_inverse(variance * (1 + 2 / f), eps, f + 2)  # E[s^2 / (s^2 + eps)] of a chi^2_f
        scale = np.sqrt(wanted / variance)
    places = independent(x, axes, groups, shared) if centred and FEATURE not in reduced else np.inf
    law, told = x.with_values(values), x.latent.uneven
    if FEATURE not in reduced:
        law, told = uneven.shaped(law, uneven.divided(told, places))
    got = law.second
    if got > 0:
        law = law.with_values(law.values * np.sqrt(wanted / got))
    if features_only:
        return of_one_length(law, x, axes, centred)
    less = lambda s: shared_by(x, s, axes, groups) if centred else 0.0  # noqa: E731
    pair = lambda s: max((x.pair(s) - less(s)) * scale**2, -wanted)  # noqa: E731
    latent = latent_for(law, pair, law.groups)
    left = variance / (x.second - x.mean**2) if variance and x.second > x.mean**2 else 0.0
    degrees = freedom(x, axes, groups, shared if centred else None) if left else np.inf
    alike = straightness(variance, eps, degrees) * np.sqrt(min(left, 1.0))
    terms = with_rest(latent, {key: c * alike for key, c in x.latent.made_of.items()}) if alike else {}
    told = {"uneven": told, "source": x.latent.source, "terms": terms}
    told |= {"descent": x.latent.descent, "lineage": x.latent.lineage}
    if centred and FEATURE not in reduced:
        told["heard"] = branches.of_norm(x.latent)
        told["settled"] = reduced, law.values, degrees * ((variance + eps) / eps) ** 2 if eps else np.inf
    law = replace(law, latent=replace(latent, **told))
    if centred and FEATURE not in reduced and reduced >= x.groups:
        law = _settled(border_norm.centred(law, x, shared, wanted, float(scale)))
    law = lags.centred(law, x, less(lags.PLACES), float(scale))
    if not x.latent.spread or wanted <= 0:
        return law
    scatter = {s: of.times(float(scale) ** 2) for s, of in spread.of_sum(law, (x,)).items()}
    if np.isfinite(places):
        scatter = {s: spread.divided(of, places) for s, of in scatter.items()}
    return replace(law, latent=replace(law.latent, spread=scatter, reach=x.latent.reach))


def _by_level(values: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
    """The values with mean squares at all levels in proportion to what the mean over places leaves there."""
    if wanted is None:
        return values
    own = grid.expectation(values**2)
    if not np.all(wanted > 0) or not np.all(own > 0):
        return values
    return values * np.sqrt(wanted / own)[:, None]


def _settled(law: Law) -> Law:
    """The law behind a norm over places, which remembers its values at the levels that a border has left."""
    told = law.latent.settled
    if told is None or told[1] is law.values:
        return law
    return replace(law, latent=replace(law.latent, settled=(told[0], law.values, told[2])))


def of_one_length(law: Law, x: Law, axes: tuple[int, ...], centred: bool) -> Law:
    """The law of places whose length was divided out: they lie on a sphere."""
    n = round(np.prod([x.shape[i] for i in axes]))
    return replace(law, latent=replace(law.latent, sphere=n, held=1.0, level=float(centred)))


def _per_place(x: Law, axes: tuple[int, ...], eps: float, centred: bool) -> Law:
    """Statistics over features only, of places with different laws: each place by its own mean and variance."""
    full = np.broadcast_to(x.level, tuple(n if x.level.shape[i] > 1 else 1 for i, n in enumerate(x.shape)))
    inside = tuple(i for i in axes if x.level.shape[i] > 1)
    mean, second = x.means[full], x.seconds[full]
    n = float(np.prod([axis_size(x.axes[i]) for i in axes]))
    if inside:
        mean, second = mean.mean(inside, keepdims=True), second.mean(inside, keepdims=True)
    shared = (mean**2 * (1 - 1 / n) + second / n) if centred else 0.0
    variance = np.maximum(second - shared, 0)
    own = np.maximum(second - mean**2 if centred else second, 1e-300)
    scale = np.sqrt(variance / own / (variance + eps))  # what is left has the variance q - p: n - 1 of n are free
    from fanin.theory.law import constant

    shift = constant(scale.shape, (), np.where(centred, mean, 0.0) + 0 * scale)
    factor = constant(scale.shape, (), scale)
    blank = tuple(() for _ in x.shape)
    law = binary(np.subtract, x, replace(shift, axes=blank), x.shape)
    law = binary(np.multiply, law, replace(factor, axes=blank), x.shape)
    return law


def _running(x: Law, mean: Law, variance: Law, attrs) -> Law:
    """Evaluation mode: the stored statistics, which at initialization are zero and one: no normalization at all."""
    eps = attrs["eps"]
    law = binary(np.subtract, uneven.with_tails(x, x.latent.across), along(mean, x, (1,)), x.shape, pair="")
    return binary(lambda v, w: v / np.sqrt(w + eps), law, along(variance, x, (1,)), x.shape)


__all__ = ["along", "grid", "norm", "normalized", "pair_counts", "shared_moment"]
