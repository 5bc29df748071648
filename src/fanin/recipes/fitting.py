"""Which laws a sample may come from: likelihoods, and p-values of the scale and of the shape."""

from __future__ import annotations

import math

import numpy as np

from fanin.distributions import Distribution, Normal, TruncatedNormal, Uniform

SAMPLE = 20_000  # elements for the goodness of fit; enough to see a wrong law, few enough for rounded dtypes


def fitted(values: np.ndarray) -> list[tuple[Distribution, float]]:
    """Each law about its mean (zero unless it is clearly not) at its most likely scale, with the log-likelihood."""
    n, rms = values.size, float(np.sqrt(np.mean(values**2)))
    mean = float(values.mean())
    centre = mean if abs(mean) > 6 * float(values.std()) / math.sqrt(n) else 0.0
    x = values - centre
    rms, top = float(np.sqrt(np.mean(x**2))), float(np.abs(x).max())
    half = top * (n + 1) / n
    found: list[tuple[Distribution, float]] = [
        (Normal(rms, mean=centre), -n * (math.log(rms) + 0.5 * math.log(2 * math.pi * math.e))),
        (Uniform(half / math.sqrt(3), mean=centre), -n * math.log(2 * top)),
    ]
    truncated = TruncatedNormal(rms, mean=centre)
    sigma = max(truncated.sigma, top / 2)
    mass = math.log(0.9544997361036416)
    fit = -n * (math.log(sigma) + 0.5 * math.log(2 * math.pi) + mass) - float(np.sum(x**2)) / (2 * sigma**2)
    return [*found, (truncated, fit)]


def scale_p(values: np.ndarray, law: Distribution) -> float:
    """Two-sided p-value of the mean square under a law of mean zero; 0 where an element lies outside its support."""
    from scipy.special import ndtr

    if law.bounds is not None and np.abs(values).max() > law.bounds[1] * (1 + 4e-3):  # bfloat16 rounds by that much
        return 0.0
    n, std = values.size, law.std
    z = (float(np.mean(values**2)) / std**2 - 1) / math.sqrt((law.kurtosis - 1) / n)
    return float(2 * ndtr(-abs(z)))


def shape_p(values: np.ndarray, law: Distribution) -> float:
    """Kolmogorov-Smirnov against a law, on a sample spread over the tensor."""
    from scipy.stats import kstest

    some = np.sort(values[:: max(values.size // SAMPLE, 1)][:SAMPLE])
    grid = np.linspace(0, 1, 4097)
    points = law.quantile(np.clip(grid, 1e-9, 1 - 1e-9))
    return float(kstest(some, lambda x: np.interp(x, points, grid)).pvalue)
