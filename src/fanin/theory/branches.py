"""Branches of one channel: what they have in common by chance, and how channels then differ in size.

Kernels of one channel (depthwise ones) and the channel itself are branches that structural re-parameterization sums:
``y = BN(w * x) + BN(w' * x) + BN(x)``. Weights are drawn apart, so in the mean over networks branches do not correlate.
Over the places of *one* channel they do: with C the covariance of the n taps that a kernel reads, two kernels by

    E rho^2 = tr C^2 / (tr C)^2,

1/n for taps of their own, more where neighbours are alike, and one for a kernel of one tap, which is the channel itself
but for the sign. The channel's variance in the sum strays by twice the covariance of each pair: of the shares f, f' of
the variance by ``4 f f' E rho^2``, relative and squared. Where it is small all that is divided by it is large.

A latent knows the channels it heard: triples of a latent's identity, the share of its own variance that kernels of one
channel have made of it, and what these correlate with other branches, at most, in the mean square; infinity of the
tensor itself behind a norm of its own, of which no weights are drawn. (Of the bare tensor beside a kernel of one tap,
``x + w x``, sizes are ``(1 + w)^2``, which no law of two moments tells: it is left out.)
"""

from __future__ import annotations

from math import inf

from fanin.theory import lags
from fanin.theory.latent import Latent
from fanin.theory.law import Law
from fanin.theory.records import replace

Heard = tuple[tuple[int, float, float], ...]
MANY = 16
"""Entries that are remembered, kernels before tensors, the largest shares first: branches meet soon."""


def of_kernel(law: Law, x: Law, taps: float, axes: int) -> Law:
    """The law of sums over so many taps of one channel of x, along so many axes; it varies as its channels do."""
    rho2 = 1.0
    if taps > 1:
        near = lags.within(x, round(taps ** (1 / max(axes, 1))), m2=x.mean**2)
        rho2 = 1 / taps if near is None else near
    excess = law.latent.excess + x.latent.excess
    return replace(law, latent=replace(law.latent, heard=((x.latent.id, 1.0, rho2),), excess=excess))


def of_sum(law: Law, x: Law, y: Law) -> Law:
    """The law of a sum, whose channels differ in size by what its summands have in common by chance."""
    whole = law.second - law.mean**2
    if whole <= 0 or not (x.latent.heard or y.latent.heard):
        return law
    parts = [(min((part.second - part.mean**2) / whole, 1.0), part.latent) for part in (x, y)]
    (f, one), (g, other) = parts
    excess = law.latent.excess + 4 * f * g * _met(one, other)
    return replace(law, latent=replace(law.latent, heard=_added(parts), excess=excess))


def of_norm(x: Latent) -> Heard:
    """What a norm over places has heard of x: x itself but for a gain and a shift of every channel, and what x has."""
    return (*(() if x.feature_view or x.place_view else ((x.id, 1.0, inf),)), *x.heard)[:MANY]


def _met(one: Latent, other: Latent) -> float:
    """Mean square of the correlation of two branches over the places of a channel; of one tensor twice it is known."""
    pairs = ((s * t, min(r, q)) for i, s, r in one.heard for j, t, q in other.heard if i == j)
    return min(sum(share * rho2 for share, rho2 in pairs if rho2 < inf), 1.0)


def _added(parts: list[tuple[float, Latent]]) -> Heard:
    found: dict[tuple[int, float], float] = {}
    for share, latent in parts:
        for i, s, rho2 in latent.heard:
            found[i, rho2] = found.get((i, rho2), 0.0) + share * s
    largest = sorted(found, key=lambda key: (key[1], -found[key]))[:MANY]
    return tuple((i, found[i, rho2], rho2) for i, rho2 in largest)
