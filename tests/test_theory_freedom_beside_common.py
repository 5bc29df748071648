"""Degrees of freedom behind a norm over samples that are alike: what they have in common is centred away."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from fanin.theory import grid, statistic
from fanin.theory.latent import Atom
from fanin.theory.law import Law, gaussian

B, C, SHARED = 16, 4, 0.97
AXES = ((Atom(B, "sample"),), (Atom(C, "feature"),))


def law() -> Law:
    """A slightly bent function of latents that all samples have for the most part in common."""
    plain = gaussian((B, C), AXES, np.ones((1, 1)), lambda s: SHARED if s else 1.0)
    return plain.with_values((grid.Z_UNIT + 0.05 * (grid.Z_UNIT**2 - 1))[None])


@pytest.fixture(scope="module")
def measured() -> tuple[float, float]:
    """Degrees of freedom of the variance over samples, and their standard error over batches of networks."""
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        z = SHARED**0.5 * rng.standard_normal((4000, 1)) + (1 - SHARED) ** 0.5 * rng.standard_normal((4000, B))
        square = (z + 0.05 * (z**2 - 1)).var(1)
        found.append(2 * square.mean() ** 2 / square.var())
    return float(np.mean(found)), float(np.std(found) / len(found) ** 0.5)


def said() -> float:
    x = law()
    return statistic.freedom.__wrapped__(x, (0,), 1, statistic.shared_moment(x, (0,)))


def test_samples_that_are_alike(measured):
    f, error = measured
    assert abs(said() - f) < 4 * error + 0.1 * f


def test_a_control_with_the_cumulants_of_what_is_centred_away(measured, monkeypatch):
    monkeypatch.setattr(statistic, "COMMON", 2.0)
    f, error = measured
    assert abs(said() - f) > 4 * error + 0.1 * f
