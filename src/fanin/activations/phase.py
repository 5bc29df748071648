"""Order and chaos of a deep net of dense layers with one activation: fixed points and their depth scales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

from fanin.activations.functions import activation
from fanin.activations.maps import SMALL_STD, chi, fixed_point, pair_moment
from fanin.activations.moments import moments

STEP = 1e-4  # of the central differences


@dataclass(frozen=True)
class Phase:
    """Where a layer of weights of std ``sigma_w / sqrt(fan_in)`` and biases of std ``sigma_b`` takes a deep net.

    Attributes:
        q: pre-activation variance that it settles at; 0 where the signal dies.
        chi: factor a layer on the squared gradient there, and on the distance of two nearby inputs.
        c: correlation of pre-activations that any two inputs settle at; 1 where chi <= 1; None where q is 0.
        xi_q, xi_c: layers in which the distance to q and to c falls by e; infinite on the critical line.
        xi_gradient: layers in which the squared gradient changes by e: 1 / |ln chi|.
    """

    sigma_w: float
    sigma_b: float
    q: float
    chi: float
    c: float | None
    xi_q: float
    xi_c: float
    xi_gradient: float

    @property
    def name(self) -> Literal["ordered", "critical", "chaotic"]:
        """Ordered where chi < 1, chaotic where it is more, critical within 1e-6 of 1."""
        return "critical" if abs(self.chi - 1) < 1e-6 else "chaotic" if self.chi > 1 else "ordered"


def phase(spec: Any, sigma_w: float, sigma_b: float = 0.0, **parameters: float) -> Phase:
    """The phase of a deep net of dense layers.

    With V(q) = sigma_w^2 E[f(sqrt(q) z)^2] + sigma_b^2 and R(c) = (sigma_w^2 E[f f'] + sigma_b^2) / q*:
    q* = V(q*), c* = R(c*), xi_q = -1 / ln V'(q*), xi_c = -1 / ln R'(c*), chi = R'(1) = sigma_w^2 E[f'^2].

    Errors: ArgumentError where the variance grows without limit, or every variance is kept (ReLU with He's weights).

    Source: Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2016, arXiv:1611.01232.

    Example:
        >>> found = phase("tanh", 5 / 3)
        >>> found.name, round(found.chi, 4), round(found.c, 6)
        ('chaotic', 1.2098, 0.0)
        >>> phase("tanh", 1.0, 0.5).name
        'ordered'
    """
    f = activation(spec, **parameters)
    q = fixed_point(f, sigma_w, sigma_b)
    at = math.sqrt(q) if q > 0 else SMALL_STD
    slope = chi(f, sigma_w, at)

    def variance(v: float) -> float:
        return sigma_w**2 * moments(f, math.sqrt(v)).second_moment + sigma_b**2

    def correlation(c: float) -> float:
        return (sigma_w**2 * float(pair_moment(f, c, at)) + sigma_b**2) / q

    rate_q = (variance(at**2 * (1 + STEP)) - variance(at**2 * (1 - STEP))) / (2 * STEP * at**2)
    if q == 0:
        return Phase(sigma_w, sigma_b, q, slope, None, _scale(rate_q), math.inf, _scale(slope))
    c = 1.0 if slope <= 1 + 1e-5 else _crossing(correlation)
    rate_c = slope if c == 1.0 else (correlation(c + STEP) - correlation(c - STEP)) / (2 * STEP)
    return Phase(sigma_w, sigma_b, q, slope, c, _scale(rate_q), _scale(rate_c), _scale(slope))


def _crossing(correlation: Any) -> float:
    """The correlation below one that is kept."""
    from scipy.optimize import brentq  # not at import: scipy is slow to load

    if correlation(0.0) < 1e-12:  # an odd function without a bias
        return 0.0
    return cast(float, brentq(lambda c: correlation(c) - c, 0.0, 1 - 1e-5, xtol=1e-10))


def _scale(rate: float) -> float:
    """Layers for a factor e, at a factor a layer."""
    if abs(rate) < 1e-300:
        return 0.0
    log = abs(math.log(abs(rate)))
    return 1 / log if log > 1e-9 else math.inf
