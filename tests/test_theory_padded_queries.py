"""Attention in blocks that are filled up with zeros (LongT5): rows of padding are uniform, the others are not."""

import math

import numpy as np
import pytest
import torch
from networks import Networks
from torch import nn
from torch.nn import functional as F

import fanin
from fanin.theory.rules import softmax

TOKENS, PLACES, WIDTH, BATCH, NETWORKS = 20, 48, 64, 4, 24


class Padded(nn.Module):
    """Tokens and zeros behind them; no row sees a key that is padding, and those of padding see nothing: all alike."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        for layer in (self.first, self.k, self.v):
            nn.init.normal_(layer.weight, 0, WIDTH**-0.5)
        nn.init.normal_(self.q.weight, 0, 1.2 / WIDTH)
        real = torch.arange(PLACES) < TOKENS
        self.mask: torch.Tensor
        self.register_buffer("mask", torch.where(real[:, None] & real, 0.0, -1e10))

    def forward(self, x):
        x = self.first(x)
        q, k, v = (F.pad(layer(x), (0, 0, 0, PLACES - TOKENS)) for layer in (self.q, self.k, self.v))
        a = torch.softmax(q @ k.transpose(-1, -2) + self.mask, -1)
        return self.out((a @ v)[:, :TOKENS])


def batch():
    return torch.randn(BATCH, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))


def predicted():
    torch.manual_seed(0)
    return fanin.predict(Padded(), batch())


@pytest.fixture(scope="module")
def measured():
    found = []
    networks = Networks(batch())
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        found.append(networks.measure(Padded()))
    return found


def off(said, seen):
    """Relative errors of the softmax and of queries' gradients, less five standard errors."""
    pairs = [(said["/softmax"].rms, [m["/softmax"].rms for m in seen])]
    pairs += [(said["q"].grad_rms, [m["q"].grad_rms for m in seen])]
    found = []
    for p, m in pairs:
        squares = np.array(m) ** 2
        error = 5 * squares.std(ddof=1) / math.sqrt(NETWORKS) / squares.mean() / 2
        found.append(max(abs(p / math.sqrt(squares.mean()) - 1) - error, 0.0))
    return found


def test_rows_of_padding_leave_the_others_their_logits(measured):
    assert max(off(predicted(), measured)) < 0.05


def test_one_variance_for_all_rows_is_too_small(measured, monkeypatch):
    """The negative control: most keys of most rows are padding, beside which the others' logits look small."""
    monkeypatch.setattr(softmax, "UNLIKE", 10.0)
    assert min(off(predicted(), measured)) > 0.05
