"""What a token's experts return along it: the norm before a router, in its own operations, against measured."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.theory.adjoint import copies, linear
from fanin.theory.rules import route

mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
WIDTH = 192


class Routed(nn.Module):
    """A residual mixture of gated experts, two for every token, between RMS normalizations in their own operations."""

    def __init__(self):
        super().__init__()
        config = mixtral.MixtralConfig(
            hidden_size=WIDTH, intermediate_size=WIDTH, num_local_experts=4, num_experts_per_tok=2
        )
        config._experts_implementation = "grouped_mm"
        self.gate, self.experts = nn.Linear(WIDTH, 4, bias=False), mixtral.MixtralExperts(config)
        for weight in self.experts.parameters():
            nn.init.normal_(weight, 0, WIDTH**-0.5)
        self.head = nn.Linear(WIDTH, WIDTH, bias=False)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """Of root mean square one."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        y = self.norm(x).view(-1, WIDTH)
        best, chosen = torch.topk(torch.softmax(self.gate(y), -1), 2, -1)
        return self.head(self.norm(x + self.experts(y, chosen, best / best.sum(-1, keepdim=True)).view_as(x)))


def found(nets: int = 8):
    torch.manual_seed(1234)
    return errors(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), Routed()), torch.randn(4, 32, WIDTH), nets)


def test_a_deviation_hears_all_experts_of_a_token_at_once() -> None:
    statistics = ("pow", "mean", "add", "rsqrt")
    hold({name: e for name, e in found().items() if name.rpartition("/")[2] in statistics}, 0.04)


def test_as_independent_numbers_they_would_be_missed(monkeypatch) -> None:
    monkeypatch.setattr(copies, "split", lambda g, x, part: part)
    error, noise = found()["1/rsqrt"]
    assert error > 0.1 + 4 * noise


class Pooled(Routed):
    """The experts' mean over all tokens, which so hear one gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to (1, width)."""
        y = self.norm(x).view(-1, WIDTH)
        best, chosen = torch.topk(torch.softmax(self.gate(y), -1), 2, -1)
        return self.head(self.experts(y, chosen, best / best.sum(-1, keepdim=True)).mean(0, keepdim=True))


def test_experts_of_tokens_that_are_alike_sum_more_of_them(monkeypatch) -> None:
    """Tokens with three quarters of their square in common; by chance alone a weight's gradient is a third of it."""

    def missed() -> float:
        torch.manual_seed(1234)
        batch = torch.randn(4, 16, WIDTH) + 1.5 * torch.randn(WIDTH)
        found = errors(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), Pooled()), batch, 8)
        return -found["1.experts.gate_up_proj"][0]

    known = missed()
    for module in (route, linear):
        monkeypatch.setattr(module, "met", lambda x, differ, experts: 1 / experts)
    assert known < missed() / 1.5  # what a product makes of half an alikeness is left
