"""What keys and the values at their places have along their gradients together, against measured and drawn rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.theory.adjoint import together
from fanin.theory.concentration import key_beside_value


class Attending(nn.Module):
    """Attention over logits of variance one, behind an RMS normalization in its own operations."""

    def __init__(self, fused: bool, width: int = 192, heads: int = 3):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        for layer in (self.q, self.k, self.v):
            nn.init.normal_(layer.weight, 0, width**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        q, k, v = (f(y).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


def found(fused: bool, nets: int = 8):
    torch.manual_seed(1234)
    return errors(
        lambda: nn.Sequential(nn.Linear(192, 192, bias=False), Attending(fused)), torch.randn(4, 32, 192), nets
    )


@pytest.mark.parametrize("fused", [True, False])
def test_a_deviation_hears_keys_and_values_at_once(fused: bool) -> None:
    hold(found(fused), 0.05)


def test_as_independent_numbers_they_would_be_missed(monkeypatch) -> None:
    monkeypatch.setattr(together, "key_beside_value", lambda _, counts, *__: np.zeros(len(counts)))
    error, noise = found(True, nets=24)["1/rsqrt"]
    assert error < -0.05 - 4 * noise


@pytest.mark.parametrize(("variance", "keys"), [(0.67, 8), (2.0, 64), (9.0, 2)])
def test_the_integral_is_the_mean_over_drawn_rows(variance: float, keys: int) -> None:
    logits = np.random.default_rng(0).normal(size=(100_000, keys)) * variance**0.5
    a = np.exp(logits)
    a /= a.sum(1, keepdims=True)
    drawn = (a**2 * (1 - a) * logits).sum(1)
    said = key_beside_value(variance, np.array([float(keys)]))[0]
    assert abs(said - drawn.mean()) < 4 * drawn.std() / len(drawn) ** 0.5


def test_a_square_that_is_less_by_a_rounding_has_no_root_below_zero(monkeypatch) -> None:
    """What keys have may be all that values have: nothing is left, not the root of minus a rounding."""
    none: Any = None
    for k in range(1, 200):  # of some of these the square of the root is more than the number
        monkeypatch.setattr(together, "_moments", lambda *_, k=k: (1.0, k / 7, 10.0))
        _, of_key = together.radials(none, none, (1.0, 0.0), together.Behind(5, 1.0, 1.0, np.zeros(1)))
        assert np.isfinite(np.array(list(of_key.values()), float)).all()
