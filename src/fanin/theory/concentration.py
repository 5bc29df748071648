"""How few keys a row of softmax weights concentrates on: E[sum_j a_j^2] over Gaussian logits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fanin.theory import grid

SHARP = 40.0  # std of logits from which on the largest leads by far: 1 - E[sum a^2] falls as one over the std


@lru_cache(maxsize=64)
def _laplace(s: float, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On a grid of t = log u: the grid, log E[e^{-u e^l}], and log E[(u e^l)^2 e^{-u e^l}]; for all row lengths.

    Both are smooth on the scale of one in t, where the trapezoid rule converges exponentially.
    """
    t = np.arange(-np.log(longest) - 6 * s - 12, 6 * s + 8, min(0.1 * max(s, 1), 0.25))
    z, weight = grid.refined(s / 0.25)
    inner = np.exp(t[:, None] + s * z)
    decay = np.exp(-inner)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        squares = np.where(decay > 0, inner**2 * decay, 0.0)
        return t, np.log(decay @ weight), np.log(squares @ weight)


def _integrated(variance: float, counts: np.ndarray) -> np.ndarray:
    """``concentration`` for row lengths in increasing order."""
    if variance <= 1e-12:
        return 1.0 / counts
    s, n = np.sqrt(variance), counts[:, None]
    t, rest, squares = _laplace(float(min(s, SHARP)), int(counts[-1]))
    with np.errstate(invalid="ignore"):
        integrand = np.exp(np.log(n) + squares + np.where(n > 1, (n - 1) * rest, 0.0))
    found = np.clip(np.trapezoid(integrand, t, axis=-1), 1.0 / counts, 1.0)
    return 1 - (1 - found) * min(SHARP / s, 1.0)


def concentration(variance: float, n: int) -> float:
    """E[sum_j a_j^2] of softmax over n independent Gaussian logits of the given variance.

    With S = sum e^{l_j}: n * int_0^inf u E[e^{2l} e^{-u e^l}] E[e^{-u e^l}]^{n-1} du, the integral taken in log u.
    """
    return float(_integrated(variance, np.array([max(n, 1.0)]))[0])


def concentrations(variance: float, counts: np.ndarray) -> np.ndarray:
    """``concentration`` for many row lengths, interpolated in log n beyond a few dozen distinct ones."""
    counts = np.maximum(np.asarray(counts, float), 1)
    distinct = np.unique(counts)
    if len(distinct) > 24:
        distinct = np.unique(np.round(np.geomspace(distinct[0], distinct[-1], 48)))
    table = _integrated(float(np.round(variance, 6)), distinct)
    return np.exp(np.interp(np.log(counts), np.log(distinct), np.log(table)))


def fluctuating(variance: float, counts: np.ndarray, wobble: float, fixed: float = 0.0) -> np.ndarray:
    """``concentrations`` where the variance differs from row to row.

    The logits of a query have a variance in proportion to its squared length, a sum over the d features of a head. That
    is lognormal with the relative variance ``wobble`` (2/d for Gaussian queries), in three nodes of Gauss and Hermite.

    Args:
        variance: of the logits, in the mean over rows.
        fixed: the part of the variance that all rows have alike, such as that of a drawn bias.
    """
    if wobble <= 0 or variance * wobble <= 1e-6:
        return concentrations(variance + fixed, counts)
    s = np.sqrt(np.log1p(wobble))
    factors = np.exp(s * np.sqrt(3) * np.array([-1.0, 0.0, 1.0]) - s**2 / 2)
    weights = np.array([1.0, 4.0, 1.0]) / 6
    factors /= weights @ factors
    rows = [concentrations(variance * f + fixed, counts) for f in factors]
    return np.tensordot(weights, np.stack(rows), 1)
