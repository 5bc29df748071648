"""Mehler's formula: pair moments of functions of two latents, and the correlation at which they are what they are."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq


@lru_cache(maxsize=16)
def _degrees(count: int) -> np.ndarray:
    return np.arange(count)


def mehler(coefficients: np.ndarray, second: np.ndarray | float, r: float) -> np.ndarray:
    """E[f(z) f(z')] at latent correlation r, from Hermite coefficients (..., N + 1): sum a_n^2 r^n plus the tail."""
    powers = r ** _degrees(coefficients.shape[-1])
    squares = coefficients**2
    tail = np.maximum(second - squares.sum(-1), 0)
    return squares @ powers + tail * max(r, 0.0) ** (1.5 * coefficients.shape[-1])


def series(coefficients: np.ndarray, second: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Mehler's sum of several functions, by their weights: the mean of a_n^2 and that of the tail.

    Args:
        coefficients: (functions, N + 1); second: mean square of each; weight: of each.
    """
    squares = coefficients**2
    return weight @ squares, float(weight @ np.maximum(second - squares.sum(-1), 0))


def summed(series: tuple[np.ndarray, float], r: float) -> float:
    """The mean of ``mehler`` over functions of which these are the coefficients."""
    squares, tail = series
    return float(squares @ r ** _degrees(len(squares))) + tail * max(r, 0.0) ** (1.5 * len(squares))


def summed_at(series: tuple[np.ndarray, float], r: np.ndarray) -> np.ndarray:
    """The same at many correlations."""
    squares, tail = series
    powers = np.empty((len(squares), r.size))
    powers[0], powers[1:] = 1.0, r.ravel()
    np.multiply.accumulate(powers, 0, out=powers)
    return (squares @ powers).reshape(r.shape) + tail * np.maximum(r, 0.0) ** (1.5 * len(squares))


def two_points(r: float, s: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two correlations in [-1, 1] with weights, of mean r and standard deviation s (or as much as there is room for).

    Example:
        >>> two_points(0.0, 0.5)
        ((0.5, 0.5), (0.5, -0.5))
    """
    s = min(s, math.sqrt(max((1 - r) * (1 + r), 0.0)))
    up = min(s, 1 - r)
    if up <= 0:
        return (1.0, r), (0.0, r)
    down = s * s / up
    if r - down < -1:
        down = 1 + r
        up = s * s / down
    return (down / (up + down), r + up), (up / (up + down), r - down)


def solve_correlation(coefficients: np.ndarray, second: float, target: float) -> float:
    """The latent correlation at which the pair moment is ``target``; clipped to [-1, 1], zero where none is finite."""
    if not (math.isfinite(second) and math.isfinite(target)):
        return 0.0
    a0, a1 = coefficients[0], coefficients[1]
    variance = second - a0**2
    if variance <= 1e-14 * max(second, 1e-300):
        return 1.0
    if abs(a1**2 - variance) <= 1e-6 * variance:
        return float(np.clip((target - a0**2) / variance, -1, 1))
    if target >= second * (1 - 1e-12):
        return 1.0
    low, high = (-1.0, 0.0) if target < a0**2 else (0.0, 1.0)
    squares = coefficients**2
    tail, degrees = max(second - float(squares.sum()), 0.0), _degrees(len(squares))

    def above(r: float) -> float:
        return float(squares @ r**degrees) + tail * max(r, 0.0) ** (1.5 * len(squares)) - target

    if above(low) >= 0:  # of a function that is not odd pairs are never so far apart
        return low
    if above(high) <= 0:
        return high
    root: Any = brentq(above, low, high, xtol=2.0**-48)
    return float(root)
