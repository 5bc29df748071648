"""Gradients of features that agree by chance shun each other in front of batch normalization.

A channel ``y = sum_j w_j x_j`` is divided by its deviation ``s``, with ``s^2 = w C w`` and C the covariance of the n
inputs over places. What it sends to inputs j and k is ``w_j w_k / s^2``, whose mean is ``-2 / n`` of that of
``w_j^2 / s^2`` for each unit of the correlation ``rho_jk`` that the two have by chance. So a gradient is smaller along
what features have in common, and there are layers that ask for just this: what outputs of one layer have in common is
what their weights have. Since ``E[(w_j w_k) rho_jk] = 1/n`` for weights of n inputs,

    E |sum_j w_j g_j|^2 = sum_j |w_j|^2 E g_j^2 (1 - white (n_out - 1) / n).

It counts where few features are made many, as in bottlenecks. The Gram matrix of places that a batch norm divides by
strays the more, the fewer features there are; on the way back this is what becomes of it in the layers before.
"""

from __future__ import annotations

from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.adjoint.slopes import Function, is_sum
from fanin.theory.law import Law
from fanin.theory.records import replace


def left(g: Cotangent, outputs: float, n: float, lost: float) -> float:
    """What is left of the mean square behind the transposed weights of ``outputs`` features of n inputs each."""
    return 1 / (1 + _handed_on(g, outputs, n, lost))


def behind_weights(g: Cotangent, outputs: float, n: float, own: float, lost: float, within: float = 1.0) -> float:
    """``white`` of what weights send back: their own, where a norm divides by what they made, and what is handed on.

    Args:
        own: what dividing by a channel's own deviation makes, 2/n without eps.
        lost: share along what features have in common, which makes deviations large: 2/f of f degrees of freedom.
        within: share of pairs of inputs that are summed in one group. Others have weights of their own on either side,
            which agree by ``E[(w_j w_k)^2] = 1/n``.
    """
    return within * (own + _handed_on(g, outputs, n, lost)) + (1 - within) * g.white / n


def _handed_on(g: Cotangent, outputs: float, n: float, lost: float) -> float:
    return g.white * (1 - lost) * max(outputs - 1, 0.0) / n


def through(parts: list[Part], out: Law, x: Law, slope: float) -> list[Part]:
    """Parts at an operand, by how much of the agreement of results is the operand's: of ``out = slope x + rest``."""
    if not any(p.white for p in parts):
        return parts
    whole, own = out.second - out.mean**2, x.second - x.mean**2
    share = slope**2 * own / whole if whole > 0 else 0.0
    return [replace(p, white=p.white * share) for p in parts]


def slope_of(fn: Function, out: Law, x: Law, place: int) -> float:
    """Mean slope of a result on its operand at ``place``: on one latent, or beside an independent summand."""
    if out.latent.id == x.latent.id:
        mine = float(x.level_weight @ x.slopes)
        return float(out.level_weight @ out.slopes) / mine if mine else 0.0
    if not is_sum(fn):
        return 0.0
    return float(fn(*(1.0 if i == place else 0.0 for i in range(2))) - fn(0.0, 0.0))
