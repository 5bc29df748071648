"""What a gradient has along its signal, place by place: behind causal attention first tokens are unlike late ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fanin
from fanin.frameworks import front_end
from fanin.theory.adjoint import amounts

PLACES, WIDTH, EPS = 40, 128, 0.05


class Stream(nn.Module):
    """Tokens and means over those before, divided by their length where it is not small, behind a norm."""

    def __init__(self):
        super().__init__()
        self.value, self.out, self.gate, self.up, self.down, self.head = (
            nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(6)
        )
        self.norm = nn.RMSNorm(WIDTH)
        with torch.no_grad():  # predictions read the weights' own mean square
            for p in (p for p in self.parameters() if p.ndim == 2):
                p.mul_(0.07 / p.std())

    def forward(self, x):
        value = self.value(x)[:, None]
        y = self.out(F.scaled_dot_product_attention(0.01 * value, 0.01 * value, value, is_causal=True)[:, 0])
        first = self._divided(y)
        stream = 0.1 * x + first
        second = self._divided(self.down(F.silu(self.gate(stream)) * self.up(stream)))
        return self.head(self.norm(stream + second))

    def _divided(self, y):
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS)


def _statistics(rows) -> list[float]:
    """Gradients of the two deviations."""
    return [r.grad_rms for r in rows if r.op == "rsqrt"]


def test_gradients_of_deviations_whose_places_differ(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(8, PLACES, WIDTH)
    said, found = _statistics(fanin.predict(Stream(), x).rows), []
    for seed in range(16):
        torch.manual_seed(seed)
        frontend, model, tokens = front_end(Stream()), Stream(), torch.randn_like(x)
        rows = frontend.measure_signals(frontend.read_model(model, (tokens,)), seed=seed).rows
        found.append(np.square(_statistics(rows)))
    squares = np.array(found)
    mean = squares.mean(0)
    error = squares.std(0) / np.sqrt(len(squares)) / mean / 2
    for predicted, measured, relative in zip(said, np.sqrt(mean), error, strict=True):
        assert predicted == pytest.approx(measured, rel=3 * relative + 0.03)
    monkeypatch.setattr(amounts, "APART", np.inf)  # control: one number for all places
    alike = _statistics(fanin.predict(Stream(), x).rows)
    assert max(abs(a / m - 1) for a, m in zip(alike, np.sqrt(mean), strict=True)) > 0.12
