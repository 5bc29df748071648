"""Channels over their places are not Gaussian: places are long or short by chance.

A channel ``y = sum_i w_i x_i`` is divided by its own deviation over places. Given its weights it is a sum of n terms
that are not Gaussian, of the excess kurtosis ``E[u^4]/E[u^2]^2 - 3 =: e`` with ``u = x - E x``, so that its own is

    e sum_i w_i^4 / (sum_i w_i^2)^2,    on average e k / (k + n - 1) with k the kurtosis of the weights' law,

beside what the terms have in common: a place that was long is long in all of them. Two channels' squares have the
covariance ``e / n`` over places, relative to their mean squares; what is left of it behind a function is
``s^2``, with s the relative slope of ``E u^2`` on the square of the length, and less behind the mean over taps.

By Edgeworth's series the mean of ``f(z)`` is ``a_0 + (excess / 24) E[f He_4]``, and the mean product of two places,
which batch normalization takes away, is the square of this: behind a ReLU it is smaller by ``excess / 12`` of itself,
and the variance that is left larger.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fanin.theory import grid
from fanin.theory.kurtosis import kurtosis
from fanin.theory.latent import Uneven
from fanin.theory.law import Law


def shortfall(x: Law) -> float:
    """How much less the mean product of two places is than that of Gaussian latents, to the first order."""
    latent = x.latent
    if not (any(latent.uneven) or latent.aside):
        return 0.0
    return latent.aside * float(x.level_weight @ x.slopes**2) + _curved(x, latent.uneven)


def _curved(x: Law, uneven: Uneven) -> float:
    """``-2 a_0 (excess / 24) E[f He_4]``."""
    a = x.coefficients
    return -uneven.own / 4 * np.sqrt(24) * float(x.level_weight @ (a[:, 0] * a[:, 4]))


_CURVE = grid.WEIGHT * (grid.Z_UNIT**2 - 1)


def summed(law: Law, x: Law, weight: Law, n: float, left: float) -> Law:
    """The Gaussian law of sums of n elements of x with fresh weights.

    Args:
        left: what the mean over the taps of a kernel leaves of what differs by chance from place to place.
    """
    if not law.groups or x.deterministic or x.second <= 0 or not np.isfinite(x.second):
        return law
    u = x.values - x.mean
    squares = u**2
    square = float(x.level_weight @ grid.expectation(squares))
    if square <= 1e-13 * x.second:
        return law
    excess = float(x.level_weight @ grid.expectation(squares**2)) / square**2 - 3
    slope = float(x.level_weight @ (squares @ _CURVE)) / 2 / square
    k, kept = kurtosis(weight), (slope * left) ** 2 * x.latent.uneven.common
    own = Uneven(excess * k / 3 / (k + n - 1) + kept, excess / n + kept)
    return replace(law, latent=replace(law.latent, uneven=own, aside=shortfall(x) / x.second))


def of_sum(law: Law, x: Law, y: Law) -> Law:
    """The law of an independent sum: cumulants add, and so do mean products of places."""
    whole = law.second - law.mean**2
    if whole <= 0 or not any(any(v.latent.uneven) or v.latent.aside for v in (x, y)):
        return law
    shares = [((v.second - v.mean**2) / whole) ** 2 for v in (x, y)]
    each = zip(x.latent.uneven, y.latent.uneven, strict=True)
    uneven = Uneven(*(shares[0] * a + shares[1] * b for a, b in each))
    straight = float(law.level_weight @ law.slopes**2)
    short = shortfall(x) + shortfall(y) - _curved(law, uneven)
    return replace(law, latent=replace(law.latent, uneven=uneven, aside=short / straight if straight > 0 else 0.0))
