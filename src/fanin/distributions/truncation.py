"""What truncation leaves of a standard normal law's moments."""

from __future__ import annotations

import functools
import math


@functools.cache
def truncation_factor(bound: float) -> float:
    """What truncation at +-``bound`` sigma leaves of the standard deviation.

    Example:
        >>> truncation_factor(2.0)
        0.8796256610342398
    """
    return math.sqrt(truncated_moments(bound)[0])


@functools.cache
def truncated_moments(bound: float) -> tuple[float, float]:
    """Second and fourth moment of a standard normal law truncated at +-bound."""
    if bound > 10:  # the series below would need hundreds of terms; here plain formulas lose nothing
        density = 2.0 * math.exp(-0.5 * bound * bound) / math.sqrt(2.0 * math.pi)
        return 1.0 - bound * density, 3.0 - (bound**3 + 3.0 * bound) * density
    s0, s1, s2 = (_half_moment(k, bound) for k in range(3))
    return s1 / s0, s2 / s0


def _half_moment(k: int, bound: float) -> float:
    """exp(bound^2 / 2) times the integral of x^2k exp(-x^2 / 2) over (0, bound); all terms positive, so exact."""
    term = bound ** (2 * k + 1) / (2 * k + 1)
    terms, j = [term], 2 * k + 1
    while term > 1e-18 * terms[0] or j < bound * bound:
        j += 2
        term *= bound * bound / j
        terms.append(term)
    return math.fsum(terms)
