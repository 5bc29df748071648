"""Over pairs of places: mean powers of the latents' correlation, and how correlations wander from their mean."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from fanin.theory import grid
from fanin.theory.law import FEATURE, Groups, Law, mehler, subsets
from fanin.theory.width.state import DEGREES, Spread, coefficients, remembered

_HE4 = grid.HERMITE[4] * np.sqrt(24.0)
Wander = Mapping[Groups, float]


@remembered
def sizes(law: Law) -> dict[str, float]:
    """Number of places by group."""
    found: dict[str, float] = {}
    for axis in law.axes:
        for atom in axis:
            if atom.group != FEATURE and atom.size > 1:
                found[atom.group] = found.get(atom.group, 1.0) * atom.size
    return found


@remembered
def features(law: Law) -> float:
    """Number of independent features."""
    count = 1.0
    for axis in law.axes:
        for atom in axis:
            if atom.group == FEATURE:
                count *= atom.size
    return count


def places(law: Law) -> float:
    """Number of places."""
    return float(np.prod(list(sizes(law).values()) or [1.0]))


def concentrations(law: Law, profile: np.ndarray) -> dict[str, float]:
    """Sum of squared shares that the places of each group have in what is averaged: 1/n where all weigh alike.

    Args:
        profile: what every place adds to the mean, with the axes of ``law.level`` (each full or one).
    """
    many = sizes(law)
    alike = {group: 1 / n for group, n in many.items()}
    if profile.size == 1 or not many:
        return alike
    atoms = [(t.group, t.size if n > 1 else 1) for axis, n in zip(law.axes, profile.shape, strict=True) for t in axis]
    if math.prod(n for _, n in atoms) != profile.size:
        return alike
    varying = [group for group, n in atoms if n > 1]
    if len(varying) == 1:
        if varying[0] in many:
            alike[varying[0]] *= _unlike(profile.ravel())
        return alike
    laid = profile.reshape([n for _, n in atoms])
    for group in many:
        rest = tuple(i for i, (of, _) in enumerate(atoms) if of != group)
        alike[group] *= _unlike(laid.sum(rest).ravel())
    return alike


def _unlike(weight: np.ndarray) -> float:
    """Mean of the squares over the square of the mean."""
    whole = float(weight.sum())
    return weight.size * float(((weight / whole) ** 2).sum()) if weight.size > 1 and 0 < whole < np.inf else 1.0


def shares(law: Law, profile: np.ndarray | None = None) -> list[tuple[Groups, float]]:
    """Weight of the ordered pairs of places that differ in exactly these groups, the empty set included.

    A mean square is made where the profile is large (the first tokens under a causal mask), so its few places count.
    """
    return _own_shares(law) if profile is None else _shares(law, profile)


@remembered
def _own_shares(law: Law) -> list[tuple[Groups, float]]:
    return _shares(law, law.profile(law.seconds) if len(law.values) > 1 else law.seconds)


def _shares(law: Law, profile: np.ndarray) -> list[tuple[Groups, float]]:
    found = []
    same = concentrations(law, profile)
    for differ in [frozenset(), *subsets(frozenset(same))]:
        share = 1.0
        for group, c in same.items():
            share *= 1 - c if group in differ else c
        found.append((differ, share))
    return found


def alone(law: Law, profile: np.ndarray | None = None) -> float:
    """Weight of the pairs of a place with itself."""
    return shares(law, profile)[0][1]


def correlation(law: Law, differ: Groups) -> float:
    """The latents' mean correlation."""
    return law.correlation(differ) if differ else 1.0


@remembered
def spread_of_positions(law: Law) -> float:
    """Variance of the correlation over pairs of positions, where the law has a matrix of them."""
    matrix = law.latent.matrix
    if matrix is None or len(matrix) < 2:
        return 0.0
    for known, found in _variances:
        if known is matrix:
            return found
    found = float(matrix[~np.eye(len(matrix), dtype=bool)].var())
    _variances.append((matrix, found))
    return found


_variances: deque[tuple[np.ndarray, float]] = deque(maxlen=16)
"""Of matrices met of late: a tensor and its views have one."""


def powers(law: Law, wander: Wander, of: Callable[[Groups], float] | None = None) -> np.ndarray:
    """E of r^k over all pairs of places, an element with itself included, for k = 1 .. DEGREES."""
    extra = spread_of_positions(law)
    total = np.zeros(DEGREES + 1)
    for differ, share in shares(law):
        r = correlation(law, differ) if of is None else of(differ) if differ else 1.0
        total += share * about(r, wander.get(differ, 0.0) + (extra if "position" in differ else 0.0))
    return np.maximum(total[1:], 0.0)


