"""Padded maps that are read as tokens: predicted against measured."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

from fanin.theory import flattened  # noqa: E402

WIDTH, SIDE = 64, 7
X = torch.randn(4, 192, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
COMMON = 2 * torch.randn(WIDTH, 1, 1, generator=torch.Generator().manual_seed(1))  # the same in all networks


class Tokens(nn.Module):
    """Attention over the places of a padded map that have most of their signal in common."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(192, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.common, self.norm = nn.Parameter(COMMON.clone()), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        x = self.norm(self.conv(self.stem(x) + self.common).flatten(2).transpose(1, 2))
        return nn.functional.scaled_dot_product_attention(*(f(x)[:, None] for f in (self.q, self.k, self.v)))


def test_queries_hear_of_the_border() -> None:
    found = errors(Tokens, X, 24)
    hold({n: found[n] for n in ("q", "k", "v", "q.weight", "k.weight", "v.weight")}, 0.05)


def test_a_border_that_is_forgotten(monkeypatch) -> None:
    """A control: dense layers that read one number for all pairs of places."""
    monkeypatch.setattr(flattened, "scattered", lambda x: x)
    error, noise = errors(Tokens, X, 8)["q"]
    assert error < -0.2 - 4 * noise


def test_deviations_are_those_of_pairs() -> None:
    rng = np.random.default_rng(0)
    corr, count = rng.random((3, 3)), np.array([2, 1, 3])
    corr = corr + corr.T
    places = np.repeat(np.arange(3), count)
    whole = corr[np.ix_(places, places)]
    known, single = flattened.deviations(corr, count / count.sum())
    assert known**2 + single**2 == pytest.approx(whole.var())
    rows = whole.mean(1)
    assert known == pytest.approx((whole - rows[:, None] - rows[None, :] + whole.mean()).std())
