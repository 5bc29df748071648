"""In front of a convolution of one channel each and its batch norm, a gradient is orthogonal to the channel.

Batch norm takes away what a gradient has along its input y: over the places of a channel ``sum g_y y = eps /
(s^2 + eps) sum g x^``. A kernel that reads one channel hands that on to it, ``sum g_x x = sum g_y y``, so the size of
the channel has hardly a gradient: the gain of a norm before it gets what eps, and a nonlinearity between, leave. One
constraint of a channel's N places is nothing for the gradient's mean square, and everything for a sum along it:

    E[(sum_p B_p d(z_p))^2] = E[B^2] N (E[d^2] - share E[d x]^2 / E[x^2]) + what pairs have in common.

That a gradient sums to zero, as far as no tap reads beyond a border, is in the correlations of pairs: of it only what
the first has not taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.adjoint.joint import levels_onto
from fanin.theory.law import FEATURE, Law
from fanin.theory.statistic import LOG_T


@dataclass(frozen=True, eq=False)
class Orthogonal:
    """What a part's base is orthogonal to over the places of a feature.

    Attributes:
        share: one where it is exactly so; less where eps is beside the variance.
        values: (levels, POINTS) the function of the tensor's latent, of mean square one; None for the tensor itself.
    """

    share: float
    values: np.ndarray | None = None


def behind(g: Cotangent) -> Orthogonal | None:
    """Of what a kernel of one channel sends back, whose outputs were normalized over places."""
    divided = {p.divided for p in g.parts}
    d = divided.pop() if len(divided) == 1 else None
    if d is None or d.latent != g.law.latent.id or d.variance <= 0 or not np.isfinite(d.freedom):
        return None
    return Orthogonal(1 - _left(d.variance, d.eps, d.freedom))


def _left(variance: float, eps: float, f: float) -> float:
    """``E[s^2 eps^2 / (s^2 + eps)^3] / E[s^2 / (s^2 + eps)]`` for s^2 = v chi^2_f / f, as integrals over t > 0.

    ``1 / (s^2 + eps)^k`` is the integral of ``t^(k-1) e^(-t (s^2 + eps)) / (k-1)!``.
    """
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


def taken(part: Part, law: Law, ratio: float) -> float:
    """What the pair moment of two places of a feature has less, beside what their correlation says of constants."""
    known = part.orthogonal
    places = float(np.prod([a.size for axis in law.axes for a in axis if a.group != FEATURE]))
    if known is None or part.values is None or places <= 1:
        return 0.0
    along = _unit(law) if known.values is None else known.values
    if len(along) != len(part.values):
        return 0.0
    mean = lambda values: float(law.level_weight @ grid.expectation(values))  # noqa: E731
    met, constant, both = mean(part.values * along), mean(part.values), min(abs(mean(along)), 1 - 1e-9)
    both = np.copysign(both, mean(along))
    rest = (constant - both * met) ** 2 / (1 - both**2)  # of what is constant, orthogonal to the function
    balanced = float(np.clip(-ratio * (places - 1), 0.0, 1.0))
    return part.mean_second * known.share * (met**2 - balanced * (constant**2 - rest)) / (places - 1)


def least(part: Part, law: Law) -> float:
    """Mean square a place of a sum along what the base is orthogonal to: what eps leaves of it."""
    known = part.orthogonal
    if known is None or part.values is None or known.values is None or len(known.values) != len(part.values):
        return 0.0
    met = float(law.level_weight @ grid.expectation(part.values * known.values))
    constant = float(law.level_weight @ grid.expectation(known.values))
    return part.mean_second * (1 - known.share) * (1 - constant**2) * met**2


__all__ = ["Orthogonal", "behind", "followed", "least", "taken"]