_DEGREES = np.arange(DEGREES + 1)


@lru_cache(maxsize=64)  # a tensor and its views ask in turn; nothing may be written to it
def about(r: float, variance: float) -> np.ndarray:
    """E of rho^k for k = 0 .. DEGREES, rho a deviation above or below r, as far as there is room."""
    if r == 1.0 and variance <= 0:
        return np.ones(DEGREES + 1)
    width = math.sqrt(max(variance, 0.0))
    up, down = min(max(r + width, -1.0), 1.0), min(max(r - width, -1.0), 1.0)
    return up**_DEGREES if up == down else (up**_DEGREES + down**_DEGREES) / 2


def typical(law: Law) -> np.ndarray:
    """Values of the level whose mean square is in the middle, over their rms, (POINTS,)."""
    second = law.seconds
    order = np.argsort(second)
    middle = order[np.searchsorted(np.cumsum(law.level_weight[order]), 0.5)]
    return law.values[middle] / np.sqrt(max(second[middle], 1e-300))


class Map:
    """How correlations pass through f: slope of the mean map, and the noise of n features, at a latent correlation.

    Of ``rho = K_ab / sqrt(K_aa K_bb)`` with K a mean over n features the fluctuation is that of
    ``f f' - rho/2 (f^2 + f'^2)``, over n.
    """

    def __init__(self, values: np.ndarray):
        self.first = grid.hermite_coefficients(values)
        self.second = grid.hermite_coefficients(values**2)
        self.third = grid.hermite_coefficients(values**2 * values)
        self.fourth = float(grid.expectation((values**2) ** 2))

    def mean(self, r: float) -> float:
        """E[f f'] at latent correlation r, for f of mean square one."""
        return float(mehler(self.first, 1.0, r))

    def slope(self, r: float) -> float:
        """d rho / d r."""
        k = np.arange(len(self.first))
        r = float(np.clip(r, -0.999, 0.999))
        return float((k[1:] * self.first[1:] ** 2) @ r ** (k[1:] - 1))

    def noise(self, r: float, base: float = 1.0) -> float:
        """Variance of one feature's contribution; ``base`` is the correlation of an independent Gaussian factor."""
        rho = base * self.mean(r)
        same = 3.0 if base != 1.0 else 1.0
        both = (1 + 2 * base**2) if base != 1.0 else 1.0
        squares = both * float(mehler(self.second, self.fourth, r))
        lean = (
            same * (base if base != 1.0 else 1.0) * float((self.third * self.first) @ r ** np.arange(len(self.first)))
        )
        whole = same * self.fourth
        return max(squares * (1 + rho**2 / 2) - 2 * rho * lean + rho**2 / 2 * whole, 0.0)


@remembered
def _map(law: Law) -> Map:
    return Map(typical(law))


def through(law: Law, spread: Spread, taps: float = 1.0) -> dict[Groups, float]:
    """Wander of the next latent's correlations behind weights that sum over this tensor's features.

    Args:
        taps: number of places that a weight reads; where places are unlike, their wandering averages out.
    """
    function, n = _map(law), features(law)
    alike = max(law.correlation({"position"}), 0.0) ** 2 if "position" in law.groups else 0.0
    taps = taps / (1 + (taps - 1) * alike)
    found = {}
    for differ in subsets(frozenset(sizes(law))):
        r = correlation(law, differ)
        slope = function.slope(r)
        fresh = max(function.noise(r) - (1 - spread.rigid) * slope**2 * (1 - r**2) ** 2, 0.0)
        old = slope**2 * spread.wander.get(differ, 0.0)
        found[differ] = (old + fresh / n) / taps
    return found


def fourth(law: Law, spread: Spread) -> tuple[float, float]:
    """E[x^4] over the mean of one network's q^2, and E[x^2 x'^2] over pairs of different places likewise."""
    c = squares_of(law)
    total = 1 + float(c**2 @ powers(law, spread.wander))
    edgeworth = 1 + spread.cumulant / 24 * _HE4
    whole = float(law.level_weight @ ((law.values**2) ** 2 @ (grid.WEIGHT * edgeworth))) / max(
        law.second * law.second, 1e-300
    )
    same = alone(law)
    whole, total = (v / (1 + float(c**2 @ spread.own)) for v in (whole, total))  # of E M^2, not of (E M)^2
    return whole, max((total - whole * same) / (1 - same), 0.0) if same < 1 else whole


def squares_of(law: Law) -> np.ndarray:
    """Coefficients of the square over its mean."""
    return coefficients(law, law.values**2 / max(law.second, 1e-300))
