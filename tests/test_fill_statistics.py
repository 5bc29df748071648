"""The streams are what they say: moments, distribution functions, tails, and no correlation within or between them.

Each test turns every statistic into a p-value and asks that the smallest survive a Bonferroni correction at 1e-4 for
the whole file, so a right generator fails once in ten thousand seeds; seeds are fixed. ``broken`` shows that the same
tests find faults of a kind that generators really have.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fanin.distributions import Normal, Rademacher, TruncatedNormal, Uniform
from fanin.fill import draw

LEVEL = 1e-4
LAWS = [Normal(1.0), Uniform(1.0), TruncatedNormal(1.0), TruncatedNormal(1.0, bound=3.5), Rademacher(1.0)]
CONTINUOUS = LAWS[:4]
SIZES = [pytest.param(1 << 20, id="1M"), pytest.param(1 << 26, id="64M", marks=pytest.mark.slow)]


def normal_p(z):
    return math.erfc(abs(z) / math.sqrt(2))


def assert_plausible(ps, tests=1):
    """``tests``: how many other calls of the file share the level."""
    worst = min(ps, key=ps.__getitem__)
    assert ps[worst] * len(ps) * tests > LEVEL, f"{worst}: p = {ps[worst]:.2g} among {len(ps)}"


def moment_ps(x, law):
    """The first four moments against their exact values, z = error / standard error from the eighth moment."""
    grid = law.quantile((np.arange(1 << 16) + 0.5) / (1 << 16)) if law.kind != "rademacher" else np.array([-1.0, 1.0])
    ps = {}
    for power in (1, 2, 3, 4):
        exact = {1: 0.0, 2: 1.0, 3: 0.0, 4: law.kurtosis}[power]
        spread = math.sqrt(max(np.mean(grid ** (2 * power)) - exact**2, 0.0))
        error = float(np.mean(x**power)) - exact
        ps[f"moment {power}"] = (
            normal_p(error * math.sqrt(len(x)) / spread) if spread > 1e-9 else float(abs(error) < 1e-6)
        )
    return ps


def ks_p(x, law, bins=4096):
    """Kolmogorov-Smirnov on a grid of quantiles (conservative), and chi-squared over the same cells."""
    edges = law.quantile(np.arange(1, bins) / bins)
    counts = np.bincount(np.searchsorted(edges, x.astype(np.float64)), minlength=bins)
    distance = np.abs(np.cumsum(counts)[:-1] / len(x) - np.arange(1, bins) / bins).max()
    chi = ((counts - len(x) / bins) ** 2).sum() * bins / len(x)
    return {"ks": float(stats.kstwobign.sf(distance * math.sqrt(len(x)))), "cells": float(stats.chi2.sf(chi, bins - 1))}


def tail_ps(x):
    """How many values of a standard normal sample lie beyond 3, 4, 4.5 and 5 sigma, on either side."""
    ps = {}
    for edge in (3.0, 4.0, 4.5, 5.0):
        for side, count in (("above", int((x > edge).sum())), ("below", int((x < -edge).sum()))):
            ps[f"{side} {edge}"] = stats.binomtest(count, len(x), 0.5 * math.erfc(edge / math.sqrt(2))).pvalue
    return ps


def lag_ps(x, lags=(1, 2, 3, 4, 7, 64, 255, 256, 257, 512, 768, 1023, 1024, 1025, 4096)):
    """Correlation of x, and of x^2 (which pairs of Box and Muller could show), with itself at a distance."""
    ps = {}
    for label, y in (("x", x), ("x^2", x * x)):
        y = (y - y.mean(dtype=np.float64)).astype(np.float32)
        scale = float(np.mean(y * y, dtype=np.float64))
        if scale < 1e-9:
            continue
        for lag in lags:
            r = float(np.mean(y[lag:] * y[:-lag], dtype=np.float64)) / scale
            ps[f"{label} lag {lag}"] = normal_p(r * math.sqrt(len(y) - lag))
    return ps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_one_stream(law, size):
    x = draw(size, law, seed=1, name="stream")
    ps = moment_ps(x.astype(np.float64), law) | lag_ps(x)
    if law in CONTINUOUS:
        ps |= ks_p(x, law)
    if law.kind == "normal":
        ps |= tail_ps(x)
    assert_plausible(ps, tests=20)


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_one_stream_in_double_precision(law):
    x = draw(1 << 20, law, seed=2, name="stream", dtype="float64")
    assert_plausible(moment_ps(x, law) | ks_p(x, law) | lag_ps(x.astype(np.float32)), tests=20)


def test_streams_of_near_seeds_and_names_are_independent():
    """Correlation between 40 streams whose seeds and names differ little: all 780 pairs, of x and of x^2."""
    law, size = Normal(1.0), 1 << 15
    streams = [
        draw(size, law, seed=s, name=n) for s in (0, 1, 2, 256) for n in map("layers.{}.weight".format, range(10))
    ]
    ps = {}
    for label, rows in (("x", np.array(streams)), ("x^2", np.array(streams) ** 2)):
        r = np.corrcoef(rows)
        pairs = np.triu_indices(len(rows), 1)
        ps |= {f"{label} {i}": normal_p(v * math.sqrt(size)) for i, v in enumerate(r[pairs])}
    assert_plausible(ps, tests=20)


def test_many_short_streams_have_uniform_first_values():
    """Value 0 of 20,000 names: what a weak hash of the name would spoil."""
    law = Normal(1.0)
    x = np.array([draw(1, law, seed=0, name=f"blocks.{i}.bias")[0] for i in range(20_000)])
    assert_plausible(moment_ps(x.astype(np.float64), law) | ks_p(x, law, bins=64) | lag_ps(x, (1, 2, 10)), tests=20)


def test_every_bit_of_the_words_is_fair():
    from fanin.fill import reference
    from fanin.fill.keys import key
    from fanin.fill.laws import RAW

    words = np.empty(1 << 20, np.uint32)
    reference.fill(words, RAW, key(3, "bits"))
    ps = {}
    for bit in range(32):
        ones = int((words >> np.uint32(bit) & np.uint32(1)).sum())
        ps[f"bit {bit}"] = normal_p((2 * ones - len(words)) / math.sqrt(len(words)))
    assert_plausible(ps, tests=20)


def too_wide(x):
    return x * np.float32(1.004)


def skewed(x):
    return x + np.float32(0.004) * (x * x - 1)


def no_tail(x):
    return np.clip(x, -3.9, 3.9)


def repeated(x):
    return np.concatenate([x[: len(x) // 2 + 4], x[: len(x) - len(x) // 2 - 4]])


def pairs_linked(x):
    y = x.copy()
    y[256:] = np.where(np.abs(x[:-256]) > 1.0, y[256:] * np.float32(1.02), y[256:])
    return y


@pytest.mark.parametrize("broken", [too_wide, skewed, no_tail, repeated, pairs_linked])
def test_negative_control(broken):
    x = broken(draw(1 << 20, Normal(1.0), seed=1, name="stream"))
    ps = moment_ps(x.astype(np.float64), Normal(1.0)) | tail_ps(x) | ks_p(x, Normal(1.0)) | lag_ps(x, (1, 256, 524292))
    with pytest.raises(AssertionError):
        assert_plausible(ps, tests=20)
