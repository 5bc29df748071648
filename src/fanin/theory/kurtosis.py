"""The law of the weights in the mean square of one feature over its places.

It is ``s^2 = sum_ij w_i w_j C_ij`` with C the covariance of n inputs over places, of the relative variance

    2 tr C^2 / (tr C)^2 + (kurtosis - 3) sum_i C_ii^2 / (tr C)^2,

the last sum 1/n for inputs of one variance: of uniform weights, features differ less in size than of normal ones.
"""

from __future__ import annotations

from fanin.theory import grid
from fanin.theory.law import Law
from fanin.theory.records import replace


def kurtosis(weight: Law) -> float:
    """E[w^4] / E[w^2]^2 of the elements of a weight: 3 for normal, 1.8 for uniform ones."""
    if weight.second <= 0:
        return 3.0
    return float(weight.level_weight @ grid.expectation(weight.values**4)) / weight.second**2


def weighted(law: Law, weight: Law, n: float) -> Law:
    """The law of sums of n terms, which knows what the law of their weights adds to the relative variance of s^2."""
    if weight.second <= 0 or weight.mean**2 > 1e-12 * weight.second:
        return law
    return replace(law, latent=replace(law.latent, excess=(kurtosis(weight) - 3) / n))


def of_sum(law: Law, x: Law, y: Law) -> Law:
    """The law of an independent sum, whose parts add by the square of their share of the variance."""
    whole = law.second - law.mean**2
    if whole <= 0 or not (x.latent.excess or y.latent.excess):
        return law
    excess = sum(((part.second - part.mean**2) / whole) ** 2 * part.latent.excess for part in (x, y))
    return replace(law, latent=replace(law.latent, excess=excess))
