"""In front of weights and their batch norm a gradient is orthogonal to the outputs, hence in part to the inputs.

Batch norm takes away what a gradient has along its input y: over the places of a channel ``sum g_y y = eps /
(s^2 + eps) sum g x^``. A kernel that reads one channel hands that on to it, ``sum g_x x = sum g_y y``, so the size of
the channel has hardly a gradient: the gain of a norm before it gets what eps, and a nonlinearity between, leave. One
constraint of a channel's N places is nothing for the gradient's mean square, and everything for a sum along it:

    E[(sum_p B_p d(z_p))^2] = V(d, d) - (1 - S / V(x, x)) V(d, x)^2 / V(x, x),

as of Gaussian numbers of which one sum is known, with ``V(d, e) = sum_pq E[B_p B_q] E[d_p e_q]`` and S the sum's own
mean square: ``E[s^2 eps^2 / (s^2 + eps)^3] / E[s^2 / (s^2 + eps)]`` of that of ``sum g x^``. Places of
unlike mean square (borders) and what pairs have in common are in V: that a gradient sums to zero, as far as no tap
reads beyond a border, is not taken twice, and nothing is left of a sum along x itself.

A kernel of m channels makes ``y = sum_c y_c``, and ``sum g_x x = sum g_y y_c`` loses the square of the correlation of
y_c and y: on average ``1/m + (1 - 1/m) 2 / (n + 2)`` over n weights an output, whose sizes make some parts larger than
others, and beside it what two inputs agree by chance.

Where d and x are proportional but far out (a ReLU6 at a latent beyond six), the mean over networks is made by the one
in hundreds that has such an element: a tensor of n elements hardly has one beyond that share, and there d counts
as proportional to x.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fanin.theory import grid, placed
from fanin.theory.adjoint.cotangent import Cotangent, Divided, Part
from fanin.theory.adjoint.joint import levels_onto
from fanin.theory.latent import group_sizes
from fanin.theory.law import FEATURE, Law, subsets
from fanin.theory.moments import moments_of
from fanin.theory.records import replace
from fanin.theory.statistic import LOG_T, mean_inverse


@dataclass(frozen=True, eq=False)
class Orthogonal:
    """What a part's base is orthogonal to over the places of a feature.

    Attributes:
        share: of the mean square of a sum along it that is not there; one behind a kernel of one channel.
        left: mean square, a place, of the sum along it, over that of a base without correlations: what eps leaves.
        values: (levels, POINTS) the function of the tensor's latent, of mean square one; None for the tensor itself.
    """

    share: float
    left: float = 0.0
    values: np.ndarray | None = None


def behind(g: Cotangent, x: Law, sent: Part, channels: int, n: float) -> Orthogonal | None:
    """Of what weights of n inputs, of so many channels, send back to x, whose outputs were normalized over places."""
    divided = {p.divided for p in g.parts}
    d = divided.pop() if len(divided) == 1 else None
    if d is None or d.latent != g.law.latent.id or d.variance <= 0 or not np.isfinite(d.freedom):
        return None
    left = _left(d.variance, d.eps, d.freedom)
    if channels > 1:
        chance = 2 / (n + 2) * (1 - 1 / channels) + max(d.chance - 1 / n, 0.0)
        return Orthogonal(min(1 / channels + chance, 1.0) * (1 - min(left, 1.0)))
    own = sent.mean_second * x.second * _places(x) * mean_inverse(d.variance, d.eps, d.freedom)
    return Orthogonal(1.0, left * d.along * g.second * _places(g.law) / max(own, 1e-300))


def of_norm(part: Part, x: Law, by: Divided, sent: float) -> Orthogonal | None:
    """Of what a norm over places sends back to x itself, of this mean square."""
    own = part.mean_profile(x) * x.second
    if by.variance <= 0 or own <= 0:
        return None
    left = _left(by.variance, by.eps, by.freedom) * by.along * sent * (by.variance + by.eps) / own
    values = None if part.values is None or len(part.values) != len(x.values) else part.values * x.values
    return None if part.values is not None and values is None else Orthogonal(1.0, left, values)


def of_summand(known: Orthogonal | None, out: Law, x: Law) -> Orthogonal | None:
    """What a base that is orthogonal to a sum knows of one of its independent summands."""
    if known is None or known.values is not None or out.second <= 0:
        return None
    return Orthogonal(known.share * min(x.second / out.second, 1.0))


def folded(part: Part, law: Law) -> Part:
    """The part with its function in the mean square: orthogonal to the tensor itself where the two together were."""
    if part.values is None:
        return part
    plain, known = replace(part, second=part.profile(law), values=None, orthogonal=None), part.orthogonal
    if known is None or known.values is None or len(known.values) != len(part.values) or law.second <= 0:
        return plain
    mean = lambda f: float(law.level_weight @ grid.expectation(f))  # noqa: E731
    beside = part.values * law.values
    whole, own = mean(beside**2), mean(known.values**2)
    if whole <= 0 or own <= 0:
        return plain
    share, left = mean(beside * known.values) ** 2 / (whole * own), part.mean_second * whole / law.second
    kept = Orthogonal(known.share * share, known.left * left / max(plain.mean_second, 1e-300))
    return replace(plain, orthogonal=kept)


def merged(parts: list[Part], means: list[float]) -> Orthogonal | None:
    """Of the sum of independent parts."""
    known = [p.orthogonal or Orthogonal(0.0) for p in parts]
    total = sum(means)
    if total <= 0 or any(k.values is not None for k in known) or not any(k.share for k in known):
        return None
    share, left = (
        sum(m * v for m, v in zip(means, each, strict=True)) / total
        for each in zip(*((k.share, k.left) for k in known), strict=True)
    )
    return Orthogonal(share, left)


def _places(law: Law) -> float:
    """How many places a feature has."""
    return float(np.prod([a.size for axis in law.axes for a in axis if a.group != FEATURE]))


def _left(variance: float, eps: float, f: float) -> float:
    """``E[s^2 eps^2 / (s^2 + eps)^3] / E[s^2 / (s^2 + eps)]`` for s^2 = v chi^2_f / f, as integrals over t > 0.

    ``1 / (s^2 + eps)^k`` is the integral of ``t^(k-1) e^(-t (s^2 + eps)) / (k-1)!``.
    """
    if not np.isfinite(f):
        return (eps / (variance + eps)) ** 2
    t = np.exp(LOG_T) / variance
    with np.errstate(under="ignore", over="ignore"):
        sized = t * np.exp(-eps * t - (f / 2 + 1) * np.log1p(2 * t * variance / f))
    return float(eps**2 * np.trapezoid(t**2 / 2 * sized, LOG_T) / np.trapezoid(sized, LOG_T)) if eps else 0.0


def followed(part: Part, found: Part, out: Law, x: Law) -> Part:
    """The part at an operand on the same latent, whose result ``out`` the base is orthogonal to."""
    known = part.orthogonal
    if known is None:
        return found
    onto = levels_onto(out, x)
    if onto is None or found.base != part.base:
        return replace(found, orthogonal=None)
    values = _unit(out) if known.values is None else known.values
    return replace(found, orthogonal=replace(known, values=values[onto]))


def _unit(law: Law) -> np.ndarray:
    """A law's values with a mean square of one."""
    return law.values / max(law.second, 1e-300) ** 0.5


