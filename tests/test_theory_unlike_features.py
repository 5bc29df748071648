"""Queries and keys made of two pieces of unlike size, inputs that a norm reads first, memory that nobody wrote."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402

N, T, B, NETWORKS = 64, 24, 4, 16
X = torch.randn(B, T, N, generator=torch.Generator().manual_seed(0))


def spelled(q, k, v, causal):
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    mask = torch.full((T, T), -1e9).triu(1) if causal else torch.zeros(T, T)
    return (logits + mask).softmax(-1) @ v


def fused(q, k, v, causal):
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class Pieces(nn.Module):
    """Heads whose first half is larger in queries and smaller in keys, as where half of them is turned by position."""

    def __init__(self, attention, causal, ratio):
        super().__init__()
        self.attention, self.causal, self.norm = attention, causal, nn.LayerNorm(N)
        self.q, self.q2, self.k, self.k2, self.v, self.out = (nn.Linear(N, N) for _ in range(6))
        with torch.no_grad():
            self.k2.weight *= ratio
            self.q2.weight /= ratio

    def forward(self, x):
        y = self.norm(x)
        heads = lambda *layers: torch.cat([f(y).unflatten(-1, (2, -1)).transpose(1, 2) for f in layers], -1)  # noqa: E731
        found = self.attention(heads(self.q, self.q2), heads(self.k, self.k2), heads(self.v), self.causal)
        return x + self.out(found.transpose(1, 2).flatten(2))


def gradients(make):
    """Predicted mean squares of gradients of tensors and weights, and those of networks."""
    predicted, squares = None, {}
    networks = Networks(X)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = make()
        predicted = predicted or fanin.predict(net, X)
        found = networks.measure(net, seed=seed)
        for name in ("q", "q2", "k", "k2", "v", "norm"):
            squares.setdefault(name, []).append(found[name].grad_rms ** 2)
        for name in ("q.weight", "q2.weight", "norm.weight", "norm.bias"):
            squares.setdefault(name, []).append(found.parameters[name]["grad_rms"] ** 2)
    said = {n: (predicted.parameters[n]["grad_rms"] if "." in n else predicted[n].grad_rms) ** 2 for n in squares}
    return said, {n: torch.tensor(v, dtype=torch.float64) for n, v in squares.items()}


def missed(said, squares, slack=0.15):
    error = {n: float(v.std()) / NETWORKS**0.5 for n, v in squares.items()}
    return [n for n, v in squares.items() if abs(said[n] - float(v.mean())) > 4 * error[n] + slack * float(v.mean())]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attention", [fused, spelled])
def test_pieces_of_unlike_size(attention, causal):
    assert missed(*gradients(lambda: Pieces(attention, causal, 0.4))) == []


def test_pieces_of_one_size_are_told_from_those_of_two():
    """A control: what holds for features that are alike is far off where they are not."""
    said, _ = gradients(lambda: Pieces(fused, False, 1.0))
    _, squares = gradients(lambda: Pieces(fused, False, 0.4))
    assert {"q2", "k2", "q2.weight"} <= set(missed(said, squares))


class Written(nn.Module):
    """A tensor whose halves are written one after the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(N, N), nn.Linear(N, N)

    def forward(self, x):
        both = x.new_empty(B, T, 2 * N)
        both[..., :N] = self.a(x)
        both[..., N:] = self.b(x)
        return both


def test_memory_that_nobody_wrote_counts_as_zero():
    net = Written()
    predicted, measured = fanin.predict(net, X), fanin.measure(net, X)
    for row in predicted.rows:
        assert measured[row.name].rms == pytest.approx(row.rms, rel=0.1, abs=1e-12)
