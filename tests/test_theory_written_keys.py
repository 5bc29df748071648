"""Keys that are written into new memory piece by piece, behind causal attention: what positions share stays."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import attention  # noqa: E402

N, T, B, NETWORKS = 64, 24, 4, 16
X = torch.randn(B, T, N, generator=torch.Generator().manual_seed(0))


class Written(nn.Module):
    """Causal attention twice; the second one's keys are two pieces of a tensor that is allocated first."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.q, self.k, self.k2, self.v, self.out = (nn.Linear(N, N, bias=False) for _ in range(7))
        self.q2 = nn.Linear(N, N, bias=False)

    def forward(self, x):
        heads = lambda t: t.unflatten(-1, (2, -1)).transpose(1, 2)  # noqa: E731
        x = self.a(x)
        seen = F.scaled_dot_product_attention(*(heads(0.1 * x), heads(0.1 * x), heads(self.b(x))), is_causal=True)
        y = F.layer_norm(x + seen.transpose(1, 2).flatten(2), (N,))
        k = y.new_empty(B, 2, T, N)
        k[..., : N // 2] = heads(self.k(y))
        k[..., N // 2 :] = heads(self.k2(y))
        q = torch.cat([heads(self.q(y)), heads(self.q2(y))], -1)
        found = F.scaled_dot_product_attention(q, k, heads(self.v(y)), is_causal=True)
        return self.out(found.transpose(1, 2).flatten(2))


def gradients():
    """Predicted mean squares of gradients, and those of networks."""
    predicted, squares = None, {}
    networks = Networks(X)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = Written()
        predicted = predicted or fanin.predict(net, X)
        found = networks.measure(net, seed=seed)
        for name in ("q", "k", "v"):
            squares.setdefault(name, []).append(found[name].grad_rms ** 2)
    return {n: predicted[n].grad_rms ** 2 for n in squares}, {n: torch.tensor(v).double() for n, v in squares.items()}


def missed(said, squares, slack=0.1):
    error = {n: float(v.std()) / NETWORKS**0.5 for n, v in squares.items()}
    return [n for n, v in squares.items() if abs(said[n] - float(v.mean())) > 4 * error[n] + slack * float(v.mean())]


def test_written_keys():
    assert missed(*gradients()) == []


def test_features_do_not_agree_by_one_over_the_width(monkeypatch):
    """A control: keys agree where values do by more than chance over their features, since they are read off fewer."""
    monkeypatch.setattr(attention, "together_by_chance", lambda keys, values, q: 1 / (2 * N))
    assert "q" in missed(*gradients(), slack=0.05)
