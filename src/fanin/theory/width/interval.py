"""From contributions of independent sources to the central interval of a root mean square.

A mean of n squares is near enough a gamma variable of shape k = 1/V, with V its relative variance; its logarithm has
the variance trigamma(k) and the third cumulant of a log gamma. Logarithms of layers add up. The sum is again taken as a
scaled log gamma variable with these two cumulants, which is one gamma variable exactly for one layer, and log-normal
for many. Its mean is carried along with the sources: it is where E of the mean square is what the prediction says as
far as factors are multiplied, and elsewhere where division and curvature put it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv, ndtri, polygamma

from fanin.theory.width.state import BLOCKS, DEGREES

LEVEL = 0.95
NORMAL = 1e7  # shape from which a log gamma variable is a Gaussian
RESOLUTION = 2.0**-20  # relative: the quadrature's grid, and what is measured in single precision


def relative(delta: np.ndarray) -> np.ndarray:
    """Relative variance of each source's factor, shape (..., BLOCKS)."""
    return (delta[..., :-1].reshape(*delta.shape[:-1], BLOCKS, DEGREES) ** 2).sum(-1)


def relative_variance(delta: np.ndarray) -> float:
    """Var M / (E M)^2 of a product of independent factors: prod (1 + V) - 1."""
    return float(np.expm1(np.log1p(relative(delta)).sum()))


def log_cumulants(delta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and third cumulant of the logarithm, shape (...)."""
    v = relative(delta)
    first, second, third = np.zeros_like(v), v.copy(), -(v**2)
    larger = v > 1e-3
    small = (v > 1e-6) & ~larger
    w = v[small]  # of both functions there are no further terms in double precision
    second[small] = w + w**2 / 2 + w**3 / 6 - w**5 / 30
    third[small] = -(w**2) - w**3 - w**4 / 2 + w**6 / 6
    shape = 1 / v[larger]
    second[larger], third[larger] = polygamma(1, shape), polygamma(2, shape)
    first[larger] = polygamma(0, shape) - np.log(shape) + v[larger] / 2  # beyond the second order
    return delta[..., -1] + first.sum(-1), second.sum(-1), third.sum(-1)


def shape_of(second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """Shape of the gamma variable whose logarithm has this skewness: Newton's steps in the logarithm of both."""
    shapes, skews = _skews()
    with np.errstate(all="ignore"):
        wanted = np.log(third**2 / np.maximum(second, 1e-300) ** 3)
    wanted = np.clip(np.where(np.isnan(wanted), skews[0], wanted), skews[-1], skews[0])
    u = np.interp(-wanted, -skews, shapes)
    for _ in range(3):
        k = np.exp(u)
        one, two, three = (polygamma(n, k) for n in (1, 2, 3))
        slope = k * (2 * three / two - 3 * two / one)
        u = np.clip(u - (np.log(two**2 / one**3) - wanted) / slope, shapes[0], shapes[-1])
    return np.exp(u)


@lru_cache(maxsize=1)
def _skews() -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of shapes, and of the squared skewness of each, which falls with the shape."""
    shapes = np.linspace(-7.0, np.log(NORMAL), 1024)
    k = np.exp(shapes)
    return shapes, np.log(polygamma(2, k) ** 2 / polygamma(1, k) ** 3)


def factors(delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the central 95 % interval of the rms, as factors on the predicted rms.

    Args:
        delta: fluctuations of the log mean square by source, shape (..., COLUMNS).
    """
    return ends(*log_cumulants(delta))


def ends(mean: np.ndarray, second: np.ndarray, third: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same from mean, variance and third cumulant of the logarithm of the mean square."""
    k = shape_of(second, third)
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    width = np.sqrt(second)
    steep = np.sqrt(second / polygamma(1, k))
    out = []
    for p in tails:
        normal = mean + width * ndtri(p)
        with np.errstate(all="ignore"):
            skewed = mean + steep * (np.log(np.maximum(gammaincinv(k, p), 1e-300)) - polygamma(0, k))
        out.append(np.where((k > NORMAL / 10) | ~np.isfinite(skewed), normal, skewed) / 2)
    low, high = np.exp(out[0]) * (1 - RESOLUTION), np.exp(out[1]) * (1 + RESOLUTION)
    return low, high


__all__ = ["ends", "factors", "log_cumulants", "relative", "relative_variance"]
