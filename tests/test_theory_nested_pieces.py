"""Batch norm behind a concatenation of concatenations: every piece is divided by its own deviation."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.theory import channels


class Dense(nn.Module):
    """Layers that each read all that those before have made, which shrink."""

    def __init__(self, layers: int = 3, width: int = 32):
        super().__init__()
        self.stem = nn.Conv2d(64, 64, 1, bias=False)
        of = [64 + i * width for i in range(layers + 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, width, 1, bias=False)) for n in of[:-1]
        )
        self.norm, self.out = nn.BatchNorm2d(of[-1]), nn.Conv2d(of[-1], 64, 1, bias=False)
        for i, layer in enumerate(self.layers):
            nn.init.normal_(layer.get_parameter("2.weight"), 0, 0.5**i * of[i] ** -0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, 64, height, width) to the same."""
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.out(torch.relu(self.norm(x)))


def test_every_piece_has_its_own_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(8, 64, 6, 6)
    hold(errors(Dense, batch, 12), slack=0.03)
    monkeypatch.setattr(channels, "_parts", lambda law, axis: (law,))
    with pytest.raises(AssertionError):
        hold(errors(Dense, batch, 12), slack=0.03)
