"""Maxima over windows of elements that are alike: what two have in common, who is the largest, deep max pools."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import grid, largest  # noqa: E402

DRAWS = 400_000


def windows(n: int, r: float, one: float, others: float, seed: int = 0):
    """Two windows of n Gaussians: r inside each, ``one`` between partners, ``others`` between the rest."""
    rng = np.random.default_rng(seed)
    inside = np.full((n, n), r) + (1 - r) * np.eye(n)
    between = np.full((n, n), others) + (one - others) * np.eye(n)
    whole = np.block([[inside, between], [between, inside]])
    z = rng.multivariate_normal(np.zeros(2 * n), whole, DRAWS, method="eigh")
    return z[:, :n], z[:, n:]


@pytest.mark.parametrize("n", [2, 4, 9])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 0.99])
def test_partners_are_largest_together_as_often_as_drawn_ones(n, t):
    a, b = windows(n, 0.0, t, 0.0)
    together = a.argmax(1) == b.argmax(1)
    error = np.sqrt(together.mean() * (1 - together.mean()) / DRAWS)
    assert largest.agreement(n, t) == pytest.approx(together.mean(), abs=4 * error + 1e-4)
    products = (a.max(1) - a.max(1).mean()) * (b.max(1) - b.max(1).mean())
    assert largest.covariance(n, t) == pytest.approx(products.mean(), abs=4 * products.std() / np.sqrt(DRAWS))


def test_the_covariance_of_a_maximum_with_itself_is_its_variance():
    for n in (2, 3, 4, 9, 25):
        assert largest.covariance(n, 1.0) == pytest.approx(largest.variance(n), rel=2e-4)


@pytest.mark.parametrize(("r", "one", "others"), [(0.5, 0.3, 0.3), (0.7, 0.9, 0.7), (0.2, 0.6, 0.1), (0.9, 0.95, 0.85)])
def test_maxima_correlate_as_drawn_ones(r, one, others):
    a, b = (z.max(1) for z in windows(4, r, one, others))
    found = np.corrcoef(a, b)[0, 1]
    assert largest.common(4, r, one, others) == pytest.approx(found, abs=4 * (1 - found**2) / np.sqrt(DRAWS) + 2e-3)
    assert found > others  # more alike than elements of two windows are


@pytest.mark.parametrize("r", [0.0, 0.6, 0.95])
def test_the_chance_to_be_the_largest_at_a_value(r):
    a, _ = windows(4, r, 0.0, 0.0) if r == 0 else windows(4, r, r, r)
    first, chance = a.argmax(1) == 0, largest.chance(4, r)
    assert grid.expectation(chance) == pytest.approx(0.25, abs=1e-3)
    for low, high in ((-2.0, -1.0), (-0.25, 0.25), (1.0, 2.0)):
        inside = (a[:, 0] > low) & (a[:, 0] < high)
        here = np.abs(grid.Z_UNIT - (low + high) / 2) < (high - low) / 2
        said = (grid.WEIGHT[here] @ chance[here]) / grid.WEIGHT[here].sum()
        found = first[inside].mean()
        assert said == pytest.approx(found, abs=4 * np.sqrt(found * (1 - found) / inside.sum()) + 6e-3)


def chain(pooled: bool) -> nn.Sequential:
    """Convolutions and ReLUs, with max pools or with strides instead."""
    layers: list[nn.Module] = []
    width = 3
    for step in ("go", "down", "go", "down", "go", "down"):
        stride = 2 if step == "down" and not pooled else 1
        conv = nn.Conv2d(width, 96, 3, stride=stride, padding=1)
        nn.init.kaiming_normal_(conv.weight)
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.ReLU()] + ([nn.MaxPool2d(2)] if step == "down" and pooled else [])
        width = 96
    return nn.Sequential(*layers)


@pytest.mark.parametrize("pooled", [True, False], ids=["max pools", "control"])
def test_a_chain_of_max_pools_forward_and_backward(pooled):
    torch.manual_seed(0)
    x, networks = torch.randn(4, 3, 48, 48), 12
    said, forward, back = fanin.predict(chain(pooled), x), [], []
    drawn = Networks(x)
    for seed in range(networks):
        torch.manual_seed(seed + 1)
        run = drawn.measure(chain(pooled))
        forward.append([row.rms**2 for row in run.rows])
        back.append([(row.grad_rms / run.rows[-1].grad_rms) ** 2 for row in run.rows])
    for of, measured, name in ((1.0, forward, "rms"), (said.rows[-1].grad_rms, back, "grad_rms")):
        mean, error = np.mean(measured, 0), np.std(measured, 0, ddof=1) / np.sqrt(networks)
        expected = np.array([(getattr(row, name) / of) ** 2 for row in said.rows])
        assert (np.abs(expected - mean) < 4 * error + 0.05 * mean).all()


def test_windows_of_independent_elements_would_be_far_off():
    """A control: without what elements of a window have in common the largest of four is much larger."""
    alike, independent = (grid.expectation(np.maximum(largest.largest_latent(4, r), 0) ** 2) for r in (0.9, 0.0))
    assert independent > 1.7 * alike
