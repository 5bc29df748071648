"""Norms behind norms over few features: what one divided out the next finds again. Predicted against drawn networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.theory.combine import apply, binary
from fanin.theory.law import Atom, Law, fresh_latent, gaussian
from fanin.theory.rules.norm import normalized

WIDTH = 16


class Stages(nn.Module):
    """Stages that embed and normalize, add small branches, and normalize again, as SegFormer's do."""

    def __init__(self, branch: float = 0.05, width: int = WIDTH):
        super().__init__()
        self.embeds = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.branches = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(6))
        for embed, layer in zip(self.embeds, self.branches, strict=True):
            nn.init.normal_(embed.weight, 0, width**-0.5)
            nn.init.normal_(layer.weight, 0, branch * width**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, width) to the same."""
        for i, (embed, branch) in enumerate(zip(self.embeds, self.branches, strict=True)):
            x = self.norms[2 * i](embed(x))
            x = self.norms[2 * i + 1](x + branch(torch.tanh(x)))
        return x


def test_norms_behind_norms() -> None:
    batch = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(2))
    found = errors(Stages, batch, 32)
    hold({n: e for n, e in found.items() if n.startswith("norms") and "." not in n[6:]}, slack=0.03)


def test_each_norm_alone_loses_and_gains_too_much(monkeypatch) -> None:
    """A control: norms that know nothing of each other."""
    monkeypatch.setattr("fanin.theory.adjoint.norm._held", lambda x, n: (0.0, 0.0))
    batch = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(2))
    found = errors(Stages, batch, 8)
    error, spread = found["norms.0"]
    assert error > 4 * spread + 0.03


def law(n: int) -> Law:
    axes = ((Atom(1000, "sample"),), (Atom(n, "feature"),))
    return gaussian((1000, n), axes, np.ones((1, 1)), lambda s: 0.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_lengths_of_sums(share: float) -> None:
    """Relative variance of the squared length of a normalized tensor beside a Gaussian, drawn."""
    n, rng = 12, np.random.default_rng(0)
    x = normalized(law(n), (1,), 0.0)
    both = binary(np.add, apply(lambda v: v * (1 - share) ** 0.5, x), apply(lambda v: v * share**0.5, other(n)),
                  x.shape, pair="sum")  # fmt: skip
    a, b = rng.standard_normal((2, 200000, n))
    a = (a - a.mean(1, keepdims=True)) / a.std(1, keepdims=True)
    squares = (((1 - share) ** 0.5 * a + share**0.5 * b) ** 2).mean(1)
    assert (2 / n) * (1 - both.latent.held) == pytest.approx(squares.var() / squares.mean() ** 2, abs=2e-3)
    means = ((1 - share) ** 0.5 * a + share**0.5 * b).mean(1)
    assert (1 - both.latent.level) / n == pytest.approx((means**2).mean(), abs=1e-3)


def other(n: int) -> Law:
    x = law(n)
    return replace(x, latent=replace(x.latent, id=fresh_latent({}).id))


def test_a_function_that_bends_lets_go_of_the_length() -> None:
    x = normalized(law(8), (1,), 0.0)
    assert apply(lambda v: 3 * v, x).latent.held == 1.0
    assert apply(np.tanh, x).latent.held == 0.0
