"""What an operand of a sum knows of a function behind it: sums of gradient times operand over a map."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

from fanin.theory.adjoint import binary, summand  # noqa: E402

C = 48


class Block(nn.Module):
    """A residual branch that ends in a norm and a gate, and an activation behind the sum."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.gate = nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C), nn.Linear(C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.layer(x))
        return torch.relu(x + y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None])


def found() -> dict:
    """Behind the blocks a mean over the map, by which gradients are alike at all places."""
    torch.manual_seed(1234)
    every = errors(
        lambda: nn.Sequential(
            nn.Conv2d(3, C, 3, padding=1, bias=False), nn.BatchNorm2d(C), nn.ReLU(), Block(), Block(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 10),
        ),
        torch.randn(4, 3, 12, 12),
        24,
    )  # fmt: skip
    names = [f"{k}{end}" for k in (3, 4) for end in ("/sigmoid", ".gate.bias", ".norm.weight")]
    return {name: every[name] for name in names}


def test_gates_and_gains_hear_on_which_side_of_the_kink_a_summand_is():
    hold(found(), slack=0.06)


def test_a_control_with_the_size_alone(monkeypatch):
    monkeypatch.setattr(
        binary.summand, "of_sum", lambda part, out, x, _, squares: [summand._whole(part, out, x, squares**0.5)]
    )
    with pytest.raises(AssertionError):
        hold(found(), slack=0.06)
