"""Moments of the levels of a law, worked out once for an array of values, however many laws are made of it.

A view, a cast or another latent leaves the values as they are: along a network most laws are made of the values of the
law before. Arrays of values are never written to.
"""

from __future__ import annotations

import weakref

import numpy as np

from fanin.theory import grid
from fanin.theory.records import cached_property

_SLOPE = grid.WEIGHT * grid.Z_UNIT


def mean_of(array: np.ndarray) -> float:
    """Mean of all numbers of an array; ``np.mean`` is the same, and takes longer to begin than to add up few."""
    return float(array.item()) if array.size == 1 else float(np.add.reduce(array, axis=None) / array.size)


class Moments:
    """Of values (levels, POINTS) on the latent's grid; each is an array over levels where nothing else is said."""

    def __init__(self, values: np.ndarray):
        self._values = weakref.ref(values)

    @property
    def values(self) -> np.ndarray:
        """The values, which whoever asks holds."""
        values = self._values()
        assert values is not None
        return values

    @cached_property
    def means(self) -> np.ndarray:
        """E[f]."""
        return grid.expectation(self.values)

    @cached_property
    def seconds(self) -> np.ndarray:
        """E[f^2]."""
        with np.errstate(over="ignore"):
            return grid.expectation(self.values**2)

    @cached_property
    def variances(self) -> np.ndarray:
        """E[(f - E f)^2], centred first so that huge means (masks) leave no rounding behind."""
        if self.gaussian and (np.abs(self.means) <= 10 * np.abs(self.slopes)).all():
            return self.seconds - self.means**2
        with np.errstate(over="ignore", invalid="ignore"):
            centred = self.values - self.means[:, None]
            kept = np.abs(centred) > 1e-12 * np.abs(self.means[:, None])
            return grid.expectation((centred if kept.all() else np.where(kept, centred, 0.0)) ** 2)

    @cached_property
    def slopes(self) -> np.ndarray:
        """E[f z]."""
        return self.values @ _SLOPE

    @cached_property
    def hermite(self) -> np.ndarray:
        """E[f h_n], shape (levels, DEGREE + 1)."""
        return grid.hermite_coefficients(self.values)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """The same; of Gaussians without what rounding leaves of higher degrees."""
        if not self.gaussian:
            return self.hermite
        out = np.zeros((len(self.values), grid.DEGREE + 1))
        out[:, 0], out[:, 1] = self.means, self.slopes
        return out

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value."""
        return self.values.min(1), self.values.max(1)

    @property
    def low(self) -> float:
        """The least of all values; not a number where one of them is none."""
        return float(self.ends[0].min()) if self.values.size else 0.0

    @property
    def spread(self) -> np.ndarray:
        """Largest value less the least."""
        low, high = self.ends
        with np.errstate(all="ignore"):
            return high - low

    @cached_property
    def deterministic(self) -> bool:
        """Whether no level depends on the latent."""
        (low, high), spread = self.ends, self.spread
        if not np.isfinite(spread).all():
            spread[(self.values == self.values[:, :1]).all(1)] = 0.0  # also of infinities (masks)
        return bool(np.all(spread <= 1e-12 * np.maximum(1e-300, np.maximum(np.abs(low), np.abs(high)))))

    @cached_property
    def hint(self) -> tuple[int, str, str]:
        """Equal for values that are equal to rounding; much cheaper than comparing them."""
        values = self.values
        return len(values), f"{values[0, 200]:.6e}", f"{values[-1, 317]:.6e}"

    @cached_property
    def gaussian(self) -> bool:
        """Whether every level is affine in the latent."""
        kept = self.means**2 + self.slopes**2
        return bool(np.all(np.abs(self.seconds - kept) <= 1e-6 * np.maximum(self.seconds, 1e-300)))


_known: dict[int, tuple[weakref.ref[np.ndarray], Moments]] = {}


def _forget(key: int, pop=_known.pop) -> None:
    pop(key, None)


def moments_of(values: np.ndarray) -> Moments:
    """The moments of an array of values, which are forgotten with it."""
    key = id(values)
    found = _known.get(key)
    if found is not None and found[0]() is values:
        return found[1]
    made = Moments(values)
    _known[key] = weakref.ref(values, lambda _: _forget(key)), made
    return made
