"""Correlations that scatter by chance, and what later layers keep of it: predicted against measured."""

from __future__ import annotations

import torch
from test_theory_adjoint import Errors, errors, hold
from torch import nn

TOKENS = torch.randperm(400, generator=torch.Generator().manual_seed(0))[: 4 * 24].reshape(4, 24)


class Narrow(nn.Module):
    """Tokens of few numbers, laid out in many features by a dense layer, that attend to each other."""

    def __init__(self, numbers: int, width: int = 96):
        super().__init__()
        self.table, self.wide, self.norm = nn.Embedding(400, numbers), nn.Linear(numbers, width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """(samples, tokens) to (samples, tokens, width)."""
        return self.norm(self.wide(self.table(ids)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Heads of attention on the embedded tokens."""
        x = self.embedded(ids)
        q, k, v = (f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def of_queries(numbers: int, nets: int) -> Errors:
    """Errors of the gradients of queries, keys and their weights."""
    found = errors(lambda: Narrow(numbers), TOKENS, nets)
    return {name: e for name, e in found.items() if name.startswith(("q", "k"))}


def test_tokens_of_few_numbers_agree_by_chance_in_every_later_layer() -> None:
    hold(of_queries(12, 24), slack=0.03)


def test_tokens_of_many_numbers() -> None:
    hold(of_queries(96, 12), slack=0.03)


def test_batch_norm_behind_few_channels_over_the_whole_net() -> None:
    """What earlier layers made alike is in the deviations, and taken off where weights ask for it: it cancels."""

    def make() -> nn.Module:
        layers = [(nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()) for _ in range(6)]
        return nn.Sequential(*(layer for block in layers for layer in block))

    torch.manual_seed(1234)
    found = errors(make, torch.randn(256, 16), 24)
    hold({"0": found["0"]})


class Masked(Narrow):
    """Tokens of which a run in each sample is replaced by one vector."""

    def __init__(self, width: int = 96):
        super().__init__(width)
        self.one = nn.Parameter(torch.randn(width))
        self.register_buffer("mask", (torch.arange(24) - 2 * torch.arange(1, 5)[:, None]).abs() < 5)

    def embedded(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        x = self.wide(x).clone()
        x[self.mask] = self.one
        return nn.functional.dropout(self.norm(x), 0.1, self.training)


def test_tokens_replaced_by_one_vector_agree() -> None:
    torch.manual_seed(1234)
    batch = torch.randn(4, 24, 96) + torch.randn(4, 1, 96)
    hold({n: e for n, e in errors(Masked, batch, 16).items() if n.startswith(("q", "k"))}, slack=0.03)
