"""The largest of points of a set: few dimensions, unlike lengths, and what two sets have in common."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

from fanin.theory import grid, largest, outermost  # noqa: E402
from fanin.theory.rules import maximum  # noqa: E402

N, R, D = 64, 0.3, 9
SIZES = np.array([0.4, 0.8, 1.2, 2.0])


def drawn(seed: int = 0, count: int = 20_000) -> np.ndarray:
    """Maxima over two sets of directions beside one Gaussian and one common number, of sizes that are known."""
    rng = np.random.default_rng(seed)
    tops = []
    size = np.repeat(SIZES, N // len(SIZES))
    common, x = rng.standard_normal((count, 1)), rng.standard_normal((count, 1, D))
    for _ in range(2):
        u = rng.standard_normal((count, N, D))
        u /= np.linalg.norm(u, axis=-1, keepdims=True)
        tops.append((size * (R**0.5 * common + (1 - R) ** 0.5 * (u * x).sum(-1))).max(1))
    return np.stack(tops)


@pytest.fixture(scope="module")
def tops() -> np.ndarray:
    return drawn()


def within(said: float, values: np.ndarray, slack: float) -> bool:
    error = 4 * values.std() / len(values) ** 0.5
    return abs(said - values.mean()) < error + slack * abs(values.mean())


def said(d: float) -> tuple[float, float, float]:
    values, given = outermost.of_mixture(SIZES[:, None] * grid.Z_UNIT, np.full(4, 0.25), N, R, d)
    return float(grid.expectation(values)), float(grid.expectation(values**2)), float((given**2).mean())


def test_the_largest_of_directions_of_unlike_length(tops):
    mean, second, pair = said(D)
    assert within(mean, tops[0], 0.02) and within(second, tops[0] ** 2, 0.03) and within(pair, tops[0] * tops[1], 0.04)


def test_a_control_of_independent_rests(tops):
    mean, second, _ = said(np.inf)
    assert not within(mean, tops[0], 0.02) and not within(second, tops[0] ** 2, 0.03)


def test_a_control_with_lengths_as_a_function_of_the_latent(tops):
    values = grid.quantile_grid((SIZES[:, None] * grid.Z_UNIT).ravel(), np.tile(grid.WEIGHT, 4))
    assert not within(float(grid.expectation(largest.largest(values, N, R, D))), tops[0], 0.02)


def points() -> dict:
    """A layer for every point, a norm over points, the largest, and a norm over samples, as in PointNet."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv1d(3, 128, 1), nn.Conv1d(128, 128, 1)
            self.norms = nn.ModuleList(nn.BatchNorm1d(128) for _ in range(3))
            self.last = nn.Linear(128, 128)

        def forward(self, x):
            x = self.norms[1](self.two(torch.relu(self.norms[0](self.one(x)))))
            return self.norms[2](self.last(x.max(2)[0]))

    torch.manual_seed(1234)
    every = errors(Net, torch.randn(16, 3, 128), 24)
    return {name: every[name] for name in ("last", "norms.1")}


def test_what_a_norm_behind_the_largest_divides_by():
    hold(points(), slack=0.15)


def test_a_control_with_points_that_are_independent(monkeypatch):
    monkeypatch.setattr(maximum, "_dimensions", lambda *_: np.inf)
    with pytest.raises(AssertionError):
        hold(points(), slack=0.15)
