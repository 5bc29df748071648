"""Dropout of attention's weights, on the way back: rows that have chosen, and values that have something in common."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.theory.adjoint.rows import Rows


class Chosen(nn.Module):
    """Attention with logits of any variance, values with a bias, and three of ten weights dropped."""

    def __init__(self, variance: float, fused: bool, width: int = 128, heads: int = 4):
        super().__init__()
        self.q, self.k = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.v, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.heads, self.fused = heads, fused
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, 0, (variance / width**2) ** 0.25)
        nn.init.normal_(self.v.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.3)
        else:
            weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
            y = nn.functional.dropout(weights, 0.3) @ v
        return self.out(y.transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize(("variance", "fused"), [(1.0, True), (1.0, False), (80.0, True)])
def test_what_dropout_adds_is_independent_and_a_row_that_has_chosen_passes_little(
    variance: float, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(3, 24, 128)
    hold(errors(lambda: Chosen(variance, fused), batch, 12), slack=0.05)
    whole = property(lambda rows: rows.boost * (1 / rows.keep - 1) if variance > 1 else 0 * rows.counts)
    monkeypatch.setattr(Rows, "dropped", whole)
    with pytest.raises(AssertionError):
        hold(errors(lambda: Chosen(variance, fused), batch, 12), slack=0.05)
