"""Long sequences laid end to end: the runs that stand for many positions end where pieces do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.graph import Graph, Kind, Node
from fanin.theory import runs

WIDTH, TOKENS, MORE, NETS = 64, 400, 40, 8


class Block(nn.Module):
    """Attention of two heads and an MLP, norms first, with small weights."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o, self.up, self.down = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(6))
        self.norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        for layer in (self.q, self.k, self.v, self.o, self.up, self.down):
            nn.init.normal_(layer.weight, 0, 0.04)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = lambda t: t.view(*x.shape[:2], 2, WIDTH // 2).transpose(1, 2)  # noqa: E731
        y = self.norm(x)
        y = F.scaled_dot_product_attention(heads(self.q(y)), heads(self.k(y)), heads(self.v(y)))
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class Joined(nn.Module):
    """Four hundred patches, forty tokens of zeros behind them, and two blocks."""

    def __init__(self):
        super().__init__()
        self.embed, self.more = nn.Linear(48, WIDTH, bias=False), nn.Parameter(torch.zeros(1, MORE, WIDTH))
        self.one, self.two, self.norm = Block(), Block(), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.embed(x), self.more.expand(len(x), -1, -1)], 1)
        return self.norm(self.two(self.one(x)))


HEARD = {"one.q.weight", "one.k", "one.k.weight", "two.v.weight", "two.o.weight", "two.norm.weight", "two.q", "more"}


def found() -> dict[str, tuple[float, float]]:
    """Zeros have queries and keys of zero: nothing of their gradient, a hundred times any other's, is in weights."""
    batch = torch.randn(2, TOKENS, 48, generator=torch.Generator().manual_seed(1))
    return {n: e for n, e in errors(Joined, batch, NETS).items() if n in HEARD}


def test_zeros_behind_many_tokens() -> None:
    every = found()
    assert every.keys() == HEARD
    hold(every, slack=0.08)


def test_runs_across_the_seam_forget_it(monkeypatch) -> None:
    """The negative control: patches beside zeros lend them their queries, and zeros are as little alike as patches."""
    monkeypatch.setattr(runs, "follow", lambda graph: None)
    runs._seams.set(runs.NONE)
    every = found()
    assert every["one.k"][0] > 3 and every["one.q.weight"][0] > 3
    assert every["two.v.weight"][0] < -0.1


def graph(*sizes: int) -> Graph:
    pieces = [Node(str(i), str(i), Kind.INPUT, "input", (), (2, n, 8), "float32") for i, n in enumerate(sizes)]
    attrs = {"how": "cat", "axis": 1}
    ids = tuple(p.id for p in pieces)
    whole = Node("all", "all", Kind.MOVE, "cat", ids, (2, sum(sizes), 8), "float32", attrs)
    return Graph((*pieces, whole), {}, ("all",), {}, False)


@pytest.fixture
def _no_seams_left():
    yield
    runs._seams.set(runs.NONE)


@pytest.mark.usefixtures("_no_seams_left")
def test_runs_end_at_seams() -> None:
    runs.follow(graph(1, 300, 5, 100))
    found = runs.runs(406)
    assert {0, 1, 301, 306} <= set(found.start.tolist())
    assert found.width.sum() == 406
    assert all(np.sum((found.start >= a) & (found.start < b)) > 1 for a, b in ((1, 301), (301, 306), (306, 406)))
    assert len(runs.runs(400).index) <= runs.LIMIT and runs.runs(406) is found


@pytest.mark.usefixtures("_no_seams_left")
def test_numbers_by_run_are_not_smeared_over_a_seam() -> None:
    runs.follow(graph(300, 100))
    along = runs.runs(400)
    laid = runs.at_all((along.start >= 300).astype(float), 400)
    assert np.array_equal(laid, np.arange(400) >= 300)
    runs.follow(graph(400))
    along = runs.runs(400)
    assert not np.array_equal(runs.at_all((along.start >= 300).astype(float), 400), np.arange(400) >= 300)


@pytest.mark.usefixtures("_no_seams_left")
def test_many_seams_are_windows() -> None:
    runs.follow(graph(*[20] * 20))
    assert runs.runs(400) is runs.runs(400) and len(runs.runs(400).index) <= runs.LIMIT