def taken(part: Part, law: Law) -> float:
    """What the mean square of a sum of the part over places has less, by the number of pairs that a place is in."""
    known = part.orthogonal
    if known is None or part.values is None:
        return 0.0
    found = vars(part).get("_taken")
    if found is None or found[0] is not law:
        found = vars(part)["_taken"] = law, _taken(part, law, known)
    return found[1]


def _taken(part: Part, law: Law, known: Orthogonal) -> float:
    """``(share - S / V(x, x)) V(d, x)^2 / V(x, x)``, a place."""
    along = law.values if known.values is None else known.values
    others = _places(law) - 1
    if others <= 0 or part.values is None or len(along) != len(part.values):
        return 0.0
    along = along / max(float(law.level_weight @ grid.expectation(along**2)), 1e-300) ** 0.5
    along = _as_far_as_seen(along, part.values, law)
    whole, met = _products(part, law, along, (along, part.values))
    if whole <= 1e-6 * part.mean_second:  # it sums to zero as a constant does, which correlations know
        return 0.0
    return (known.share - known.left * part.mean_second / whole) * met**2 / whole / others


def _as_far_as_seen(along: np.ndarray, values: np.ndarray, law: Law) -> np.ndarray:
    """What the base is orthogonal to, proportional to the function where hardly an element of the tensor is."""
    unseen = np.abs(law.values - law.mean) > _largest(law)
    both, own = (law.level_weight @ np.where(unseen, 0.0, f) @ grid.WEIGHT for f in (values * along, along**2))
    return along if abs(both) < 1e-6 * own else np.where(unseen, values * (own / both), along)


