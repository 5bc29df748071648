"""Pair moments between the levels of a law: what two places have in common by what kinds of place they are."""

from __future__ import annotations

import numpy as np

from fanin.theory.latent import FEATURE
from fanin.theory.law import Groups, Law


def levels(x: Law, differ: Groups, r: float) -> np.ndarray:
    """E[x x'] at latent correlation r, of elements at every two levels, or of one level where levels do not differ."""
    apart = bool(differ & x.level_groups)
    if FEATURE in differ:
        return np.outer(x.means, x.means) if apart else x.means**2
    powers = r ** np.arange(x.coefficients.shape[1])
    left = np.maximum(x.seconds - (x.coefficients**2).sum(1), 0) * max(r, 0.0) ** (1.5 * len(powers))
    if not apart:
        return x.coefficients**2 @ powers + left
    return (x.coefficients * powers) @ x.coefficients.T + np.sqrt(np.outer(left, left))


def mean(table: np.ndarray, weight: np.ndarray) -> float:
    """Mean over pairs of levels, or over levels, by their weights."""
    return float(weight @ table if table.ndim == 1 else weight @ table @ weight)
