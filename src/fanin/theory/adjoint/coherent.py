"""Gradients that places have in common come back along the signal where a kernel reads few inputs.

Behind a mean over a map all places of a channel get one number b, and behind a function and a batch norm
``g_p = b d(y_p)``. Of an output that sums n inputs, ``y_p = sum_t w_t x_(p+t) / s``, a place hears by c of the taps

    g_x(p) = sum_t w_t g_(p-t),      E[w_t w_t' d(y) d(y')] = Var(w)^2 E[d'(y) d'(y')] x(p)^2 / s^2    (Stein's lemma),

since both outputs read x(p), by the taps t and t'. So beside the ``c Var(w) E[g^2]`` of independent taps there is

    c (c - 1) Var(w)^2 L x(p)^2 / s^2,     L = E[b b'] E[d'(y) d'(y')] - what the norm takes away along y,

which follows the signal: it is large where a ReLU in front is open. Of nine taps of one channel it is a quarter
behind a ReLU and a mean, of nine taps of 64 channels nothing. A sum of it over places is a sum behind the kernel,
``sum_p g_x f(z) = sum_q g_q (w * f)_q``: it has of f what is linear in x, ``w * x = y``, and the norm has taken that
away, so that such sums see independent numbers.

By the same lemma each tap alone is ``E[w_t^2 d(y)^2] = Var(w) E[d^2] + Var(w)^2 E[(d^2)''] x^2 / s^2``: functions that
are steep far from zero (SiLU) send more to large inputs. Behind a norm only beside others: of all inputs together y has
the variance one, whatever the weights.
"""

from __future__ import annotations

import math

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.unary import SLIGHT
from fanin.theory.latent import group_sizes
from fanin.theory.law import Groups, Law, subsets
from fanin.theory.moments import moments_of
from fanin.theory.places import POSITION
from fanin.theory.records import replace
from fanin.theory.statistic import scatter


def slope(g: Cotangent, removed: float) -> float:
    """L behind a batch norm that takes ``removed`` away along the signal: mean over two positions of a sample."""
    along = frozenset((POSITION,))
    if not along <= g.law.groups:
        return 0.0
    return max(sum(max(_of_part(p, g.law, along), 0.0) for p in g.parts) - removed, 0.0)


def met(g: Cotangent, x: Law, variance: float) -> float:
    """What other places add to a sum of g and an input: both are alike where the two places agree by chance.

    ``E[g g']`` grows by ``E[b b'] E[d'(y) d'(y')]`` with the correlation of y and y', the mean of products of inputs.
    """
    sizes, found = group_sizes(x.axes), 0.0
    for s in subsets(x.groups):
        grows = sum(_of_part(p, g.law, s) for p in g.parts)
        if grows:
            found += math.prod(sizes[t] - 1 for t in s) * grows * scatter(x, s, variance)
    return found


def _of_part(part: Part, law: Law, along: Groups) -> float:
    """``E[b b'] sum_k k a_k^2 r^(k - 1)``; the latent is the normalized signal."""
    ratio = part.ratio.get(along, 0.0)
    if part.values is None or not ratio:
        return 0.0
    squares = law.level_weight @ moments_of(part.values).hermite ** 2
    k, r = np.arange(1, len(squares)), law.correlation(along)
    return part.mean_second * ratio * float(squares[1:] @ (k * r ** (k - 1.0)))


def curvature(g: Cotangent) -> float:
    """``E[(d^2)'']`` over the latent."""
    found = 0.0
    for part in g.parts:
        if part.values is not None:
            bent = g.law.level_weight @ grid.hermite_coefficients(part.values**2)[:, 2]
            found += part.mean_second * math.sqrt(2) * float(bent)
    return found


def returned(g: Cotangent, x: Law, sent: Part, heard: np.ndarray, variance: float) -> list[Part]:
    """What independent taps send back, as it follows the input, and the part along it.

    Args:
        sent: by independent taps.
        heard: by how many outputs of a channel each place is read.
        variance: of a weight.
    """
    (part,) = g.parts if len(g.parts) == 1 else (None,)
    if part is None or part.divided is None or not x.second > x.mean**2:
        return [sent]
    along, share = x.values - x.mean, variance / (part.divided.variance + part.divided.eps)
    sent = _bent(x, sent, along, part.divided.curvature * share)
    extra = sent.second * part.divided.slope * share * np.maximum(heard - 1, 0.0)
    places = float(np.prod([a.size for axis in x.axes for a in axis if a.group in x.groups]))
    ratio = dict.fromkeys(subsets(x.groups), -1 / (places - 1) if places > 1 else 0.0)
    found = fresh(extra, ratio, along)
    if not found.mean_profile(x) > SLIGHT * sent.mean_second:  # too little to be followed
        return [replace(sent, second=sent.second + found.profile(x))]
    known = sent.orthogonal and replace(sent.orthogonal, values=along * x.values)  # the base times x - E x, times x
    return [sent, replace(found, orthogonal=known)]


def _bent(x: Law, sent: Part, along: np.ndarray, share: float) -> Part:
    """The part times ``1 + share (x^2 - E x^2)``, of the mean square that it has."""
    variance = float(x.level_weight @ grid.expectation(along**2))
    if abs(share) * variance < SLIGHT:
        return sent
    values = np.sqrt(np.maximum(1 + share * (along**2 - variance), 0.0))
    values /= np.sqrt(float(x.level_weight @ grid.expectation(values**2)))
    known = sent.orthogonal and replace(sent.orthogonal, values=values * x.values)
    return replace(sent, values=values, orthogonal=known)


__all__ = ["curvature", "met", "returned", "slope"]
