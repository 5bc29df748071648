"""Laws of independent, identically distributed elements, and constants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fanin.distributions.law import Distribution, probability
from fanin.distributions.truncation import truncated_moments, truncation_factor

SQRT3 = math.sqrt(3.0)


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal law N(mean, std^2).

    Example:
        >>> print(Normal(0.0205), Normal(1.0).kurtosis)
        normal(std=0.0205) 3.0
    """

    std: float
    mean: float = 0.0
    kind, _positive, _finite, _scales = "normal", ("std",), ("mean",), ("std", "mean")

    @property
    def kurtosis(self) -> float:
        return 3.0

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        from scipy.special import ndtri  # scipy costs more than all of `import fanin` may take

        return self.mean + self.std * ndtri(probability(u))


@dataclass(frozen=True)
class TruncatedNormal(Distribution):
    """Normal law N(mean, sigma^2) conditioned on |x - mean| < bound * sigma.

    ``std`` is the exact standard deviation after truncation; the parent's ``sigma`` is std divided by
    sqrt(1 - 2 b phi(b) / (2 Phi(b) - 1)), which is .8796256610342398 at ``bound`` b = 2.

    Example:
        >>> round(TruncatedNormal(1.0).sigma, 6), round(TruncatedNormal(1.0).kurtosis, 6)
        (1.136847, 2.365537)
    """

    std: float
    bound: float = 2.0
    mean: float = 0.0
    kind, _positive, _finite, _scales = "truncated_normal", ("std", "bound"), ("mean",), ("std", "mean")

    @property
    def sigma(self) -> float:
        """Standard deviation of the normal law before truncation."""
        return self.std / truncation_factor(self.bound)

    @property
    def kurtosis(self) -> float:
        m2, m4 = truncated_moments(self.bound)
        return m4 / m2**2

    @property
    def support(self) -> tuple[float, float]:
        half = self.bound * self.sigma
        return self.mean - half, self.mean + half

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        from scipy.special import ndtr, ndtri

        p = probability(u)
        tail = np.minimum(p, 1.0 - p)  # work in the lower tail, where ndtr keeps its relative precision
        below = ndtr(-self.bound)
        z = np.copysign(np.minimum(-ndtri(below + tail * (1.0 - 2.0 * below)), self.bound), p - 0.5)
        return self.mean + self.sigma * np.where(p == 0.5, 0.0, z)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform law on mean +- sqrt(3) std.

    Example:
        >>> Uniform(1.0).bounds == (-3**0.5, 3**0.5), Uniform(1.0).kurtosis
        (True, 1.8)
    """

    std: float
    mean: float = 0.0
    kind, _positive, _finite, _scales = "uniform", ("std",), ("mean",), ("std", "mean")

    @property
    def kurtosis(self) -> float:
        return 1.8

    @property
    def support(self) -> tuple[float, float]:
        return self.mean - SQRT3 * self.std, self.mean + SQRT3 * self.std

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        return self.mean + SQRT3 * self.std * (2.0 * probability(u) - 1.0)


@dataclass(frozen=True)
class Rademacher(Distribution):
    """-std or +std, each with probability one half.

    Example:
        >>> Rademacher(0.5).quantile([0.2, 0.8]).tolist()
        [-0.5, 0.5]
    """

    std: float
    kind, _positive, _scales = "rademacher", ("std",), ("std",)

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def kurtosis(self) -> float:
        return 1.0

    @property
    def support(self) -> tuple[float, float]:
        return -self.std, self.std

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        return np.where(probability(u) <= 0.5, -self.std, self.std)


@dataclass(frozen=True)
class Constant(Distribution):
    """Every element is ``value``. ``Zeros()`` is Constant(0).

    Example:
        >>> print(Constant(1.0), Zeros())
        constant(value=1) zeros
    """

    value: float
    kind, _finite, _scales = "constant", ("value",), ("value",)

    @property
    def std(self) -> float:
        return 0.0

    @property
    def mean(self) -> float:
        return self.value

    @property
    def kurtosis(self) -> float:
        return math.nan

    @property
    def support(self) -> tuple[float, float]:
        return self.value, self.value

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        return np.full_like(probability(u), self.value)

    def __str__(self) -> str:
        return super().__str__() if self.value else "zeros"


def Zeros() -> Constant:
    """All weights zero: Constant(0).

    Example:
        >>> Zeros() == Constant(0.0)
        True
    """
    return Constant(0.0)
