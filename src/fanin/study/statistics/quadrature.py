"""Nodes and weights of Gauss and Legendre on [-1, 1], worked out when first asked for: 256 take half a second."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache
def legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many nodes, and their weights.

    Example:
        >>> nodes, weights = legendre(5)
        >>> round(float(weights @ nodes**8), 9) == round(2 / 9, 9)
        True
    """
    return np.polynomial.legendre.leggauss(count)
