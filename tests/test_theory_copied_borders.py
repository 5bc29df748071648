"""Padding with copies of the signal: what the border hears is theirs, and nothing is lost on the way back."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.theory.adjoint import copied
from fanin.theory.adjoint.cotangent import fresh


class Padded(nn.Module):
    """Convolutions of small maps that are padded by copies, with instance norms, and a mean over the map."""

    def __init__(self, mode: Literal["reflect", "replicate", "circular"], channels: int = 32):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=mode, bias=False) for _ in range(3)
        )
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, channels, height, width) to the same."""
        for conv in self.convs:
            x = torch.relu(self.norm(conv(x)))
        return x


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_copies_at_a_border_add_up(
    mode: Literal["reflect", "replicate", "circular"], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(4, 32, 8, 8)
    hold(errors(lambda: Padded(mode), batch, 12), slack=0.03)
    if mode == "reflect":  # as if what the border hears were lost
        monkeypatch.setattr(
            copied, "returned", lambda part, out, *_: fresh(part.profile(out)[..., 1:-1, 1:-1], part.ratio)
        )
        with pytest.raises(AssertionError):
            hold(errors(lambda: Padded(mode), batch, 12), slack=0.03)
