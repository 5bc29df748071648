"""Fourier transforms one after the other, of which the real part is kept: predicted against drawn networks."""

from __future__ import annotations

import numpy as np
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin
from fanin.theory.rules.pool import mirror

TOKENS, WIDTH = 12, 64


class Mixed(nn.Module):
    """Two real parts of transforms along tokens and features, a norm between them, as in FNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, WIDTH) to the same."""
        x = self.stem(x)
        for norm in self.norms:
            x = norm(x + torch.fft.fftn(x, dim=(1, 2)).real)
        return self.out(x)


def batch(common: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, TOKENS, WIDTH, generator=generator) + common * torch.randn(3, 1, WIDTH, generator=generator)


def test_gradients() -> None:
    hold(errors(Mixed, batch(0.0), 24), slack=0.03)


def test_what_tokens_have_in_common_is_at_one_place_behind_it() -> None:
    """The sum over tokens is the transform at zero: large there, and a norm divides it out again."""
    found = errors(Mixed, batch(1.0), 24)
    hold({n: e for n, e in found.items() if n.startswith("stem")}, slack=0.04)


def test_a_second_transform_keeps_all_of_the_power() -> None:
    torch.manual_seed(0)
    rows = fanin.predict(Mixed(), batch(0.0)).rows
    first, second = (r.rms for r in rows if r.op == "real")
    norm = next(r.rms for r in rows if r.op == "layer_norm")
    assert second / norm > 0.97 * (TOKENS * WIDTH) ** 0.5  # a control: of what is no mirror of itself half is left
    stem = next(r.rms for r in rows if r.op == "linear")
    assert abs(first / stem / (TOKENS * WIDTH / 2) ** 0.5 - 1) < 0.02


def test_parity() -> None:
    turn = 2 * np.pi * np.outer(np.arange(8), np.arange(8)) / 8
    assert mirror((np.cos(turn),)) == mirror((np.sin(turn), np.sin(turn))) == 1
    assert mirror((np.cos(turn), np.sin(turn))) == -1
    assert mirror((np.tril(np.ones((8, 8))),)) == mirror((np.eye(8)[:4],)) == 0
