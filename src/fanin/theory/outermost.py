"""The largest of places that differ in size: of points of unlike length, tokens of unlike scale.

A place has ``f_l(z)`` of its level l, with ``z = sqrt(r) c + sqrt(1 - r) |x| cos``: c is what all places have in
common, and x the Gaussian that they are directions beside (``largest``). Sizes are no function of z: where c is
positive the largest is at a long place, where it is negative at a short one. Given c and |x| places are independent
draws of a mixture of levels, whose largest follows from its distribution to the power n; maxima over other sets have c
and |x| in common, and nothing else.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv, gammaincinv, ndtr, ndtri

from fanin.theory import grid
from fanin.theory.largest import MANY

LEVELS = 12
"""Sizes that are told apart."""
_EVEN = (np.arange(15) + 0.5) / 15
_LENGTHS = (np.arange(7) + 0.5) / 7
_TAIL = ndtr(np.linspace(-4.5, 4.5, 61))
_MASS = np.diff(np.concatenate(([0.0], (_TAIL[1:] + _TAIL[:-1]) / 2, [1.0])))


def of_mixture(values: np.ndarray, share: np.ndarray, n: int, r: float, d: float) -> tuple[np.ndarray, np.ndarray]:
    """Law of the largest of n, and its mean given what other sets have in common with it (common numbers, lengths).

    Args:
        values: (levels, POINTS) increasing; share: of each level.
        r: correlation of the latents; d: dimensions that the rests are directions in.
    """
    values, share = _few(values, share)
    common = ndtri(_EVEN)
    common /= np.sqrt(np.mean(common**2))
    if d < MANY:
        lengths, cosine = np.sqrt(2 * gammaincinv(d / 2, _LENGTHS)), 2 * betaincinv((d - 1) / 2, (d - 1) / 2, _TAIL) - 1
    else:
        lengths, cosine = np.ones(1), ndtri(_TAIL)
    z = np.sqrt(r) * common[:, None, None] + np.sqrt(1 - r) * lengths[:, None] * cosine
    drawn = np.stack([grid.at(row, z.ravel()).reshape(z.shape) for row in values], -1)
    drawn = drawn.reshape(*z.shape[:2], -1)
    mass = np.multiply.outer(_MASS, share).ravel()
    order = np.argsort(drawn, axis=-1)
    drawn, below = np.take_along_axis(drawn, order, -1), np.cumsum(mass[order], -1) ** n
    weight = np.diff(below, axis=-1, prepend=0.0) / len(common) / len(lengths)
    given = (weight * drawn).sum(-1) * len(common) * len(lengths)
    return grid.quantile_grid(drawn.ravel(), weight.ravel()), given


def _few(values: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels by their size, neighbours as one of their mean."""
    seen = share > 0
    values, share = values[seen], share[seen] / share[seen].sum()
    if len(values) <= LEVELS:
        return values, share
    order = np.argsort(grid.expectation(values**2))
    values, share = values[order], share[order]
    group = np.minimum(((np.cumsum(share) - share / 2) * LEVELS).astype(int), LEVELS - 1)
    mass = np.bincount(group, share, LEVELS)
    found = np.zeros((LEVELS, values.shape[1]))
    np.add.at(found, group, values * share[:, None])
    return found[mass > 0] / mass[mass > 0, None], mass[mass > 0]


__all__ = ["of_mixture"]
