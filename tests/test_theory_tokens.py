"""Learned queries, latents and prompts: tables whose rows are places before they meet the batch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from test_theory_statistics import read_model  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import engine  # noqa: E402
from fanin.theory.tokens import tables_of_tokens  # noqa: E402

N, ROWS, B, T = 96, 16, 3, 24
X = torch.randn(B, T, N, generator=torch.Generator().manual_seed(0))


class Queries(nn.Module):
    """Rows of a table look at the batch, then at each other."""

    def __init__(self, laid_out):
        super().__init__()
        self.table, self.laid_out = nn.Parameter(0.1 * torch.randn(ROWS, N)), laid_out
        self.norm, self.stem = nn.LayerNorm(N), nn.Linear(N, N)
        self.first, self.second = (nn.ModuleList(nn.Linear(N, N) for _ in range(4)) for _ in range(2))

    def looked(self, x, y, layers):
        q, k, v, out = layers
        heads = lambda t: t.unflatten(-1, (3, -1)).transpose(1, 2)  # noqa: E731
        found = F.scaled_dot_product_attention(heads(q(x)), heads(k(y)), heads(v(y)))
        return out(found.transpose(1, 2).flatten(2))

    def forward(self, x):
        queries, x = self.laid_out(self.table), self.stem(x)
        queries = queries + self.looked(queries, x, self.first)
        x = self.norm(queries)
        return queries + self.looked(x, x, self.second)


LAID_OUT = {
    "expanded": lambda t: t.expand(B, -1, -1),
    "behind a norm": lambda t: F.layer_norm(t, (N,)).repeat(B, 1, 1) * 0.1,
    "added to nothing": lambda t: torch.zeros(B, ROWS, N) + t[:, None].repeat(1, B, 1).transpose(0, 1),
    "looked up": lambda t: F.embedding(torch.arange(ROWS), t)[None].expand(B, -1, -1),
}


def missed(laid_out, networks=12):
    """Tensors and weights off by four standard errors and three percent of the mean square (weights: ten)."""
    squares, predicted = {}, None
    drawn = Networks(X)
    for seed in range(networks):
        torch.manual_seed(seed)
        net = Queries(laid_out)
        predicted = predicted or fanin.predict(net, X)
        found = drawn.measure(net, seed=seed)
        for row in found.rows:
            squares.setdefault((row.name, "rms"), []).append(row.rms**2)
            squares.setdefault((row.name, "grad"), []).append(row.grad_rms**2)
        for name, row in found.parameters.items():
            squares.setdefault((name, "weight"), []).append(row["grad_rms"] ** 2)
    said = {(r.name, "rms"): r.rms for r in predicted.rows} | {(r.name, "grad"): r.grad_rms for r in predicted.rows}
    said |= {(n, "weight"): r["grad_rms"] for n, r in predicted.parameters.items()}
    off = []
    for key, values in squares.items():
        mean, error = sum(values) / networks, float(torch.tensor(values).std()) / networks**0.5
        slack = {"rms": 0.03, "grad": 0.25, "weight": 0.4}[key[1]] * mean
        if key[0].endswith(("1.bias", "second.1")):  # keys' gradients sum to zero
            continue
        if abs(said[key] ** 2 - mean) > 4 * error + slack:
            off.append((key, said[key] ** 2 / mean - 1, error / mean))
    return off


@pytest.mark.parametrize("laid_out", LAID_OUT.values(), ids=LAID_OUT)
def test_learned_queries(laid_out):
    assert missed(laid_out) == []


def test_rows_taken_for_features_are_far_off(monkeypatch):
    """A control: as if rows of the table were drawn features, which have nothing in common behind attention."""
    monkeypatch.setattr(engine, "tables_of_tokens", lambda graph: frozenset())
    off = {key[0] for key, error, _ in missed(LAID_OUT["expanded"]) if abs(error) > 0.6}
    assert {"second.2.weight", "stem.weight", "/scaled_dot_product_attention_1"} <= off


def test_weights_and_tables_of_positions_are_none():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions, self.layer = nn.Parameter(torch.randn(1, T, N)), nn.Linear(N, N)

        def forward(self, x):
            return self.layer(x + self.positions)

    assert tables_of_tokens(read_model(Plain(), X).graph) == frozenset()
