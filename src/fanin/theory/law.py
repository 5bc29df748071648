"""Law: what an element of a tensor looks like over random weights.

An element at index e of a tensor is ``values[level[e]](z)`` with z a latent standard Gaussian. Elements at the same
place of two tensors that share a latent are functions of the same z, so chains of pointwise operations stay exact.
``level`` tells places apart whose law differs (zero padding, causal masks, class tokens); it has one entry where they
do not.

Elements of one tensor at different places are tied through their latents: independent where a feature differs (fresh
weights), and with correlation ``latent.corr[S]`` where the groups S differ (``{"sample"}``: another sample, same
position; ``{"position"}``: another position of the same sample; and so on).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fanin.theory import grid, placed
from fanin.theory.latent import FEATURE, Atom, Axis, Groups, Latent, Scatter, Source, fresh_latent, subsets
from fanin.theory.levels import (
    MAX_LEVELS,
    MAX_VARIANCES,
    compress,
    levels_of,
    levels_of_squares,
    of_gaussians,
    relabel,
    uniform_level,
)
from fanin.theory.mehler import mehler, series, solve_correlation, summed, two_points
from fanin.theory.moments import Moments, moments_of
from fanin.theory.notes import together
from fanin.theory.records import cached_property, remembered, replace

if TYPE_CHECKING:
    from fanin.theory.given import Given
    from fanin.theory.prefix import Prefix


@dataclass(frozen=True, eq=False)
class Law:
    """The law of the elements of one tensor.

    Attributes:
        shape: of the tensor.
        axes: the atoms of every axis.
        values: (levels, POINTS) values on the latent's grid.
        level: level of every place; same number of axes as the tensor, each of full size or 1.
        latent: whose functions the elements are.
        exact: False where a rule approximated; ``note`` says which.
        loose: of a statistic of features (a mean of squares), whose values are certain so that what is divided by it
            stays a function of its own latent: the values that it takes by itself, over networks, (levels, POINTS).
        exponent: power of two that all values are to be multiplied by; rules see laws without one (see ``scale``).
        given: what is known of the elements given a latent that one of their factors was a function of (``given``).
        prefix: of sums along a sequence, what they are sums of (``prefix``).
        factors: of a product with a gate, the values that it made, and both factors (``gated``).
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    values: np.ndarray
    level: np.ndarray
    latent: Latent
    exact: bool = True
    note: str = field(default="")
    loose: np.ndarray | None = None
    exponent: int = 0
    given: Mapping[tuple, Given] = field(default_factory=dict)
    prefix: Prefix | None = None
    factors: tuple[np.ndarray, Law, Law] | None = None

    @cached_property
    def level_weight(self) -> np.ndarray:
        """Fraction of the places at each level, shape (levels,)."""
        if len(self.values) == 1:
            return np.ones(1)
        return placed.counts(self.level, len(self.values)) / self.level.size

    @cached_property
    def moments(self) -> Moments:
        """What follows from the values alone, level by level; one object for all laws with these values."""
        return moments_of(self.values)

    @property
    def means(self) -> np.ndarray:
        """Mean of each level."""
        return self.moments.means

    @property
    def seconds(self) -> np.ndarray:
        """Second moment of each level."""
        return self.moments.seconds

    @property
    def variances(self) -> np.ndarray:
        """Variance of each level."""
        return self.moments.variances

    @cached_property
    def mean(self) -> float:
        """Mean over all elements."""
        return float(self.level_weight @ self.means)

    @cached_property
    def second(self) -> float:
        """Mean square over all elements."""
        return float(self.level_weight @ self.seconds)

    @property
    def rms(self) -> float:
        """Root mean square over all elements."""
        return float(np.sqrt(self.second))

    @property
    def coefficients(self) -> np.ndarray:
        """Hermite coefficients of each level, shape (levels, DEGREE + 1)."""
        return self.moments.coefficients

    @property
    def slopes(self) -> np.ndarray:
        """E[f(z) z] of each level."""
        return self.moments.slopes

    @property
    def deterministic(self) -> bool:
        """Whether no level depends on the latent."""
        return self.moments.deterministic

    @property
    def gaussian(self) -> bool:
        """Whether every level is affine in the latent."""
        return self.moments.gaussian

    @cached_property
    def groups(self) -> Groups:
        """Groups along which elements of this tensor are told apart, features left out."""
        return frozenset(atom.group for axis in self.axes for atom in axis if atom.group != FEATURE and atom.size > 1)

    @cached_property
    def level_groups(self) -> Groups:
        """Groups along which the level varies."""
        varying = [axis for axis, n in zip(self.axes, self.level.shape, strict=True) if n > 1]
        return frozenset(atom.group for axis in varying for atom in axis)

    def correlation(self, differ: Iterable[str]) -> float:
        """Correlation of the latents of two places that differ in these groups (same feature)."""
        key = frozenset(differ) & self.groups
        if not key:
            return 1.0
        if key in self.latent.corr:
            return self.latent.corr[key]
        known = [k for k in self.latent.corr if k <= key]
        return min((self.latent.corr[k] for k in known), default=1.0)

    def spread(self, differ: Iterable[str]) -> Scatter:
        """Standard deviations of that correlation over pairs of places."""
        key = frozenset(differ) & self.groups
        table = self.latent.spread
        known = [k for k in table if k <= key]
        return table[max(known, key=len)] if known and key else Scatter()

    def pair(self, differ: Iterable[str]) -> float:
        """E[x x'] of two elements that differ in these groups; a differing feature leaves the product of means.

        Where known pairs of places have correlations r of their own, Mehler's sum is averaged over two of them, which
        have the mean and the variance of r.
        """
        return self._pair(frozenset(differ))

    @remembered
    def _pair(self, differ: Groups) -> float:
        if self.latent.border is not None and FEATURE not in differ:
            from fanin.theory import border

            found = border.pair(self, differ & self.groups)
            if found is not None:
                return found
        s = self.spread(differ).certain
        if s and not self.gaussian and FEATURE not in differ:
            return sum(w * self.moment_at(differ, r) for w, r in two_points(self.correlation(differ), s))
        return self.moment_at(differ, self.correlation(differ))

    @remembered
    def moment_at(self, differ: Groups, r: float) -> float:
        """E[x x'] of two elements that differ in these groups, were their latents' correlation r."""
        apart = differ & self.level_groups
        if FEATURE in differ:
            return self.mean**2 if apart else float(self.level_weight @ self.means**2)
        if r == 1.0 and not apart:
            return self.second
        if apart:
            return float(mehler(*self.crossed, r))
        return summed(self._series, r)

    @cached_property
    def _series(self) -> tuple[np.ndarray, float]:
        return series(self.coefficients, self.seconds, self.level_weight)

    @cached_property
    def crossed(self) -> tuple[np.ndarray, float]:
        """Of two places of one feature, whose levels differ: root mean product of coefficients, and of the values.

        Over places every feature has a mean law of its own (pieces of a concatenation); features are averaged last.
        """
        shares = self._level_weights
        if len(shares) == 1:
            values = shares[0] @ self.values
            return np.abs(shares[0] @ self.coefficients), float(grid.expectation(values**2))
        coefficients = np.sqrt(np.mean((shares @ self.coefficients) ** 2, axis=0))
        return coefficients, float(np.mean(grid.expectation((shares @ self.values) ** 2)))

    @cached_property
    def _level_weights(self) -> np.ndarray:
        """Fraction of each feature's places at each level, (features or 1, levels): one row where levels know none."""
        own = [i for i, n in enumerate(self.level.shape) if n > 1 and {a.group for a in self.axes[i]} == {FEATURE}]
        if not own or len(self.values) == 1:
            return self.level_weight[None]
        rows = np.moveaxis(self.level, own, range(len(own)))
        rows = rows.reshape(int(np.prod(rows.shape[: len(own)])), -1)
        codes = rows + len(self.values) * np.arange(len(rows))[:, None]
        counts = np.bincount(codes.ravel(), minlength=len(rows) * len(self.values))
        return counts.reshape(len(rows), -1) / rows.shape[1]

    def profile(self, per_level: np.ndarray) -> np.ndarray:
        """A number of each level laid out over the places, with the axes of ``level``."""
        return per_level[self.level]

    def by_feature(self, per_level: np.ndarray) -> np.ndarray:
        """The mean over the places of each feature whose law is its own (of pieces of a concatenation)."""
        return self._level_weights @ per_level

    def with_values(self, values: np.ndarray, **changes) -> Law:
        """The same places and latent with other values."""
        return replace(self, **{"values": values, "loose": None, "given": {}, "prefix": None, **changes})

    @property
    def alone(self) -> Law:
        """What the tensor is by itself: a statistic with its fluctuations."""
        return self if self.loose is None or len(self.loose) != len(self.values) else self.with_values(self.loose)

    def marked(self, note: str) -> Law:
        """The same law, marked as an approximation."""
        return replace(self, exact=False, note=together(self.note, note))

    def gaussianized(self) -> Law:
        """Each level replaced by a Gaussian of the same mean and variance."""
        deviation = np.sqrt(np.maximum(self.seconds - self.means**2, 0))
        return self.with_values(self.means[:, None] + deviation[:, None] * grid.Z_UNIT)


