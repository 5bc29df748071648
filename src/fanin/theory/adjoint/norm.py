"""Backward through normalization: divided by what forward divided by, less the mean and the part along the signal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from fanin.graph import Node
from fanin.theory import border, channels, gains, grid, lags, uneven
from fanin.theory.adjoint import coherent, lagged, opened, orthogonal, radial, sequence
from fanin.theory.adjoint.aligned import across_features
from fanin.theory.adjoint.by_kind import by_kind
from fanin.theory.adjoint.cotangent import ALIGNED, Cotangent, Divided, Part, fresh
from fanin.theory.adjoint.itself import by_level, onto_its_bases
from fanin.theory.adjoint.joint import levels_onto
from fanin.theory.adjoint.projected import crossed
from fanin.theory.adjoint.thinned import thinned
from fanin.theory.adjoint.unary import followed
from fanin.theory.adjoint.weights import ONE, Moments, paired, weight_part
from fanin.theory.contraction import axis_groups, axis_size
from fanin.theory.latent import group_sizes
from fanin.theory.law import FEATURE, Groups, Law, constant, subsets
from fanin.theory.records import replace
from fanin.theory.rules import norm as forward
from fanin.theory.state import Value, as_law
from fanin.theory.statistic import agreement, freedom, mean_inverse, pair_counts, shared_by, shared_moment, split


def norm(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """x^ = (x - mean) / s: E g_x^2 = (E g^2 - E[mean g]^2 - E[mean g x^]^2) / s^2 over the elements of a statistic."""
    inputs = gains.told(node, inputs)
    apart = by_kind(node, g, inputs, _of_one_kind)
    return _of_one_kind(node, g, inputs) if apart is None else apart


def _of_one_kind(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Of channels that have one law."""
    a = node.attrs
    x = as_law(inputs[0])
    parts: list[list[Part]] = [[] for _ in inputs]
    scale2 = 1.0 if a.get("weight") is None else as_law(inputs[a["weight"]]).second
    if a.get("weight") is not None and isinstance(inputs[a["weight"]], Law):
        parts[a["weight"]] = [_of_gain(node, g, inputs)]
    if a.get("bias") is not None and isinstance(inputs[a["bias"]], Law):
        parts[a["bias"]] = [_parameter(g, inputs[a["bias"]], a)]
    if a.get("batch_stats", True) or a.get("running_var") is None:
        parts[0] = [_through_statistics(node, g, x, scale2, _gained(a, inputs))]
    else:
        running = as_law(inputs[a["running_var"]])
        parts[0] = [fresh(g.profile() * scale2 / (running.mean + a["eps"]), g.ratios())]
    return parts


@dataclass(frozen=True)
class Gained:
    """The gain and the shift behind a norm; numbers where they are the same for all features, else laws."""

    gain: Law | None
    shift: Law | None

    def undone(self, law: Law) -> np.ndarray:
        """The normalized x^ that a result ``x^ gain + shift`` was made of, as values on its latent.

        Random gains leave its mean square: x^ then has mean zero.
        """
        gain = constant((), (), 1.0) if self.gain is None else self.gain
        shift = constant((), (), 0.0) if self.shift is None else self.shift
        if all(w.deterministic and len(w.values) == 1 for w in (gain, shift)) and gain.mean:
            return (law.values - shift.mean) / gain.mean
        second = max(law.second - shift.second, 0.0) / max(gain.second, 1e-300)
        spread = np.sqrt(max(law.second - law.mean**2, 1e-300))
        return (law.values - law.mean) * np.sqrt(second) / spread


def _gained(a, inputs: tuple[Value, ...]) -> Gained:
    pick = lambda key: as_law(inputs[a[key]]) if a.get(key) is not None else None  # noqa: E731
    return Gained(pick("weight"), pick("bias"))


def _beside_signal(g: Cotangent, gained: Gained) -> Cotangent:
    """g x^, summed in the gradient of a norm's weight; x^ is read off the result's own latent, which g may follow."""
    signal = gained.undone(g.law)
    parts = [
        Part(p.base, p.second, p.ratio, _times(signal, p.values), p.matrix, orthogonal=p.orthogonal, lags=p.lags)
        for p in g.parts
    ]
    return Cotangent(g.law, tuple(parts))


