"""Kernels that read a concatenation of maps: two places of a feature are of one piece, with that piece's mean."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import border  # noqa: E402

C = 128


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Gathered(nn.Module):
    """A pooled map beside two layers behind it, and a kernel of one tap over all three with its batch norm."""

    def __init__(self, pieces: int = 3):
        super().__init__()
        self.first, self.pool = layer(32, C), nn.MaxPool2d(3, 2)
        self.layers = nn.ModuleList([layer(C if i == 0 else C // 2, C // 2) for i in range(pieces - 1)])
        self.last = nn.Conv2d(C + (pieces - 1) * C // 2, C, 1, bias=False)
        self.norm = nn.BatchNorm2d(C)

    def forward(self, x):
        seen = [self.pool(self.first(x))]
        for one in self.layers:
            seen.append(one(seen[-1]))
        return torch.relu(self.norm(self.last(torch.cat(seen, 1)))).mean((2, 3))


def divided(pieces: int) -> tuple[float, float, float]:
    """By how much the norm divides gradients: predicted, measured on six networks, and its standard error."""
    torch.manual_seed(1234)
    batch = torch.randn(4, 32, 24, 24)

    def of(rows) -> float:
        return rows["norm"].grad_rms / rows["last"].grad_rms

    networks = Networks(batch)
    measured = [of(networks.measure(Gathered(pieces))) for _ in range(6)]
    return of(fanin.predict(Gathered(pieces), batch)), float(np.mean(measured)), float(np.std(measured) / 5**0.5)


@pytest.mark.parametrize("pieces", [3, border.FEW + 2])
def test_the_variance_behind_a_concatenation(pieces):
    """A pooled piece has a mean of 1.5, the others .4; the square of their mean is less than that of their squares."""
    said, mean, error = divided(pieces)
    assert abs(said / mean - 1) < 3 * error / mean + 0.03


def test_a_control_that_mixes_pieces(monkeypatch):
    monkeypatch.setattr(border, "features", lambda law: None)
    said, mean, _ = divided(3)
    assert said / mean > 1.15