def latent_for(law: Law, pair: Callable[[Groups], float], groups: Groups) -> Latent:
    """A fresh latent for a law whose pair moments are ``pair(S)`` for every subset S of ``groups``."""
    corr = {}
    for differ in subsets(groups):
        apart = differ & law.level_groups
        if apart or len(law.values) == 1:
            corr[differ] = solve_correlation(*law.crossed, pair(differ))
        else:  # the same level on both sides: share of the variance, exact for Gaussians
            m2 = float(law.level_weight @ law.means**2)
            variance = law.second - m2
            corr[differ] = (
                float(np.clip((pair(differ) - m2) / variance, -1, 1)) if variance > 1e-14 * law.second else 1.0
            )
    return fresh_latent(corr)


def gaussian(
    shape: tuple[int, ...], axes: tuple[Axis, ...], variance: np.ndarray, pair: Callable[[Groups], float]
) -> Law:
    """A zero-mean Gaussian tensor with a variance profile, and pair moments for a fresh latent.

    Args:
        variance: array with the tensor's axes, each full or of size one.
        pair: pair moment of places that differ in the groups of its argument.
    """
    numbers, level = levels_of_squares(variance, MAX_VARIANCES)
    values = np.sqrt(np.maximum(numbers, 0))[:, None] * grid.Z_UNIT
    law = Law(shape, axes, values, level, fresh_latent({}))
    mean_variance = float(law.level_weight @ np.maximum(numbers, 0))
    root = float(law.level_weight @ np.sqrt(np.maximum(numbers, 0)))
    corr = {}
    for differ in subsets(law.groups):
        scale = root**2 if differ & law.level_groups else mean_variance
        corr[differ] = float(np.clip(pair(differ) / scale, -1, 1)) if scale > 0 else 1.0
    return replace(law, latent=fresh_latent(corr))


