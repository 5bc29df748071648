"""Attention with features before positions, where weights stand behind the values: ``v a^T``."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin
from fanin.theory import across


class OfMaps(nn.Module):
    """Attention over the places of a map, as diffusion models have it, or with its operands the usual way round."""

    def __init__(self, usual: bool = False, channels: int = 64):
        super().__init__()
        self.usual, self.stem = usual, nn.Conv2d(8, channels, 1)
        self.ins, self.out = nn.Conv2d(channels, 3 * channels, 1, bias=False), nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, 8, height, width) to as many channels as it has."""
        x = self.stem(x)
        q, k, v = self.ins(x).flatten(2).chunk(3, 1)
        weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, -1)
        y = (weights @ v.transpose(1, 2)).transpose(1, 2) if self.usual else torch.bmm(v, weights.transpose(1, 2))
        return x + self.out(y.reshape(x.shape))


def test_weights_behind_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(4, 8, 12, 12)
    hold(errors(OfMaps, batch, 12), slack=0.05)
    monkeypatch.setattr(across, "transposed", lambda y: False)  # queries would not hear that tokens agree by chance
    with pytest.raises(AssertionError):
        hold(errors(OfMaps, batch, 12), slack=0.05)


def test_it_is_the_same_model_either_way_round() -> None:
    torch.manual_seed(1234)
    batch = torch.randn(4, 8, 12, 12)
    torch.manual_seed(0)
    one = fanin.predict(OfMaps(), batch)
    torch.manual_seed(0)
    other = fanin.predict(OfMaps(usual=True), batch)
    for name in ("stem", "ins", "out"):
        assert one[name].rms == pytest.approx(other[name].rms, rel=1e-9)
        assert one[name].grad_rms == pytest.approx(other[name].grad_rms, rel=1e-9)
    for name, row in one.parameters.items():
        assert row["grad_rms"] == pytest.approx(other.parameters[name]["grad_rms"], rel=1e-9), name