def _unaware(g: Cotangent) -> Cotangent:
    return Cotangent(g.law, tuple(replace(p, orthogonal=None) for p in g.parts))


def _times(signal: np.ndarray, values: np.ndarray | None) -> np.ndarray:
    return signal if values is None else values * signal


def _over_features(x: Law, axes) -> bool:
    """Whether the elements of a statistic differ in features alone."""
    return frozenset(t for i in axes for t in axis_groups(x.axes[i])) <= {FEATURE}


def _of_gain(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> Part:
    """Gradient of a gain: the sum of g x^ over all places."""
    a = node.attrs
    weight = as_law(inputs[a["weight"]])
    if weight.second > 0:
        part = _parameter(_beside_signal(g, _gained(a, inputs)), weight, a)
        common = _common(g) if a.get("centred", True) else 0.0
        return replace(part, second=part.second * (1 - common)) if common else part
    signal = forward.norm(replace(node, attrs={**a, "weight": None, "bias": None}), *inputs)  # a gain of zero hides x^
    return _parameter(g, weight, a, Moments(lambda s: signal.pair(s) if s else signal.second))


def _common(g: Cotangent) -> float:
    """Share of the mean square that all features of a statistic have in common (gradients of a weight's inputs)."""
    shared = sum(p.common * p.mean_profile(g.law) for p in g.parts)
    return float(min(shared / g.second, 1.0)) if shared else 0.0


def _parameter(g: Cotangent, weight: Law, a, beside: Moments = ONE) -> Part:
    """Gradient of a per-channel weight: a sum over all places."""
    feature = a.get("feature_axes", (1,))
    others = [i for i in range(len(g.law.shape)) if i not in feature]
    count = float(np.prod([g.law.shape[i] for i in others]))
    return weight_part(weight, count * paired(_of_one(g, feature), beside, tuple(g.law.axes[i] for i in others)))


def _of_one(g: Cotangent, feature: tuple[int, ...]) -> Cotangent:
    """The cotangent with pair moments of one feature, where places were laid among the features (merged patches).

    The mean over all pairs of P m places is that of those P - 1 of P m - 1 others that are the same feature.
    """
    sizes = lambda axes, t: prod(a.size for axis in axes for a in axis if a.group == t)  # noqa: E731
    inside = tuple(g.law.axes[i] for i in feature)
    more = {}
    for t in frozenset(a.group for axis in inside for a in axis if a.size > 1) - {FEATURE}:
        whole, m = sizes(g.law.axes, t), sizes(inside, t)
        more[t] = (whole - 1) / (whole / m - 1) if whole > m else 0.0
    if not more:
        return g
    parts = [
        replace(p, ratio={s: float(np.clip(r * prod(more.get(t, 1.0) for t in s), -1, 1)) for s, r in p.ratio.items()})
        for p in g.parts
    ]
    return replace(g, parts=tuple(parts))


def _through_statistics(node: Node, g: Cotangent, x: Law, scale2: float, gained: Gained) -> Part:
    a = node.attrs
    axes, groups, eps = a["axes"], a.get("groups", 1), a["eps"]
    centred = a.get("centred", True)
    features_only = _over_features(x, axes)
    if FEATURE in {t for i in axes for t in axis_groups(x.axes[i])}:
        g = across_features(g, centred)
    second = g.second
    if second <= 0:
        return fresh(np.zeros((1,) * len(x.shape)), {})
    removed_mean = _mean_pair(g, axes, groups, lambda s: g.pair(s)) if centred else 0.0
    signal = replace(g.law, values=gained.undone(g.law))  # less than one where eps is not small
    beside, more = _beside_signal(g, gained), 2 - min(signal.second, 1.0)
    removed_signal = _mean_pair(g, axes, groups, beside.pair) * more
    if features_only:  # a norm behind may have taken both away before
        along = radial.by_profile(g)
        removed = removed_mean * np.minimum(along, 1.0) + removed_signal * along
        common = _common(g) if centred else 0.0  # of the mean, and of what is along the signal, the rest has its share
        removed = removed * (1 - common) + second * common
        left = np.maximum(1 - removed / second, 0.0)
        part = replace(_per_place(g, x, axes, eps, centred, left * scale2), radial={}, mirrored=g.mirrored)
        return replace(part, same=_on_its_base(part, g, x, gained))
    keep = max(1 - (removed_mean + removed_signal) / second, 0.0)
    shared = shared_moment(x, axes, groups) if centred else 0.0
    variance = max(x.second - shared + (uneven.shortfall(x) if centred else 0.0), 0.0)
    f = freedom(x, axes, groups, shared if centred else None)
    factor = scale2 * _inverse_by_channel(x, axes, eps, centred, _inverse(x, axes, eps, shared, variance, f))
    less = lambda s: shared_by(x, s, axes, groups) if centred else 0.0  # noqa: E731
    unit = lambda s: (x.pair(s) - less(s)) / max(variance, 1e-300)  # noqa: E731
    left = max(second * keep, 1e-300)
    by_lag, unit_by_lag = lagged.moments(g), _unit_by_lag(x, unit, less(lags.PLACES), variance)
    across = crossed(
        lambda s: g.pair(s) if s else second,
        lambda s: unit(s) if s else 1.0,
        _sizes(x, axes, groups),
        _together(by_lag, unit_by_lag, x),
    )
    alone = across(frozenset())

    def taken(s: Groups) -> float:
        """Of two places; those of two statistics are each less their own mean and part along the signal."""
        outside = s & _outside(x, axes)
        if not outside:
            return removed_mean + 2 * across(s) + (removed_signal - 2 * alone) * unit(s)
        mean = _mean_pair(g, axes, groups, lambda d: g.pair(d | outside)) if centred else 0.0
        return mean + _mean_pair(g, axes, groups, lambda d: beside.pair(d | outside)) * more * unit(s)

    ratio = {s: float(np.clip((g.pair(s) - taken(s)) / left, -1, 1)) for s in subsets(x.groups)}
    part = fresh(g.profile() * keep * factor, ratio, balanced=_removed(x, axes) if centred else frozenset())
    near = _near(by_lag, unit_by_lag, g, unit, (across(lags.PLACES), alone), (removed_mean, removed_signal))
    part = replace(part, lags=near)
    if _one_gain(gained):
        sign = np.sign(1.0 if gained.gain is None else gained.gain.mean)
        part = replace(part, same=onto_its_bases(part, g, x, sign, keep))
    if not part.balanced:
        return part
    part = opened.followed(part, g, x, axes)
    plain = _mean_pair(g, axes, groups, _unaware(beside).pair)
    divided = _divided_by(node, g, x, (variance, f), left, (removed_signal, removed_signal / more, plain))
    known = orthogonal.of_norm(part, x, divided, left * float(np.mean(factor)))
    return replace(part, divided=divided, white=g.white, orthogonal=known)


def _divided_by(
    node: Node, g: Cotangent, x: Law, s2: tuple[float, float], left: float, signal: tuple[float, float, float]
) -> Divided:
    """What the cotangent was divided by.

    Args:
        s2: mean of the variance, and of how many degrees of freedom it is.
        left: mean square of what was sent back, before it was divided.
        signal: what was taken away along the signal, what it is for x^ of variance one, and for a plain cotangent.
    """
    axes, (variance, f), (removed, own, plain) = node.attrs["axes"], s2, signal
    followed = coherent.slope(g, removed) / left, coherent.curvature(g) / g.second
    many = prod(axis_size(x.axes[i]) for i in axes)
    whole = Divided(x.latent.id, variance, node.attrs["eps"], f, *followed, many * own / left, many * plain / left)
    apart = () if x.latent.pieces is None else tuple(_divided(one, axes, whole) for one in _kinds_of(x, axes))
    by_chance = agreement(x, axes, node.attrs.get("groups", 1), variance), coherent.met(g, x, variance) / left
    return replace(whole, chance=by_chance[0], met=by_chance[1], pieces=apart)


def _unit_by_lag(x: Law, unit, less: float, variance: float) -> np.ndarray | None:
    """E[x^ x^'] by lag."""
    sizes = border.sizes_of(x)
    if not lags.told(x) or sizes is None or variance <= 0:
        return None
    return lags.levelled((lags.moments(x, sizes) - less) / variance, 1.0, unit(lags.PLACES), sizes)


def _near(
    g: np.ndarray | None,
    x: np.ndarray | None,
    whole: Cotangent,
    unit,
    met: tuple[float, float],
    removed: tuple[float, float],
) -> np.ndarray | None:
    """Correlations of what is left by lag: what is along the signal goes from that of one place to that of any two.

    Args:
        g, x: moments of the gradient and of the signal by lag, where they are told.
        met: what two places, and one place, have in common with what is taken away along the signal.
        removed: mean squares of both that are taken away.
    """
    if g is None and x is None:
        return None
    near, alike = (whole.pair(lags.PLACES) if g is None else g), (unit(lags.PLACES) if x is None else x)
    apart, (any_two, alone), (mean, signal) = 1 - unit(lags.PLACES), met, removed
    crossed = any_two + (alone - any_two) * (1 - (1 - alike) / max(apart, 1e-12))
    table = np.array(near - mean - 2 * crossed - (signal - 2 * alone) * alike)
    table = np.clip(table / max(whole.second - mean - signal, 1e-300), -1, 1)
    table.flat[0] = 1.0
    return table


def _together(g: np.ndarray | None, x: np.ndarray | None, law: Law) -> Callable[[Groups], float | None]:
    """Mean over pairs of places of E[g g'] E[x^ x^'], lag by lag."""
    sizes = border.sizes_of(law)
    if g is None or x is None or sizes is None or g.shape != x.shape:
        return lambda s: None
    both = lags.mean(g * x, sizes)
    return lambda s: both if s == lags.PLACES else None


def _sizes(x: Law, axes, groups: int) -> dict[str, float]:
    """Number of places of a statistic along each group."""
    sizes = group_sizes(tuple(x.axes[i] for i in axes))
    return {**sizes, FEATURE: sizes.get(FEATURE, 1.0) / groups}


def _kinds_of(x: Law, axes) -> tuple[Law, ...]:
    told = channels.kinds(x, axes)
    return () if told is None else told.laws


def _divided(x: Law, axes, whole: Divided) -> Divided:
    """What channels of one law were divided by, where all have their own deviations."""
    shared = shared_moment(x, axes)
    variance = max(x.second - shared + uneven.shortfall(x), 0.0)
    f, chance = freedom(x, axes, 1, shared), agreement(x, axes, 1, variance)
    return replace(whole, latent=x.latent.id, variance=variance, freedom=f, chance=chance)


def _inverse_by_channel(x: Law, axes, eps: float, centred: bool, mean: float) -> np.ndarray | float:
    """E[1 / (s^2 + eps)] of every channel where channels are of several laws, else of all."""
    told = channels.kinds(x, axes)
    if told is None:
        return mean
    each = []
    for one in told.laws:
        shared = shared_moment(one, axes) if centred else None
        variance = max(one.second - (shared or 0.0) + (uneven.shortfall(one) if centred else 0.0), 0.0)
        each.append(_inverse(one, axes, eps, shared or 0.0, variance, freedom(one, axes, 1, shared)))
    return np.array(each)[told.which]


def _inverse(x: Law, axes, eps: float, shared: float, variance: float, f: float) -> float:
    own, rest = split(x, axes, shared, variance, f)
    return mean_inverse(variance, eps, rest, own)


def _removed(x: Law, axes) -> Groups:
    """Places whose common part the mean takes away, where a statistic holds one feature."""
    over = frozenset(t for i in axes for t in axis_groups(x.axes[i]))
    return over if FEATURE not in over else frozenset()


def _outside(x: Law, axes) -> Groups:
    """Groups whose places are in several statistics."""
    return frozenset(a.group for i, axis in enumerate(x.axes) if i not in axes for a in axis if a.size > 1)


def _mean_pair(g: Cotangent, axes, groups: int, pair) -> float:
    """E of the squared mean over the elements of one statistic."""
    total = 0.0
    for differ, p in pair_counts(g.law, axes, groups):
        if FEATURE not in differ:
            total += p * pair(differ)
    return total


def _per_place(g: Cotangent, x: Law, axes, eps: float, centred: bool, factor: float | np.ndarray) -> Part:
    mean, second = x.profile(x.means), x.profile(x.seconds)
    inside = tuple(i for i in axes if mean.shape[i] > 1)
    if inside:
        mean, second = mean.mean(inside, keepdims=True), second.mean(inside, keepdims=True)
    n = float(np.prod([axis_size(x.axes[i]) for i in axes]))
    level = _held(x, n)[1]
    variance = np.maximum(second - mean**2, 0) * (1 - (1 - level) / n) if centred else second
    scale = factor * _more_than_inverse(x, axes, eps, centred) / (variance + eps)
    part = g.parts[0] if len(g.parts) == 1 else None
    if part is not None and part.values is not None:
        onto = levels_onto(g.law, x)
        if onto is not None:  # the same latent on both sides: the gradient still follows the signal
            return fresh(part.second * scale, thinned(part, part.second * scale, x), part.values[onto], part.matrix)
    whole = fresh(g.profile(), g.ratios())
    return fresh(whole.second * scale, thinned(whole, whole.second * scale, x), matrix=sequence.correlation(g, x))


def _on_its_base(part: Part, g: Cotangent, x: Law, gained: Gained) -> tuple[Part, ...]:
    """The part in front of a norm as a multiple, at every level, of the one behind it, which it is but for 1/n."""
    gain = constant((), (), 1.0) if gained.gain is None else gained.gain
    onto = levels_onto(g.law, x)
    one = g.parts[0]
    if len(g.parts) != 1 or one.base == ALIGNED or onto is None or not _one_gain(gained):
        return ()
    behind = np.broadcast_to(one.profile(g.law), part.profile(x).shape)
    ratio = part.profile(x) / np.where(behind > 0, behind, np.inf)
    factor = by_level(ratio, x)
    if factor is None:
        return ()
    values = np.sqrt(factor)[:, None] * (np.ones((1, grid.POINTS)) if one.values is None else one.values[onto])
    return (replace(followed(one, np.sign(gain.mean) * values, x), radial={}, met=0.0, heard=0.0, white=0.0),)


def _one_gain(gained: Gained) -> bool:
    """Whether all features have one known gain."""
    return gained.gain is None or (gained.gain.deterministic and len(gained.gain.values) == 1)


def _more_than_inverse(x: Law, axes, eps: float, centred: bool) -> float:
    """E[1 / (s^2 + eps)] over 1 / (E s^2 + eps): a variance over few features is small at times."""
    about = x.values - (x.means[:, None] if centred else 0.0)  # places do not share a statistic
    scale = np.sqrt(grid.expectation(about**2))
    unit = x.with_values(about / np.where(scale > 0, scale, 1.0)[:, None])
    shared = shared_moment(unit, axes) if centred else None
    variance = unit.second - (shared or 0.0)
    if not 0 < variance < np.inf or not 0 < x.second < np.inf:
        return 1.0
    little, held = eps * variance / x.second, _held(x, float(np.prod([axis_size(x.axes[i]) for i in axes])))[0]
    free = freedom(unit, axes, 1, shared) / (1 - held) if held < 1 - 1e-9 else np.inf
    return (variance + little) * mean_inverse(variance, little, free)


def _held(x: Law, n: float) -> tuple[float, float]:
    """What an earlier norm over the same features holds of a place's length, and of the mean of its features."""
    return (x.latent.held, x.latent.level) if x.latent.sphere == n else (0.0, 0.0)


__all__ = ["grid", "norm"]
