"""Tokens as one list of rows, sorted by expert and added where they came from, are samples of a sequence again."""

from __future__ import annotations

import pytest
import torch
from networks import Networks
from test_theory_adjoint import errors, hold
from torch import nn

import fanin

N, B, T, EXPERTS, K = 64, 4, 16, 4, 2


class Sorted(nn.Module):
    """Each token through its two best experts, expert by expert; then the mean over a sample's tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.gate = nn.Embedding(50, N), nn.Linear(N, EXPERTS, bias=False)
        self.experts = nn.ModuleList(nn.Linear(N, N, bias=False) for _ in range(EXPERTS))
        self.head = nn.Linear(N, N, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (samples, tokens) to (samples, features)."""
        x = self.embed(ids)
        rows = x.reshape(-1, N)
        best, chosen = self.gate(rows).topk(K, -1)
        weights, chosen = best.softmax(-1).flatten(), chosen.flatten()
        order = chosen.argsort()
        token, sizes = order // K, chosen.bincount(minlength=EXPERTS).tolist()
        pieces = rows[token].split(sizes)
        done = torch.cat([expert(piece) for expert, piece in zip(self.experts, pieces, strict=True)])
        out = torch.zeros_like(rows).index_add(0, token, done * weights[order, None])
        return self.head((x + out.view(B, T, N)).mean(1))


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(1234)
    return errors(Sorted, torch.randint(0, 50, (B, T)), 30)


def test_gradients_behind_rows_of_tokens(found) -> None:
    """In front of the mean, of the experts and of the list of rows."""
    shown = ("/mean", "/add", "/view", "embed", "embed.weight")
    hold({name: e for name, e in found.items() if name in shown}, slack=0.1)


def test_a_token_has_the_sum_of_its_experts() -> None:
    """And the mean over tokens is that of tokens which are alike as embeddings are: hardly."""
    torch.manual_seed(1234)
    ids = torch.randint(0, 50, (B, T))
    said, squares = fanin.predict(Sorted(), ids), {}
    drawn = Networks(ids)
    for _ in range(20):
        net = Sorted()
        measured = drawn.measure(net)
        for name in ("/index_add", "/add", "/mean"):
            squares.setdefault(name, []).append((measured[name].rms or 0.0) ** 2)
    for name, values in squares.items():
        v = torch.tensor(values, dtype=torch.float64)
        error = float(v.std() / v.mean()) / 20**0.5 / 2
        assert said[name].rms == pytest.approx(float(v.mean().sqrt()), rel=0.03 + 4 * error), name


def test_one_expert_a_token_is_no_sum() -> None:
    """A control: of two rows for each token the sum is a half more than one has."""
    torch.manual_seed(1234)
    ids = torch.randint(0, 50, (B, T))
    said = fanin.predict(Sorted(), ids)
    assert (said["/index_add"].rms or 0.0) > 1.3 * (said["/mul"].rms or 0.0)