@lru_cache(maxsize=16)  # every part of a tensor asks
def _largest(law: Law) -> float:
    """How far from the mean half an element of the tensor is to be expected."""
    far = np.abs(law.values - law.mean).ravel()
    share, wanted = (law.level_weight[:, None] * grid.WEIGHT).ravel(), 0.5 / float(np.prod(law.shape))
    for least in (far.max(initial=0.0) * np.array([0.75, 0.5, 0.25])).tolist():  # the few largest say it, as a rule
        most = far > least
        if share[most].sum() > 2 * wanted:
            far, share = far[most], share[most]
            break
    order = np.argsort(-far)
    beyond = np.cumsum(share[order])
    return float(far[order[min(int(np.searchsorted(beyond, wanted)), far.size - 1)]])


def _products(part: Part, law: Law, one: np.ndarray, others: Iterable[np.ndarray]) -> list[float]:
    """``V(d, d')``: mean product a place of the sums of ``B d(z)`` and ``B d'(z)``, by the correlations of pairs alone.

    Args:
        one, others: d, and one d' after the other, (levels, POINTS).
    """
    sizes = group_sizes(law.axes)
    pairs = [(float(np.prod([sizes[g] - 1 for g in s])) * part.ratio.get(s, 0.0), s) for s in subsets(law.groups)]
    pairs = [(count, law.correlation(s)) for count, s in pairs if count]
    weight, own, found = _weight(part, law), grid.hermite_coefficients(one), []
    for other in others:
        coefficients = own * (own if other is one else moments_of(other).hermite)
        both = grid.expectation(one * other)
        beyond = float(law.level_weight @ (both - coefficients.sum(-1)))
        mean, degrees = law.level_weight @ coefficients, np.arange(coefficients.shape[-1])
        total = float(weight @ both)
        for count, r in pairs:  # Mehler's formula, as in ``mehler``
            total += count * (float(mean @ r**degrees) + beyond * max(r, 0.0) ** (1.5 * len(degrees)))
        found.append(part.mean_second * total)
    return found


def _weight(part: Part, law: Law) -> np.ndarray:
    """Share of the base's mean square that is at places of each level."""
    if part.second.size == 1 or len(law.values) == 1:
        return law.level_weight
    found, _ = placed.sums(part.second, law.level, len(law.values))
    return found / found.sum() if found.sum() > 0 else law.level_weight


def least(part: Part, law: Law) -> float:
    """Mean square a place of a sum along what the base is orthogonal to: what eps leaves of it."""
    known = part.orthogonal
    if known is None or part.values is None:
        return 0.0
    along = law.values if known.values is None else known.values
    if len(along) != len(part.values):
        return 0.0
    weight = _weight(part, law)
    square = max(float(weight @ grid.expectation(along**2)), 1e-300)
    return part.mean_second * known.left * float(weight @ grid.expectation(part.values * along)) ** 2 / square


__all__ = ["Orthogonal", "behind", "followed", "least", "merged", "of_norm", "of_summand", "taken"]
