"""The latent standard Gaussian: one fixed grid, its weights, and orthonormal Hermite polynomials on it.

The grid is even and has no node at zero, where most kinks are: a Gauss-Hermite rule puts a tenth of its weight on that
node and gets P(relu' = 1) = .45. Values of a law are arrays whose last axis runs over this grid.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

HALF_WIDTH = 8.0
POINTS = 512
DEGREE = 32  # Hermite degrees carried; the tail beyond is kept as one term

_step = 2 * HALF_WIDTH / POINTS
Z = -HALF_WIDTH + _step * (np.arange(POINTS) + 0.5)
"""Nodes of the latent, shape (POINTS,)."""
WEIGHT = np.diff(ndtr(np.concatenate([[-np.inf], (Z[1:] + Z[:-1]) / 2, [np.inf]])))
"""Probability of the cell around each node, shape (POINTS,); sums to one."""
# Cell probabilities times midpoints are off by O(step^2): make the first two moments exact.
Z_UNIT = Z / np.sqrt(WEIGHT @ Z**2)
CDF = ndtr(Z_UNIT)


def _hermite() -> np.ndarray:
    rows = [np.ones_like(Z_UNIT), Z_UNIT]
    for n in range(2, DEGREE + 1):
        rows.append((Z_UNIT * rows[-1] - np.sqrt(n - 1) * rows[-2]) / np.sqrt(n))
    return np.stack(rows)


HERMITE = _hermite()
_project = (HERMITE * WEIGHT).T  # (POINTS, DEGREE + 1)

COARSE = 128  # for pairs of latents: products of two grids
_fold = POINTS // COARSE
Z_COARSE = np.array(
    [WEIGHT[i : i + _fold] @ Z_UNIT[i : i + _fold] / WEIGHT[i : i + _fold].sum() for i in range(0, POINTS, _fold)]
)
WEIGHT_COARSE = WEIGHT.reshape(COARSE, _fold).sum(1)
Z_COARSE /= np.sqrt(WEIGHT_COARSE @ Z_COARSE**2)


@lru_cache(maxsize=16)
def refined(per_unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the latent with at least so many nodes a unit; the grid itself where that is enough."""
    fold = int(np.ceil(per_unit * _step))
    if fold <= 1:
        return Z_UNIT, WEIGHT
    step = _step / fold
    z = -HALF_WIDTH + step * (np.arange(POINTS * fold) + 0.5)
    weight = np.diff(ndtr(np.concatenate([[-np.inf], (z[1:] + z[:-1]) / 2, [np.inf]])))
    return z / np.sqrt(weight @ z**2), weight


def hermite_coefficients(values: np.ndarray) -> np.ndarray:
    """Coefficients E[f(z) h_n(z)] of laws, shape (..., POINTS) -> (..., DEGREE + 1)."""
    return values @ _project


def expectation(values: np.ndarray) -> np.ndarray:
    """E[f(z)], shape (..., POINTS) -> (...)."""
    return values @ WEIGHT


def at(values: np.ndarray, z: np.ndarray) -> np.ndarray:
    """f at other points of the latent by linear interpolation, linear beyond the grid's ends."""
    flat, (left, t) = np.atleast_2d(values), _coarse if z is Z_COARSE else between(z)
    low = flat[:, left]
    found = flat[:, left + 1]
    found -= low
    found *= t
    found += low
    return found.reshape(*values.shape[:-1], *z.shape)


def between(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The node before other points of the latent, and how far they are to the next; the last step reaches further."""
    place = (z - Z_UNIT[0]) * (1 / (Z_UNIT[1] - Z_UNIT[0]))  # nodes are evenly spaced
    left = np.clip(place.astype(np.intp), 0, POINTS - 2)
    return left, place - left


_coarse = between(Z_COARSE)
_coarse_left = np.clip(np.searchsorted(Z_COARSE, Z_UNIT, side="right") - 1, 0, COARSE - 2)
_coarse_t = np.clip((Z_UNIT - Z_COARSE[_coarse_left]) / np.diff(Z_COARSE)[_coarse_left], 0.0, 1.0)


def from_coarse(values: np.ndarray) -> np.ndarray:
    """Values on the coarse grid at the nodes of the latent; what is beyond its ends is as they are."""
    low, found = values[..., _coarse_left], values[..., _coarse_left + 1]
    found -= low
    found *= _coarse_t
    found += low
    return found


MANY = 4096  # numbers from which on they are sorted with their places in their last bits


def order_of(values: np.ndarray) -> np.ndarray:
    """``np.argsort(values, kind="stable")``, for many numbers in a quarter of the time.

    Numbers are sorted several times as fast as places by them: the last bits of each, fourteen for 16,384, become its
    place. Those that are equal in the other bits (to one part in 2^38) keep their order. A function of two latents
    comes as rows in order, which a stable sort merges.
    """
    bits = max(len(values) - 1, 1).bit_length()
    if len(values) < MANY or bits > 20 or values.dtype != np.float64 or not np.isfinite(values).all():
        return np.argsort(values, kind="stable")
    mask, raw = (1 << bits) - 1, np.ascontiguousarray(values).view(np.int64)
    down = raw >> 63  # all bits of negative numbers, whose last ones count downwards
    keys = (raw & ~mask) | ((np.arange(len(values)) ^ down) & mask)
    found = np.sort(keys.view(np.float64), kind="stable").view(np.int64)
    return (found ^ (found >> 63)) & mask


def quantile_grid(values: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The monotone f with f(z) distributed as weighted samples; 1-d samples and weights -> (POINTS,)."""
    order = order_of(values)
    v, p = values[order], probability[order]
    cumulative = np.cumsum(p) - p / 2
    return np.interp(CDF, cumulative / (cumulative[-1] + p[-1] / 2), v)


def increasing(values: np.ndarray) -> np.ndarray:
    """Laws as increasing functions of a new latent, shape (levels, POINTS); a falling one is read backwards."""
    out = []
    for row in values:
        steps = np.diff(row)
        if np.all(steps >= 0):
            out.append(row)
        elif np.all(steps <= 0):
            out.append(row[::-1])
        else:
            out.append(quantile_grid(row, WEIGHT))
    return np.stack(out)


BEYOND = 1e-6
"""Share of elements up to which a law's ends may be where a function is not defined."""


def held_at_ends(values: np.ndarray) -> np.ndarray:
    """A Gaussian stands for what has bounds (cosines): beyond them, where hardly an element is, the last value holds.

    Args:
        values: (levels, POINTS) of a function that may not be defined at the ends.
    """
    none = np.isnan(values)
    if not none.any() or np.any(none @ WEIGHT > BEYOND):
        return values
    found = values.copy()
    for row, gone in zip(found, none, strict=True):
        at = np.flatnonzero(~gone)
        row[: at[0]], row[at[-1] + 1 :] = row[at[0]], row[at[-1]]
    return found


__all__ = ["CDF", "COARSE", "DEGREE", "HERMITE", "POINTS", "WEIGHT", "WEIGHT_COARSE", "Z_COARSE", "Z_UNIT", "ndtri"]
