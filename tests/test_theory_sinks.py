"""Rows of a softmax with a number beside the keys (attention sinks), behind a causal mask and less its maximum."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin
from fanin.theory import shut
from fanin.theory.law import constant
from fanin.theory.state import batch_axes

N, T, HEADS = 64, 24, 4
FINFO = torch.finfo(torch.float32).min


class Sinks(nn.Module):
    """Attention spelled out, each head with a logit that no value stands behind."""

    def __init__(self, shut: float = FINFO, *, first: bool = False, spread: float = 0.02):
        super().__init__()
        self.embed = nn.Embedding(50, N)
        self.q, self.k, self.v, self.o = (nn.Linear(N, N, bias=False) for _ in range(4))
        self.sinks = nn.Parameter(torch.randn(HEADS) * spread)
        self.shut, self.first = shut, first

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (samples, tokens) to (samples, tokens, features)."""
        x = self.embed(ids)
        heads = lambda t: t.unflatten(-1, (HEADS, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = (heads(layer(x)) for layer in (self.q, self.k, self.v))
        logits = q @ k.transpose(-1, -2) * (HEADS / N) ** 0.5
        logits = logits + torch.full((T, T), self.shut).triu(1)
        sinks = self.sinks.reshape(1, -1, 1, 1).expand(len(ids), -1, T, -1)
        rows = torch.cat([sinks, logits] if self.first else [logits, sinks], -1)
        rows = rows - rows.max(-1, keepdim=True).values
        weights = torch.softmax(rows, -1)
        weights = weights[..., 1:] if self.first else weights[..., :-1]
        return self.o((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", [{}, {"first": True}, {"shut": -1e4}], ids=["last", "first", "a mask of -10,000"])
def test_what_sinks_take(kind: dict) -> None:
    """Of the first token's row a half; of the gradient what the other weights have in common."""
    torch.manual_seed(1234)
    ids = torch.randint(0, 50, (4, T))
    found = errors(lambda: Sinks(**kind), ids, 40)
    none = {"/max"}  # what a row hears sums to zero, but for rounding
    hold({name: e for name, e in found.items() if name not in none}, slack=0.05)


def test_sinks_that_take_nothing() -> None:
    """A control: far below all logits they leave rows that sum to one, and have no gradient."""

    class Low(Sinks):
        def __init__(self):
            super().__init__()
            self.sinks.data.fill_(-30.0)

    torch.manual_seed(1234)
    ids = torch.randint(0, 50, (4, T))
    low, sinks = fanin.predict(Low(), ids), fanin.predict(Sinks(), ids)
    assert (sinks["/matmul_1"].rms or 0.0) < 0.85 * (low["/matmul_1"].rms or 0.0)
    assert low.parameters["sinks"]["grad_rms"] < 1e-9 * sinks.parameters["sinks"]["grad_rms"]
    found = errors(Low, ids, 20)
    hold({name: e for name, e in found.items() if name in ("q", "k", "v", "/matmul", "/matmul_1", "o")}, slack=0.05)


@pytest.mark.parametrize("number", [FINFO, -float("inf"), -1e4])
def test_the_largest_of_a_row_is_among_the_open_ones(number: float) -> None:
    class Largest(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(N, T, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.w(x) + torch.full((T, T), number).triu(1)).max(-1).values

    torch.manual_seed(1234)
    x = torch.randn(16, T, N)
    said = fanin.predict(Largest(), x)
    measured = torch.stack([Largest()(x).square().mean() for _ in range(40)])
    error = float(measured.std() / measured.mean()) / 40**0.5 / 2
    assert list(said.rows)[-1].rms == pytest.approx(float(measured.mean().sqrt()), rel=0.02 + 4 * error)


def test_laws_without_a_mask_are_open() -> None:
    """A control: signals of unlike size, and zeros, are no mask."""
    law = constant((3,), batch_axes((3,)), torch.tensor([0.0, 1.0, 100.0]).numpy())
    assert not shut.levels(law).any()
    law = constant((3,), batch_axes((3,)), torch.tensor([0.0, 1.0, FINFO]).numpy())
    assert shut.levels(law).sum() == 1


class Experts(nn.Module):
    """Tokens sorted by expert, each with a row of the experts' biases."""

    def __init__(self):
        super().__init__()
        self.embed, self.gate = nn.Linear(N, N, bias=False), nn.Linear(N, 4, bias=False)
        self.bias, self.head = nn.Parameter(torch.zeros(4, N)), nn.Linear(N, N, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, features) to the same."""
        x = self.embed(x)
        return self.head(torch.tanh(x + self.bias[self.gate(x).argmax(-1)]))


def test_biases_of_experts_hear_of_the_tokens_that_have_them() -> None:
    torch.manual_seed(1234)
    found = errors(Experts, torch.randn(256, N), 20)
    hold({"bias": found["bias"]}, slack=0.05)
