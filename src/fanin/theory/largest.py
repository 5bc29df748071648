"""The largest of n standard Gaussians that correlate: its law, what two such maxima have in common, who it is.

Elements of a window that correlate by r are a part they share and n independent rests, of which the largest counts:

    top = sqrt(r) z + sqrt(1 - r) max_i e_i,        Var(top) = r + (1 - r) v_n,    v_n = Var(max_i e_i) < 1.

A maximum hears less chance than its elements, so that maxima are more alike. By Price's theorem the covariance of two
grows with the correlation t of their elements i and j by ``P(i is the largest of one, j of the other) dt``: where all
elements of one correlate with all of the other by t it is t; where each has one partner, by the chance ``s_n(t)`` that
partners are the largest in both,

    H_n(t) = integral of s_n from 0 to t,       s_n(t) = n E[Phi_2(x, y; t)^(n - 1)],    s_n(0) = 1/n,  H_n(1) = v_n.

Correlations that scatter by s over pairs are those of directions in ``d = ((1 - r) / s)^2`` dimensions (points of three
numbers, behind a few layers): ``e_i = u_i . x`` with one Gaussian x of a feature for all places. The largest is then
``|x| max_i cos_i``, less than that of independent ones, and what it varies by is for the most part ``|x|``, which other
samples have in common as far as their correlations scatter, too.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import betaincinv, gammaincinv, ndtr, owens_t

from fanin.theory import grid

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_PAIRS = np.multiply.outer(grid.WEIGHT_COARSE, grid.WEIGHT_COARSE).ravel()
MANY = 1e3
"""Dimensions beyond which directions are independent."""


def largest(values: np.ndarray, n: int, r: float, d: float = np.inf) -> np.ndarray:
    """Law of the largest of n elements whose latents correlate by r: a monotone f of the largest latent."""
    return values if n <= 1 or r >= 1 - 1e-9 else grid.at(values, largest_latent(n, r, d))


@lru_cache(maxsize=256)
def largest_latent(n: int, r: float, d: float = np.inf) -> np.ndarray:
    """The largest of n standard Gaussians that correlate by r, as an increasing function of one of its own.

    Args:
        d: dimensions that the rests are directions in.
    """
    if n <= 1 or r >= 1 - 1e-9:
        return grid.Z_UNIT
    if d < MANY:
        length, cosine = _directions(n, d)
        own = grid.quantile_grid(np.multiply.outer(length, cosine).ravel(), _PAIRS)
    else:
        own = grid.ndtri(np.clip(np.clip(grid.CDF, 1e-300, 1 - 1e-16) ** (1 / n), 1e-300, 1 - 1e-16))
    if r <= 1e-6:
        return np.clip(own, -9, 9)
    own = grid.at(own, grid.Z_COARSE)
    top = (np.sqrt(r) * grid.Z_COARSE[:, None] + np.sqrt(1 - r) * own[None, :]).ravel()
    return grid.quantile_grid(top, _PAIRS)


def _directions(n: int, d: float) -> tuple[np.ndarray, np.ndarray]:
    """Length of a Gaussian of d numbers and largest cosine of n directions, at the quantiles of a coarse grid."""
    p = np.clip(ndtr(grid.Z_COARSE), 1e-300, 1 - 1e-16)
    return np.sqrt(2 * gammaincinv(d / 2, p)), 2 * betaincinv((d - 1) / 2, (d - 1) / 2, p ** (1 / n)) - 1


def _parts(n: int, d: float) -> tuple[float, float]:
    """Variance of the largest of n directions times a length: given the length, and by it."""
    if d >= MANY:
        return variance(n), 0.0
    length, cosine = _directions(n, d)
    mean = lambda v: float(grid.WEIGHT_COARSE @ v)  # noqa: E731
    return d * (mean(cosine**2) - mean(cosine) ** 2), (d - mean(length) ** 2) * mean(cosine) ** 2


@lru_cache(maxsize=256)
def variance(n: int) -> float:
    """Variance v_n of the largest of n independent ones."""
    own = largest_latent(n, 0.0)
    return float(grid.expectation(own**2) - grid.expectation(own) ** 2)


def common(n: int, r: float, one: float, others: float, d: float = np.inf, shared: float = 0.0) -> float:
    """Correlation of the latents of two maxima over n, whose elements correlate by r among themselves.

    Args:
        one: correlation of an element with its partner in the other window.
        others: of elements that are not partners.
        d: dimensions that the rests are directions in; shared: how far both windows have these in common.
    """
    apart = max(1 - r, 1e-12)
    given, by_length = _parts(n, d)
    own = covariance(n, (one - others) / apart) * (given / variance(n) if d < MANY else 1.0)
    return (others + apart * (own + shared * by_length)) / (r + apart * (given + by_length))


def covariance(n: int, t: float) -> float:
    """Covariance H_n(t) of the largest of n independent ones and that of their partners."""
    if t <= 0 or n <= 1:
        return max(t, -1.0) / n
    angle = np.arcsin(min(t, 1.0)) * (_NODES + 1) / 2  # s_n has a root at one, and none in the angle
    each = np.array([agreement(n, float(s)) for s in np.sin(angle)])
    return float(_WEIGHTS @ (each * np.cos(angle))) * np.arcsin(min(t, 1.0)) / 2


@lru_cache(maxsize=1024)
def agreement(n: int, t: float) -> float:
    """Chance s_n(t) that partners, which correlate by t, are the largest of both windows."""
    if n <= 1 or t >= 1 - 1e-9:
        return 1.0
    if t <= 0:
        return 1.0 / n
    x, weight, rest = grid.Z_COARSE[:, None], grid.WEIGHT_COARSE, np.sqrt(1 - t**2)
    y = t * x + rest * grid.Z_COARSE
    below = (ndtr(x) + ndtr(y)) / 2 - owens_t(x, (y - t * x) / (x * rest)) - owens_t(y, (x - t * y) / (y * rest))
    below = np.clip(below - np.where(x * y < 0, 0.5, 0.0), 0, 1)
    return float(min(n * (weight @ below ** (n - 1) @ weight), 1.0))


@lru_cache(maxsize=64)
def chance(n: float, r: float) -> np.ndarray:
    """Chance of being the largest of n that correlate by r, at every value of its own latent: ``E Phi(e)^(n - 1)``."""
    r = min(max(r, 0.0), 1.0)
    shared = np.sqrt(1 - r) * grid.Z_UNIT[:, None] + np.sqrt(r) * grid.Z_COARSE
    return (ndtr(shared) ** (n - 1)) @ grid.WEIGHT_COARSE


__all__ = ["agreement", "chance", "common", "covariance", "largest", "largest_latent", "variance"]