def gaussians(
    shape: tuple[int, ...], axes: tuple[Axis, ...], mean: np.ndarray, variance: np.ndarray, *, exponents: bool = False
) -> Law:
    """Gaussians with a mean and a variance at every place; the latents' correlations are still to be given."""
    mean, variance, level = of_gaussians(*np.broadcast_arrays(mean, np.maximum(variance, 0)), exponents=exponents)
    values = mean[:, None] + np.sqrt(variance)[:, None] * grid.Z_UNIT
    values, level = compress(values, level, exponents=exponents)
    return Law(shape, axes, values, level, fresh_latent({}))


def constant(shape: tuple[int, ...], axes: tuple[Axis, ...], array: np.ndarray | float) -> Law:
    """A tensor of known numbers as a law without randomness."""
    array = np.asarray(array, float)
    if array.ndim != len(shape):
        array = array.reshape((1,) * len(shape)) if array.size == 1 else np.broadcast_to(array, shape)
    numbers, level = levels_of(array)
    return Law(shape, axes, np.repeat(numbers[:, None], grid.POINTS, axis=1), level, fresh_latent({}))


__all__ = [
    "FEATURE",
    "MAX_LEVELS",
    "MAX_VARIANCES",
    "Atom",
    "Axis",
    "Groups",
    "Latent",
    "Law",
    "Source",
    "compress",
    "constant",
    "fresh_latent",
    "gaussian",
    "gaussians",
    "latent_for",
    "levels_of",
    "levels_of_squares",
    "mehler",
    "relabel",
    "solve_correlation",
    "subsets",
    "two_points",
    "uniform_level",
]
