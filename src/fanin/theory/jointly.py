"""Functions of two tensors that are alike beyond one place: what the same weights made of two inputs.

Of latents (x, y) at two places p and p' the covariance at one place, M, and that between places, K, are 2 x 2. In the
coordinates in which ``M^(-1/2) K M^(-1/2)`` is diagonal, with eigenvalues l and m, Mehler's formula holds along each,

    E[f(x, y) f(x', y')] = sum_kl A_kl^2 l^k m^l,

with A the Hermite coefficients of f along both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fanin.theory import grid, parts
from fanin.theory.latent import Groups
from fanin.theory.law import Law

DEGREES = 12
_HERMITE = np.stack([grid.at(h, grid.Z_COARSE) for h in grid.HERMITE[: DEGREES + 1]])
MANY = 12
"""Pairs of levels that are told apart; of more those in the middle of as many runs, by their size, stand for all."""


def met(x: Law, y: Law) -> bool:
    """Whether two latents that are not one have named parts in common."""
    if not (parts.told(x.latent) and parts.told(y.latent)) or x.latent.aligned(y.latent):
        return False
    return any(key in y.latent.made_of for key in x.latent.made_of)


def of_sum(law: Law, x: Law, y: Law, apart: Groups) -> Callable[[Groups], float]:
    """Pair moments of a sum.

    Args:
        apart: groups in which the places of both differ everywhere.
    """
    means = x.mean * y.mean
    whole = 2 * (parts.product(x, y, apart) - means)
    spare = law.second - x.second - y.second - 2 * means
    scale = spare / whole if whole and 0 < spare / whole < 2 else 1.0  # levels, and what a series leaves
    return lambda s: x.pair(s) + y.pair(s) + 2 * means + 2 * scale * (parts.product(x, y, s | apart) - means)


def pieces_in_common(laws: Sequence[Law], share: np.ndarray, differ: Groups) -> float:
    """What pairs of pieces of a concatenation have in common beside their means, by the pieces' shares of it."""
    whole = 0.0
    for i, x in enumerate(laws):
        for j, y in enumerate(laws[:i]):
            if met(x, y):
                whole += 2 * share[i] * share[j] * (parts.product(x, y, differ) - x.mean * y.mean)
    return whole


Levels = list[tuple[float, np.ndarray, np.ndarray]]


def of_function(
    fn: Callable[..., np.ndarray], law: Law, x: Law, y: Law, levels: Levels, apart: Groups
) -> Callable[[Groups], float]:
    """Pair moments of any function of two tensors.

    Args:
        levels: of the joint law: how many places are at each, and the values of both operands.
        apart: as above.
    """
    root, few = _root(parts.correlation(x, y, apart)), _few(levels)
    inverse = np.linalg.pinv(root, rcond=1e-6)

    def pair(differ: Groups) -> float:
        rx, ry = x.correlation(differ), y.correlation(differ)
        between = np.array([[rx, parts.correlation(x, y, differ | apart)]] * 2)
        between[1] = between[0, 1], ry
        eigen, turn = np.linalg.eigh(inverse @ between @ inverse)
        powers = [np.clip(e, -1, 1) ** np.arange(DEGREES + 1) for e in eigen]
        seen = [(w, _coefficients(fn, fx, fy, root @ turn)) for w, fx, fy in few]
        if differ & law.level_groups:
            mean = sum(w * a for w, a in seen)
            return float(powers[0] @ mean**2 @ powers[1])  # type: ignore[operator]
        return float(sum(w * (powers[0] @ a**2 @ powers[1]) for w, a in seen))

    return pair


def _few(levels: Levels) -> Levels:
    if len(levels) <= MANY:
        return levels
    ordered = sorted(levels, key=lambda level: float(grid.expectation(level[1] ** 2) * grid.expectation(level[2] ** 2)))
    upto = np.cumsum([w for w, _, _ in ordered])
    middle = (np.arange(MANY) + 0.5) / MANY * upto[-1]
    return [(float(upto[-1]) / MANY, *ordered[i][1:]) for i in np.searchsorted(upto, middle)]


def _root(rho: float) -> np.ndarray:
    """Symmetric root of the covariance of two latents."""
    up, down = np.sqrt(max(1 + rho, 0.0)), np.sqrt(max(1 - rho, 0.0))
    return np.array([[up + down, up - down], [up - down, up + down]]) / 2


def _coefficients(fn: Callable[..., np.ndarray], fx: np.ndarray, fy: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """Hermite coefficients of ``f(x, y)`` along two independent latents of which those of x and y are sums."""
    one, other = np.meshgrid(grid.Z_COARSE, grid.Z_COARSE, indexing="ij")
    at = [(row[0] * one + row[1] * other).ravel() for row in mixed]
    values = np.asarray(fn(grid.at(fx, at[0]), grid.at(fy, at[1])), float).reshape(one.shape)
    weighted = _HERMITE * grid.WEIGHT_COARSE
    return weighted @ values @ weighted.T
