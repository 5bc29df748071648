"""Spread: how the measured law of one network's tensor strays from the law over all networks.

A tensor of n features is a sample of n draws from its law, so every mean over it fluctuates. On the latent z of a
tensor, with orthonormal Hermite polynomials h_k, one network's mean of any function is
``E f(z) + sum_k f_k e_k``: the fluctuations ``e_k`` of the means of ``h_k`` say it all. Each is a linear combination of
independent sources (a source is a layer's draw of weights), kept as its coefficients. So what branches share adds up
coherently, and what a norm removes is gone.

Columns come in blocks, one a source; past ``BLOCKS`` sources a block is used again under random signs, which keeps
variances in the mean. The last column is no source but the mean: of a moment, what finite width adds to it; of a log
mean square, by how much its mean lies from the log of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from fanin.theory import grid
from fanin.theory.law import Groups, Law
from fanin.theory.moments import Moments, moments_of

T = TypeVar("T")

DEGREES = 8  # Hermite degrees 1 to 7 apart; the last row stands for all higher ones
BLOCKS = 128
COLUMNS = BLOCKS * DEGREES + 1

_PROJECT = (grid.HERMITE[:DEGREES] * grid.WEIGHT).T  # (POINTS, DEGREES)


@dataclass(frozen=True, eq=False)
class Spread:
    """Fluctuations of one tensor.

    Attributes:
        moments: (DEGREES, COLUMNS) fluctuation of the mean of each Hermite polynomial of the latent.
        scale: (COLUMNS,) fluctuation of the logarithm of the values themselves (of a statistic, or of what was
            multiplied by one).
        drift: (COLUMNS,) the part of the latent's log variance that comes from before its own draw.
        own: (DEGREES,) variance of the draw of each moment: E over pairs of places of r^k, over features.
        wander: variance over pairs of places, and over networks, of the latent's correlation, by groups.
        rigid: share of the variance of the latent's own norm that is left, 0 behind orthogonal weights.
        cumulant: fourth cumulant of the latent, from the law of its weights.
        apart: as ``drift``, of what the variance has beyond what places share; None where it is the same.
    """

    moments: np.ndarray
    scale: np.ndarray
    drift: np.ndarray
    own: np.ndarray
    wander: Mapping[Groups, float] = field(default_factory=dict)
    rigid: float = 1.0
    cumulant: float = 0.0
    apart: np.ndarray | None = None


NOTHING = np.zeros(COLUMNS)
STILL = Spread(np.zeros((DEGREES, COLUMNS)), NOTHING, NOTHING, np.zeros(DEGREES))
"""What does not fluctuate: known arrays, constants."""


_ROW = np.arange(DEGREES)
_SIGNS, _SAME = np.array([-1.0, 1.0]), np.ones(DEGREES)


class Sources:
    """Hands out blocks of columns."""

    def __init__(self) -> None:
        self.count = 0
        self._random = np.random.default_rng(0)
        self._drawn = iter(())

    def block(self) -> tuple[slice, np.ndarray]:
        """The columns of a new source and the signs under which it uses them."""
        index, again = self.count % BLOCKS, self.count >= BLOCKS
        self.count += 1
        signs = self._signs() if again else _SAME
        return slice(index * DEGREES, (index + 1) * DEGREES), signs

    def _signs(self) -> np.ndarray:
        """Random signs, drawn many at a time."""
        found = next(self._drawn, None)
        if found is None:
            self._drawn = iter(_SIGNS[self._random.integers(0, 2, (512, DEGREES))])
            found = next(self._drawn)
        return found

    def rows(self, covariance: np.ndarray) -> np.ndarray:
        """(DEGREES, COLUMNS) of a fresh source with this covariance, or with these variances."""
        out = np.zeros((DEGREES, COLUMNS), np.float32)  # there are many
        columns, signs = self.block()
        if covariance.ndim == 1:
            out[_ROW, columns.start + _ROW] = np.sqrt(np.maximum(covariance, 0)) * signs
        else:
            weight, vectors = np.linalg.eigh(covariance)
            out[:, columns] = vectors * np.sqrt(np.maximum(weight, 0)) * signs
        return out

    def single(self, variance: float) -> np.ndarray:
        """(COLUMNS,) of a fresh number of this variance."""
        out = np.zeros(COLUMNS)
        columns, signs = self.block()
        out[columns.start] = np.sqrt(max(variance, 0.0)) * signs[0]
        return out


def coefficients(law: Law, values: np.ndarray) -> np.ndarray:
    """Hermite coefficients of degree 1 to 7 of a function of the latent, and the rms of the rest, (DEGREES,)."""
    return law.level_weight @ by_level(values)


def by_level(values: np.ndarray) -> np.ndarray:
    """The same for every row of values, (levels, DEGREES)."""
    found = values @ _PROJECT
    least = found[:, 0] ** 2
    rest = grid.expectation(values**2) - (found**2).sum(-1)
    tail = np.where(rest > 1e-9 * least, np.sqrt(np.maximum(rest, 0)), 0.0)
    found[:, :-1], found[:, -1] = found[:, 1:], tail
    return found


def remembered(fn: Callable[[Law], T]) -> Callable[[Law], T]:
    """Worked out once a law: every consumer of a tensor asks again."""
    found: WeakKeyDictionary[Law, T] = WeakKeyDictionary()

    @wraps(fn)
    def once(law: Law) -> T:
        value = found.get(law)
        if value is None:
            value = found[law] = fn(law)
        return value

    return once


_BY_LEVEL: WeakKeyDictionary[Moments, np.ndarray] = WeakKeyDictionary()  # of the squares of values


def of_squares(values: np.ndarray) -> np.ndarray:
    """``by_level`` of the squares of values; worked out once for an array, however many laws and parts have it."""
    key = moments_of(values)
    found = _BY_LEVEL.get(key)
    if found is None:
        found = _BY_LEVEL[key] = by_level(values**2)
    return found


@remembered
def squares(law: Law) -> np.ndarray:
    """Coefficients of the square of the elements, over its mean."""
    second = law.second
    if second <= 0 or not np.isfinite(second):
        return np.zeros(DEGREES)
    return law.level_weight @ of_squares(law.values) / second


_SQUARES: WeakKeyDictionary[Spread, tuple[Law, np.ndarray]] = WeakKeyDictionary()


def of_square(law: Law, spread: Spread) -> np.ndarray:
    """Fluctuation of the log mean square, (COLUMNS,)."""
    if spread is STILL:
        return NOTHING
    found = _SQUARES.get(spread)
    if found is None or found[0] is not law:
        found = _SQUARES[spread] = law, logged(squares(law) @ spread.moments) + 2 * spread.scale
    return found[1]


def of_variance(law: Law, spread: Spread) -> np.ndarray:
    """Fluctuation of the log mean square about the mean, (COLUMNS,)."""
    if law.mean == 0 or spread is STILL:
        return of_square(law, spread)
    about = law.with_values(law.values - law.mean)
    return logged(squares(about) @ spread.moments) + 2 * spread.scale


def variance(delta: np.ndarray) -> float:
    """Sum of the sources' variances."""
    return float(delta[:-1] @ delta[:-1])


def logged(delta: np.ndarray) -> np.ndarray:
    """From a relative fluctuation to that of the logarithm, whose mean is lower by half the variance."""
    out = delta.copy()
    out[-1] -= variance(delta) / 2
    return out


def of_mean(law: Law, spread: Spread) -> np.ndarray:
    """Fluctuation of the mean, in units of the rms, (COLUMNS,)."""
    rms = law.rms
    if rms <= 0 or not np.isfinite(rms):
        return NOTHING
    return coefficients(law, law.values / rms) @ spread.moments + law.mean / rms * spread.scale
